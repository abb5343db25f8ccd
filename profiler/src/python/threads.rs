//! Threads whose state the kernel side cannot find: it looks through the first ones of the list only.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use profiler_common::limits::PYTHON_THREADS_MAX;

use super::walk::States;
use crate::process;

/// First pause between two looks at a process's list; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause: a thread that has begun is found within this.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What is known of one process's threads.
#[derive(Debug, Default)]
pub(super) struct Threads {
    states: States,
    /// Threads that were asked for since the list was read.
    asked: HashSet<u32>,
    pause: Duration,
    next: Option<Instant>,
}

impl Threads {
    /// The state of a thread, each thread once for each reading of the list. `read` reads it, `own_id` gives the id that
    /// the thread itself sees.
    pub(super) fn find(
        &mut self,
        tid: u32,
        now: Instant,
        read: impl FnOnce() -> States,
        own_id: impl FnOnce() -> u32,
    ) -> Option<u64> {
        if self.next.is_none_or(|next| now >= next) {
            self.states = read();
            self.asked.clear();
            self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
            self.next = Some(now + self.pause);
        }
        if !self.asked.insert(tid) {
            return None;
        }
        self.states.get(&own_id()).copied()
    }
}

/// The threads of a process with their states, if there are more than the kernel side goes through.
pub(super) fn out_of_reach(pid: u32, states: &States) -> Vec<(u32, u64)> {
    if states.len() <= PYTHON_THREADS_MAX {
        return Vec::new();
    }
    let of = |tid| Some((tid, *states.get(&process::own_id(pid, tid))?));
    process::threads(pid).into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{PAUSE_MAX, PAUSE_MIN, States, Threads};

    /// A thread is looked for once for each reading, and the list is read ever more seldom.
    #[test]
    fn a_thread_without_a_state_costs_little() {
        let mut threads = Threads::default();
        let (began, mut reads) = (Instant::now(), 0);
        let mut find = |tid, now| {
            let read = || {
                reads += 1;
                States::from([(3, 0x1000)])
            };
            let found = threads.find(tid, now, read, || tid + 1);
            (found, reads)
        };
        assert_eq!(find(2, began), (Some(0x1000), 1));
        assert_eq!(find(2, began), (None, 1), "asked for already");
        assert_eq!(find(7, began), (None, 1));
        assert_eq!(find(7, began + PAUSE_MIN), (None, 2));
        assert_eq!(find(2, began + PAUSE_MIN), (Some(0x1000), 2));
        assert_eq!(find(7, began + PAUSE_MIN * 2), (None, 2), "the pause grows");
        assert_eq!(find(7, began + PAUSE_MAX), (None, 3));
    }
}
