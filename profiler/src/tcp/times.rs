//! Times by how often: exact while they are taken, to a sixteenth where they were stored. Pure.

use crate::sums::add_count;
use std::collections::BTreeMap;

use profiler_common::syscalls::{bucket, bucket_begin};
use serde::{Deserialize, Serialize};

/// Times, ns, with their number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Times(BTreeMap<u64, u64>);

impl Times {
    pub(super) fn add(&mut self, ns: u64) {
        *self.0.entry(ns).or_default() += 1;
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (ns, count) in other.0 {
            add_count(self.0.entry(ns).or_default(), count);
        }
    }

    /// With few distinct values, each within a sixteenth of the times that it stands for.
    pub(super) fn coarse(self) -> Self {
        let mut coarse = Self::default();
        for (ns, count) in self.0 {
            let index = bucket(ns) as usize;
            let middle = u64::midpoint(bucket_begin(index), bucket_begin(index + 1) - 1);
            add_count(coarse.0.entry(middle).or_default(), count);
        }
        coarse
    }

    /// The time that `percent` of all are at most, ns.
    pub(super) fn quantile(&self, percent: u64) -> Option<u64> {
        let all: u64 = self.0.values().sum();
        let rank = (u128::from(all) * u128::from(percent)).div_ceil(100);
        let mut seen = 0_u128;
        let at = self.0.iter().find(|(_, count)| {
            seen += u128::from(**count);
            seen >= rank
        });
        at.map(|(ns, _)| *ns)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Times;

    fn times(list: &[u64]) -> Times {
        let mut times = Times::default();
        for ns in list {
            times.add(*ns);
        }
        times
    }

    proptest! {
        /// A quantile is one of the times; once they are coarse, it is within a sixteenth of it.
        #[test]
        fn quantiles_are_right(mut list in prop::collection::vec(0_u64..1 << 39, 1..200), percent in 1_u64..=100) {
            let all = times(&list);
            let measured = all.quantile(percent).unwrap();
            let coarse = all.coarse().quantile(percent).unwrap();
            list.sort_unstable();
            let truth = list[(list.len() * usize::try_from(percent).unwrap()).div_ceil(100) - 1];
            prop_assert_eq!(measured, truth);
            prop_assert!(coarse.abs_diff(truth) * 16 <= truth, "{} for {}", coarse, truth);
        }
    }

    /// Of no times there is no quantile; times together are all of them.
    #[test]
    fn times_merge() {
        assert_eq!(times(&[]).quantile(50), None);
        let mut both = times(&[1, 2]);
        both.merge(times(&[3]));
        assert_eq!(both, times(&[1, 2, 3]));
    }
}
