//! Calls that have ended, until it is known what their times are: calls whose ends came in one chunk share the
//! time, and the last call before a `ReadyForQuery` is told with it.

use super::{
    chunk::Stamp,
    event::{Call, Event, Failure, Outcome, TransactionState},
};

/// A call that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) call: Call,
    /// When it, or its last fetch, could begin, ns.
    pub(super) start_ns: u64,
    /// Time of the fetches before, ns.
    pub(super) before_ns: u64,
}

/// Calls that have ended and are not told yet.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// In the chunk at hand.
    ended: Vec<Ended>,
    /// In an earlier one, with `ReadyForQuery` still to come.
    held: Option<Call>,
    /// Number of the chunk at hand.
    chunk: u64,
    /// End of the last call before that chunk, ns.
    free_ns: u64,
    /// End of the last call, ns.
    last_end_ns: u64,
    /// Start of the first call since the last `ReadyForQuery`, ns.
    first_start_ns: Option<u64>,
}

impl Calls {
    /// End of the last call, ns.
    pub(super) fn last_end_ns(&self) -> u64 {
        self.last_end_ns
    }

    /// A call ended at the last byte of its answer.
    pub(super) fn finish(&mut self, mut ended: Ended, end: Stamp, events: &mut Vec<Event>) {
        self.turn(end, events);
        events.extend(self.held.take().map(Event::Call));
        self.last_end_ns = end.time_ns;
        self.begin(&mut ended);
        let call = &mut ended.call;
        if call.outcome != Outcome::Unseen {
            call.end_ns = Some(end.time_ns);
        }
        self.ended.push(ended);
    }

    /// A fetch ended and the call did not: it takes the time of it.
    pub(super) fn pause(&mut self, mut ended: Ended, end: Stamp, events: &mut Vec<Event>) -> Call {
        self.turn(end, events);
        self.begin(&mut ended);
        self.last_end_ns = end.time_ns;
        let Ended {
            mut call,
            start_ns,
            before_ns,
        } = ended;
        if call.outcome != Outcome::Unseen {
            let fetch_ns = end.time_ns.saturating_sub(start_ns.max(self.free_ns));
            call.latency_ns = Some(before_ns + fetch_ns);
            call.end_ns = Some(end.time_ns);
        }
        call
    }

    /// The server was free for a call as soon as the one before had ended, as far as that can be told apart.
    fn begin(&mut self, ended: &mut Ended) {
        let Ended { call, start_ns, .. } = ended;
        if call.fetches <= 1 {
            call.service_ns = (*start_ns).max(self.free_ns);
        }
        self.first_start_ns.get_or_insert(*start_ns);
    }

    /// `ReadyForQuery` came. Start of the first call since the last one, ns.
    pub(super) fn ready(
        &mut self,
        time_ns: u64,
        state: TransactionState,
        events: &mut Vec<Event>,
    ) -> Option<u64> {
        let first_start_ns = self.first_start_ns.take()?;
        if let Some(last) = self.last().filter(|last| last.ready_ns.is_none()) {
            last.ready_ns = Some(time_ns);
            last.transaction = Some(state);
        }
        events.extend(self.held.take().map(Event::Call));
        Some(first_start_ns)
    }

    /// What the calls since the last `ReadyForQuery` did could not be committed: the last of them has failed.
    pub(super) fn fail(&mut self, failure: Failure) {
        if self.first_start_ns.is_some()
            && let Some(last) = self.last()
            && last.ready_ns.is_none()
            && last.outcome == Outcome::Completed
        {
            last.outcome = Outcome::Failed(failure);
        }
    }

    /// The chunk is over: tells its calls, all but the last one if its `ReadyForQuery` is to come.
    pub(super) fn settle(&mut self, events: &mut Vec<Event>) {
        if self.ended.is_empty() {
            return;
        }
        let seen = |ended: &&Ended| ended.call.end_ns.is_some();
        let sharing = self.ended.iter().filter(seen).count();
        let free_ns = self.ended.iter().map(|ended| ended.start_ns).min();
        let free_ns = free_ns.unwrap_or_default().max(self.free_ns);
        for Ended {
            call,
            start_ns,
            before_ns,
        } in &mut self.ended
        {
            let Some(end_ns) = call.end_ns else {
                continue;
            };
            // Together they took the time since the first of them could begin.
            let begin_ns = if sharing > 1 {
                free_ns
            } else {
                (*start_ns).max(free_ns)
            };
            let time_ns = end_ns.saturating_sub(begin_ns) / (sharing as u64);
            call.latency_ns = Some(time_ns + *before_ns);
            call.sharing = u32::try_from(sharing).unwrap_or(u32::MAX);
        }
        let is_ready = self.first_start_ns.is_none();
        events.extend(self.ended.drain(..).map(|ended| Event::Call(ended.call)));
        if !is_ready && let Some(Event::Call(_)) = events.last() {
            self.held = events.pop().and_then(|event| match event {
                Event::Call(call) => Some(call),
                _ => None,
            });
        }
    }

    /// Tells all that there are.
    pub(super) fn flush(&mut self, events: &mut Vec<Event>) {
        self.settle(events);
        events.extend(self.held.take().map(Event::Call));
        self.first_start_ns = None;
    }

    fn last(&mut self) -> Option<&mut Call> {
        match self.ended.last_mut() {
            Some(ended) => Some(&mut ended.call),
            None => self.held.as_mut(),
        }
    }

    /// What ended in an earlier chunk is told before what ends in this one.
    fn turn(&mut self, now: Stamp, events: &mut Vec<Event>) {
        if self.chunk != now.chunk {
            self.settle(events);
            self.chunk = now.chunk;
            self.free_ns = self.last_end_ns;
        }
    }
}
