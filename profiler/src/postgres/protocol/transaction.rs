//! Transactions, from the states that `ReadyForQuery` tells.

use std::mem;

use super::event::{Ending, Event, Transaction, TransactionEnd, TransactionState};

/// The transaction that a connection is in.
#[derive(Debug, Default)]
pub(super) struct Transactions {
    open: Option<Open>,
    /// How the last command ended one.
    end: Option<TransactionEnd>,
    /// Whether one is open is not known.
    is_doubtful: bool,
}

#[derive(Debug, Default)]
struct Open {
    begin_ns: Option<u64>,
    /// Since when the server has been waiting for the client, ns.
    idle_since_ns: Option<u64>,
    idle_ns: u64,
    idle_spells: u64,
    longest_idle_ns: u64,
}

/// What `ReadyForQuery` tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) state: TransactionState,
    pub(super) time_ns: u64,
    /// Start of what it ends, ns, if that was seen.
    pub(super) begin_ns: Option<u64>,
    /// Whether the server has more to do.
    pub(super) queued: usize,
}

impl Transactions {
    /// Since when one has waited for its client, ns.
    pub(super) fn idle_since_ns(&self) -> Option<u64> {
        self.open.as_ref()?.idle_since_ns
    }

    /// Whether one is open will be known at the next `ReadyForQuery`.
    pub(super) fn doubt(&mut self) {
        self.is_doubtful = true;
    }

    /// A command was completed.
    pub(super) fn completed(&mut self, command: &[u8]) {
        self.end = match command {
            b"COMMIT" => Some(TransactionEnd::Committed),
            b"ROLLBACK" => Some(TransactionEnd::RolledBack),
            _ => return,
        };
    }

    /// The client sent something.
    pub(super) fn resumed(&mut self, time_ns: u64) {
        if let Some(open) = &mut self.open
            && let Some(since_ns) = open.idle_since_ns.take()
        {
            let idle_ns = time_ns.saturating_sub(since_ns);
            open.idle_ns += idle_ns;
            open.idle_spells += 1;
            open.longest_idle_ns = open.longest_idle_ns.max(idle_ns);
        }
    }

    pub(super) fn ready(&mut self, ready: Ready, events: &mut Vec<Event>) {
        let end = self.end.take().unwrap_or(TransactionEnd::Other);
        let is_doubtful = mem::take(&mut self.is_doubtful);
        if ready.state == TransactionState::Idle {
            self.finish(ready.time_ns, end, events);
            return;
        }
        let open = self.open.get_or_insert_with(|| Open {
            begin_ns: ready.begin_ns.filter(|_| !is_doubtful),
            ..Open::default()
        });
        if ready.queued == 0 {
            open.idle_since_ns = Some(ready.time_ns);
        }
    }

    /// Nothing more will come.
    pub(super) fn end(&mut self, now_ns: u64, ending: Ending, events: &mut Vec<Event>) {
        self.resumed(now_ns);
        let end = match ending {
            Ending::Closed => TransactionEnd::Disconnected,
            Ending::Recording => TransactionEnd::Open,
        };
        self.finish(now_ns, end, events);
    }

    fn finish(&mut self, end_ns: u64, end: TransactionEnd, events: &mut Vec<Event>) {
        events.extend(self.open.take().map(|open| {
            Event::Transaction(Transaction {
                begin_ns: open.begin_ns,
                end_ns,
                idle_ns: open.idle_ns,
                idle_spells: open.idle_spells,
                longest_idle_ns: open.longest_idle_ns,
                end,
            })
        }));
    }
}
