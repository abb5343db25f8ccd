//! What becomes of an exchange around a stretch that is not understood.

use std::mem;

use super::{
    anchor::command_before,
    chunk::Stamp,
    event::{Call, Cause, Counted, Event, Outcome, TransactionState},
    exchange::{Context, Exchange, Progress, Stage},
    failure::{Abandoned, Intended, Upto},
    fields::CommandTag,
    queue::What,
    statements::Statements,
    transaction::{Ready, Transactions},
};

/// A `ReadyForQuery` behind bytes of an answer that were not copied.
#[derive(Clone, Copy, Debug)]
pub(super) struct Landing<'a> {
    pub(super) state: TransactionState,
    /// The last bytes, with the `ReadyForQuery`.
    pub(super) bytes: &'a [u8],
    pub(super) end: Stamp,
    /// Bytes since the last message that was seen, without `ReadyForQuery`.
    pub(super) missed_bytes: u64,
}

/// What is known of the answer behind it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Landed {
    /// Its only call, which cannot have been another unless requests are missing too.
    Call(Box<Call>),
    /// Nothing; so many calls are told as unseen.
    Unseen(u64),
    /// It may be one of several that are awaited.
    Ambiguous,
}

impl Exchange {
    /// What is under way will not be understood any more. How many calls are told as unseen.
    pub(super) fn lose(&mut self, events: &mut Vec<Event>) -> u64 {
        self.calls.flush(events);
        let unseen =
            self.abandon(Abandoned::all(Outcome::Unseen), None, events) + self.portals.lose(events);
        self.preparing.clear();
        self.groups.clear();
        self.intended = Intended::default();
        // The unnamed statement may be another one by now; names are hardly given twice.
        self.statements.remove(b"");
        self.cursors.clear();
        self.transactions = Transactions::default();
        unseen
    }

    /// The server is between requests, and nothing before is known.
    pub(super) fn enter(
        &mut self,
        cause: Cause,
        state: TransactionState,
        time_ns: u64,
        events: &mut Vec<Event>,
    ) {
        let ready = Ready {
            state,
            time_ns,
            begin_ns: None,
            queued: 0,
        };
        self.between(ready, events);
        self.trust.doubt(cause, time_ns);
    }

    /// The client's next request is the first that is seen. See [`Connection::begin_between`](super::Connection::begin_between).
    pub(super) fn begin(&mut self, known: Option<TransactionState>, since_ns: u64) {
        match known {
            None => {
                self.transactions.doubt();
                self.trust.doubt(Cause::Attached, since_ns);
            }
            Some(TransactionState::Idle) => {}
            Some(state) => {
                let ready = Ready {
                    state,
                    time_ns: since_ns,
                    begin_ns: None,
                    queued: 0,
                };
                self.transactions.ready(ready, &mut Vec::new());
            }
        }
    }

    /// The server is between requests, after an answer that was not copied whole. All requests were seen: if a
    /// single `ReadyForQuery` was awaited, it is this one, and the command before it is the one call that was under
    /// way.
    pub(super) fn land<S: Statements>(
        &mut self,
        landing: Landing<'_>,
        context: &mut Context<'_, S>,
    ) -> Landed {
        let due = self
            .queue
            .iter()
            .filter(|request| request.what.is_ready_due());
        if due.count() != 1 {
            return Landed::Ambiguous;
        }
        let command = command_before(landing.bytes);
        let (landed, calls) = match command.filter(|_| self.awaits_one_call()) {
            Some(command) => (self.land_call(command, landing, context), 0),
            None => (None, self.forgo(context.events)),
        };
        self.queue.turn();
        if self.ready(landing.state, landing.end, context).is_err() {
            return Landed::Ambiguous;
        }
        match landed {
            Some(()) => {
                self.calls.flush(context.events);
                match context.events.pop() {
                    Some(Event::Call(call)) => Landed::Call(Box::new(call)),
                    other => {
                        context.events.extend(other);
                        Landed::Unseen(0)
                    }
                }
            }
            None => Landed::Unseen(calls),
        }
    }

    /// Before the `ReadyForQuery` that is awaited, exactly one call has to end.
    fn awaits_one_call(&self) -> bool {
        let mut calls = 0;
        for request in self.queue.iter() {
            match &request.what {
                What::Execute(_) => calls += 1,
                What::Simple(ids) if self.progress.stage != Stage::Over => {
                    calls += ids.len().saturating_sub(self.progress.index);
                }
                _ => {}
            }
            if request.what.is_ready_due() {
                break;
            }
        }
        calls == 1
    }

    /// The one call was completed, and what prepared it was done.
    fn land_call<S: Statements>(
        &mut self,
        command: CommandTag<'_>,
        landing: Landing<'_>,
        context: &mut Context<'_, S>,
    ) -> Option<()> {
        let progress = mem::take(&mut self.progress);
        loop {
            self.queue.turn();
            let head = self.queue.head()?;
            if matches!(head.what, What::Execute(_) | What::Simple(_)) {
                break;
            }
            let request = self.queue.pop()?;
            self.succeed(request, context.events);
        }
        self.progress = progress;
        self.progress.bytes += landing.missed_bytes;
        self.progress.counted = Counted::Tag;
        self.complete(Some(command), landing.end, context);
        Some(())
    }

    /// Calls before the `ReadyForQuery` that is awaited are unseen.
    fn forgo(&mut self, events: &mut Vec<Event>) -> u64 {
        let abandoned = Abandoned {
            upto: Upto::Ready,
            ..Abandoned::all(Outcome::Unseen)
        };
        let unseen = self.abandon(abandoned, None, events);
        self.preparing.clear();
        self.progress = Progress {
            stage: Stage::Over,
            ..Progress::default()
        };
        unseen
    }
}

/// Takes back what is not certain of a call.
pub(super) fn unsee(call: &mut Call) {
    call.outcome = Outcome::Unseen;
    call.end_ns = None;
    call.ready_ns = None;
    call.latency_ns = None;
    call.transaction = None;
}
