//! Numbers for what statements do with names: normal forms have no such names, so that the two are kept side by side.
//! Those not asked for during as many others as are remembered are forgotten, and a statement then stands for itself.
//! Pure.

use std::{collections::HashMap, mem, sync::Arc};

use super::protocol::Deed;

/// Deeds remembered in each of two generations: about 300 bytes each.
const DEEDS_MAX: usize = 16_384;

/// Remembers deeds by number, from 1 on.
#[derive(Default)]
pub(super) struct Deeds {
    young: Generation,
    old: Generation,
    last: u32,
}

#[derive(Default)]
struct Generation {
    by_number: HashMap<u32, Arc<Deed>>,
    by_deed: HashMap<Arc<Deed>, u32>,
}

impl Deeds {
    /// The number of a deed.
    pub(super) fn number(&mut self, deed: Deed) -> u32 {
        if let Some(number) = self.young.by_deed.get(&deed) {
            return *number;
        }
        let known = self.old.by_deed.get(&deed).copied();
        let number = known.unwrap_or_else(|| {
            self.last = self.last.checked_add(1).unwrap_or(1);
            self.last
        });
        self.remember(number, Arc::new(deed));
        number
    }

    /// The deed of a number, if it is remembered.
    pub(super) fn get(&mut self, number: u32) -> Option<Arc<Deed>> {
        if let Some(deed) = self.young.by_number.get(&number) {
            return Some(Arc::clone(deed));
        }
        let deed = Arc::clone(self.old.by_number.get(&number)?);
        self.remember(number, Arc::clone(&deed));
        Some(deed)
    }

    fn remember(&mut self, number: u32, deed: Arc<Deed>) {
        if self.young.by_number.len() >= DEEDS_MAX {
            self.old = mem::take(&mut self.young);
        }
        self.young.by_deed.insert(Arc::clone(&deed), number);
        self.young.by_number.insert(number, deed);
    }
}

#[cfg(test)]
mod tests {
    use super::{DEEDS_MAX, Deed, Deeds};

    /// A deed has one number, is remembered while it is asked for, and the others are bounded.
    #[test]
    fn deeds_are_bounded() {
        let mut deeds = Deeds::default();
        let named = |n: usize| Deed::Executes {
            name: n.to_be_bytes().as_slice().into(),
        };
        let first = deeds.number(named(0));
        let second = deeds.number(named(1));
        for n in 2..5 * DEEDS_MAX {
            assert_ne!(deeds.number(named(n)), first);
            if n % 1000 == 0 {
                assert_eq!(deeds.get(first).as_deref(), Some(&named(0)));
            }
            assert!(deeds.young.by_number.len() <= DEEDS_MAX);
        }
        assert_eq!(deeds.number(named(0)), first);
        assert_eq!(deeds.get(second), None);
    }
}
