//! What became of every connection: in the list, or lost, by cause. Pure.

use crate::sums::{add_count, add_time};
use std::{collections::BTreeMap, time::Duration};

use profiler_common::outcome::Counter;
use serde::{Deserialize, Serialize};

use super::connections::Connections;
use crate::output::account::{COST_BPF, COST_PROCESS};

/// Lost: see [`SOCKETS_MAX`](profiler_common::limits::SOCKETS_MAX).
pub(super) const UNFOLLOWED: &str = "connection there before not followed, table full";
/// Note: of sockets in it only their events are known. Entering another namespace wants `CAP_SYS_ADMIN`.
pub(super) const UNLISTED: &str = "network namespace that could not be looked into";

/// The account of one recording.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    /// Connections begun or accepted in the recording, as the kernel side counted.
    pub(super) begun: u64,
    /// Of those, in the list.
    pub(super) listed: u64,
    /// Connections that were there before.
    pub(super) before: u64,
    /// What was lost, by cause.
    pub(super) lost: BTreeMap<String, u64>,
    /// What else is to be said, with how often.
    pub(super) notes: BTreeMap<String, u64>,
    /// Time inside our BPF programs, where the kernel tells.
    pub(super) bpf: Option<Duration>,
    /// CPU time of the profiler.
    pub(super) process: Duration,
}

impl Account {
    /// The account of what was counted and told.
    pub(super) fn new(counters: &BTreeMap<Counter, u64>, connections: &Connections) -> Self {
        let before = connections
            .list()
            .iter()
            .filter(|connection| connection.before.is_some())
            .count() as u64;
        let counts = Counts::new(counters, connections);
        let mut account = counts.account();
        account.before = before;
        account
    }

    /// Counts something as lost, if it happened.
    pub(super) fn lose(&mut self, cause: &str, count: u64) {
        if count > 0 {
            add_count(self.lost.entry(cause.to_owned()).or_default(), count);
        }
    }

    /// Says something, if it happened.
    pub(super) fn note(&mut self, note: &str, count: u64) {
        if count > 0 {
            add_count(self.notes.entry(note.to_owned()).or_default(), count);
        }
    }

    /// Adds that of another part.
    pub(super) fn merge(&mut self, other: &Self) {
        add_count(&mut self.begun, other.begun);
        add_count(&mut self.listed, other.listed);
        add_count(&mut self.before, other.before);
        for (cause, count) in &other.lost {
            self.lose(cause, *count);
        }
        for (note, count) in &other.notes {
            self.note(note, *count);
        }
        add_time(&mut self.process, other.process);
        self.bpf = match (self.bpf, other.bpf) {
            (Some(mine), Some(others)) => Some(mine + others),
            (mine, others) => mine.or(others),
        };
    }

    /// In words, one fact a line.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("there before: {} connections", self.before),
            format!("begun: {} connections", self.begun),
            format!("begun and listed: {} connections", self.listed),
        ];
        if self.lost.is_empty() {
            lines.push("lost: nothing".to_owned());
        }
        let lost = self.lost.iter();
        lines.extend(lost.map(|(cause, count)| format!("lost, {cause}: {count} times")));
        let notes = self.notes.iter();
        lines.extend(notes.map(|(note, count)| format!("note, {note}: {count} times")));
        if let Some(bpf) = self.bpf {
            lines.push(format!("{COST_BPF}: {:.3} s", bpf.as_secs_f64()));
        }
        lines.push(format!(
            "{COST_PROCESS}: {:.3} s",
            self.process.as_secs_f64()
        ));
        lines
    }
}

/// What has been counted so far: it only grows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Connections told of, begun since the watch did; and those of them that found no room.
    told: u64,
    overflowed: u64,
    /// Connections begun as the kernel side counted, and not told.
    untold: u64,
    sockets_full: u64,
    events_lost: u64,
    missed: u64,
    strangers: u64,
    /// Connections begun and emitted that are no target's.
    others: u64,
}

impl Counts {
    /// Until now. The counters are read before the ring is emptied, so that what is counted has been told.
    pub(super) fn new(counters: &BTreeMap<Counter, u64>, connections: &Connections) -> Self {
        let counted = |counter: Counter| counters.get(&counter).copied().unwrap_or(0);
        Self {
            told: connections.begun,
            overflowed: connections.overflowed.min(connections.begun),
            untold: counted(Counter::ConnectionsBegun).saturating_sub(connections.begun),
            sockets_full: counted(Counter::SocketsFull),
            events_lost: counted(Counter::EventLost),
            missed: counted(Counter::NotRun),
            strangers: connections.strangers,
            others: connections.others,
        }
    }

    /// What came since then.
    pub(super) fn since(self, then: Self) -> Self {
        Self {
            told: self.told.saturating_sub(then.told),
            overflowed: self.overflowed.saturating_sub(then.overflowed),
            untold: self.untold.saturating_sub(then.untold),
            sockets_full: self.sockets_full.saturating_sub(then.sockets_full),
            events_lost: self.events_lost.saturating_sub(then.events_lost),
            missed: self.missed.saturating_sub(then.missed),
            strangers: self.strangers.saturating_sub(then.strangers),
            others: self.others.saturating_sub(then.others),
        }
    }

    /// The account of it, without costs and without those that were there before.
    pub(super) fn account(self) -> Account {
        let told = self.told.saturating_sub(self.others);
        let mut account = Account {
            begun: told + self.untold,
            listed: told.saturating_sub(self.overflowed),
            ..Account::default()
        };
        account.lose(Counter::SocketsFull.text(), self.sockets_full);
        account.lose("connection not listed, list full", self.overflowed);
        account.lose("event lost, ring buffer full", self.events_lost);
        account.lose(Counter::NotRun.text(), self.missed);
        account.lose("connection begun and not told", self.untold);
        account.note("event of a connection that is not listed", self.strangers);
        account
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use profiler_common::{
        outcome::Counter,
        tcp::tcp_state::{CLOSE, SYN_SENT},
    };

    use super::{
        super::{connections::Connections, example::change},
        Account,
    };

    /// What was begun is listed or lost under a name.
    #[test]
    fn every_connection_is_accounted_for() {
        let mut connections = Connections::default();
        connections.take(&change(1, 10, CLOSE, SYN_SENT));
        let mut counters = BTreeMap::from([(Counter::ConnectionsBegun, 1)]);
        let account = Account::new(&counters, &connections);
        assert_eq!((account.begun, account.listed), (1, 1));
        assert!(account.lines().contains(&"lost: nothing".to_owned()));
        counters.insert(Counter::ConnectionsBegun, 3);
        let account = Account::new(&counters, &connections);
        assert_eq!(
            account.lost,
            BTreeMap::from([("connection begun and not told".to_owned(), 2)])
        );
    }
}
