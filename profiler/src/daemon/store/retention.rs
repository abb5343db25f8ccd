//! Which windows are deleted: a pure decision over a listing.

use super::Entry;
use crate::daemon::config::Retention;

/// Positions of the entries that go, oldest first: those that ended too long ago, and as many of the oldest
/// as make the rest small enough. Entries are sorted by time. A window that ends in the future, after the clock was
/// set back, is as young as one that ended now.
pub(super) fn expired(entries: &[Entry], retention: Retention, now_ms: u64) -> Vec<usize> {
    let age_ms = u64::try_from(retention.age.as_millis()).unwrap_or(u64::MAX);
    let mut total: u64 = entries.iter().map(|entry| entry.bytes).sum();
    let mut gone = Vec::new();
    for (position, entry) in entries.iter().enumerate() {
        let is_old = now_ms.saturating_sub(entry.name.end_ms) > age_ms;
        if is_old || total > retention.bytes {
            total -= entry.bytes;
            gone.push(position);
        }
    }
    gone
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::{prop, prop_assert, proptest};

    use super::{Entry, Retention, expired};
    use crate::daemon::store::{Capability, WindowName};

    fn entry(begin_ms: u64, bytes: u64) -> Entry {
        Entry {
            name: WindowName::new(Capability::Sampling, (begin_ms, begin_ms + 1000), "host"),
            bytes,
        }
    }

    fn retention(age_s: u64, bytes: u64) -> Retention {
        Retention {
            age: Duration::from_secs(age_s),
            bytes,
        }
    }

    /// Age and size each count, and nothing goes that need not.
    #[test]
    fn old_and_large_ones_go() {
        let entries = [
            entry(0, 10),
            entry(1000, 10),
            entry(2000, 10),
            entry(3000, 10),
        ];
        assert_eq!(expired(&entries, retention(3600, 40), 4000), [0_usize; 0]);
        assert_eq!(expired(&entries, retention(3600, 35), 4000), [0]);
        assert_eq!(expired(&entries, retention(2, 100), 4000), [0]);
        assert_eq!(expired(&entries, retention(2, 25), 4000), [0, 1]);
        assert_eq!(expired(&entries, retention(3600, 1), 4000), [0, 1, 2, 3]);
    }

    /// A clock that was set back makes nothing old.
    #[test]
    fn future_windows_are_young() {
        let entries = [entry(10_000, 10), entry(20_000, 10)];
        assert_eq!(expired(&entries, retention(1, 100), 0), [0_usize; 0]);
    }

    proptest! {
        /// What is left is young and fits.
        #[test]
        fn the_rest_fits(sizes in prop::collection::vec(1_u64..100, 0..20), bytes in 1_u64..1000, age_s in 1_u64..20) {
            let entries: Vec<Entry> = (0..).zip(&sizes).map(|(at, size)| entry(at * 1000, *size)).collect();
            let gone = expired(&entries, retention(age_s, bytes), 20_000);
            let kept = (0..entries.len()).filter(|at| !gone.contains(at));
            prop_assert!(kept.clone().map(|at| entries[at].bytes).sum::<u64>() <= bytes);
            for at in kept {
                prop_assert!(20_000 - entries[at].name.end_ms <= age_s * 1000);
            }
        }
    }
}
