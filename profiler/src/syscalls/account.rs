//! What became of every call: in the sums, or lost, by cause. Pure.

use crate::sums::{add_count, add_time};
use std::{collections::BTreeMap, time::Duration};

use profiler_common::outcome::Counter;
use serde::{Deserialize, Serialize};

use super::tally::Sum;
use crate::output::account::{COST_BPF, COST_PROCESS};

/// Causes for which a call is not in the sums.
const LOST: [Counter; 4] = [
    Counter::CallersFull,
    Counter::CellsFull,
    Counter::ReturnUnseen,
    Counter::EntryBefore,
];

/// What went wrong, or is good to know, without a call missing that was entered.
const NOTES: [Counter; 9] = [
    Counter::EntryUnseen,
    Counter::CellsCoarse,
    Counter::ErrorsFull,
    Counter::CallStackLate,
    Counter::RingFull,
    Counter::EventLost,
    Counter::TargetsFull,
    Counter::SpacesFull,
    Counter::NotRun,
];

/// The account of one recording.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Account {
    /// Calls entered, those under way when the recording began included.
    pub(super) entered: u64,
    /// Of those, in the sums.
    pub(super) counted: u64,
    /// Of those, not, by cause.
    pub(super) lost: BTreeMap<String, u64>,
    /// What else is to be said, with how often.
    pub(super) notes: BTreeMap<String, u64>,
    /// Time inside our BPF programs, where it was measured.
    pub(super) bpf: Option<Duration>,
    /// CPU time of the profiler.
    pub(super) process: Duration,
}

impl Account {
    /// The account, `begun` being calls that were noted as under way when the recording began.
    pub(super) fn new(counters: &BTreeMap<Counter, u64>, total: &Sum, begun: u64) -> Self {
        let mut account = Self::of_window(counters, total, begun);
        add_count(&mut account.counted, total.open);
        account.set_unexplained(counters, account.counted, begun);
        account
    }

    /// That of a part of one, of what was counted in it: calls that are still open are the next part's.
    pub(super) fn of_window(counters: &BTreeMap<Counter, u64>, total: &Sum, begun: u64) -> Self {
        let by = |list: &[Counter]| -> BTreeMap<String, u64> {
            let all = list
                .iter()
                .map(|counter| (counter.text().to_owned(), counted(counters, *counter)));
            all.filter(|(_, count)| *count > 0).collect()
        };
        Self {
            entered: counted(counters, Counter::CallsEntered) + begun,
            counted: total.returned() + total.cell.ended,
            lost: by(&LOST),
            notes: by(&NOTES),
            bpf: None,
            process: Duration::ZERO,
        }
    }

    /// Says how far what was entered and what became of it are apart, of a whole recording that has ended.
    pub(super) fn set_unexplained(
        &mut self,
        counters: &BTreeMap<Counter, u64>,
        in_sums: u64,
        begun: u64,
    ) {
        let lost: u64 = LOST.iter().map(|cause| counted(counters, *cause)).sum();
        let entered = counted(counters, Counter::CallsEntered) + begun;
        let unexplained = entered.abs_diff(in_sums + lost);
        if unexplained > 0 {
            self.lost.insert("unexplained".to_owned(), unexplained);
        }
    }

    /// Adds that of another part.
    pub(super) fn merge(&mut self, other: Self) {
        let add = |sums: &mut BTreeMap<String, u64>, more: BTreeMap<String, u64>| {
            for (cause, count) in more {
                add_count(sums.entry(cause).or_default(), count);
            }
        };
        add_count(&mut self.entered, other.entered);
        add_count(&mut self.counted, other.counted);
        add(&mut self.lost, other.lost);
        add(&mut self.notes, other.notes);
        add_time(&mut self.process, other.process);
        self.bpf = match (self.bpf, other.bpf) {
            (Some(mine), Some(others)) => Some(mine + others),
            (mine, others) => mine.or(others),
        };
    }

    /// In words, one fact a line.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("calls entered: {}", calls(self.entered)),
            format!("counted: {}", calls(self.counted)),
            format!("lost: {}", calls(self.lost.values().sum())),
        ];
        let lost = self.lost.iter();
        lines.extend(lost.map(|(cause, count)| format!("lost, {cause}: {}", calls(*count))));
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

fn counted(counters: &BTreeMap<Counter, u64>, counter: Counter) -> u64 {
    counters.get(&counter).copied().unwrap_or(0)
}

fn calls(count: u64) -> String {
    if count == 1 {
        "1 call".to_owned()
    } else {
        format!("{count} calls")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use profiler_common::outcome::Counter;

    use super::{
        super::tally::{Sum, tests::cell},
        Account,
    };

    /// Every call entered is in the sums or lost under a name; what is neither is said.
    #[test]
    fn every_call_is_accounted_for() {
        let mut total = Sum::default();
        total.add(&cell(&[1, 2, 3]));
        total.open = 1;
        let mut counters = BTreeMap::from([(Counter::CallsEntered, 5), (Counter::CellsFull, 2)]);
        let account = Account::new(&counters, &total, 1);
        assert_eq!((account.entered, account.counted), (6, 4));
        assert_eq!(account.lost.len(), 1);
        assert!(
            account
                .lines()
                .contains(&"lost, system call not counted, table of sums full: 2 calls".to_owned()),
            "{:?}",
            account.lines()
        );
        counters.insert(Counter::CallsEntered, 7);
        let account = Account::new(&counters, &total, 1);
        assert_eq!(account.lost.get("unexplained"), Some(&2));
    }
}
