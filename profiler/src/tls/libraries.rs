//! Which files with OpenSSL the targets map: each gets its probes once, and they are in force for all processes, those
//! that come later too.
//!
//! Processes load libraries when they like, so they are looked at again: each time while they are young, then by turns.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use procfs::process::MMPermissions;
use rustc_hash::FxHashSet;

use super::functions::{self, Found};
use crate::{
    foreign::{Contents, Identity, Refusals, Refused, Regular, Root},
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
/// Most files that are looked at.
const SEEN_MAX: usize = 65_536;
/// Most mappings of code of one process that are looked at.
const MAPPED_MAX: usize = 4096;

/// A mapping as its process's list has it: start, device and inode number.
type Line = (u64, (i32, i32), u64);

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
    /// Files that were looked at.
    seen: FxHashSet<Identity>,
    /// Files with probes, by device and inode number: a second set of probes would count everything twice.
    attached: FxHashSet<(u64, u64)>,
    /// Mappings of processes that were looked at, by its id. What another process
    /// says of its mappings is never believed of this one's.
    mapped: BTreeMap<u32, FxHashSet<Line>>,
    refusals: Refusals,
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
        self.mapped.remove(&pid);
        self.young.push((pid, now));
    }

    /// A target is gone.
    pub(crate) fn process_ended(&mut self, pid: u32) {
        self.pids.remove(&pid);
        self.mapped.remove(&pid);
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
    pub(crate) fn notes(&self) -> BTreeMap<String, u64> {
        let refused = self.refusals.notes();
        let refused = refused.map(|(cause, count)| (cause.to_owned(), count));
        self.notes.clone().into_iter().chain(refused).collect()
    }

    fn look_at_system(&mut self, kernel: &mut Kernel) {
        let Ok(root) = Root::of(std::process::id()) else {
            return;
        };
        for entry in SYSTEM.iter().flat_map(fs::read_dir).flatten().flatten() {
            let is_it = entry.file_name().to_string_lossy().starts_with(SYSTEM_NAME);
            if is_it && let Ok(found) = root.find(&entry.path()) {
                self.look_once(&found, &entry.path(), kernel);
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
            if !map.perms.contains(MMPermissions::EXECUTE) {
                continue;
            }
            let seen = self.mapped.entry(pid).or_default();
            if seen.len() >= MAPPED_MAX {
                break;
            }
            if !seen.insert((map.address.0, map.dev, map.inode)) {
                continue;
            }
            match process::file_of(pid, &memory) {
                Ok(found) => self.look_once(&found, path, kernel),
                Err(cause) => self.refusals.count(cause),
            }
        }
    }

    /// Looks into a file, unless that was done.
    fn look_once(&mut self, found: &Regular, path: &Path, kernel: &mut Kernel) {
        if self.seen.len() >= SEEN_MAX || !self.seen.insert(found.identity()) {
            return;
        }
        match found.open() {
            Ok(file) => self.look_into(&file, found.identity(), path, kernel),
            Err(cause) => self.refusals.count(cause),
        }
    }

    fn look_into(&mut self, file: &File, identity: Identity, path: &Path, kernel: &mut Kernel) {
        let contents = Contents::of(file);
        let found = functions::find(&contents);
        if contents.is_too_large() {
            self.refusals.count(Refused::TooLarge);
        }
        let Some(found) = found else {
            return;
        };
        if !self.attached.insert(identity.numbers()) {
            return;
        }
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
