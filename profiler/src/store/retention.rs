//! Which windows are deleted: a pure decision over a listing.

use std::time::Duration;

use super::{Entry, milliseconds};

/// What is kept of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Older ones are deleted.
    pub age: Duration,
    /// Bytes of all windows together; the oldest go first.
    pub bytes: u64,
}

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

/// Positions of the windows that go, at a time, which they have ends by: it says what a time of a name is by the clock
/// as it is set now.
pub(super) fn expired(
    entries: &[Entry],
    retention: Retention,
    (now_ms, as_now): (u64, &dyn Fn(u64) -> u64),
) -> Vec<usize> {
    let file = |entry: &Entry| (as_now(entry.name.end_ms), entry.bytes);
    let files = entries.iter().map(file);
    let gone = surplus(files, retention, now_ms).into_iter();
    gone.map(|(position, _)| position).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::{prop, prop_assert, proptest};

    use super::{Entry, Retention, expired};
    use crate::store::{Capability, WindowName};

    fn entry(begin_ms: u64, bytes: u64) -> Entry {
        Entry {
            name: WindowName::new(Capability::Sampling, (begin_ms, begin_ms + 1000), "host"),
            bytes,
        }
    }

    /// A clock that was never set.
    fn as_set(ms: u64) -> u64 {
        ms
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
        assert_eq!(
            expired(&entries, retention(3600, 40), (4000, &as_set)),
            [0_usize; 0]
        );
        assert_eq!(expired(&entries, retention(3600, 35), (4000, &as_set)), [0]);
        assert_eq!(expired(&entries, retention(2, 100), (4000, &as_set)), [0]);
        assert_eq!(expired(&entries, retention(2, 25), (4000, &as_set)), [0, 1]);
        assert_eq!(
            expired(&entries, retention(3600, 1), (4000, &as_set)),
            [0, 1, 2, 3]
        );
    }

    /// A clock that was set back makes nothing old.
    #[test]
    fn future_windows_are_young() {
        let entries = [entry(10_000, 10), entry(20_000, 10)];
        assert_eq!(
            expired(&entries, retention(1, 100), (0, &as_set)),
            [0_usize; 0]
        );
    }

    /// What was before a clock was set ahead is as old as it was, and what came after as it is.
    #[test]
    fn a_clock_set_ahead_makes_nothing_old() {
        let entries = [entry(0, 10), entry(5000, 10), entry(1_010_000, 10)];
        let as_now = |ms: u64| if ms < 1_010_000 { ms + 1_000_000 } else { ms };
        let now = (1_012_000, &as_now as &dyn Fn(u64) -> u64);
        assert_eq!(expired(&entries, retention(100, 100), now), [0_usize; 0]);
        assert_eq!(expired(&entries, retention(10, 100), now), [0]);
        assert_eq!(expired(&entries, retention(100, 15), now), [0, 1]);
    }

    proptest! {
        /// What is left is young and fits.
        #[test]
        fn the_rest_fits(sizes in prop::collection::vec(1_u64..100, 0..20), bytes in 1_u64..1000, age_s in 1_u64..20) {
            let entries: Vec<Entry> = (0..).zip(&sizes).map(|(at, size)| entry(at * 1000, *size)).collect();
            let gone = expired(&entries, retention(age_s, bytes), (20_000, &as_set));
            let kept = (0..entries.len()).filter(|at| !gone.contains(at));
            prop_assert!(kept.clone().map(|at| entries[at].bytes).sum::<u64>() <= bytes);
            for at in kept {
                prop_assert!(20_000 - entries[at].name.end_ms <= age_s * 1000);
            }
        }
    }
}
