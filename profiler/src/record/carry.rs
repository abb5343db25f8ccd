//! Time off the CPU in windows that follow each other: what of it has been told already. Pure.
//!
//! A thread that is blocked when a window ends has its time up to then in that window, as at the end of a recording,
//! and the rest in the windows after it. The kernel side knows nothing of windows: its sums are of a thread's life and
//! its records of whole spans, so that what was told before is taken off here. A span that is shorter than the
//! threshold when a window ends is left whole to the next one, where it is known what it has become. So all windows
//! together have the time of each thread once.

use profiler_common::off_cpu::{State, ThreadTimes};
use rustc_hash::FxHashMap;

use super::ledger::Sampling;

/// Windows after which a thread that the kernel side has no more is forgotten: its end was not told.
const UNSEEN_MAX: u32 = 2;

/// Threads, by id.
#[derive(Debug, Default)]
pub(crate) struct Carry {
    threads: FxHashMap<u32, Seen>,
}

/// What was told of a thread.
#[derive(Debug, Default)]
struct Seen {
    /// Tells threads of the same id apart.
    first_ns: u64,
    told: Sums,
    /// Spans that were open at the end of a window: when each began, and up to when it was told, ns.
    open: Vec<Open>,
    unseen: u32,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    since_ns: u64,
    until_ns: u64,
    /// Windows since it was over: its record should have come.
    overdue: u32,
}

/// Of a thread's account, ns.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    in_state: [u64; 4],
    below: [u64; 4],
    lost: u64,
}

/// The end of a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Boundary {
    /// `CLOCK_MONOTONIC`, ns.
    pub(crate) end_ns: u64,
    /// Shorter spans are only added up, ns.
    pub(crate) min_block_ns: u64,
    pub(crate) sampling: Sampling,
}

/// What a window has of a thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// Its account, of the window alone.
    pub(crate) times: ThreadTimes,
    /// Time of a span that is open and to be shown, in this window, ns.
    pub(crate) open_ns: Option<u64>,
}

impl Carry {
    /// Of a span that is over, what was not told yet, ns; at least one, as it is a span.
    pub(crate) fn span(&mut self, tid: u32, since_ns: u64, duration_ns: u64) -> u64 {
        let Some(seen) = self.threads.get_mut(&tid) else {
            return duration_ns;
        };
        let found = seen.open.iter().position(|open| open.since_ns == since_ns);
        let Some(position) = found else {
            return duration_ns;
        };
        let until_ns = seen.open.swap_remove(position).until_ns;
        let end_ns = since_ns.saturating_add(duration_ns);
        end_ns.saturating_sub(until_ns).max(1)
    }

    /// Of the account of a thread that has ended, what was not told yet.
    pub(crate) fn ended(&mut self, times: &ThreadTimes) -> ThreadTimes {
        let seen = self.threads.remove(&times.tid);
        let mut seen = seen
            .filter(|seen| seen.first_ns == times.first_ns)
            .unwrap_or_default();
        seen.difference(times, Sums::of(times), Sampling::Ended)
    }

    /// What the window that ends has of a thread that lives. `left_ns` is when it left the CPU by what it left with, if
    /// that is known: it may have come and gone since its account was read.
    pub(crate) fn close(
        &mut self,
        times: &ThreadTimes,
        left_ns: Option<u64>,
        boundary: Boundary,
    ) -> Part {
        let seen = self.threads.entry(times.tid).or_default();
        if seen.first_ns != times.first_ns {
            *seen = Seen {
                first_ns: times.first_ns,
                ..Seen::default()
            };
        }
        seen.unseen = 0;
        let mut sums = Sums::of(times);
        let open_ns = seen.close_span(times, left_ns, boundary, &mut sums);
        Part {
            times: seen.difference(times, sums, boundary.sampling),
            open_ns,
        }
    }

    /// Call when all threads of a window are closed: forgets those that are gone.
    pub(crate) fn forget_gone(&mut self) {
        self.threads.retain(|_, seen| {
            seen.unseen += 1;
            seen.unseen <= UNSEEN_MAX
        });
    }
}

impl Seen {
    /// Adds what the span under way has up to the end of the window; gives how much of it is to be shown now.
    fn close_span(
        &mut self,
        times: &ThreadTimes,
        left_ns: Option<u64>,
        boundary: Boundary,
        sums: &mut Sums,
    ) -> Option<u64> {
        let Boundary {
            end_ns,
            min_block_ns,
            sampling,
        } = boundary;
        let state = (times.state & 3) as usize;
        let since_ns = times.since_ns;
        let span_ns = end_ns.saturating_sub(since_ns);
        if state == State::Running as usize {
            sums.in_state[state] += span_ns;
            return None;
        }
        let position = self.open.iter().position(|open| open.since_ns == since_ns);
        let until_ns = position.map(|position| self.open[position].until_ns);
        if left_ns == Some(since_ns)
            && (span_ns >= min_block_ns || until_ns.is_some())
            && span_ns > 0
        {
            sums.in_state[state] += span_ns;
            match position {
                Some(position) => self.open[position].until_ns = end_ns,
                None => self.open.push(Open {
                    since_ns,
                    until_ns: end_ns,
                    overdue: 0,
                }),
            }
            return Some(end_ns.saturating_sub(until_ns.unwrap_or(since_ns)));
        }
        if sampling == Sampling::Ended {
            sums.in_state[state] += span_ns;
            if span_ns < min_block_ns {
                sums.below[state] += span_ns;
            } else {
                sums.lost += span_ns;
            }
        } else if let Some(until_ns) = until_ns {
            // It is over by now; its record is on its way.
            sums.in_state[state] += until_ns.saturating_sub(since_ns);
        }
        None
    }

    /// What came to the account since the last window.
    fn difference(&mut self, times: &ThreadTimes, now: Sums, sampling: Sampling) -> ThreadTimes {
        let before = std::mem::replace(&mut self.told, now);
        let since = |now: [u64; 4], before: [u64; 4]| {
            let mut since = now;
            since
                .iter_mut()
                .zip(before)
                .for_each(|(now, before)| *now = now.saturating_sub(before));
            since
        };
        ThreadTimes {
            in_state_ns: since(now.in_state, before.in_state),
            below_threshold_ns: since(now.below, before.below),
            lost_ns: self.untold(
                now.lost.saturating_sub(before.lost),
                times.since_ns,
                sampling,
            ),
            ..*times
        }
    }

    /// Of time whose record was lost, what was not told before: a span that was open at the end of a window, is over
    /// and has no record is the one that was lost.
    fn untold(&mut self, mut lost_ns: u64, since_ns: u64, sampling: Sampling) -> u64 {
        self.open.retain_mut(|open| {
            if open.since_ns == since_ns && sampling == Sampling::GoesOn {
                return true;
            }
            let told_ns = open.until_ns.saturating_sub(open.since_ns);
            if lost_ns >= told_ns {
                lost_ns -= told_ns;
                return false;
            }
            open.overdue += 1;
            open.overdue <= UNSEEN_MAX
        });
        lost_ns
    }
}

impl Sums {
    fn of(times: &ThreadTimes) -> Self {
        Self {
            in_state: times.in_state_ns,
            below: times.below_threshold_ns,
            lost: times.lost_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use profiler_common::off_cpu::{State, ThreadTimes};
    use proptest::prelude::{any, prop, prop_assert_eq, proptest};

    use super::{Boundary, Carry, Sampling};

    const MIN_NS: u64 = 10;

    /// A thread as the kernel side would see it, and what came of it in windows.
    struct Thread {
        times: ThreadTimes,
        carry: Carry,
        /// Shown in spans, by window.
        shown: Vec<u64>,
        below: u64,
        lost: u64,
        in_state: [u64; 4],
    }

    impl Thread {
        fn new() -> Self {
            Self {
                times: ThreadTimes {
                    tid: 7,
                    first_ns: 1,
                    since_ns: 100,
                    ..ThreadTimes::default()
                },
                carry: Carry::default(),
                shown: vec![0],
                below: 0,
                lost: 0,
                in_state: [0; 4],
            }
        }

        fn leaves(&mut self, now: u64) {
            self.times.in_state_ns[State::Running as usize] += now - self.times.since_ns;
            self.times.since_ns = now;
            self.times.state = State::Blocked as u32;
        }

        fn comes(&mut self, now: u64, is_lost: bool) {
            let span = now - self.times.since_ns;
            let since = self.times.since_ns;
            self.times.in_state_ns[State::Blocked as usize] += span;
            self.times.since_ns = now;
            self.times.state = State::Running as u32;
            if span < MIN_NS {
                self.times.below_threshold_ns[State::Blocked as usize] += span;
            } else if is_lost {
                self.times.lost_ns += span;
            } else {
                let part = self.carry.span(7, since, span);
                *self.shown.last_mut().unwrap() += part;
            }
        }

        fn window_ends(&mut self, end_ns: u64, sampling: Sampling) {
            let boundary = Boundary {
                end_ns,
                min_block_ns: MIN_NS,
                sampling,
            };
            let part = self
                .carry
                .close(&self.times, Some(self.times.since_ns), boundary);
            *self.shown.last_mut().unwrap() += part.open_ns.unwrap_or(0);
            self.take(&part.times);
            self.shown.push(0);
        }

        fn take(&mut self, times: &ThreadTimes) {
            self.below += times.below_threshold_ns.iter().sum::<u64>();
            self.lost += times.lost_ns;
            let sums = self.in_state.iter_mut().zip(times.in_state_ns);
            sums.for_each(|(sum, more)| *sum += more);
        }
    }

    /// A thread that is blocked through three windows has its time in each of them, and none twice.
    #[test]
    fn long_waits_are_in_the_windows_where_they_were() {
        let mut thread = Thread::new();
        thread.leaves(150);
        for end in [200, 300, 400] {
            thread.window_ends(end, Sampling::GoesOn);
        }
        thread.comes(430, false);
        thread.window_ends(500, Sampling::Ended);
        assert_eq!(thread.shown[..4], [50, 100, 100, 30]);
        assert_eq!(thread.in_state, [50 + 70, 0, 280, 0]);
        assert_eq!((thread.below, thread.lost), (0, 0));
    }

    /// A wait that is short when a window ends is told in the next one, as what it has become.
    #[test]
    fn short_waits_wait_for_the_next_window() {
        let mut thread = Thread::new();
        thread.leaves(195);
        thread.window_ends(200, Sampling::GoesOn);
        assert_eq!((thread.shown[0], thread.in_state), (0, [95, 0, 0, 0]));
        thread.comes(215, false);
        thread.leaves(298);
        thread.window_ends(300, Sampling::GoesOn);
        thread.comes(301, false);
        thread.window_ends(400, Sampling::Ended);
        assert_eq!((thread.shown[1], thread.below), (20, 3));
        assert_eq!(thread.in_state.iter().sum::<u64>(), 300);
    }

    /// Of a wait whose record was lost, only what was not told before counts as lost.
    #[test]
    fn lost_records_are_not_told_twice() {
        let mut thread = Thread::new();
        thread.leaves(120);
        thread.window_ends(200, Sampling::GoesOn);
        thread.comes(230, true);
        thread.window_ends(300, Sampling::GoesOn);
        assert_eq!((thread.shown[0], thread.lost), (80, 30));
        thread.leaves(310);
        thread.comes(350, true);
        thread.window_ends(400, Sampling::Ended);
        assert_eq!(thread.lost, 70);
    }

    /// A thread whose wait ended while its window was closed is told when its record comes.
    #[test]
    fn waits_that_end_meanwhile() {
        let mut thread = Thread::new();
        thread.leaves(120);
        thread.window_ends(200, Sampling::GoesOn);
        let boundary = Boundary {
            end_ns: 300,
            min_block_ns: MIN_NS,
            sampling: Sampling::GoesOn,
        };
        // It has left again since its account was read.
        let part = thread.carry.close(&thread.times, Some(310), boundary);
        assert_eq!((part.open_ns, part.times.in_state_ns), (None, [0; 4]));
        thread.comes(305, false);
        thread.window_ends(400, Sampling::Ended);
        assert_eq!(thread.shown[0] + thread.shown[1], 185);
        assert_eq!(thread.in_state, [20 + 95, 0, 185, 0]);
    }

    /// A thread that ends has told its time; another one of its id begins anew.
    #[test]
    fn threads_end() {
        let mut thread = Thread::new();
        thread.window_ends(150, Sampling::GoesOn);
        let last = ThreadTimes {
            in_state_ns: [80, 0, 0, 0],
            since_ns: 180,
            ..thread.times
        };
        assert_eq!(thread.carry.ended(&last).in_state_ns, [30, 0, 0, 0]);
        let other = ThreadTimes {
            first_ns: 500,
            in_state_ns: [5, 0, 0, 0],
            ..last
        };
        assert_eq!(thread.carry.ended(&other).in_state_ns, [5, 0, 0, 0]);
        for _ in 0..4 {
            thread.carry.forget_gone();
        }
        assert!(thread.carry.threads.is_empty());
    }

    proptest! {
        /// Whatever a thread does and wherever windows end, all windows together have its time once.
        #[test]
        fn no_time_is_lost_or_told_twice(steps in prop::collection::vec((1_u64..60, 0_u8..3, any::<bool>()), 1..60)) {
            let mut thread = Thread::new();
            let mut now = 100;
            for (pause, what, is_lost) in steps {
                now += pause;
                let is_running = thread.times.state == State::Running as u32;
                match what {
                    0 => thread.window_ends(now, Sampling::GoesOn),
                    _ if is_running => thread.leaves(now),
                    _ => thread.comes(now, is_lost),
                }
            }
            now += 1;
            thread.window_ends(now, Sampling::Ended);
            let off = thread.in_state[1..].iter().sum::<u64>();
            prop_assert_eq!(thread.in_state.iter().sum::<u64>(), now - 100);
            prop_assert_eq!(thread.shown.iter().sum::<u64>() + thread.below + thread.lost, off);
        }
    }
}
