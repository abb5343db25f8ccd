//! How many files are pinned, and for whom: no user's processes may use up what all need. Pure but for the look at
//! whose a process is.

use std::collections::{BTreeSet, HashMap};

use super::files::FileId;
use crate::foreign::proc_facts;

/// Files by the user whose process had them first.
#[derive(Debug, Default)]
pub(super) struct Share {
    users: HashMap<FileId, u32>,
    counts: HashMap<u32, usize>,
}

impl Share {
    /// Whether one more may be pinned for a process: root's have all, those of another user a quarter.
    pub(super) fn has_room(&self, pid: u32, most: usize) -> bool {
        if self.users.len() >= most {
            return false;
        }
        // Below this, whose it is does not matter.
        if self.counts.values().all(|count| *count < most / 4) {
            return true;
        }
        let user = user_of(pid);
        user == 0 || self.counts.get(&user).is_none_or(|count| *count < most / 4)
    }

    pub(super) fn take(&mut self, pid: u32, file: FileId) {
        self.note(user_of(pid), file);
    }

    fn note(&mut self, user: u32, file: FileId) {
        self.users.insert(file, user);
        *self.counts.entry(user).or_default() += 1;
    }

    pub(super) fn give_back(&mut self, files: &BTreeSet<FileId>) {
        for file in files {
            if let Some(user) = self.users.remove(file)
                && let Some(count) = self.counts.get_mut(&user)
            {
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&user);
                }
            }
        }
    }
}

/// The user id by which a process acts; nobody's where it is gone. The owner of `/proc/PID` would not do: a process
/// that forbids its memory to be dumped seems to be root's.
fn user_of(pid: u32) -> u32 {
    let status = proc_facts(pid, "status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let effective = ids.and_then(|ids| ids.split_whitespace().nth(1)?.parse().ok());
    effective.unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{FileId, Share, user_of};

    /// Another user's processes have a quarter, and what is given back is there again.
    #[test]
    fn no_user_takes_all() {
        let (own, gone) = (std::process::id(), u32::MAX);
        let mut share = Share::default();
        for file in 0..4 {
            assert!(share.has_room(gone, 16));
            share.note(u32::MAX, FileId(file));
        }
        assert!(!share.has_room(gone, 16));
        assert_eq!(share.has_room(own, 16), user_of(own) == 0 || own != gone);
        share.give_back(&BTreeSet::from([FileId(2)]));
        assert!(share.has_room(gone, 16));
        for file in 4..17 {
            share.note(0, FileId(file));
        }
        assert!(!share.has_room(own, 16));
    }
}
