//! Whether answers are known to belong to the requests that they are paired with.
//!
//! Where a stream is entered in its middle, a client that keeps several requests under way looks the same as one that
//! waits for each answer, until an answer comes that nothing asked for. So the calls of the first rounds are told
//! without times; and there are twice as many such rounds each time that it proves wrong.

use super::event::Cause;

/// Rounds without times.
const ROUNDS: u32 = 4;
/// Most of them.
const ROUNDS_MAX: u32 = 64;
/// Nothing is under way where nothing was said for so long, ns.
const PAUSE_NS: u64 = 1_000_000_000;

/// How far pairing is trusted.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// Rounds that have to go well.
    needed: u32,
    /// Rounds that have gone well.
    gone_well: u32,
    /// End of the last one, ns.
    ready_ns: u64,
}

impl Trust {
    /// The stream was entered in its middle, after what was understood before ended for this cause.
    pub(super) fn doubt(&mut self, cause: Cause, now_ns: u64) {
        let is_wrong = matches!(cause, Cause::Unexpected | Cause::Malformed)
            && self.needed > 0
            && self.gone_well < 2 * self.needed;
        self.needed = if is_wrong {
            (self.needed * 2).min(ROUNDS_MAX)
        } else {
            ROUNDS
        };
        self.gone_well = 0;
        self.ready_ns = now_ns;
    }

    /// All that was asked has been answered.
    pub(super) fn round(&mut self, now_ns: u64) {
        self.gone_well = self.gone_well.saturating_add(1);
        self.ready_ns = now_ns;
    }

    /// The client asks, with nothing known to be under way.
    pub(super) fn ask(&mut self, now_ns: u64) {
        if now_ns.saturating_sub(self.ready_ns) >= PAUSE_NS {
            self.gone_well = self.gone_well.max(self.needed);
        }
    }

    pub(super) fn is_earned(&self) -> bool {
        self.gone_well >= self.needed
    }
}

#[cfg(test)]
mod tests {
    use super::{Cause, PAUSE_NS, ROUNDS, ROUNDS_MAX, Trust};

    /// Trust takes longer to earn where it was disappointed, and not where it held for long.
    #[test]
    fn trust_is_earned() {
        let mut trust = Trust::default();
        assert!(trust.is_earned());
        let mut rounds = |count: u32| {
            trust.doubt(Cause::Unexpected, 0);
            (0..count).for_each(|_| trust.round(0));
            trust.is_earned()
        };
        assert!(!rounds(ROUNDS - 1));
        assert!(!rounds(2 * ROUNDS - 1));
        assert!(rounds(4 * ROUNDS));
        assert!(!rounds(4 * ROUNDS), "doubled again: that was too short");
        assert!(rounds(2 * 16 * ROUNDS));
        assert!(rounds(ROUNDS), "that was long");
        assert!(!(0..20).any(|_| rounds(0)));
        assert!(rounds(ROUNDS_MAX));
    }

    /// After a pause nothing can be under way.
    #[test]
    fn pauses_give_trust() {
        let mut trust = Trust::default();
        trust.doubt(Cause::Attached, 7);
        trust.ask(6 + PAUSE_NS);
        assert!(!trust.is_earned());
        trust.ask(7 + PAUSE_NS);
        assert!(trust.is_earned());
    }
}
