//! Closing the account of a window while sampling goes on: pure arithmetic over sums that only grow.
//!
//! A sample that the kernel side has begun to take may still be on its way when a window ends, so "taken"
//! of the kernel's count is not "shown or lost" at that moment. What was begun before the window that is
//! closed began must have arrived by now: if it has not, it is lost without explanation, and said so one
//! window late. So each window's account adds up by itself, and so do all of them together.

/// Sums over all windows so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ledger {
    /// Begun by the kernel side when the last window was closed.
    begun: u64,
    /// Shown or lost under a named cause.
    explained: u64,
    /// Told as lost without explanation.
    unexplained: u64,
}

/// What a window's account says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    /// Samples taken: shown, lost under a name, or lost without.
    pub(crate) taken: u64,
    /// Samples lost without explanation.
    pub(crate) unexplained: u64,
}

/// Whether samples may still be on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sampling {
    /// They may.
    GoesOn,
    /// The clock has stopped and the ring is empty.
    Ended,
}

impl Ledger {
    /// Closes a window. `begun` is the kernel side's count, read before the ring was emptied; `explained` the
    /// samples that the window shows or has lost under a name.
    pub(crate) fn close(&mut self, begun: u64, explained: u64, sampling: Sampling) -> Closed {
        self.explained += explained;
        let due = match sampling {
            Sampling::GoesOn => self.begun,
            Sampling::Ended => begun,
        };
        let unexplained = due.saturating_sub(self.explained + self.unexplained);
        self.unexplained += unexplained;
        self.begun = begun;
        Closed {
            taken: explained + unexplained,
            unexplained,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Closed, Ledger, Sampling};

    const fn closed(taken: u64, unexplained: u64) -> Closed {
        Closed { taken, unexplained }
    }

    /// A sample that arrives after the window in which it was begun belongs to the next one, and nothing is
    /// called lost.
    #[test]
    fn samples_on_their_way_are_not_lost() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.close(100, 98, Sampling::GoesOn), closed(98, 0));
        assert_eq!(ledger.close(200, 101, Sampling::GoesOn), closed(101, 0));
        assert_eq!(ledger.close(200, 1, Sampling::Ended), closed(1, 0));
    }

    /// A sample that never arrives is told one window late, once.
    #[test]
    fn what_never_arrives_is_told_once() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.close(100, 97, Sampling::GoesOn), closed(97, 0));
        assert_eq!(ledger.close(100, 0, Sampling::GoesOn), closed(3, 3));
        assert_eq!(ledger.close(150, 50, Sampling::GoesOn), closed(50, 0));
        assert_eq!(ledger.close(150, 0, Sampling::Ended), closed(0, 0));
    }

    /// At the end nothing can be on its way.
    #[test]
    fn the_end_tells_all() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.close(10, 8, Sampling::Ended), closed(10, 2));
    }
}
