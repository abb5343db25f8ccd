//! Which windows are deleted: a pure decision over a listing.

use super::{Entry, milliseconds};
use crate::daemon::config::Retention;

/// Why something goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surplus {
    /// It ended too long ago.
    Old,
    /// All together is too much, and it is the oldest.
    Much,
}

/// Positions of what goes, oldest first: what ended too long ago, and as many of the oldest as make the rest small
/// enough. `files` are sorted by time: when each ended, milliseconds after the Unix epoch, and its bytes. One that ends
/// in the future, after the clock was set back, is as young as one that ended now.
pub(crate) fn surplus(
    files: impl Iterator<Item = (u64, u64)> + Clone,
    retention: Retention,
    now_ms: u64,
) -> Vec<(usize, Surplus)> {
    let age_ms = milliseconds(retention.age);
    let mut total: u64 = files.clone().map(|(_, bytes)| bytes).sum();
    let mut gone = Vec::new();
    for (position, (end_ms, bytes)) in files.enumerate() {
        let why = if now_ms.saturating_sub(end_ms) > age_ms {
            Surplus::Old
        } else if total > retention.bytes {
            Surplus::Much
        } else {
            continue;
        };
        total -= bytes;
        gone.push((position, why));
    }
    gone
}

/// Positions of the windows that go.
pub(super) fn expired(entries: &[Entry], retention: Retention, now_ms: u64) -> Vec<usize> {
    let files = entries.iter().map(|entry| (entry.name.end_ms, entry.bytes));
    let gone = surplus(files, retention, now_ms).into_iter();
    gone.map(|(position, _)| position).collect()
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
