//! What the server sends: each message must be an answer to the first request that has none, or one of those that may
//! come at any time.

use super::{
    chunk::Stamp,
    event::{Cause, CopyDirection, Event, Severity, Statement, TransactionState},
    exchange::{Context, Errors, Exchange, Progress, Stage},
    fields::{CommandTag, command_tag, failure, string},
    message::{Kind, Message},
    queue::{CopyIn, What},
    statements::Statements,
    transaction::Ready,
};

/// What an answer means for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    /// Something of what was asked.
    Part,
    /// `ReadyForQuery`.
    Ready(TransactionState),
    /// From here on it is replication.
    Replication,
}

impl Exchange {
    /// Takes a message from the server.
    pub(super) fn answer<S: Statements>(
        &mut self,
        message: &Message<'_>,
        context: &mut Context<'_, S>,
    ) -> Result<Answered, Cause> {
        let Kind::Tagged(tag) = message.kind else {
            return Err(Cause::Malformed);
        };
        // Notices, parameters and notifications come at any time.
        if matches!(tag, b'N' | b'S' | b'A') {
            let mut body = message.body;
            if tag == b'S'
                && let (Some(name), Some(value)) = (string(&mut body), string(&mut body))
            {
                context.statements.parameter(name, value);
            }
            return Ok(Answered::Part);
        }
        self.queue.turn();
        let stage = self.progress.stage;
        let Some(head) = self.queue.head() else {
            return unasked(tag, message, context);
        };
        match (&mut head.what, tag) {
            (What::Startup(session), b'R' | b'K' | b'v') => session.take(tag, message.body),
            (_, b'E') => self.error(message, context)?,
            (What::Startup(_) | What::Sync | What::Simple(_) | What::Function(_), b'Z') => {
                let state = TransactionState::read(message.body).ok_or(Cause::Malformed)?;
                return self.ready(state, message.end, context);
            }
            (What::Simple(_) | What::Function(_), _) if stage == Stage::Over => {
                return Err(Cause::Unexpected);
            }
            (What::Simple(_) | What::Execute(_), b'W') => return Ok(Answered::Replication),
            (What::Simple(_), b'T' | b'D' | b'C' | b'I' | b'G' | b'H' | b'd' | b'c')
            | (What::Execute(_), b'D' | b'C' | b'I' | b's' | b'G' | b'H' | b'd' | b'c') => {
                self.result(tag, message, context)?;
            }
            (What::Function(oid), b'V') => {
                let statement = Statement::Function(*oid);
                self.progress.first_row_ns = Some(message.begin.time_ns);
                self.progress.bytes += message.bytes;
                self.finish(statement, None, message.end, context);
                self.progress.stage = Stage::Over;
            }
            _ => return self.prepared(tag, message, context),
        }
        Ok(Answered::Part)
    }

    /// Takes what a Query or an Execute results in.
    fn result<S: Statements>(
        &mut self,
        tag: u8,
        message: &Message<'_>,
        context: &mut Context<'_, S>,
    ) -> Result<(), Cause> {
        let progress = &mut self.progress;
        let is_execute = matches!(
            self.queue.head().map(|head| &head.what),
            Some(What::Execute(_))
        );
        progress.bytes += message.bytes;
        if !matches!(tag, b'G' | b'c') {
            let begin_ns = message.begin.time_ns;
            progress.first_row_ns.get_or_insert(begin_ns);
        }
        match tag {
            b'T' if progress.stage == Stage::Begun => {
                progress.stage = Stage::Rows;
                self.accept(&self.statement(), context);
            }
            b'D' if is_execute || progress.stage == Stage::Rows => progress.rows += 1,
            b'C' => {
                let tag = command_tag(message.body);
                if tag.is_none() && message.is_whole {
                    return Err(Cause::Malformed);
                }
                self.accept(&self.statement(), context);
                self.complete(tag, message.end, context);
            }
            b'I' => {
                self.finish(Statement::Empty, None, message.end, context);
                self.over();
            }
            b's' => self.suspend(message.end, context),
            // The server has begun with it.
            b'G' => {
                progress.copy = Some(CopyDirection::In);
                self.copy_in = self.queue.copy_in();
                self.accept(&self.statement(), context);
            }
            b'H' => {
                progress.copy = Some(CopyDirection::Out);
                self.accept(&self.statement(), context);
            }
            b'd' if progress.copy == Some(CopyDirection::Out) => {
                progress.rows += 1;
                progress.copied_out += message.bytes - 5;
            }
            b'c' if progress.copy == Some(CopyDirection::Out) => {}
            _ => return Err(Cause::Unexpected),
        }
        Ok(())
    }

    /// A statement was completed.
    pub(super) fn complete<S: Statements>(
        &mut self,
        tag: Option<CommandTag<'_>>,
        end: Stamp,
        context: &mut Context<'_, S>,
    ) {
        let (command, rows) = tag.map_or((&b""[..], None), |tag| (tag.command, tag.rows));
        let statement = self.carry_out(self.statement(), command, context.statements);
        self.transactions.completed(command);
        let index = self.progress.index;
        self.finish(statement, rows, end, context);
        match self.queue.head().map(|head| &head.what) {
            Some(What::Simple(_)) => self.progress.index = index + 1,
            _ => self.over(),
        }
    }

    /// What is being answered.
    pub(super) fn statement(&self) -> Statement {
        let index = self.progress.index;
        match self.queue.iter().next().map(|head| &head.what) {
            Some(What::Simple(ids)) => {
                let id = ids.get(index).copied();
                id.map_or(Statement::Unknown, Statement::Known)
            }
            Some(What::Execute(portal)) => self.portals.statement(portal),
            Some(What::Function(oid)) => Statement::Function(*oid),
            _ => Statement::Unknown,
        }
    }

    /// No more of the first request but, of a Query, `ReadyForQuery`.
    fn over(&mut self) {
        self.copy_in = CopyIn::None;
        match self.queue.head().map(|head| &head.what) {
            Some(What::Execute(_)) => {
                self.queue.pop();
                self.progress = Progress::default();
            }
            _ => self.progress.stage = Stage::Over,
        }
    }

    /// `ReadyForQuery` ends what was asked.
    pub(super) fn ready<S: Statements>(
        &mut self,
        state: TransactionState,
        end: Stamp,
        context: &mut Context<'_, S>,
    ) -> Result<Answered, Cause> {
        let is_run = self.progress.index > 0 || self.progress.stage == Stage::Over;
        let is_due = match self.queue.head().map(|head| &head.what) {
            Some(What::Simple(_) | What::Function(_)) => is_run,
            Some(What::Startup(session)) => session.authentication.is_some(),
            _ => true,
        };
        if !is_due {
            return Err(Cause::Unexpected);
        }
        let request = self.queue.pop().ok_or(Cause::Unexpected)?;
        self.preparation_ends(context.events);
        let time_ns = end.time_ns;
        let request_ns = request.start_ns(self.side);
        match request.what {
            What::Startup(mut session) => {
                session.end_ns = time_ns;
                context.events.push(Event::Session(session));
            }
            What::Simple(_) => {
                self.statements.remove(b"");
                self.portals.close(b"", context.events);
            }
            _ => {}
        }
        let begin_ns = self.calls.ready(time_ns, state, context.events);
        let ready = Ready {
            state,
            time_ns,
            begin_ns: begin_ns.or(Some(request_ns)),
            queued: self.queue.len(),
        };
        if ready.queued == 0 {
            context.statements.answered();
        }
        self.between(ready, context.events);
        Ok(Answered::Ready(state))
    }

    /// The server is between requests.
    pub(super) fn between(&mut self, ready: Ready, events: &mut Vec<Event>) {
        self.progress = Progress::default();
        self.errors = Errors::None;
        self.copy_in = CopyIn::None;
        self.copied_in = 0;
        if ready.state == TransactionState::Idle {
            self.portals.clear(events);
            self.cursors.transaction_ends();
        }
        if ready.queued == 0 {
            self.trust.round(ready.time_ns);
            self.is_settled = true;
        }
        self.transactions.ready(ready, events);
    }
}

/// Nothing was asked: only the end of the connection can be told.
fn unasked<S>(
    tag: u8,
    message: &Message<'_>,
    context: &mut Context<'_, S>,
) -> Result<Answered, Cause> {
    let failure = failure(message.body);
    if tag != b'E' || failure.severity == Severity::Error {
        return Err(Cause::Unexpected);
    }
    let time_ns = message.end.time_ns;
    context.events.push(Event::Terminated { failure, time_ns });
    Ok(Answered::Part)
}
