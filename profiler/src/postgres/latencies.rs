//! Latencies in a few fixed buckets, as metrics have them. Pure.

use crate::sums::add_count;
use serde::{Deserialize, Serialize};

/// Upper bounds of the buckets, ns, each of them within; a last bucket has all that is longer. Those that the
/// semantic conventions of OpenTelemetry advise for databases are among them.
pub(crate) const BOUNDS_NS: [u64; 17] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];

const BUCKETS: usize = BOUNDS_NS.len() + 1;

/// How many calls took how long.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Latencies {
    /// Time of all of them, ns.
    pub(crate) sum_ns: u64,
    pub(super) buckets: [u64; BUCKETS],
}

impl Latencies {
    /// Counts calls of this latency, ns. Their sum is the caller's.
    pub(super) fn count(&mut self, latency_ns: u64, calls: u64) {
        let bucket = BOUNDS_NS.partition_point(|bound| *bound < latency_ns);
        if let Some(count) = self.buckets.get_mut(bucket) {
            add_count(count, calls);
        }
    }

    pub(crate) fn add(&mut self, more: &Self) {
        add_count(&mut self.sum_ns, more.sum_ns);
        self.each(more, add_count);
    }

    /// Without some that are in it.
    pub(crate) fn remove(&mut self, part: &Self) {
        self.sum_ns = self.sum_ns.saturating_sub(part.sum_ns);
        self.each(part, |count, part| *count = count.saturating_sub(part));
    }

    fn each(&mut self, other: &Self, change: impl Fn(&mut u64, u64)) {
        let pairs = self.buckets.iter_mut().zip(other.buckets);
        pairs.for_each(|(count, other)| change(count, other));
    }

    /// Calls in all buckets.
    pub(crate) fn calls(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Calls in each bucket, the one without a bound last.
    pub(crate) fn buckets(&self) -> &[u64] {
        &self.buckets
    }

    /// Likewise for bounds that are some of [`BOUNDS_NS`], in order.
    pub(crate) fn within(&self, bounds_ns: &[u64]) -> Vec<u64> {
        let mut counts = vec![0; bounds_ns.len() + 1];
        for (position, calls) in self.buckets.iter().enumerate() {
            let bound = BOUNDS_NS.get(position).copied().unwrap_or(u64::MAX);
            add_count(
                &mut counts[bounds_ns.partition_point(|wanted| *wanted < bound)],
                *calls,
            );
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::{BOUNDS_NS, Latencies};

    fn latencies(list_ns: &[u64]) -> Latencies {
        let mut latencies = Latencies::default();
        for ns in list_ns {
            latencies.count(*ns, 1);
            latencies.sum_ns += ns;
        }
        latencies
    }

    /// A bound belongs to its bucket, and what is longer than all bounds is counted too.
    #[test]
    fn bounds_are_inclusive() {
        let all = latencies(&[1, BOUNDS_NS[0], BOUNDS_NS[0] + 1, u64::MAX / 4]);
        assert_eq!(all.buckets()[..2], [2, 1]);
        assert_eq!(all.buckets().last(), Some(&1));
        assert_eq!(all.calls(), 4);
    }

    /// Fewer bounds hold the same calls, each within the next bound that is left.
    #[test]
    fn coarser_buckets_hold_the_same() {
        let all = latencies(&[90_000, 900_000, 2_000_000, 40_000_000_000]);
        let coarse = all.within(&[1_000_000, 5_000_000]);
        assert_eq!(coarse, [2, 1, 1]);
        assert_eq!(all.within(&BOUNDS_NS), all.buckets());
    }

    /// What is added can be taken out again.
    #[test]
    fn parts_are_removed() {
        let (one, other) = (latencies(&[5, 500_000]), latencies(&[7_000_000]));
        let mut both = one.clone();
        both.add(&other);
        assert_eq!((both.calls(), both.sum_ns), (3, 7_500_005));
        both.remove(&other);
        assert_eq!(both, one);
    }
}
