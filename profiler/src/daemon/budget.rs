//! What is cut when the daemon uses more CPU time than it may, and what comes back. Pure: readings in, changes
//! out.

/// Readings over the limit in a row that make a cut.
const OVER: u32 = 2;
/// Readings below half of the limit in a row that take one back.
const BELOW: u32 = 6;

/// What there is to cut, how much of it is cut, and how long the readings have been what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Budget<C> {
    limit_ppm: u64,
    frequency_hz: Option<u64>,
    /// Optional capture that is on, in the order in which it is shed once the rate is as low as it goes.
    optional: Vec<C>,
    /// Cuts in force: halvings of the rate, then capabilities shed.
    cuts: usize,
    over: u32,
    below: u32,
}

/// How much is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Allowed<C> {
    /// Rate of sampling, if it is on.
    pub(crate) frequency_hz: Option<u64>,
    /// What is shed.
    pub(crate) shed: Vec<C>,
}

impl<C: Clone> Budget<C> {
    /// Nothing is cut.
    pub(crate) fn new(limit_ppm: u32, frequency_hz: Option<u64>, optional: Vec<C>) -> Self {
        Self {
            limit_ppm: u64::from(limit_ppm),
            frequency_hz,
            optional,
            cuts: 0,
            over: 0,
            below: 0,
        }
    }

    /// Another limit for what is cut already.
    pub(crate) fn set_limit(&mut self, limit_ppm: u32) {
        self.limit_ppm = u64::from(limit_ppm);
    }

    /// Takes a reading in: millionths of the time of all CPUs. Gives what is allowed, if that has changed.
    pub(crate) fn reading(&mut self, ppm: u64) -> Option<Allowed<C>> {
        self.over = if ppm > self.limit_ppm {
            self.over + 1
        } else {
            0
        };
        self.below = if ppm < self.limit_ppm / 2 {
            self.below + 1
        } else {
            0
        };
        if self.over >= OVER && self.cuts < self.cuts_max() {
            self.cuts += 1;
        } else if self.below >= BELOW && self.cuts > 0 {
            self.cuts -= 1;
        } else {
            return None;
        }
        self.over = 0;
        self.below = 0;
        Some(self.allowed())
    }

    /// Whether nothing is cut.
    pub(crate) fn is_whole(&self) -> bool {
        self.cuts == 0
    }

    /// What is allowed now.
    pub(crate) fn allowed(&self) -> Allowed<C> {
        let halvings = self.cuts.min(self.halvings_max());
        Allowed {
            frequency_hz: self.frequency_hz.map(|hz| (hz >> halvings).max(1)),
            shed: self.optional[..self.cuts - halvings].to_vec(),
        }
    }

    fn cuts_max(&self) -> usize {
        self.halvings_max() + self.optional.len()
    }

    /// Until 1 Hz is left.
    fn halvings_max(&self) -> usize {
        self.frequency_hz
            .and_then(u64::checked_ilog2)
            .and_then(|halvings| usize::try_from(halvings).ok())
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::{BELOW, Budget};

    fn budget() -> Budget<&'static str> {
        Budget::new(10_000, Some(19), vec!["syscalls", "tcp"])
    }

    fn rates(budget: &mut Budget<&'static str>, readings: &[u64]) -> Vec<u64> {
        let mut changes = Vec::new();
        for &ppm in readings {
            let allowed = budget.reading(ppm);
            changes.extend(allowed.and_then(|allowed| allowed.frequency_hz));
        }
        changes
    }

    /// One reading over the limit is nothing; two halve the rate, and so on to 1 Hz; then optional capture goes,
    /// one after the other.
    #[test]
    fn over_budget_halves_the_rate() {
        let mut budget = budget();
        assert_eq!(
            rates(&mut budget, &[10_001, 9_000, 10_001, 10_000]),
            [0_u64; 0]
        );
        assert_eq!(rates(&mut budget, &[20_000; 8]), [9, 4, 2, 1]);
        assert_eq!(budget.allowed().shed, [""; 0]);
        assert_eq!(rates(&mut budget, &[20_000; 2]), [1]);
        assert_eq!(budget.allowed().shed, ["syscalls"]);
        assert_eq!(rates(&mut budget, &[20_000; 20]), [1]);
        assert_eq!(budget.allowed().shed, ["syscalls", "tcp"]);
        assert!(!budget.is_whole());
    }

    /// Below half of the limit for some time it comes back step by step; between half and all nothing changes.
    #[test]
    fn recovers_stepwise() {
        let mut budget = budget();
        rates(&mut budget, &[20_000; 4]);
        assert_eq!(rates(&mut budget, &[6_000; 50]), [0_u64; 0]);
        let calm = [100; 2 * BELOW as usize];
        assert_eq!(rates(&mut budget, &calm), [9, 19]);
        assert!(budget.is_whole());
        assert_eq!(rates(&mut budget, &calm), [0_u64; 0]);
    }

    /// A reading that is not calm begins the waiting anew.
    #[test]
    fn calm_must_last() {
        let mut budget = budget();
        rates(&mut budget, &[20_000; 2]);
        assert_eq!(
            rates(&mut budget, &[100, 100, 100, 100, 100, 7_000, 100, 100]),
            [0_u64; 0]
        );
    }

    /// Without sampling there is nothing to cut yet.
    #[test]
    fn nothing_to_cut() {
        let mut budget = Budget::<()>::new(1, None, Vec::new());
        assert_eq!((0..10).find_map(|_| budget.reading(1_000_000)), None);
    }
}
