//! Requests and their answers: what a connection is in the middle of. It is told messages one by one, knows nothing
//! of bytes and positions, and says so when an answer cannot be one to what was asked.

use super::{
    calls::Calls,
    chunk::{Side, Stamp},
    cursors::Cursors,
    event::{CopyDirection, Counted, Event, Failure, Statement, StatementId, Step},
    failure::Intended,
    fields::Name,
    group::Groups,
    portal::Portals,
    queue::{CopyIn, Parsed, Queue, Request, What},
    statements::PreparedStatements,
    transaction::Transactions,
    trust::Trust,
};

/// Requests that are looked at for what is run now: Parse, Bind, Describe and Execute, and a Close or a Sync before.
const ABOUT_TO_RUN: usize = 6;

/// What is told of is given away here.
pub(super) struct Context<'a, S> {
    pub(super) statements: &'a mut S,
    pub(super) events: &'a mut Vec<Event>,
}

/// What a connection is in the middle of.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) side: Side,
    pub(super) queue: Queue,
    /// Of the answer to the first request.
    pub(super) progress: Progress,
    pub(super) groups: Groups,
    pub(super) statements: PreparedStatements,
    pub(super) portals: Portals,
    pub(super) cursors: Cursors,
    pub(super) preparing: Vec<Preparing>,
    pub(super) calls: Calls,
    pub(super) transactions: Transactions,
    pub(super) trust: Trust,
    pub(super) errors: Errors,
    pub(super) intended: Intended,
    pub(super) copy_in: CopyIn,
    /// Bytes of COPY data that the client has sent.
    pub(super) copied_in: u64,
    /// Filled anew for each Query.
    pub(super) ids: Vec<StatementId>,
    /// Nothing is run since the last `ReadyForQuery`, with which the server reports what has changed.
    pub(super) is_settled: bool,
    /// What it reports may have been missed.
    pub(super) is_doubtful: bool,
}

/// How far the answer to the first request has come.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) stage: Stage,
    /// Statements of a Query that are completed.
    pub(super) index: usize,
    pub(super) first_row_ns: Option<u64>,
    pub(super) rows: u64,
    pub(super) counted: Counted,
    pub(super) bytes: u64,
    pub(super) copy: Option<CopyDirection>,
    /// Bytes of COPY data from the server.
    pub(super) copied_out: u64,
}

/// What may come next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// Anything.
    #[default]
    Begun,
    /// The parameters were described.
    Parameters,
    /// Rows.
    Rows,
    /// Only `ReadyForQuery`.
    Over,
}

/// What the server does with requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) enum Errors {
    #[default]
    None,
    /// It passes over them up to the next Sync, which has not been sent.
    UntilSync,
    /// So it does, and the first request has failed at this time; its call may still be sent.
    Open(Failure, Stamp),
}

/// A statement is being prepared, with no call to it so far.
#[derive(Debug)]
pub(super) struct Preparing {
    pub(super) step: Step,
    pub(super) statement: Statement,
    pub(super) portal: Option<Name>,
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) tid: u32,
    /// Bytes of the answers.
    pub(super) bytes: u64,
    /// Description of the rows, ns.
    pub(super) described_ns: Option<u64>,
}

impl Exchange {
    pub(super) fn new(side: Side, number: u32) -> Self {
        Self {
            side,
            queue: Queue::default(),
            progress: Progress::default(),
            groups: Groups::default(),
            statements: PreparedStatements::of(number),
            portals: Portals::default(),
            cursors: Cursors::default(),
            preparing: Vec::new(),
            calls: Calls::default(),
            transactions: Transactions::default(),
            trust: Trust::default(),
            errors: Errors::None,
            intended: Intended::default(),
            copy_in: CopyIn::None,
            copied_in: 0,
            ids: Vec::new(),
            is_settled: true,
            is_doubtful: false,
        }
    }

    /// Whether a statement is bound or run, or about to be, whose text was not seen.
    pub(super) fn runs_unknown(&self) -> bool {
        // A pipeline has thousands behind it.
        self.queue
            .iter()
            .take(ABOUT_TO_RUN)
            .any(|request| match &request.what {
                What::Bind {
                    statement,
                    parse: Parsed::Before,
                    ..
                } => !statement.is_empty() && !self.statements.has_text(statement),
                What::Execute(portal) => {
                    matches!(self.portals.statement(portal), Statement::Named(..))
                }
                _ => false,
            })
    }

    /// Bytes that are allocated for what grows with the traffic, names aside.
    pub(super) fn memory(&self) -> usize {
        self.queue.capacity() * size_of::<Request>()
            + (self.statements.len() + self.portals.len() + self.cursors.len()) * 128
    }
}
