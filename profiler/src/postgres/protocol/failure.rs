//! What an error does: it fails a call or prevents it, and the server passes over what follows up to the next Sync.
//! And what becomes of requests that will have no answer.

use std::mem;

use rustc_hash::FxHashMap;

use super::{
    calls::Ended,
    chunk::Stamp,
    event::{Call, Cause, Event, Failure, Outcome, Severity, Statement},
    exchange::{Context, Errors, Exchange, Progress, Stage},
    fields::{Name, failure},
    message::Message,
    queue::{Queue, Request, Subject, What},
    statements::Statements,
};

/// Requests that will have no answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Abandoned {
    pub(super) upto: Upto,
    pub(super) outcome: Outcome,
    /// When that is known, ns.
    pub(super) time_ns: Option<u64>,
}

impl Abandoned {
    /// All requests.
    pub(super) fn all(outcome: Outcome) -> Self {
        Self {
            upto: Upto::End,
            outcome,
            time_ns: None,
        }
    }
}

/// Which requests have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upto {
    /// Those before the next Sync.
    Sync,
    /// Those before the next `ReadyForQuery`, but for the one that it answers.
    Ready,
    /// All.
    End,
}

/// Names that requests would have given that the server passes over, up to the next Sync.
#[derive(Debug, Default)]
pub(super) struct Intended {
    statements: FxHashMap<Name, Statement>,
    portals: FxHashMap<Name, Statement>,
}

impl Exchange {
    /// Takes an error while something is asked.
    pub(super) fn error<S: Statements>(
        &mut self,
        message: &Message<'_>,
        context: &mut Context<'_, S>,
    ) -> Result<(), Cause> {
        let failure = failure(message.body);
        self.progress.bytes += message.bytes;
        let begin_ns = message.begin.time_ns;
        let stage = self.progress.stage;
        if failure.sqlstate.is_of_accepted() && stage != Stage::Over {
            self.accept(&self.asked(), context);
        }
        match self.queue.head().map(|head| &mut head.what) {
            Some(What::Startup(session)) => {
                session.failure = Some(failure);
                session.end_ns = message.end.time_ns;
                let session = session.clone();
                self.queue.pop();
                context.events.push(Event::Session(session));
                return Ok(());
            }
            // What came before could not be committed.
            Some(What::Sync) => self.calls.fail(failure),
            Some(What::Simple(_) | What::Function(_)) if stage == Stage::Over => {
                if failure.severity == Severity::Error {
                    return Err(Cause::Unexpected);
                }
            }
            Some(What::Simple(_) | What::Function(_)) => {
                self.progress.first_row_ns.get_or_insert(begin_ns);
                self.fail_query(failure, message.end, context);
            }
            _ => {
                self.progress.first_row_ns.get_or_insert(begin_ns);
                self.fail_step(failure, message.end, context.events);
            }
        }
        if failure.severity != Severity::Error {
            context.events.push(Event::Terminated {
                failure,
                time_ns: message.end.time_ns,
            });
        }
        Ok(())
    }

    /// A statement of a Query failed; those behind it are not run.
    fn fail_query<S>(&mut self, failure: Failure, end: Stamp, context: &mut Context<'_, S>) {
        let index = self.progress.index;
        let statement = self.statement();
        if let Some(mut ended) = self.at_hand(statement) {
            ended.call.outcome = Outcome::Failed(failure);
            self.end_call(ended, end, context.events);
        }
        let side = self.side;
        if let Some(head) = self.queue.head()
            && let What::Simple(ids) = &head.what
        {
            for (id, index) in ids.iter().zip(0_u32..).skip(index + 1) {
                let mut call =
                    Call::new(Statement::Known(*id), head.begin.tid, head.start_ns(side));
                call.index = index;
                call.outcome = Outcome::Skipped;
                call.end_ns = Some(end.time_ns);
                context.events.push(Event::Call(call));
            }
        }
        self.progress.stage = Stage::Over;
    }

    /// A message of the extended protocol failed. Whether that prevents a call is known with the Sync at the latest:
    /// the server answers a message that fails as soon as it has it, be the Execute sent or not.
    fn fail_step(&mut self, failure: Failure, end: Stamp, events: &mut Vec<Event>) {
        let is_synced = self
            .queue
            .iter()
            .any(|request| matches!(request.what, What::Sync));
        if is_synced || prevented(&self.queue).is_some() {
            self.fail(failure, end, events);
        } else {
            self.errors = Errors::Open(failure, end);
        }
    }

    fn fail(&mut self, failure: Failure, end: Stamp, events: &mut Vec<Event>) {
        let prevented = prevented(&self.queue);
        let statement = self.failed_statement();
        match prevented {
            Some(0) => {
                if let Some(mut ended) = self.at_hand(statement) {
                    ended.call.outcome = Outcome::Failed(failure);
                    self.end_call(ended, end, events);
                }
            }
            Some(at) => {
                if let Some(ended) = self.prevent(at, statement, failure) {
                    self.end_call(ended, end, events);
                }
            }
            None => self.preparation_fails(statement, failure, end.time_ns, events),
        }
        self.preparing.clear();
        self.errors = Errors::UntilSync;
        let abandoned = Abandoned {
            upto: Upto::Sync,
            outcome: Outcome::Skipped,
            time_ns: Some(end.time_ns),
        };
        self.abandon(abandoned, prevented, events);
    }

    /// The call that will not begin.
    fn prevent(&mut self, at: usize, statement: Statement, failure: Failure) -> Option<Ended> {
        let request = self.queue.iter().nth(at)?;
        let start_ns = request.start_ns(self.side);
        let mut call = Call::new(statement, request.begin.tid, start_ns);
        call.first_row_ns = self.progress.first_row_ns;
        call.sent_bytes = request.bytes;
        call.received_bytes = self.progress.bytes;
        let prepared = self.preparing.drain(..);
        call.received_bytes += prepared.map(|preparing| preparing.bytes).sum::<u64>();
        call.outcome = Outcome::Failed(failure);
        Some(Ended {
            call,
            start_ns,
            before_ns: 0,
        })
    }

    /// The statement that the first request is about, which failed.
    fn failed_statement(&mut self) -> Statement {
        let Self {
            queue,
            statements,
            portals,
            ..
        } = self;
        match queue.head().map(|head| &head.what) {
            Some(What::Parse { name, statement }) => {
                // The server gives up the unnamed statement before it looks at the new one.
                if name.is_empty() {
                    statements.remove(b"");
                }
                statement.clone()
            }
            Some(What::Bind { statement, .. } | What::Describe(Subject::Statement(statement))) => {
                statements.find(statement)
            }
            Some(What::Execute(portal) | What::Describe(Subject::Portal(portal))) => {
                portals.statement(portal)
            }
            _ => Statement::Unknown,
        }
    }

    /// A Sync has been sent: what the server passed over lies before it.
    pub(super) fn synced(&mut self, events: &mut Vec<Event>) {
        if self.errors != Errors::None {
            let abandoned = Abandoned {
                upto: Upto::Sync,
                outcome: Outcome::Skipped,
                time_ns: None,
            };
            self.abandon(abandoned, None, events);
        }
    }

    /// Drops requests, telling their calls but for one that is told already. How many were told.
    pub(super) fn abandon(
        &mut self,
        abandoned: Abandoned,
        told: Option<usize>,
        events: &mut Vec<Event>,
    ) -> u64 {
        if let Errors::Open(failure, end) = self.errors {
            self.fail(failure, end, events);
            if abandoned.upto == Upto::End {
                self.calls.flush(events);
            }
        }
        let mut intended = mem::take(&mut self.intended);
        let mut count = 0;
        let mut at = 0;
        while let Some(head) = self.queue.head() {
            if abandoned.upto == Upto::Sync && matches!(head.what, What::Sync) {
                self.errors = Errors::None;
                break;
            }
            let is_last = abandoned.upto == Upto::Ready && head.what.is_ready_due();
            let before = events.len();
            let Some(request) = self.queue.pop() else {
                break;
            };
            if told != Some(at) {
                self.forsake(&request, abandoned, &mut intended, events);
            }
            self.progress = Progress::default();
            count += events.len() - before;
            at += 1;
            if is_last {
                self.queue.put_back(request);
                break;
            }
        }
        if self.errors != Errors::None {
            self.intended = intended;
        }
        count as u64
    }

    /// Tells the calls of a request.
    fn forsake(
        &mut self,
        request: &Request,
        abandoned: Abandoned,
        intended: &mut Intended,
        events: &mut Vec<Event>,
    ) {
        let mut call = Call::new(
            Statement::Unknown,
            request.begin.tid,
            request.start_ns(self.side),
        );
        call.outcome = abandoned.outcome;
        call.end_ns = abandoned.time_ns;
        call.sent_bytes = request.bytes;
        call.first_row_ns = self.progress.first_row_ns;
        call.rows.returned = self.progress.rows;
        call.received_bytes = self.progress.bytes;
        match &request.what {
            What::Parse { name, statement } => {
                intended.statements.insert(name.clone(), statement.clone());
            }
            What::Bind {
                portal, statement, ..
            } => {
                let new = intended.statements.get(statement).cloned();
                let bound = new.unwrap_or_else(|| self.statements.find(statement));
                intended.portals.insert(portal.clone(), bound);
            }
            What::Execute(portal) => {
                let new = intended.portals.get(portal).cloned();
                call.statement = new.unwrap_or_else(|| self.portals.statement(portal));
                events.push(Event::Call(call));
            }
            What::Function(oid) if self.progress.stage != Stage::Over => {
                call.statement = Statement::Function(*oid);
                events.push(Event::Call(call));
            }
            What::Simple(ids) if self.progress.stage != Stage::Over => {
                for (id, index) in ids.iter().zip(0_u32..).skip(self.progress.index) {
                    call.statement = Statement::Known(*id);
                    call.index = index;
                    events.push(Event::Call(call.clone()));
                    // The others have not begun.
                    call.sent_bytes = 0;
                    call.first_row_ns = None;
                    call.rows.returned = 0;
                    call.received_bytes = 0;
                }
            }
            _ => {}
        }
    }
}

/// Which request is the Execute that the first one, having failed, prevents.
fn prevented(queue: &Queue) -> Option<usize> {
    let mut requests = queue
        .iter()
        .enumerate()
        .take_while(|(_, request)| !matches!(request.what, What::Sync));
    let (_, head) = requests.next()?;
    let portal = match &head.what {
        What::Execute(_) => return Some(0),
        What::Parse { name, .. } | What::Describe(Subject::Statement(name)) => {
            requests.find_map(|(_, request)| match &request.what {
                What::Bind {
                    portal, statement, ..
                } if statement == name => Some(portal),
                _ => None,
            })?
        }
        What::Bind { portal, .. } | What::Describe(Subject::Portal(portal)) => portal,
        _ => return None,
    };
    let (at, _) = requests.find(
        |(_, request)| matches!(&request.what, What::Execute(executed) if executed == portal),
    )?;
    Some(at)
}
