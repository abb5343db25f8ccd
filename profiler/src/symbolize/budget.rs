//! Processor time by the owners of files, so that one user's files do not keep the names of all others waiting.

use std::{collections::HashMap, time::Duration};

/// What each owner has used of a batch.
#[derive(Debug, Default)]
pub(super) struct Budget(HashMap<u32, Duration>);

impl Budget {
    /// Adds to what an owner's files have used.
    pub(super) fn charge(&mut self, owner: u32, time: Duration) {
        let used = self.0.entry(owner).or_default();
        *used = used.saturating_add(time);
    }

    /// Whether an owner has not used up so much. Root's files do not compete with anybody's.
    pub(super) fn has(&self, owner: u32, most: Duration) -> bool {
        owner == 0 || self.0.get(&owner).is_none_or(|&used| used < most)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Budget;

    /// What one owner uses up is not taken from another one.
    #[test]
    fn owners_do_not_share() {
        let second = Duration::from_secs(1);
        let mut budget = Budget::default();
        budget.charge(7, second);
        assert!(budget.has(7, 2 * second));
        budget.charge(7, second);
        assert!(!budget.has(7, 2 * second) && budget.has(8, second));
        budget.charge(0, 3 * second);
        assert!(budget.has(0, second));
    }
}
