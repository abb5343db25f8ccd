//! Answers to Parse, Bind, Describe and Close. They are part of the call that follows in the same breath, and told
//! apart if none does.

use super::{
    answer::Answered,
    event::{Cause, Event, Failure, Prepared, Statement, Step},
    exchange::{Context, Exchange, Preparing, Progress, Stage},
    message::Message,
    queue::{Parsed, Request, Subject, What},
    statements::Statements,
};

/// Most statements that are prepared in one breath and wait for their calls.
const PREPARING_MAX: usize = 16;

impl Exchange {
    /// Takes an answer to one of these.
    pub(super) fn prepared<S: Statements>(
        &mut self,
        tag: u8,
        message: &Message<'_>,
        context: &mut Context<'_, S>,
    ) -> Result<Answered, Cause> {
        let stage = self.progress.stage;
        let Some(head) = self.queue.head() else {
            return Err(Cause::Unexpected);
        };
        match (&head.what, tag) {
            (What::Describe(Subject::Statement(_)), b't') if stage == Stage::Begun => {
                self.progress.stage = Stage::Parameters;
                self.progress.bytes += message.bytes;
                return Ok(Answered::Part);
            }
            (What::Describe(Subject::Statement(_)), b'T' | b'n') if stage == Stage::Parameters => {}
            (What::Parse { .. }, b'1')
            | (What::Bind { .. }, b'2')
            | (What::Close(_), b'3')
            | (What::Describe(Subject::Portal(_)), b'T' | b'n') => {}
            _ => return Err(Cause::Unexpected),
        }
        let bytes = self.progress.bytes + message.bytes;
        self.progress = Progress::default();
        let request = self.queue.pop().ok_or(Cause::Unexpected)?;
        if let What::Parse { statement, .. } = &request.what {
            self.accept(statement, context);
        }
        if let Some(at) = self.succeed(request, context.events) {
            let preparing = &mut self.preparing[at];
            preparing.bytes += bytes;
            preparing.end_ns = message.end.time_ns;
            if tag == b'T' && preparing.portal.is_some() {
                preparing.described_ns = Some(message.begin.time_ns);
            }
        }
        Ok(Answered::Part)
    }

    /// One of these was done. The place of what it prepares.
    pub(super) fn succeed(&mut self, request: Request, events: &mut Vec<Event>) -> Option<usize> {
        let start_ns = request.start_ns(self.side);
        let begin = |step, statement, portal| Preparing {
            step,
            statement,
            portal,
            start_ns,
            end_ns: start_ns,
            tid: request.begin.tid,
            bytes: 0,
            described_ns: None,
        };
        match request.what {
            What::Parse { name, statement } => {
                let preparing = begin(Step::Parse, statement.clone(), None);
                self.statements.insert(name, statement);
                Some(self.prepare(preparing, events))
            }
            What::Bind {
                portal,
                statement,
                parse,
            } => {
                let statement = self.statements.find(&statement);
                self.portals.bind(portal.clone(), statement.clone(), events);
                let along = |known: &Preparing| {
                    parse == Parsed::Along && known.statement == statement && known.portal.is_none()
                };
                if let Some(at) = self.preparing.iter().rposition(along) {
                    self.preparing[at].portal = Some(portal);
                    return Some(at);
                }
                let preparing = begin(Step::Bind, statement, Some(portal));
                Some(self.prepare(preparing, events))
            }
            What::Describe(Subject::Statement(name)) => {
                let statement = self.statements.find(&name);
                let same =
                    |known: &Preparing| known.statement == statement && known.portal.is_none();
                if let Some(at) = self.preparing.iter().rposition(same) {
                    return Some(at);
                }
                let preparing = begin(Step::Describe, statement, None);
                Some(self.prepare(preparing, events))
            }
            What::Describe(Subject::Portal(name)) => {
                let same = |known: &Preparing| known.portal.as_ref() == Some(&name);
                self.preparing.iter().rposition(same)
            }
            What::Close(Subject::Statement(name)) => {
                let statement = self.statements.find(&name);
                self.statements.remove(&name);
                let preparing = begin(Step::Close, statement, None);
                Some(self.prepare(preparing, events))
            }
            What::Close(Subject::Portal(name)) => {
                self.portals.close(&name, events);
                None
            }
            _ => None,
        }
    }

    fn prepare(&mut self, preparing: Preparing, events: &mut Vec<Event>) -> usize {
        if self.preparing.len() >= PREPARING_MAX {
            self.preparation_ends(events);
        }
        self.preparing.push(preparing);
        self.preparing.len() - 1
    }

    /// No call follows to what was prepared.
    pub(super) fn preparation_ends(&mut self, events: &mut Vec<Event>) {
        // Pairing that is not trusted gives no times.
        let is_earned = self.trust.is_earned();
        let prepared = self.preparing.drain(..).filter(|_| is_earned);
        events.extend(prepared.map(|preparing| {
            Event::Prepared(Prepared {
                statement: preparing.statement,
                step: preparing.step,
                start_ns: preparing.start_ns,
                end_ns: preparing.end_ns,
                tid: preparing.tid,
                failure: None,
            })
        }));
    }

    /// The first request failed, and no call was to follow.
    pub(super) fn preparation_fails(
        &mut self,
        statement: Statement,
        failure: Failure,
        end_ns: u64,
        events: &mut Vec<Event>,
    ) {
        let side = self.side;
        let Some(head) = self.queue.head() else {
            return;
        };
        let step = match &head.what {
            What::Parse { .. } => Step::Parse,
            What::Bind { .. } => Step::Bind,
            What::Describe(_) => Step::Describe,
            _ => Step::Close,
        };
        let prepared = Prepared {
            statement,
            step,
            start_ns: head.start_ns(side),
            end_ns,
            tid: head.begin.tid,
            failure: Some(failure),
        };
        if self.trust.is_earned() {
            events.push(Event::Prepared(prepared));
        }
    }
}
