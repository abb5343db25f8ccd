//! Puts calls of different threads and CPUs into the order in which their bytes mattered. Pure.
//!
//! A record comes when its call has returned. What was sent counts from the entry: on one machine the answer can be
//! read before the call that sent the request returns. So records are held back for some milliseconds, in which an
//! earlier one may still come.

use std::collections::VecDeque;

/// How long a record is held back, ns. A call that was in the kernel for longer after an answer to its bytes had been
/// read comes too late, as one of a pipeline can.
pub(super) const HOLD_BACK_NS: u64 = 3_000_000;

/// Records in order of their keys, which are times.
#[derive(Debug)]
pub(super) struct Order<T> {
    held: VecDeque<(u64, T)>,
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        Self {
            held: VecDeque::new(),
        }
    }
}

impl<T> Order<T> {
    /// Takes a record, behind all with the same time.
    pub(super) fn insert(&mut self, time_ns: u64, record: T) {
        let mut at = self.held.len();
        // Nearly always it is the last one.
        while at > 0
            && self
                .held
                .get(at - 1)
                .is_some_and(|(time, _)| *time > time_ns)
        {
            at -= 1;
        }
        self.held.insert(at, (time_ns, record));
    }

    /// How many records are held back.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// The first record, if it is not of that time or later.
    pub(super) fn next_before(&mut self, time_ns: u64) -> Option<T> {
        if self.held.front()?.0 >= time_ns {
            return None;
        }
        self.held.pop_front().map(|(_, record)| record)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Order;

    proptest! {
        /// What comes out is in order, and those of the same time in the order in which they came.
        #[test]
        fn comes_out_in_order(times in proptest::collection::vec(0_u64..50, 0..100)) {
            let mut order = Order::default();
            for (index, time) in times.iter().enumerate() {
                order.insert(*time, (*time, index));
            }
            let mut sorted: Vec<(u64, usize)> = times.iter().copied().zip(0..).collect();
            sorted.sort_unstable();
            let half = sorted.partition_point(|(time, _)| *time < 25);
            let early: Vec<_> = std::iter::from_fn(|| order.next_before(25)).collect();
            prop_assert_eq!(&early, &sorted[..half]);
            prop_assert_eq!(order.len(), times.len() - half);
            let late: Vec<_> = std::iter::from_fn(|| order.next_before(u64::MAX)).collect();
            prop_assert_eq!(&late, &sorted[half..]);
        }
    }
}
