//! How much of our time each user's files and each process may take. Pure but for the clock.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// How long this thread has run.
pub(super) fn thread_ran() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}

/// What something has cost since it was met, of what it may: so much at once, and beyond that a part of the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spent {
    met: Instant,
    so_far: Duration,
    free: Duration,
}

/// The part: a fiftieth.
const PART: u32 = 50;

impl Spent {
    /// Nothing yet.
    pub(crate) fn new(now: Instant, free: Duration) -> Self {
        Self {
            met: now,
            so_far: Duration::ZERO,
            free,
        }
    }

    /// Whether it may cost more.
    pub(crate) fn may(&self, now: Instant) -> bool {
        self.so_far <= self.free + now.saturating_duration_since(self.met) / PART
    }

    /// It took this long.
    pub(crate) fn took(&mut self, took: Duration) {
        self.so_far += took;
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{PART, Spent, thread_ran};

    /// What is spent comes back with time, as slowly as it should.
    #[test]
    fn time_comes_back() {
        let (now, free) = (Instant::now(), Duration::from_millis(20));
        let mut spent = Spent::new(now, free);
        spent.took(free);
        assert!(spent.may(now));
        spent.took(Duration::from_millis(1));
        assert!(!spent.may(now));
        assert!(spent.may(now + Duration::from_millis(1) * PART));
    }

    /// The clock goes on while we compute.
    #[test]
    fn the_clock_counts() {
        let before = thread_ran();
        while thread_ran() == before {}
    }
}
