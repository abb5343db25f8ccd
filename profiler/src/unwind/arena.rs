//! Which elements of an array are free. Pure.

use std::collections::BTreeMap;

/// Free ranges by their first element, never adjoining.
#[derive(Clone, Debug)]
pub(super) struct Arena {
    free: BTreeMap<u32, u32>,
}

impl Arena {
    /// All elements below `length` are free.
    pub(super) fn new(length: u32) -> Self {
        Self {
            free: BTreeMap::from([(0, length)]),
        }
    }

    /// Takes the first range of that length; `None` where there is none.
    pub(super) fn take(&mut self, length: u32) -> Option<u32> {
        if length == 0 {
            return Some(0);
        }
        let (&first, &room) = self.free.iter().find(|&(_, &room)| room >= length)?;
        self.free.remove(&first);
        if room > length {
            self.free.insert(first + length, room - length);
        }
        Some(first)
    }

    /// Gives a range back.
    pub(super) fn give_back(&mut self, first: u32, length: u32) {
        if length == 0 {
            return;
        }
        let (mut first, mut length) = (first, length);
        if let Some(next) = self.free.remove(&(first + length)) {
            length += next;
        }
        if let Some((&before, &room)) = self.free.range(..first).next_back()
            && before + room == first
        {
            first = before;
            length += room;
        }
        self.free.insert(first, length);
    }

    /// Elements that are free.
    pub(super) fn free(&self) -> u32 {
        self.free.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Arena;

    proptest! {
        /// No two takers have the same element, and what is given back can be taken again.
        #[test]
        fn ranges_do_not_overlap(lengths in proptest::collection::vec((1_u32..20, any::<bool>()), 1..60)) {
            let mut arena = Arena::new(200);
            let mut taken: Vec<(u32, u32)> = Vec::new();
            for (length, give_back) in lengths {
                if let Some(first) = arena.take(length) {
                    prop_assert!(first + length <= 200);
                    prop_assert!(taken.iter().all(|&(f, l)| first + length <= f || f + l <= first));
                    taken.push((first, length));
                }
                if give_back && !taken.is_empty() {
                    let (first, length) = taken.remove(taken.len() / 2);
                    arena.give_back(first, length);
                }
                let used: u32 = taken.iter().map(|&(_, length)| length).sum();
                prop_assert_eq!(arena.free(), 200 - used);
            }
            for (first, length) in taken {
                arena.give_back(first, length);
            }
            prop_assert_eq!(arena.take(200), Some(0));
        }
    }
}
