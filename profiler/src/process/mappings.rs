//! The executable mappings of one process: a sorted list. Pure.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::files::FileId;
use crate::kernel::Remap;

/// What an executable mapping holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Part of a file.
    File(FileId),
    /// The kernel's virtual library.
    Vdso,
    /// Where functions return to that a uretprobe looks at.
    Uprobes,
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

/// Mappings of one process, which never overlap. Processes that were forked share a list.
#[derive(Clone, Debug, Default)]
pub(super) struct Mappings(Arc<List>);

#[derive(Debug, Default)]
struct List {
    sorted: Vec<Mapping>,
    /// Those of files, with what the kernel called the file.
    lines: Vec<Line>,
    _counted: Counted,
}

/// A mapping of a file as the kernel's list has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Line {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) file_offset: u64,
    pub(super) device: (i32, i32),
    pub(super) inode: u64,
}

impl Line {
    /// Whether it is the same file, in the same place.
    fn is_of(&self, remap: &Remap) -> bool {
        let from_start = |offset: u64, start: u64| offset.wrapping_sub(start);
        (self.device, self.inode) == (remap.device, remap.inode)
            && from_start(self.file_offset, self.start)
                == from_start(remap.file_offset, remap.start)
    }
}

/// A part of a sum that is taken out again when this is dropped.
#[derive(Debug, Default)]
struct Counted(usize, Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(self.0, Ordering::Relaxed);
    }
}

impl PartialEq for Mappings {
    fn eq(&self, other: &Self) -> bool {
        self.0.sorted == other.0.sorted && self.0.lines == other.0.lines
    }
}

impl Mappings {
    /// A list from what a scan found; of two that overlap (the process changed during the scan) the
    /// first is kept. `all` counts the mappings of all lists.
    pub(super) fn new(
        mut found: Vec<Mapping>,
        mut lines: Vec<Line>,
        all: &Arc<AtomicUsize>,
    ) -> Self {
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
        found.shrink_to_fit();
        lines.sort_unstable();
        lines.shrink_to_fit();
        all.fetch_add(found.len(), Ordering::Relaxed);
        let counted = Counted(found.len(), Arc::clone(all));
        Self(Arc::new(List {
            sorted: found,
            lines,
            _counted: counted,
        }))
    }

    /// The file of a mapping that was there already. Who maps another file in the same place, whose numbers are equal,
    /// deceives nobody but those who look at this process.
    pub(super) fn known(&self, line: &Line) -> Option<FileId> {
        self.0.lines.binary_search(line).ok()?;
        match self.find(line.start)?.backing {
            Backing::File(file) => Some(file),
            Backing::Vdso | Backing::Uprobes | Backing::Anonymous => None,
        }
    }

    /// Whether another mapping in these addresses replaces what is known here: code that a runtime makes in memory of
    /// its own, and a file that is mapped again as it was, replace nothing.
    pub(super) fn is_replaced(&self, by: &Remap) -> bool {
        let overlapping = self
            .iter()
            .filter(|mapping| mapping.start < by.end && by.start < mapping.end);
        overlapping
            .into_iter()
            .any(|mapping| match mapping.backing {
                Backing::Vdso | Backing::Uprobes => false,
                Backing::Anonymous => by.inode != 0,
                Backing::File(_) => {
                    let line = self.0.lines.iter().find(|line| line.start == mapping.start);
                    line.is_none_or(|line| !line.is_of(by))
                }
            })
    }

    /// Whether it has such a mapping of such a file.
    pub(super) fn has(&self, remap: &Remap) -> bool {
        let is_it = |line: &&Line| line.is_of(remap) && line.start == remap.start;
        remap.inode == 0 || self.0.lines.iter().any(|line| is_it(&line))
    }

    /// A file that is in it, by what the kernel's list calls it.
    pub(super) fn file_of(&self, device: (i32, i32), inode: u64) -> Option<FileId> {
        let mut lines = self.0.lines.iter();
        let line = lines.find(|line| (line.device, line.inode) == (device, inode))?;
        self.known(line)
    }

    /// The same with another mapping in the place of those that it touches; without one if its file is not known.
    pub(super) fn with(&self, remap: &Remap, file: Option<FileId>, all: &Arc<AtomicUsize>) -> Self {
        let &Remap {
            start,
            end,
            file_offset,
            device,
            inode,
            ..
        } = remap;
        let kept = |from: u64, to: u64| to <= start || end <= from;
        let List { sorted, lines, .. } = &*self.0;
        let sorted = sorted.iter().filter(|each| kept(each.start, each.end));
        let lines = lines.iter().filter(|each| kept(each.start, each.end));
        let new = file.map(|file| {
            let line = Line {
                start,
                end,
                file_offset,
                device,
                inode,
            };
            let mapping = Mapping {
                start,
                end,
                file_offset,
                backing: Backing::File(file),
            };
            (mapping, line)
        });
        let (mapping, line) = new.unzip();
        let sorted = sorted.copied().chain(mapping).collect();
        Self::new(sorted, lines.copied().chain(line).collect(), all)
    }

    /// All of them, by address.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Mapping> {
        self.0.sorted.iter()
    }

    /// The mapping that holds an address.
    pub(super) fn find(&self, address: u64) -> Option<&Mapping> {
        let after = self
            .0
            .sorted
            .partition_point(|mapping| mapping.start <= address);
        let mapping = self.0.sorted.get(after.checked_sub(1)?)?;
        (address < mapping.end).then_some(mapping)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use std::sync::{Arc, atomic::AtomicUsize};

    use super::{Backing, FileId, Line, Mapping, Mappings, Remap};

    fn mapping(start: u64, end: u64) -> Mapping {
        Mapping {
            start,
            end,
            file_offset: 0,
            backing: Backing::Anonymous,
        }
    }

    fn list(found: Vec<Mapping>) -> Mappings {
        Mappings::new(found, Vec::new(), &Arc::default())
    }

    /// A file is known again by all that the kernel says of its mapping, and by nothing less.
    #[test]
    fn files_are_known_again() {
        let all = Arc::new(AtomicUsize::new(0));
        let line = Line {
            start: 0x1000,
            end: 0x2000,
            file_offset: 0,
            device: (8, 1),
            inode: 7,
        };
        let file = Mapping {
            backing: Backing::File(FileId(3)),
            ..mapping(0x1000, 0x2000)
        };
        let mappings = Mappings::new(vec![file, mapping(0x3000, 0x4000)], vec![line], &all);
        assert_eq!(mappings.known(&line), Some(FileId(3)));
        let other_device = Line {
            device: (8, 2),
            ..line
        };
        assert_eq!(mappings.known(&other_device), None);
        let sum = || all.load(std::sync::atomic::Ordering::Relaxed);
        let child = mappings.clone();
        assert_eq!(sum(), 2, "a child has the same list");
        drop(mappings);
        assert_eq!(sum(), 2);
        drop(child);
        assert_eq!(sum(), 0);
    }

    /// A mapping of another file replaces what was there; the same file in the same place does not, nor what a runtime
    /// makes in its own memory.
    #[test]
    fn another_file_replaces() {
        let line = |start: u64, inode| Line {
            start,
            end: start + 0x1000,
            file_offset: 0,
            device: (8, 1),
            inode,
        };
        let file = |start: u64, id| Mapping {
            backing: Backing::File(FileId(id)),
            ..mapping(start, start + 0x1000)
        };
        let remap = |start: u64, inode| Remap {
            start,
            end: start + 0x1000,
            device: (8, 1),
            inode,
            ..Remap::default()
        };
        let all = Arc::default();
        let found = vec![file(0x1000, 3), file(0x4000, 5), mapping(0x8000, 0x9000)];
        let mappings = Mappings::new(found, vec![line(0x1000, 7), line(0x4000, 9)], &all);
        let replaced = [
            (0x1000, 7),
            (0x1000, 8),
            (0x2000, 8),
            (0x8000, 0),
            (0x8000, 8),
        ];
        let replaced = replaced.map(|(start, inode)| mappings.is_replaced(&remap(start, inode)));
        assert_eq!(replaced, [false, true, false, false, true]);
        let by = remap(0x1000, 9);
        let known = mappings.file_of(by.device, by.inode);
        assert_eq!(known, Some(FileId(5)));
        let new = mappings.with(&by, known, &all);
        assert!(new.has(&by) && !mappings.has(&by));
        assert_eq!(new.find(0x1800), Some(&file(0x1000, 5)));
        assert_eq!(mappings.with(&by, None, &all).find(0x1800), None);
    }

    /// Both ends of a mapping, and the gaps around it.
    #[test]
    fn ends_are_half_open() {
        let mappings = list(vec![mapping(0x3000, 0x4000), mapping(0x1000, 0x2000)]);
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
            let mappings = list(ranges.iter().map(|&(start, length)| mapping(start, start + length)).collect());
            let scanned = mappings.0.sorted.iter().find(|m| m.start <= address && address < m.end);
            prop_assert_eq!(mappings.find(address), scanned);
            prop_assert!(mappings.0.sorted.windows(2).all(|pair| pair[0].end <= pair[1].start));
        }
    }
}
