//! What became of everything that was seen: told as calls, or not, by cause. Pure.

use crate::sums::{add_count, add_time};
use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use profiler_common::outcome::Counter;
use serde::{Deserialize, Serialize};

use super::{
    Tls,
    encrypted::Counts,
    statistics::{Statistics, add},
    texts::Missing,
};
use crate::output::account::{COST_BPF, COST_PROCESS};

/// Causes for which the kernel side has not told what a call carried.
const LOST: [Counter; 7] = [
    Counter::WireLost,
    Counter::WireUnreadable,
    Counter::WireSocketsFull,
    Counter::WireEntriesFull,
    Counter::TlsFull,
    Counter::NotRun,
    Counter::Busy,
];

/// What went wrong without a byte missing.
const NOTES: [Counter; 2] = [Counter::EventLost, Counter::TargetsFull];

/// A record that was counted and never came, or the other way round.
const UNEXPLAINED: &str = "unexplained record";

/// Connections that are encrypted and not read: those that asked for it in Postgres's way, and those that were so when
/// they were seen first.
const OPAQUE_POSTGRES: &str = "encrypted (TLS)";
const OPAQUE_UNKNOWN: &str = "encrypted (TLS), of Postgres or not";

/// What was looked at, beside what connections told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sockets {
    /// Sockets with Postgres traffic, and streams of it within TLS, that were met.
    pub(super) postgres: u64,
    /// Those that are open. Of a window: that were open when it began.
    #[serde(default)]
    pub(super) open: u64,
    /// Sockets with other traffic, which was not kept.
    pub(super) other: u64,
    /// Sockets with too little traffic to tell.
    pub(super) undecided: u64,
    /// Sockets that are encrypted.
    pub(super) encrypted: Counts,
    /// Sockets that found no room in the list.
    pub(super) overflowed: u64,
    /// Records of sends and receives taken, and those that contradicted themselves.
    pub(super) records: u64,
    pub(super) malformed: u64,
}

impl Sockets {
    /// What came to this since then, beside what was open.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            open: before.open,
            ..self.with(before, u64::saturating_sub)
        }
    }

    /// Both windows together. What was open at one of them may have been at the other.
    fn merged(self, other: Self) -> Self {
        Self {
            open: self.open.max(other.open),
            ..self.with(other, u64::saturating_add)
        }
    }

    /// Connections of Postgres, those that were open before included.
    pub(super) fn connections(&self) -> u64 {
        self.postgres.saturating_add(self.open)
    }

    /// Field by field.
    fn with(self, other: Self, each: fn(u64, u64) -> u64) -> Self {
        Self {
            postgres: each(self.postgres, other.postgres),
            open: 0,
            other: each(self.other, other.other),
            undecided: each(self.undecided, other.undecided),
            encrypted: self.encrypted.with(other.encrypted, each),
            overflowed: each(self.overflowed, other.overflowed),
            records: each(self.records, other.records),
            malformed: each(self.malformed, other.malformed),
        }
    }
}

/// How far what was counted and what was told are apart.
pub(super) fn unexplained(counters: &BTreeMap<Counter, u64>, sockets: Sockets) -> u64 {
    let counted = |counter: Counter| counters.get(&counter).copied().unwrap_or(0);
    let told = sockets.records + sockets.malformed + counted(Counter::WireLost);
    counted(Counter::WireTaken).abs_diff(told)
}

/// The account of one recording.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    /// Sends and receives that the kernel side saw.
    pub(super) transfers: u64,
    pub(super) sockets: Sockets,
    /// Calls told by connections.
    pub(super) calls: u64,
    /// Of those, calls in the rows, those of rows that are not shown too.
    pub(super) in_rows: u64,
    /// Of those, calls whose end was not seen, by cause.
    pub(super) without_end: BTreeMap<Cow<'static, str>, u64>,
    /// Connections that could not be read on, by cause.
    pub(super) opaque: BTreeMap<Cow<'static, str>, u64>,
    /// What was lost, by cause.
    pub(super) lost: BTreeMap<String, u64>,
    /// What else is to be said, with how often.
    pub(super) notes: BTreeMap<String, u64>,
    /// Whether TLS libraries were looked into.
    pub(super) tls: Tls,
    /// CPU time of the profiler.
    pub(super) process: Duration,
    /// Time inside our BPF programs, where it was measured.
    pub(super) bpf: Option<Duration>,
}

impl Account {
    /// The account of what was counted and told.
    pub(super) fn new(
        counters: &BTreeMap<Counter, u64>,
        sockets: Sockets,
        statistics: &Statistics,
        missing: Missing,
    ) -> Self {
        let counted = |counter: Counter| counters.get(&counter).copied().unwrap_or(0);
        let transfers = counted(Counter::WireTaken);
        let mut lost: BTreeMap<String, u64> = LOST
            .iter()
            .map(|counter| (counter.text().to_owned(), counted(*counter)))
            .collect();
        lost.insert("malformed record".to_owned(), sockets.malformed);
        lost.insert(UNEXPLAINED.to_owned(), unexplained(counters, sockets));
        lost.insert(
            "socket without room in the list".to_owned(),
            sockets.overflowed,
        );
        for (cause, stretch) in &statistics.lost {
            lost.insert(format!("{cause}, stretches"), stretch.times);
            lost.insert(format!("{cause}, bytes"), stretch.bytes);
        }
        lost.retain(|_, count| *count > 0);
        let mut notes: BTreeMap<String, u64> = NOTES
            .iter()
            .map(|counter| (counter.text().to_owned(), counted(*counter)))
            .collect();
        notes.insert(
            "call of a statement told with others, too many statements".to_owned(),
            missing.others,
        );
        notes.insert(
            "statement without its end, too long or not copied".to_owned(),
            missing.cut,
        );
        notes.insert(
            "call told with others, too many rows".to_owned(),
            statistics.without_group,
        );
        notes.retain(|_, count| *count > 0);
        let sum =
            |of: fn(&super::figures::Figures) -> u64| statistics.groups.values().map(of).sum();
        let mut without_end = BTreeMap::from([
            ("answer not seen".into(), sum(|figures| figures.unseen)),
            (
                "under way at the end".into(),
                sum(|figures| figures.unfinished),
            ),
            (
                "cut short by the end of the connection".into(),
                sum(|figures| figures.aborted),
            ),
            (
                "skipped behind an error".into(),
                sum(|figures| figures.skipped),
            ),
        ]);
        without_end.retain(|_, count| *count > 0);
        let mut opaque = statistics.opaque.clone();
        opaque.insert(OPAQUE_POSTGRES.into(), sockets.encrypted.postgres);
        opaque.insert(OPAQUE_UNKNOWN.into(), sockets.encrypted.unknown);
        opaque.retain(|_, count| *count > 0);
        Self {
            transfers,
            sockets,
            calls: statistics.calls,
            in_rows: sum(super::figures::Figures::all_calls),
            without_end,
            opaque,
            lost,
            notes,
            tls: Tls::Off,
            process: Duration::ZERO,
            bpf: None,
        }
    }

    /// Takes that of another window in.
    pub(super) fn merge(&mut self, other: Self) {
        add_count(&mut self.transfers, other.transfers);
        self.sockets = self.sockets.merged(other.sockets);
        add_count(&mut self.calls, other.calls);
        add_count(&mut self.in_rows, other.in_rows);
        add(&mut self.without_end, other.without_end);
        add(&mut self.opaque, other.opaque);
        add(&mut self.lost, other.lost);
        add(&mut self.notes, other.notes);
        if other.tls != Tls::Off {
            self.tls = other.tls;
        }
        add_time(&mut self.process, other.process);
        self.bpf = match (self.bpf, other.bpf) {
            (Some(mine), Some(others)) => Some(mine + others),
            (mine, others) => mine.or(others),
        };
    }

    /// Records that were counted and never told, or the other way round. While records are on their way that says
    /// nothing of a window.
    pub(super) fn set_unexplained(&mut self, records: u64) {
        self.lost.remove(UNEXPLAINED);
        if records > 0 {
            self.lost.insert(UNEXPLAINED.to_owned(), records);
        }
    }

    /// What was seen in place of Postgres, and what to try.
    fn nothing_seen(&self) -> Option<&'static str> {
        let sockets = &self.sockets;
        if self.calls > 0 || sockets.connections() > 0 {
            return None;
        }
        Some(if self.transfers == 0 {
            "nothing was sent or received: name the process that has the connections, with `--descendants` for the workers \
             of a server that forks"
        } else if sockets.encrypted.postgres + sockets.encrypted.unknown > 0 {
            "what was seen is encrypted"
        } else if sockets.other > 0 {
            "what was sent and received is no Postgres: the connections may be those of another process, such as a pooler"
        } else {
            "too little was sent and received to know what it is: record for longer"
        })
    }

    /// In words, one fact a line.
    pub(super) fn lines(&self) -> Vec<String> {
        let sockets = &self.sockets;
        let mut lines = vec![
            format!("sends and receives seen: {}", self.transfers),
            format!(
                "connections: {} of Postgres, {} of something else, {} without enough traffic to tell",
                sockets.connections(),
                sockets.other,
                sockets.undecided
            ),
            format!("calls seen: {}", self.calls),
            format!("calls in the rows: {}", self.in_rows),
        ];
        let without_end = self.without_end.iter();
        lines.extend(
            without_end.map(|(cause, count)| format!("without a latency, {cause}: {count} calls")),
        );
        let read = sockets.encrypted.read;
        if read > 0 {
            lines.push(format!(
                "encrypted, read through OpenSSL: {read} connections"
            ));
        }
        let opaque = self.opaque.iter();
        lines.extend(opaque.map(|(cause, count)| format!("opaque, {cause}: {count} connections")));
        let unread = sockets.encrypted.postgres + sockets.encrypted.unknown;
        if unread > 0 && self.tls == Tls::Off {
            lines.push("hint: `--tls auto` reads what passes through OpenSSL".to_owned());
        }
        lines.extend(self.nothing_seen().map(|hint| format!("hint: {hint}")));
        if self.lost.is_empty() {
            lines.push("lost: nothing".to_owned());
        }
        let lost = self.lost.iter();
        lines.extend(lost.map(|(cause, count)| format!("lost, {cause}: {count}")));
        let notes = self.notes.iter();
        lines.extend(notes.map(|(note, count)| format!("note, {note}: {count} times")));
        if let Some(bpf) = self.bpf {
            lines.push(format!("{COST_BPF}: {:.3} s", bpf.as_secs_f64()));
        }
        let seconds = self.process.as_secs_f64();
        lines.push(format!("{COST_PROCESS}: {seconds:.3} s"));
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Account, Counter, Sockets};
    use crate::postgres::{
        example::statistics,
        texts::{Missing, Texts},
    };

    /// Every call told is in the rows, and a record that came without being counted is said.
    #[test]
    fn everything_is_accounted_for() {
        let statistics = statistics(&mut Texts::default());
        let sockets = Sockets {
            records: 8,
            malformed: 1,
            ..Sockets::default()
        };
        let mut counters = BTreeMap::from([(Counter::WireTaken, 10), (Counter::WireLost, 1)]);
        let account = Account::new(&counters, sockets, &statistics, Missing::default());
        assert_eq!((account.calls, account.in_rows), (5, 5));
        assert_eq!(
            account.without_end,
            BTreeMap::from([("under way at the end".into(), 1)])
        );
        assert_eq!(account.lost.values().sum::<u64>(), 2, "{:?}", account.lost);
        counters.insert(Counter::WireTaken, 12);
        let account = Account::new(&counters, sockets, &statistics, Missing::default());
        assert_eq!(account.lost.get("unexplained record"), Some(&2));
    }
}
