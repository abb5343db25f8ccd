//! The form of unwind tables and mappings in the kernel side's maps.
//!
//! From an address to its rule: [`Space`] of the process → [`Mapping`] that holds the address →
//! [`Page`] of 64 KiB of the file → row, which begins at an address of that page → [`Rule`](super::Rule).
//!
//! A row is a word: the low 16 bits of its address above, the number of its rule below, so that rows
//! sort by address. Each page begins with the rule in force, so that one page suffices.

use core::ptr;

/// Address bits within a page of a table.
pub const PAGE_BITS: u32 = 16;
/// Rows in one element of a map: the kernel pads elements to 8 bytes and looks up whole elements.
pub const ROWS_PER_BLOCK: usize = 64;
/// Elements of one segment: 1 MiB.
pub const BLOCKS_PER_SEGMENT: usize = 4096;
/// Rows of one segment. The rows of a page never straddle two segments.
pub const ROWS_PER_SEGMENT: u32 = 1 << 18;

const _: () = assert!(ROWS_PER_SEGMENT as usize == ROWS_PER_BLOCK * BLOCKS_PER_SEGMENT);

/// The mappings of a process: a range of the array of mappings. Packed into one word, so that it is
/// replaced in one piece. Processes that forked from another share its range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Space(pub u64);

impl Space {
    /// A range.
    #[must_use]
    pub const fn new(first: u32, count: u32) -> Self {
        Self((count as u64) << 32 | first as u64)
    }

    /// Position of its first mapping.
    #[must_use]
    pub const fn first(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }

    /// Number of its mappings.
    #[must_use]
    pub const fn count(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// One executable mapping. Those of a process are sorted and do not overlap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
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
pub struct Mapping {
    /// First address.
    pub begin: u64,
    /// First address behind it.
    pub end: u64,
    /// What the addresses of the process are above those of the file.
    pub bias: u64,
    /// Number of the file's first page that has rows.
    pub first_page: u32,
    /// Number of pages with rows from there on; 0 for code without a table.
    pub pages: u32,
    /// Position of the first one in the array of pages.
    pub page_base: u32,
    /// Position of the file's first rule in the array of rules.
    pub rule_base: u32,
}

impl Mapping {
    /// In place of the position of its rules: the page to which functions return that a uretprobe looks at.
    pub const UPROBES: u32 = u32::MAX;

    /// Whether it is that page.
    #[must_use]
    pub const fn is_uprobes(&self) -> bool {
        self.pages == 0 && self.rule_base == Self::UPROBES
    }
}

/// Where the rows of one page lie.
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
pub struct Page {
    /// Which segment.
    pub segment: u16,
    /// How many; 0 where nothing in the page is covered.
    pub count: u16,
    /// Position of the first one in the segment.
    pub first: u32,
}

const _: () = assert!(size_of::<Mapping>() == 40 && size_of::<Page>() == 8);

/// A row from its parts.
#[must_use]
pub const fn row(low: u16, rule: u16) -> u32 {
    (low as u32) << 16 | rule as u32
}

/// The number of a row's rule.
#[must_use]
pub const fn rule_of(row: u32) -> u32 {
    row & 0xffff
}

/// Steps of a search: enough for the largest `count` of [`search`].
pub const SEARCH_STEPS: u32 = 16;
/// Most elements that [`search`] looks through.
pub const SEARCH_MAX: u32 = (1 << SEARCH_STEPS) - 1;

/// Where a search stands. It lies in memory that the verifier does not follow (a map's value), and is
/// read and written volatile, so that all ways through a step of the search end in the same state:
/// with bounds in registers their number doubles with each step.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Bounds {
    low: u32,
    high: u32,
}

impl Bounds {
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "compiled into a bpf_loop callback")]
    fn get(&self) -> (u32, u32) {
        // SAFETY: a live reference to plain data.
        let low = unsafe { ptr::read_volatile(&raw const self.low) };
        // SAFETY: as above.
        (low, unsafe { ptr::read_volatile(&raw const self.high) })
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "compiled into a bpf_loop callback")]
    fn set(bound: &mut u32, value: u32) {
        // SAFETY: a live reference to plain data.
        unsafe { ptr::write_volatile(&raw mut *bound, value) };
    }
}

/// Position of the last of `count` sorted elements for which `is_before` holds, `None` if it holds
/// for none. An element that cannot be read (`None`) ends the search.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled into a bpf_loop callback")]
pub fn search(
    bounds: &mut Bounds,
    count: u32,
    is_before: impl Fn(u32) -> Option<bool>,
) -> Option<u32> {
    Bounds::set(&mut bounds.low, 0);
    Bounds::set(&mut bounds.high, count);
    for _ in 0..SEARCH_STEPS {
        let (low, high) = bounds.get();
        if low >= high {
            break;
        }
        let middle = low + (high - low) / 2;
        if is_before(middle)? {
            Bounds::set(&mut bounds.low, middle + 1);
        } else {
            Bounds::set(&mut bounds.high, middle);
        }
    }
    bounds.get().0.checked_sub(1)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::{Bounds, SEARCH_MAX, Space, row, rule_of, search};

    /// Nothing is lost in the packing.
    #[test]
    fn packing_is_reversible() {
        let space = Space::new(u32::MAX, 77);
        assert_eq!((space.first(), space.count()), (u32::MAX, 77));
        assert_eq!(rule_of(row(0xffff, 0x1234)), 0x1234);
        assert!(row(2, 0) > row(1, 0xffff));
    }

    proptest! {
        /// The search agrees with looking at every element, at any length it may have.
        #[test]
        fn search_agrees_with_a_scan(count in 0..=SEARCH_MAX, position in 0..=SEARCH_MAX) {
            let found = search(&mut Bounds::default(), count, |index| Some(index < position));
            prop_assert_eq!(found, count.min(position).checked_sub(1));
        }

        /// Of rows with equal addresses the last one counts.
        #[test]
        fn equal_rows(mut lows in proptest::collection::vec(0_u16..50, 0..40), target in 0_u16..60) {
            lows.sort_unstable();
            let rows: Vec<u32> = (0..).zip(&lows).map(|(rule, &low)| row(low, rule)).collect();
            let count = u32::try_from(rows.len()).unwrap();
            let found = search(&mut Bounds::default(), count, |index| Some(rows[index as usize] <= row(target, 0xffff)));
            let scanned = lows.iter().rposition(|&low| low <= target);
            prop_assert_eq!(found.map(|index| index as usize), scanned);
        }
    }
}
