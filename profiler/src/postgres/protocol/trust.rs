//! Whether answers are known to belong to the requests that they are paired with.
//!
//! Where a stream is entered in its middle, a client that keeps several requests under way looks the same as one that
//! waits for each answer, until an answer comes that nothing asked for. So the calls of the first rounds are told
//! without times; and there are twice as many such rounds each time that it proves wrong.

use super::event::Cause;

/// Most rounds without times.
const ROUNDS_MAX: u32 = 64;

/// How far pairing is trusted.
#[derive(Debug, Default)]
pub(super) struct Trust {
    /// Rounds that have to go well.
    needed: u32,
    /// Rounds that have gone well.
    gone_well: u32,
}

impl Trust {
    /// The stream was entered in its middle, after what was understood before ended for this cause.
    pub(super) fn doubt(&mut self, cause: Cause) {
        let is_wrong = matches!(cause, Cause::Unexpected | Cause::Malformed)
            && self.needed > 0
            && self.gone_well < 2 * self.needed;
        self.needed = if is_wrong {
            (self.needed * 2).min(ROUNDS_MAX)
        } else {
            1
        };
        self.gone_well = 0;
    }

    /// All that was asked has been answered.
    pub(super) fn round(&mut self) {
        self.gone_well = self.gone_well.saturating_add(1);
    }

    pub(super) fn is_earned(&self) -> bool {
        self.gone_well >= self.needed
    }
}

#[cfg(test)]
mod tests {
    use super::{Cause, ROUNDS_MAX, Trust};

    /// Trust takes longer to earn where it was disappointed, and not where it held for long.
    #[test]
    fn trust_is_earned() {
        let mut trust = Trust::default();
        assert!(trust.is_earned());
        let mut rounds = |count: u32| {
            trust.doubt(Cause::Unexpected);
            (0..count).for_each(|_| trust.round());
            trust.is_earned()
        };
        assert_eq!(
            [rounds(0), rounds(1), rounds(4), rounds(8)],
            [false, false, true, true]
        );
        assert!(rounds(1));
        assert!(!(0..20).any(|_| rounds(0)));
        assert!(rounds(ROUNDS_MAX));
    }
}
