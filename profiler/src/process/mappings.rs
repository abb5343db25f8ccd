//! The executable mappings of one process: a sorted list. Pure.

use super::files::FileId;

/// What an executable mapping holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Part of a file.
    File(FileId),
    /// The kernel's virtual library.
    Vdso,
    /// Memory without a file: code that a runtime made.
    Anonymous,
}

/// One executable mapping: `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Offset in the file of what is mapped at `start`.
    pub file_offset: u64,
    /// What is mapped.
    pub backing: Backing,
}

/// Mappings of one process, which never overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mappings {
    sorted: Vec<Mapping>,
}

impl Mappings {
    /// A list from what a scan found; of two that overlap (the process changed during the scan) the
    /// first is kept.
    pub(super) fn new(mut found: Vec<Mapping>) -> Self {
        found.retain(|mapping| mapping.start < mapping.end);
        found.sort_by_key(|mapping| mapping.start);
        let mut end = 0;
        found.retain(|mapping| {
            let fits = mapping.start >= end;
            if fits {
                end = mapping.end;
            }
            fits
        });
        Self { sorted: found }
    }

    /// All of them, by address.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Mapping> {
        self.sorted.iter()
    }

    /// The mapping that holds an address.
    pub(super) fn find(&self, address: u64) -> Option<&Mapping> {
        let after = self
            .sorted
            .partition_point(|mapping| mapping.start <= address);
        let mapping = self.sorted.get(after.checked_sub(1)?)?;
        (address < mapping.end).then_some(mapping)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Backing, Mapping, Mappings};

    fn mapping(start: u64, end: u64) -> Mapping {
        Mapping {
            start,
            end,
            file_offset: 0,
            backing: Backing::Anonymous,
        }
    }

    /// Both ends of a mapping, and the gaps around it.
    #[test]
    fn ends_are_half_open() {
        let mappings = Mappings::new(vec![mapping(0x3000, 0x4000), mapping(0x1000, 0x2000)]);
        let found = |address| mappings.find(address).map(|mapping| mapping.start);
        assert_eq!(
            (found(0xfff), found(0x1000), found(0x1fff), found(0x2000)),
            (None, Some(0x1000), Some(0x1000), None)
        );
        assert_eq!(
            (found(0x3fff), found(0x4000), found(u64::MAX)),
            (Some(0x3000), None, None)
        );
    }

    proptest! {
        /// The search agrees with looking at every mapping.
        #[test]
        fn search_agrees_with_a_scan(ranges in proptest::collection::vec((0_u64..200, 0_u64..20), 0..20), address in 0_u64..250) {
            let mappings = Mappings::new(ranges.iter().map(|&(start, length)| mapping(start, start + length)).collect());
            let scanned = mappings.sorted.iter().find(|m| m.start <= address && address < m.end);
            prop_assert_eq!(mappings.find(address), scanned);
            prop_assert!(mappings.sorted.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }
}
