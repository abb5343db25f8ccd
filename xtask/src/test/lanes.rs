//! Several at a time: tests that do not disturb each other.

use std::{
    sync::{Mutex, mpsc},
    thread,
};

use anyhow::Result;

/// How many at a time.
const LANES: usize = 2;

/// Runs them in their order, several at a time, and takes each as it ends.
///
/// # Errors
/// The first one of `take`: those under way end, no other begins.
pub(super) fn in_lanes<T: Copy + Send, R: Send>(
    all: Vec<T>,
    run: impl Fn(T) -> R + Sync,
    mut take: impl FnMut(T, R) -> Result<()>,
) -> Result<()> {
    let waiting = Mutex::new(all.into_iter());
    let next = || waiting.lock().ok()?.next();
    let (ended, results) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..LANES {
            let (ended, next, run) = (ended.clone(), &next, &run);
            scope.spawn(move || {
                while let Some(one) = next() {
                    if ended.send((one, run(one))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(ended);
        // Dropped at an error, so that the lanes end.
        let results = results;
        results
            .iter()
            .try_for_each(|(one, result)| take(one, result))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::in_lanes;

    /// All are run; after an error no more are than were under way.
    #[test]
    fn an_error_ends_them() {
        let mut sum = 0;
        let all = in_lanes(
            (1..=100).collect(),
            |one| one * 2,
            |_, two| {
                sum += two;
                Ok(())
            },
        );
        assert!(all.is_ok());
        assert_eq!(sum, 10_100);
        let run = AtomicU32::new(0);
        let count = |_| run.fetch_add(1, Ordering::Relaxed);
        let stopped = in_lanes((0..1_000_000).collect::<Vec<u32>>(), count, |_, _| {
            anyhow::bail!("no")
        });
        assert!(stopped.is_err());
        assert!(run.into_inner() < 1_000_000);
    }
}
