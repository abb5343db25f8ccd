//! Answers to Parse, Bind, Describe and Close. They are part of the call that follows in the same breath, and told
//! apart if none does.

use super::{
    answer::Answered,
    event::{Cause, Event, Failure, Prepared, Statement, Step},
    exchange::{Context, Exchange, Preparing, Progress, Stage},
    message::Message,
    queue::{Parsed, Request, Subject, What},
};

impl Exchange {
    /// Takes an answer to one of these.
    pub(super) fn prepared<S>(
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
        let Some(request) = self.queue.pop() else {
            return Err(Cause::Unexpected);
        };
        self.succeed(request, context.events);
        if let Some(preparing) = &mut self.preparing {
            preparing.bytes += bytes;
            preparing.end_ns = message.end.time_ns;
            if tag == b'T' && preparing.portal.is_some() {
                preparing.described_ns = Some(message.begin.time_ns);
            }
        }
        Ok(Answered::Part)
    }

    /// One of these was done.
    pub(super) fn succeed(&mut self, request: Request, events: &mut Vec<Event>) {
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
                self.preparation_ends(events);
                self.preparing = Some(begin(Step::Parse, statement.clone(), None));
                self.statements.insert(name, statement);
            }
            What::Bind {
                portal,
                statement,
                parse,
            } => {
                let statement = self.statements.find(&statement);
                match &mut self.preparing {
                    Some(preparing) if parse == Parsed::Along => {
                        preparing.portal = Some(portal.clone());
                    }
                    _ => {
                        self.preparation_ends(events);
                        let portal = Some(portal.clone());
                        self.preparing = Some(begin(Step::Bind, statement.clone(), portal));
                    }
                }
                self.portals.bind(portal, statement, events);
            }
            What::Describe(Subject::Statement(name)) => {
                let statement = self.statements.find(&name);
                let same = |preparing: &Preparing| preparing.statement == statement;
                if !self.preparing.as_ref().is_some_and(same) {
                    self.preparation_ends(events);
                    self.preparing = Some(begin(Step::Describe, statement, None));
                }
            }
            What::Close(Subject::Statement(name)) => {
                let statement = self.statements.find(&name);
                self.preparation_ends(events);
                self.preparing = Some(begin(Step::Close, statement, None));
                self.statements.remove(&name);
            }
            What::Close(Subject::Portal(name)) => self.portals.close(&name, events),
            _ => {}
        }
    }

    /// No call follows to what was prepared.
    pub(super) fn preparation_ends(&mut self, events: &mut Vec<Event>) {
        let Some(preparing) = self.preparing.take() else {
            return;
        };
        // Pairing that is not trusted gives no times.
        if self.trust.is_earned() {
            events.push(Event::Prepared(Prepared {
                statement: preparing.statement,
                step: preparing.step,
                start_ns: preparing.start_ns,
                end_ns: preparing.end_ns,
                tid: preparing.tid,
                failure: None,
            }));
        }
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
