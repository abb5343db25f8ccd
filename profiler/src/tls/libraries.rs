//! Which files with OpenSSL the targets map: each gets its probes once, and they are in force for all processes, those
//! that come later too.
//!
//! Processes load libraries when they like, so they are looked at again: each time while they are young, then by turns.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use object::ReadCache;
use procfs::process::MMPermissions;
use rustc_hash::FxHashSet;

use super::functions::{self, Found};
use crate::{
    kernel::{Kernel, KernelError},
    process::{self, Content, Memory},
};

/// How often processes are looked at again.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Most processes that are looked at then: a list of mappings takes some 0.2 ms.
const LOOKS_MAX: usize = 64;
/// How long a process that runs another program is young: it maps its libraries within some milliseconds.
const YOUNG: Duration = Duration::from_millis(300);
/// Where this system keeps its own library. It is looked for before any process maps it, as one that encrypts within
/// milliseconds of its start would be ahead of us.
const SYSTEM: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
];
const SYSTEM_NAME: &str = "libssl.so";

/// What was found, and what is to be looked at.
#[derive(Debug, Default)]
pub(crate) struct Libraries {
    is_on: bool,
    /// Processes that are targets, as far as they were met.
    pids: BTreeSet<u32>,
    /// Of those, which began to run their program lately, and when.
    young: Vec<(u32, Instant)>,
    /// Whose turn it was last, and when the next ones are due.
    last: u32,
    next_look: Option<Instant>,
    /// Files that were looked at: device and inode number.
    seen: FxHashSet<(i32, i32, u64)>,
    notes: BTreeMap<String, u64>,
}

impl Libraries {
    /// Begins to attach.
    pub(crate) fn turn_on(&mut self, kernel: &mut Kernel) {
        if std::mem::replace(&mut self.is_on, true) {
            return;
        }
        self.look_at_system(kernel);
        for pid in self.pids.clone() {
            self.look_at(pid, kernel);
        }
    }

    /// A process is a target.
    pub(crate) fn meet(&mut self, pid: u32) {
        self.pids.insert(pid);
    }

    /// A target runs another program.
    pub(crate) fn program_began(&mut self, pid: u32, now: Instant) {
        self.pids.insert(pid);
        self.young.push((pid, now));
    }

    /// A target is gone.
    pub(crate) fn process_ended(&mut self, pid: u32) {
        self.pids.remove(&pid);
        self.young.retain(|(young, _)| *young != pid);
    }

    /// Looks at processes that are due.
    pub(crate) fn look(&mut self, now: Instant, kernel: &mut Kernel) {
        let is_young = |(_, began): &(u32, Instant)| now.saturating_duration_since(*began) < YOUNG;
        self.young.retain(is_young);
        if !self.is_on {
            return;
        }
        for (pid, _) in self.young.clone() {
            self.look_at(pid, kernel);
        }
        if self.next_look.is_some_and(|due| now < due) {
            return;
        }
        self.next_look = Some(now + LOOK_EVERY);
        for pid in turns(&self.pids, self.last) {
            self.last = pid;
            self.look_at(pid, kernel);
        }
    }

    /// What could not be followed, with how often.
    pub(crate) fn notes(&self) -> &BTreeMap<String, u64> {
        &self.notes
    }

    fn look_at_system(&mut self, kernel: &mut Kernel) {
        for entry in SYSTEM.iter().flat_map(fs::read_dir).flatten().flatten() {
            let is_it = entry.file_name().to_string_lossy().starts_with(SYSTEM_NAME);
            let Ok(file) = File::open(entry.path()) else {
                continue;
            };
            let Some(found) = file.metadata().ok().filter(|_| is_it) else {
                continue;
            };
            let part = |number: u32| i32::try_from(number).unwrap_or(-1);
            let (major, minor) = (
                rustix::fs::major(found.dev()),
                rustix::fs::minor(found.dev()),
            );
            if self.seen.insert((part(major), part(minor), found.ino())) {
                self.look_into(&file, &entry.path(), kernel);
            }
        }
    }

    fn look_at(&mut self, pid: u32, kernel: &mut Kernel) {
        for memory in process::memory(pid) {
            let Memory {
                map,
                content: Content::File(path),
            } = &memory
            else {
                continue;
            };
            let identity = (map.dev.0, map.dev.1, map.inode);
            if !map.perms.contains(MMPermissions::EXECUTE) || self.seen.contains(&identity) {
                continue;
            }
            if let Some(file) = process::open(pid, &memory) {
                self.seen.insert(identity);
                self.look_into(&file, path, kernel);
            }
        }
    }

    fn look_into(&mut self, file: &File, path: &Path, kernel: &mut Kernel) {
        let cache = ReadCache::new(file);
        let Some(found) = functions::find(&cache) else {
            return;
        };
        for (name, cause) in &found.left_out {
            self.note(format!("{name} of {} left out, {cause}", path.display()));
        }
        if let Err(error) = attach(file, &found, kernel) {
            self.note(format!("{} not followed, {error}", path.display()));
        }
    }

    fn note(&mut self, note: String) {
        *self.notes.entry(note).or_default() += 1;
    }
}

/// Attaches to the file itself, whatever its name leads to by now.
fn attach(file: &File, found: &Found, kernel: &mut Kernel) -> Result<(), KernelError> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    for function in &found.functions {
        kernel.attach_passing(&path, function.passing, function.entry, &function.returns)?;
    }
    match found.free {
        Some(entry) => kernel.attach_free(&path, entry),
        None => Ok(()),
    }
}

/// Whose turn it is: those behind the last one, round about.
fn turns(pids: &BTreeSet<u32>, last: u32) -> Vec<u32> {
    let behind = pids.range(last.saturating_add(1)..);
    let before = pids.range(..=last);
    behind.chain(before).copied().take(LOOKS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{LOOKS_MAX, turns};

    /// Everybody has a turn, nobody two at once.
    #[test]
    fn turns_go_round() {
        let pids: BTreeSet<u32> = (1..=100).collect();
        let first = turns(&pids, 0);
        let second = turns(&pids, first[first.len() - 1]);
        assert_eq!((first.len(), second.len()), (LOOKS_MAX, LOOKS_MAX));
        assert_eq!(
            first.iter().chain(&second).collect::<BTreeSet<_>>().len(),
            100
        );
        assert_eq!(turns(&BTreeSet::from([7]), 7), [7]);
    }
}
