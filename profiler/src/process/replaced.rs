//! Mappings that others took the place of: a plug-in that was loaded again, a program that replaced its
//! libraries. Samples from before keep the old names; stacks that were walked with old tables are cut. Pure.

use std::collections::VecDeque;

use super::mappings::{Mapping, Mappings};

/// Most old lists that are kept of a process: a thread may have slept since then.
const KEPT: usize = 4;
/// Most changes that wait for the kernel side to know of them.
const CHANGES_MAX: usize = 64;

/// What a process had before.
#[derive(Clone, Debug, Default)]
pub(super) struct Replaced {
    /// Lists, oldest first, each with the time at which another one took its place, ns.
    past: VecDeque<(u64, Mappings)>,
    changes: VecDeque<Change>,
}

/// Addresses whose code changed, while the kernel side had the old tables.
#[derive(Clone, Copy, Debug)]
struct Change {
    start: u64,
    end: u64,
    since_ns: u64,
    /// From then on the kernel side knows.
    until_ns: u64,
}

impl Replaced {
    /// Code of these addresses was replaced at that time; `old` is what was there.
    pub(super) fn replace(&mut self, (start, end): (u64, u64), since_ns: u64, old: Mappings) {
        if self.past.len() >= KEPT {
            self.past.pop_front();
        }
        self.past.push_back((since_ns, old));
        if self.changes.len() >= CHANGES_MAX {
            self.changes.pop_front();
        }
        self.changes.push_back(Change {
            start,
            end,
            since_ns,
            until_ns: u64::MAX,
        });
    }

    /// The kernel side knows all changes from now on.
    pub(super) fn known_from(&mut self, now_ns: u64) {
        for change in &mut self.changes {
            change.until_ns = change.until_ns.min(now_ns);
        }
    }

    /// The list in force at a time, if it is not the newest.
    pub(super) fn at(&self, time_ns: u64) -> Option<&Mappings> {
        let mut later = self.past.iter().filter(|(until, _)| time_ns < *until);
        later.next().map(|(_, list)| list)
    }

    /// How many frames of a stack are right: the walk beyond the first one in replaced code used old tables.
    pub(super) fn right_frames(&self, time_ns: u64, frames: &[u64]) -> usize {
        let then = |change: &&Change| (change.since_ns..change.until_ns).contains(&time_ns);
        let changes: Vec<&Change> = self.changes.iter().filter(then).collect();
        let is_replaced = |(index, pc): (usize, &u64)| {
            let address = pc.wrapping_sub(u64::from(index > 0));
            let holds = |change: &&Change| (change.start..change.end).contains(&address);
            changes.iter().any(holds)
        };
        let replaced = frames.iter().enumerate().position(is_replaced);
        replaced.map_or(frames.len(), |index| index + 1)
    }

    /// The old lists.
    pub(super) fn lists(&self) -> impl Iterator<Item = &Mappings> {
        self.past.iter().map(|(_, list)| list)
    }

    /// All mappings of the old lists.
    pub(super) fn mappings(&self) -> impl Iterator<Item = &Mapping> {
        self.lists().flat_map(Mappings::iter)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{KEPT, Replaced};
    use crate::process::mappings::{Backing, Mapping, Mappings};

    fn list(start: u64) -> Mappings {
        let mapping = Mapping {
            start,
            end: start + 0x1000,
            file_offset: 0,
            backing: Backing::Anonymous,
        };
        Mappings::new(vec![mapping], Vec::new(), &Arc::default())
    }

    /// A sample from before a change sees the list of its time, a later one the newest.
    #[test]
    fn lists_have_their_times() {
        let mut replaced = Replaced::default();
        replaced.replace((0x1000, 0x2000), 10, list(1));
        replaced.replace((0x1000, 0x2000), 20, list(2));
        let at = |time| {
            let list = replaced.at(time)?;
            list.iter().next().map(|mapping| mapping.start)
        };
        assert_eq!(
            [5, 9, 10, 19, 20].map(at),
            [Some(1), Some(1), Some(2), Some(2), None]
        );
        for time in 0..10 {
            replaced.replace((0, 1), 30 + time, list(3));
        }
        assert_eq!(replaced.past.len(), KEPT);
    }

    /// Between the change and the kernel side's knowledge of it a stack ends with the first frame in such code.
    #[test]
    fn walks_with_old_tables_are_cut() {
        let mut replaced = Replaced::default();
        replaced.replace((0x1000, 0x2000), 10, list(0x1000));
        let frames = [0x5000, 0x1800, 0x6000];
        let right = |replaced: &Replaced, time| replaced.right_frames(time, &frames);
        assert_eq!([9, 10, 1000].map(|time| right(&replaced, time)), [3, 2, 2]);
        replaced.known_from(50);
        assert_eq!([49, 50].map(|time| right(&replaced, time)), [2, 3]);
        assert_eq!(replaced.right_frames(20, &[0x2000]), 1);
        assert_eq!(replaced.right_frames(20, &[0x1fff, 0x3000]), 1);
    }
}
