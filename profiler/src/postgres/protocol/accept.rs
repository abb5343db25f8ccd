//! Which statements the server took: those are no mistakes of who wrote them, in which a value may stand where a name
//! would. What is under way for long is hardly one either.

use super::{
    connection::Now,
    event::{Outcome, SqlState, Statement, StatementId},
    exchange::{Context, Errors, Exchange, Stage},
    queue::What,
    statements::Statements,
};

/// So long the server is hardly busy with a text that it refuses, ns.
const BUSY_NS: u64 = 100_000_000;

/// Classes of errors that come to statements that are right: of constraints, of transactions that are in each other's
/// way, of objects that are in use, and of operators who intervene.
const OF_RIGHT_ONES: [&[u8; 2]; 4] = [b"23", b"40", b"55", b"57"];

impl SqlState {
    /// Whether a statement with this error is none that the server refuses for what it is.
    pub fn is_of_accepted(self) -> bool {
        let class = self.class();
        OF_RIGHT_ONES.iter().any(|right| **right == class)
    }
}

impl Outcome {
    /// Whether it shows that the server took the statement.
    pub fn is_of_accepted(self) -> bool {
        match self {
            Self::Completed | Self::Suspended => true,
            Self::Failed(failure) => failure.sqlstate.is_of_accepted(),
            Self::Skipped | Self::Aborted | Self::Unfinished | Self::Unseen => false,
        }
    }
}

impl Exchange {
    /// The server took a statement.
    pub(super) fn accept<S: Statements>(
        &self,
        statement: &Statement,
        context: &mut Context<'_, S>,
    ) {
        if let Statement::Known(id) = statement {
            context.statements.accepted(*id, self.trust.is_earned());
        }
    }

    /// The statement that the first request is about, if its text was sent with it or was bound.
    pub(super) fn asked(&self) -> Statement {
        match self.queue.iter().next().map(|head| &head.what) {
            Some(What::Parse { statement, .. }) => statement.clone(),
            _ => self.statement(),
        }
    }

    /// What the server works at, or waits in.
    pub(super) fn now(&self) -> Option<Now> {
        match self.queue.iter().next() {
            Some(head) => {
                let since_ns = head.start_ns(self.side).max(self.calls.last_end_ns());
                Some(Now::Working(self.asked(), since_ns))
            }
            None => self.transactions.idle_since_ns().map(Now::Open),
        }
    }

    /// What the server is busy with, if it has been for a while.
    pub(super) fn under_way(&self, now_ns: u64) -> Option<StatementId> {
        let head = self.queue.iter().next()?;
        let since_ns = head.start_ns(self.side).max(self.calls.last_end_ns());
        let is_long = now_ns.saturating_sub(since_ns) > BUSY_NS;
        let is_awaited = self.progress.stage != Stage::Over && self.errors == Errors::None;
        match self.asked() {
            Statement::Known(id) if is_long && is_awaited && self.trust.is_earned() => Some(id),
            _ => None,
        }
    }
}
