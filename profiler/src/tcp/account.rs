//! What became of every connection: in the list, or lost, by cause. Pure.

use std::{collections::BTreeMap, time::Duration};

use profiler_common::outcome::Counter;

use super::connections::Connections;
use crate::output::account::{COST_BPF, COST_PROCESS};

/// The account of one recording.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Account {
    /// Connections begun or accepted in the recording, as the kernel side counted.
    pub(super) begun: u64,
    /// Of those, in the list.
    pub(super) listed: u64,
    /// Connections that were there before.
    pub(super) before: u64,
    /// What was lost, by cause.
    pub(super) lost: BTreeMap<&'static str, u64>,
    /// What else is to be said, with how often.
    pub(super) notes: BTreeMap<&'static str, u64>,
    /// Time inside our BPF programs, where the kernel tells.
    pub(super) bpf: Option<Duration>,
    /// CPU time of the profiler.
    pub(super) process: Duration,
}

impl Account {
    /// The account of what was counted and told. `missed` are events that hit within another one.
    pub(super) fn new(
        counters: &BTreeMap<Counter, u64>,
        connections: &Connections,
        missed: u64,
    ) -> Self {
        let counted = |counter: Counter| counters.get(&counter).copied().unwrap_or(0);
        let begun = counted(Counter::ConnectionsBegun);
        let overflowed = connections.overflowed;
        let before = connections
            .list()
            .iter()
            .filter(|connection| connection.before.is_some())
            .count() as u64;
        let mut lost = BTreeMap::from([
            (Counter::SocketsFull.text(), counted(Counter::SocketsFull)),
            ("connection not listed, list full", overflowed),
            ("event lost, ring buffer full", counted(Counter::EventLost)),
            ("event missed, another one was under way", missed),
            (
                "connection begun and not told",
                begun.saturating_sub(connections.begun),
            ),
        ]);
        lost.retain(|_, count| *count > 0);
        let mut notes = BTreeMap::from([(
            "event of a connection that is not listed",
            connections.strangers,
        )]);
        notes.retain(|_, count| *count > 0);
        Self {
            begun,
            listed: connections.begun - overflowed.min(connections.begun),
            before,
            lost,
            notes,
            bpf: None,
            process: Duration::ZERO,
        }
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
        let account = Account::new(&counters, &connections, 0);
        assert_eq!((account.begun, account.listed), (1, 1));
        assert!(account.lines().contains(&"lost: nothing".to_owned()));
        counters.insert(Counter::ConnectionsBegun, 3);
        let account = Account::new(&counters, &connections, 0);
        assert_eq!(
            account.lost,
            BTreeMap::from([("connection begun and not told", 2)])
        );
    }
}
