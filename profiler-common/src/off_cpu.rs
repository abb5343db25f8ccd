//! Time off the CPU: what a thread does when it does not run, and the exact account of it.

use crate::limits::{COMM_LEN, SWITCH_STACK_BURST, SWITCH_STACK_INTERVAL_NS};

macro_rules! states {
    ($($(#[$meta:meta])* $variant:ident = $id:literal => $text:literal,)+) => {
        /// What a thread does.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum State { $($(#[$meta])* $variant = $id,)+ }

        impl State {
            /// All of them in the order of their ids.
            pub const ALL: [Self; 4] = [$(Self::$variant,)+];

            /// What it means, in a word for a report.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

states! {
    /// On a CPU.
    Running = 0 => "running",
    /// Wants one: preempted, or it yielded (`TASK_RUNNING` at the switch).
    Runnable = 1 => "runnable",
    /// Waits, and a signal would wake it (`TASK_INTERRUPTIBLE`), or it is stopped.
    Blocked = 2 => "blocked",
    /// Waits, and no signal would (`TASK_UNINTERRUPTIBLE`): usually for a disk.
    Uninterruptible = 3 => "uninterruptible",
}

impl State {
    /// The state with this id.
    #[must_use]
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.get(usize::from(id)).copied()
    }
}

/// Bits of what is known of a wait.
pub mod wait {
    /// The kernel counts it as waiting for input or output (`task_struct.in_iowait`).
    pub const IO: u8 = 1;
    /// Its stack was taken; else the thread or the CPU was at its limit.
    pub const STACK: u8 = 2;
    /// It waits for a Python interpreter's lock.
    pub const GIL: u8 = 4;
    /// A signal, a tracer or its cgroup's freezer stopped it.
    pub const STOPPED: u8 = 8;
}

/// First field of a record on the ring: a thread ended, with its account.
pub const KIND_THREAD_END: u32 = 7;

/// The account of one thread: all of its time since it was first seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(
        zerocopy::FromBytes,
        zerocopy::IntoBytes,
        zerocopy::Immutable,
        zerocopy::KnownLayout
    )
)]
#[repr(C)]
pub struct ThreadTimes {
    /// [`KIND_THREAD_END`].
    pub kind: u32,
    /// Process id.
    pub tgid: u32,
    /// Thread id.
    pub tid: u32,
    /// [`State`] since `since_ns`.
    pub state: u32,
    /// `CLOCK_MONOTONIC`, ns.
    pub since_ns: u64,
    /// `CLOCK_MONOTONIC` of the first sight of it, ns.
    pub first_ns: u64,
    /// Time in each [`State`], ns.
    pub in_state_ns: [u64; 4],
    /// Of that, time off the CPU in spans shorter than the threshold, by state, ns.
    pub below_threshold_ns: [u64; 4],
    /// Of that, time off the CPU in longer spans whose record found the ring buffer full, ns.
    pub lost_ns: u64,
    /// Up to when its stacks are paid for, ns: see [`take_stack`](ThreadTimes::take_stack).
    pub paid_ns: u64,
    /// Times it left a CPU.
    pub switches: u64,
    /// How long it had run in its life when it left one last, by the scheduler's account, ns.
    pub ran_ns: u64,
    /// Bits of [`wait`] of the wait under way.
    pub wait: u32,
    /// Explicit padding, zero.
    pub padding: u32,
    /// Name of the thread, zero-terminated.
    pub comm: [u8; COMM_LEN],
}

impl ThreadTimes {
    /// Whether the thread may have its stack taken now; if so, it has been paid for. The virtual scheduling form of the
    /// generic cell rate algorithm (ITU-T I.371 Annex A).
    pub fn take_stack(&mut self, now: u64) -> bool {
        const SAVED: u64 = SWITCH_STACK_BURST * SWITCH_STACK_INTERVAL_NS;
        let earliest = now.saturating_sub(SAVED);
        let paid = if self.paid_ns > earliest {
            self.paid_ns
        } else {
            earliest
        };
        if paid > now - SWITCH_STACK_INTERVAL_NS {
            return false;
        }
        self.paid_ns = paid + SWITCH_STACK_INTERVAL_NS;
        true
    }
}

const _: () = assert!(size_of::<ThreadTimes>() == 152 && align_of::<ThreadTimes>() == 8);

#[cfg(test)]
mod tests {
    use super::{SWITCH_STACK_BURST, SWITCH_STACK_INTERVAL_NS, State, ThreadTimes};

    /// A burst is served whole, then one stack an interval, and a pause earns the burst back.
    #[test]
    fn stacks_are_earned() {
        let mut times = ThreadTimes::default();
        let start = 1 << 40;
        let mut taken = |from: u64, switches: u64, every: u64| {
            (0..switches)
                .filter(|n| times.take_stack(from + n * every))
                .count() as u64
        };
        assert_eq!(taken(start, 1000, 1), SWITCH_STACK_BURST);
        let later = start + SWITCH_STACK_INTERVAL_NS;
        assert_eq!(taken(later, 1000, SWITCH_STACK_INTERVAL_NS / 10), 100);
        assert_eq!(taken(start * 2, 1000, 1), SWITCH_STACK_BURST);
    }

    /// Ids are dense and survive the way through the record.
    #[test]
    fn states_are_dense() {
        for state in State::ALL {
            assert_eq!(State::from_id(state as u8), Some(state));
        }
        assert_eq!(State::from_id(4), None);
    }
}
