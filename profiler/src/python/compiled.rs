//! Code that the interpreter itself has compiled (3.13 and later): a part of its evaluator that lies in anonymous memory.
//! Pure.

use std::collections::HashSet;

use crate::process::Place;

/// The first minor version that compiles.
const FIRST_MINOR: u8 = 13;
/// Most places that are remembered; those of more keep their name of anonymous code.
const PLACES_MAX: usize = 1 << 16;

/// Places in compiled code.
#[derive(Debug, Default)]
pub(super) struct Compiled(HashSet<Place>);

impl Compiled {
    /// What runs an activation: its evaluator's frame, at this position of a native stack, or the frame of compiled code
    /// that it has called. `locate` gives the place of a frame. C functions that an evaluator calls lie in files.
    pub(super) fn begin(
        &mut self,
        evaluator: usize,
        minor: u8,
        locate: impl FnOnce(usize) -> Place,
    ) -> usize {
        let Some(called) = evaluator.checked_sub(1) else {
            return evaluator;
        };
        if minor < FIRST_MINOR {
            return evaluator;
        }
        let place = locate(called);
        if !matches!(place, Place::Anonymous { .. }) {
            return evaluator;
        }
        if self.0.len() < PLACES_MAX {
            self.0.insert(place);
        }
        called
    }

    pub(super) fn holds(&self, place: Place) -> bool {
        self.0.contains(&place)
    }
}

#[cfg(test)]
mod tests {
    use super::{Compiled, Place};

    /// An evaluator runs what it has compiled, if it compiles.
    #[test]
    fn compiled_code_is_the_evaluators() {
        let place = Place::Unmapped { address: 1 };
        let mut compiled = Compiled::default();
        assert_eq!(compiled.begin(0, 14, |_| place), 0);
        assert_eq!(compiled.begin(2, 14, |_| place), 2);
        assert!(!compiled.holds(place));
        let place = Place::Anonymous {
            life: crate::process::LifeId::default(),
            address: 7,
        };
        assert_eq!(compiled.begin(2, 12, |_| place), 2);
        assert_eq!(compiled.begin(2, 14, |_| place), 1);
        assert!(compiled.holds(place));
    }
}
