//! Losing and finding the boundaries of messages.

use super::{
    anchor::{Anchor, command_before},
    chunk::{Direction, Stamp},
    connection::{Connection, Phase, Source},
    event::{Call, Cause, Event, Lost, Outcome, Statement, TransactionState},
    exchange::Context,
    framer::Form,
    gap::{Landed, Landing, unsee},
    statements::Statements,
};

/// Bytes of `ReadyForQuery`.
const READY_BYTES: u64 = 6;

impl Connection {
    /// Bytes are not there, with the beginnings of messages in them.
    pub(super) fn stumble<S>(
        &mut self,
        bytes: u64,
        cause: Cause,
        source: Source,
        context: &mut Context<'_, S>,
    ) {
        match (self.phase, source.direction, cause) {
            // Answers to the requests that are known will still be theirs.
            (Phase::Running, Direction::Frontend, _) => {
                self.phase = Phase::Draining;
                self.begin_loss(cause, source.stamp.time_ns);
                self.miss(bytes);
            }
            // How the answer ends may be seen.
            (Phase::Running, Direction::Backend, Cause::NotCopied) => {
                self.phase = Phase::Blind;
                self.exchange.is_doubtful = true;
                self.blind_bytes = bytes;
                self.anchor = Anchor::default();
            }
            _ => {
                self.seek(cause, source.stamp, context);
                self.miss(bytes);
            }
        }
    }

    /// Nothing is understood until the server is between requests.
    pub(super) fn seek<S>(&mut self, cause: Cause, stamp: Stamp, context: &mut Context<'_, S>) {
        self.begin_loss(cause, stamp.time_ns);
        self.unsee_all(context.events);
        self.phase = Phase::Seeking;
        self.anchor = Anchor::default();
    }

    /// What is under way is not seen to its end.
    pub(super) fn unsee_all(&mut self, events: &mut Vec<Event>) {
        let mut unseen = 0;
        if let Some(mut call) = self.unproved.take() {
            unsee(&mut call);
            events.push(Event::Call(*call));
            unseen += 1;
        }
        unseen += self.exchange.lose(events);
        if let Some(lost) = &mut self.lost {
            lost.unseen += unseen;
        }
    }

    /// Takes bytes that are not understood.
    pub(super) fn pass<S: Statements>(
        &mut self,
        bytes: &[u8],
        source: Source,
        context: &mut Context<'_, S>,
    ) {
        self.miss(bytes.len() as u64);
        if source.direction == Direction::Frontend {
            return;
        }
        let state = self.anchor.take(bytes);
        if let Some(state) = state.filter(|_| source.is_end) {
            self.tell_before(bytes, source.stamp, context);
            self.enter(state, source.stamp, context);
        }
    }

    /// What ran when nothing had been seen has ended with these bytes: it took at least so long.
    fn tell_before<S: Statements>(
        &mut self,
        bytes: &[u8],
        end: Stamp,
        context: &mut Context<'_, S>,
    ) {
        let Some((id, begin_ns)) = self.before.take() else {
            return;
        };
        let mut call = Call::new(Statement::Known(id), end.tid, begin_ns);
        call.fetches = 1;
        match command_before(bytes) {
            Some(command) => {
                context.statements.accepted(id, true);
                call.rows.tag = command.rows;
                call.end_ns = Some(end.time_ns);
                call.latency_ns = Some(end.time_ns.saturating_sub(begin_ns));
            }
            None => call.outcome = Outcome::Unseen,
        }
        context.events.push(Event::Call(call));
    }

    /// Takes bytes of an answer of which others were not copied.
    pub(super) fn look<S: Statements>(
        &mut self,
        bytes: &[u8],
        source: Source,
        context: &mut Context<'_, S>,
    ) {
        self.blind_bytes += bytes.len() as u64;
        let state = self.anchor.take(bytes);
        let Some(state) = state.filter(|_| source.is_end) else {
            return;
        };
        let landing = Landing {
            state,
            bytes,
            end: source.stamp,
            missed_bytes: self.blind_bytes.saturating_sub(READY_BYTES),
        };
        match self.exchange.land(landing, context) {
            Landed::Call(call) => self.unproved = Some(call),
            Landed::Unseen(calls) => {
                self.begin_loss(Cause::NotCopied, source.stamp.time_ns);
                self.miss(self.blind_bytes);
                if let Some(lost) = &mut self.lost {
                    lost.unseen += calls;
                }
                self.found(source.stamp.time_ns, context.events);
            }
            Landed::Ambiguous => {
                self.seek(Cause::NotCopied, source.stamp, context);
                self.miss(self.blind_bytes);
                self.enter(state, source.stamp, context);
                return;
            }
        }
        self.phase = Phase::Running;
        self.backend.framer.restart(Form::Tagged);
    }

    /// The server is between requests: both directions are at the beginning of a message.
    pub(super) fn enter<S>(
        &mut self,
        state: TransactionState,
        stamp: Stamp,
        context: &mut Context<'_, S>,
    ) {
        let cause = self
            .lost
            .as_ref()
            .map_or(Cause::Attached, |lost| lost.cause);
        let time_ns = stamp.time_ns;
        self.exchange.enter(cause, state, time_ns, context.events);
        self.found(time_ns, context.events);
        self.phase = Phase::Running;
        self.frontend.framer.restart(Form::Tagged);
        self.backend.framer.restart(Form::Tagged);
    }

    /// Tells of the stretch that was not understood.
    pub(super) fn found(&mut self, now_ns: u64, events: &mut Vec<Event>) {
        events.extend(self.lost.take().map(|lost| {
            Event::Lost(Lost {
                until_ns: now_ns,
                ..lost
            })
        }));
    }

    /// A stretch begins that is not understood.
    pub(super) fn begin_loss(&mut self, cause: Cause, since_ns: u64) {
        // What was reported before the recording is found out otherwise.
        self.exchange.is_doubtful |= cause != Cause::Attached;
        self.lost.get_or_insert(Lost {
            cause,
            since_ns,
            until_ns: since_ns,
            bytes: 0,
            unseen: 0,
        });
    }

    /// Counts bytes that are not understood.
    pub(super) fn miss(&mut self, bytes: u64) {
        if let Some(lost) = &mut self.lost {
            lost.bytes += bytes;
        }
    }
}
