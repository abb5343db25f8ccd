//! Sums of calls: merging them, taking differences, quantiles, order. Pure.

use crate::sums::add_count;
use std::collections::{BTreeMap, BTreeSet};

use clap::ValueEnum;
use profiler_common::syscalls::{BUCKETS, Cell, CellKey, bucket_begin};

/// What rows are ordered by, the largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum SortBy {
    /// Total time
    #[default]
    Time,
    /// Number of calls
    Calls,
    /// Number of errors
    Errors,
    /// Mean time
    Mean,
    /// 99th percentile
    P99,
    /// Longest call
    Max,
    /// Name, in alphabetical order
    Name,
}

/// Sums over calls of all CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) cell: Cell,
    /// Calls that threads are still in.
    pub(super) open: u64,
    /// Their time so far, ns: since they were entered or the recording began.
    pub(super) open_ns: u64,
}

impl Default for Sum {
    fn default() -> Self {
        Self {
            cell: Cell::EMPTY,
            open: 0,
            open_ns: 0,
        }
    }
}

impl Sum {
    /// Adds the sums of one CPU, or of another row.
    pub(super) fn add(&mut self, more: &Cell) {
        let sum = &mut self.cell;
        add_count(&mut sum.calls, more.calls);
        add_count(&mut sum.errors, more.errors);
        add_count(&mut sum.total_ns, more.total_ns);
        sum.max_ns = sum.max_ns.max(more.max_ns);
        add_count(&mut sum.before, more.before);
        add_count(&mut sum.before_ns, more.before_ns);
        add_count(&mut sum.ended, more.ended);
        add_count(&mut sum.ended_ns, more.ended_ns);
        let pairs = sum.histogram.iter_mut().zip(&more.histogram);
        pairs.for_each(|(sum, more)| add_count(sum, *more));
    }

    pub(super) fn merge(&mut self, more: &Self) {
        self.add(&more.cell);
        add_count(&mut self.open, more.open);
        add_count(&mut self.open_ns, more.open_ns);
    }

    /// What came since `earlier`. The longest call of that time is known as well as the histogram is, unless it is the
    /// longest of all.
    fn since(&self, earlier: &Self) -> Self {
        let (now, then) = (&self.cell, &earlier.cell);
        let mut histogram = now.histogram;
        let pairs = histogram.iter_mut().zip(&then.histogram);
        pairs.for_each(|(now, then)| *now -= then);
        let longest = histogram.iter().rposition(|count| *count > 0);
        let max_ns = if now.max_ns > then.max_ns {
            now.max_ns
        } else {
            longest.map_or(0, |index| (bucket_begin(index + 1) - 1).min(now.max_ns))
        };
        Self {
            cell: Cell {
                calls: now.calls - then.calls,
                errors: now.errors - then.errors,
                total_ns: now.total_ns - then.total_ns,
                max_ns,
                before: now.before - then.before,
                before_ns: now.before_ns - then.before_ns,
                ended: now.ended - then.ended,
                ended_ns: now.ended_ns - then.ended_ns,
                histogram,
            },
            open: self.open,
            open_ns: self.open_ns,
        }
    }

    /// Calls that returned, whole or begun before the recording.
    pub(super) fn returned(&self) -> u64 {
        self.cell.calls + self.cell.before
    }

    /// Calls that did not: threads ended in them or still are in them.
    pub(super) fn not_returned(&self) -> u64 {
        self.cell.ended + self.open
    }

    /// Time in all of them within the recording, ns.
    pub(super) fn time_ns(&self) -> u64 {
        let cell = &self.cell;
        cell.total_ns + cell.before_ns + cell.ended_ns + self.open_ns
    }

    /// Mean time of the calls that were seen whole, ns.
    pub(super) fn mean_ns(&self) -> Option<u64> {
        self.cell.total_ns.checked_div(self.cell.calls)
    }

    /// The time that `percent` of the calls seen whole took at most, ns, to a sixteenth.
    pub(super) fn quantile_ns(&self, percent: u64) -> Option<u64> {
        let calls: u64 = self.cell.histogram.iter().sum();
        let rank = (u128::from(calls) * u128::from(percent)).div_ceil(100);
        let mut seen = 0_u128;
        let index = self.cell.histogram.iter().position(|count| {
            seen += u128::from(*count);
            seen >= rank && seen > 0
        })?;
        if index == BUCKETS - 1 {
            return Some(self.cell.max_ns);
        }
        let middle = u64::midpoint(bucket_begin(index), bucket_begin(index + 1) - 1);
        Some(middle.min(self.cell.max_ns))
    }
}

/// Sums by what they are of.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    sums: BTreeMap<CellKey, Sum>,
}

/// What is told apart beside the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Apart {
    /// Nothing: processes are merged.
    Calls,
    /// What the kernel side did: threads, descriptors or both.
    All,
}

impl Tally {
    /// The sum of a key.
    pub(super) fn sum(&mut self, key: CellKey) -> &mut Sum {
        self.sums.entry(key).or_default()
    }

    /// Adds another one.
    pub(super) fn add(&mut self, more: &Self) {
        for (key, sum) in &more.sums {
            self.sum(*key).merge(sum);
        }
    }

    /// Takes the calls that threads are in out of it.
    pub(super) fn take_open(&mut self) -> Self {
        let mut open = Self::default();
        for (key, sum) in &mut self.sums {
            if sum.open > 0 {
                let taken = open.sum(*key);
                taken.open = std::mem::take(&mut sum.open);
                taken.open_ns = std::mem::take(&mut sum.open_ns);
            }
        }
        open
    }

    /// Adds the sums of these processes up, call by call, under no process. Gives how many sums those were.
    pub(super) fn sum_up(&mut self, pids: &BTreeSet<u32>) -> u64 {
        let (gone, left) = std::mem::take(&mut self.sums)
            .into_iter()
            .partition(|(key, _)| pids.contains(&key.tgid));
        self.sums = left;
        let gone: BTreeMap<CellKey, Sum> = gone;
        for (key, sum) in &gone {
            self.sum(CellKey { tgid: 0, ..*key }).merge(sum);
        }
        gone.len() as u64
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &CellKey> {
        self.sums.keys()
    }

    pub(super) fn len(&self) -> usize {
        self.sums.len()
    }

    pub(super) fn remove(&mut self, key: &CellKey) {
        self.sums.remove(key);
    }

    pub(super) fn into_sums(self) -> BTreeMap<CellKey, Sum> {
        self.sums
    }

    /// What came since `earlier`, without what did not happen meanwhile.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let none = Sum::default();
        let sums = self.sums.iter().map(|(key, sum)| {
            let sum = sum.since(earlier.sums.get(key).unwrap_or(&none));
            (*key, sum)
        });
        Self {
            sums: sums
                .filter(|(_, sum)| sum.returned() + sum.not_returned() > 0)
                .collect(),
        }
    }

    /// Rows in order, `name` giving a call's name.
    pub(super) fn rows(
        &self,
        apart: Apart,
        sort: SortBy,
        name: impl Fn(u32) -> String,
    ) -> Vec<(CellKey, Sum)> {
        let mut rows: BTreeMap<CellKey, Sum> = BTreeMap::new();
        for (key, sum) in &self.sums {
            let key = match apart {
                Apart::All => *key,
                Apart::Calls => CellKey {
                    tgid: 0,
                    number: key.number,
                    tid: 0,
                    descriptor: -1,
                    inode: 0,
                },
            };
            rows.entry(key).or_default().merge(sum);
        }
        // One that was only just made holds nothing yet.
        rows.retain(|_, sum| sum.returned() + sum.not_returned() > 0);
        let mut rows: Vec<_> = rows.into_iter().collect();
        if sort == SortBy::Name {
            rows.sort_by_cached_key(|(key, _)| name(key.number));
        } else {
            // Stable, so that equal ones keep the order of their keys.
            rows.sort_by_key(|(_, sum)| std::cmp::Reverse(figure(sum, sort)));
        }
        rows
    }

    /// All sums together.
    pub(super) fn total(&self) -> Sum {
        let mut total = Sum::default();
        self.sums.values().for_each(|sum| total.merge(sum));
        total
    }
}

fn figure(sum: &Sum, sort: SortBy) -> u64 {
    match sort {
        SortBy::Time | SortBy::Name => sum.time_ns(),
        SortBy::Calls => sum.returned() + sum.not_returned(),
        SortBy::Errors => sum.cell.errors,
        SortBy::Mean => sum.mean_ns().unwrap_or(0),
        SortBy::P99 => sum.quantile_ns(99).unwrap_or(0),
        SortBy::Max => sum.cell.max_ns,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use profiler_common::syscalls::{Cell, CellKey, bucket};
    use proptest::prelude::*;

    use super::{Apart, SortBy, Sum, Tally};

    /// The sums of calls that took so long.
    pub(in crate::syscalls) fn cell(times_ns: &[u64]) -> Cell {
        let mut cell = Cell::EMPTY;
        for &ns in times_ns {
            cell.calls += 1;
            cell.total_ns += ns;
            cell.max_ns = cell.max_ns.max(ns);
            cell.histogram[bucket(ns) as usize] += 1;
        }
        cell
    }

    fn sum(times_ns: &[u64]) -> Sum {
        let mut sum = Sum::default();
        sum.add(&cell(times_ns));
        sum
    }

    proptest! {
        /// A quantile is within a sixteenth of the true one.
        #[test]
        fn quantiles_are_right(mut times in prop::collection::vec(0_u64..1 << 39, 1..200), percent in 1_u64..=100) {
            let measured = sum(&times).quantile_ns(percent).unwrap();
            times.sort_unstable();
            let rank = (times.len() * usize::try_from(percent).unwrap()).div_ceil(100);
            let truth = times[rank - 1];
            prop_assert!(measured.abs_diff(truth) * 16 <= truth, "{measured} for {truth}");
        }

        /// A difference is what came in between.
        #[test]
        fn differences_are_what_came(before in prop::collection::vec(0_u64..1 << 30, 0..50), after in prop::collection::vec(0_u64..1 << 30, 1..50)) {
            let all = sum(&[before.clone(), after.clone()].concat());
            let (came, truth) = (all.since(&sum(&before)), sum(&after));
            prop_assert_eq!(came.cell.histogram, truth.cell.histogram);
            prop_assert_eq!(came.cell.total_ns, truth.cell.total_ns);
            prop_assert!(came.cell.max_ns >= truth.cell.max_ns);
        }
    }

    /// Processes that are summed up lose no call; what is open is a picture of one moment.
    #[test]
    fn summing_up_loses_nothing() {
        let mut tally = Tally::default();
        for tgid in 1..=3 {
            let key = CellKey {
                tgid,
                ..CellKey::default()
            };
            tally.sum(key).add(&cell(&[10, 20]));
            tally.sum(key).open = 1;
        }
        let open = tally.take_open();
        assert_eq!((open.total().open, tally.total().open), (3, 0));
        assert_eq!(tally.sum_up(&[1, 2].into()), 2);
        assert_eq!((tally.len(), tally.total().returned()), (2, 6));
        tally.add(&open);
        assert_eq!(tally.total().not_returned(), 3);
    }

    /// Without calls there is no quantile; one call is all of them.
    #[test]
    fn quantiles_of_few() {
        assert_eq!(sum(&[]).quantile_ns(50), None);
        assert_eq!(sum(&[1000]).quantile_ns(1), Some(991));
        assert_eq!(sum(&[1 << 50]).quantile_ns(99), Some(1 << 50));
    }

    /// Rows merge processes unless something is told apart, the longest first.
    #[test]
    fn rows_merge_and_sort() {
        let mut tally = Tally::default();
        let key = |tgid, number| CellKey {
            tgid,
            number,
            tid: tgid,
            ..CellKey::default()
        };
        tally.sum(key(7, 0)).add(&cell(&[10, 20]));
        tally.sum(key(8, 0)).add(&cell(&[30]));
        tally.sum(key(8, 1)).add(&cell(&[100]));
        let rows = |apart, sort| tally.rows(apart, sort, |n| n.to_string());
        let times = |rows: Vec<(CellKey, Sum)>| -> Vec<u64> {
            rows.iter().map(|(_, sum)| sum.time_ns()).collect()
        };
        assert_eq!(times(rows(Apart::Calls, SortBy::Time)), [100, 60]);
        assert_eq!(times(rows(Apart::Calls, SortBy::Calls)), [60, 100]);
        assert_eq!(times(rows(Apart::Calls, SortBy::Name)), [60, 100]);
        assert_eq!(times(rows(Apart::All, SortBy::Time)), [100, 30, 30]);
        assert_eq!(tally.total().returned(), 4);
    }
}
