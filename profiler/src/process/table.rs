//! The table of processes: lives, mappings, and the look-up of an address.
//!
//! An address in no known mapping (a library loaded since) triggers a new scan, with a growing pause
//! between scans of one process that find nothing new, so that wild addresses cost little.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    fs::File,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    files::{FileId, Files, PinnedFile},
    mappings::{Backing, Mapping, Mappings},
    replaced::Replaced,
    scan,
};
use crate::{
    command_line::CommandLines,
    foreign::{Spent, silence},
    profile::Process,
    python::CodeId,
};

/// First pause after a scan that did not help; doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// Longest pause: a library loaded after a wild address is found within this.
const PAUSE_MAX: Duration = Duration::from_millis(640);
/// Pause between looks for a perf map: compiled code can be in every frame.
const PERF_MAP_PAUSE: Duration = Duration::from_millis(100);
/// What looks at one process's mappings may take at once, before they have to wait: some hundred of an ordinary one.
const LOOKS_FREE: Duration = Duration::from_millis(50);
/// When a process that has just begun is looked at again, after its beginning: it maps its libraries now.
const YOUNG: [Duration; 6] = [
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(4),
    Duration::from_millis(10),
    Duration::from_millis(30),
    Duration::from_millis(100),
];
/// Most processes that are looked at again.
const YOUNG_MAX: usize = 256;

/// One life of a process: a process that executes another program, or another one under the same
/// id, is another life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LifeId(u32);

/// Where an address lies, good beyond the life of its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// At this address of the kernel.
    Kernel(u64),
    /// At this offset of a file.
    File {
        /// Which.
        file: FileId,
        /// Bytes from its beginning.
        offset: u64,
    },
    /// At this offset of the kernel's virtual library.
    Vdso {
        /// Bytes from its beginning.
        offset: u64,
    },
    /// Where functions return to that a uretprobe looks at.
    Uretprobe,
    /// In code that a runtime made.
    Anonymous {
        /// By which process.
        life: LifeId,
        /// Where.
        address: u64,
    },
    /// In a Python function.
    Python {
        /// Which.
        code: CodeId,
        /// At this line, 0 where it is not known.
        line: u32,
    },
    /// In no mapping, or the process ended before its mappings were read.
    Unmapped {
        /// Where.
        address: u64,
    },
}

/// What a sweep forgot.
#[derive(Debug, Default)]
pub struct Swept {
    /// Processes.
    pub ended: Vec<u32>,
    /// Files, which keep their positions, empty.
    pub files: BTreeSet<FileId>,
}

/// The table.
#[derive(Debug)]
pub struct Processes {
    command_lines: CommandLines,
    pub(super) known: HashMap<u32, Known>,
    pub(super) files: Files,
    /// Perf maps of lives, once one was needed and found.
    perf_maps: HashMap<LifeId, Arc<File>>,
    lives: u32,
    ended_unread: u64,
    pub(super) changed: BTreeSet<u32>,
    /// Processes to be looked at again: when, whom, and the place of the look in `YOUNG`.
    young: BTreeSet<(Instant, u32, usize)>,
}

#[derive(Debug)]
pub(super) struct Known {
    pub(super) life: LifeId,
    comm: Option<String>,
    cgroup: Option<String>,
    command_line: Option<String>,
    pub(super) mappings: Mappings,
    pub(super) replaced: Replaced,
    pub(super) looks: Spent,
    pause: Duration,
    next_scan: Option<Instant>,
    /// When its perf map is looked for again, which it did not have.
    next_perf_map: Option<Instant>,
}

impl Processes {
    /// An empty table, with names of command lines. Raises this process's limit of open files.
    pub fn new() -> Self {
        Self::keeping(CommandLines::Names)
    }

    /// The same, with as much of command lines.
    pub fn keeping(command_lines: CommandLines) -> Self {
        Self {
            command_lines,
            known: HashMap::new(),
            files: Files::new(),
            perf_maps: HashMap::new(),
            lives: 0,
            ended_unread: 0,
            changed: BTreeSet::new(),
            young: BTreeSet::new(),
        }
    }

    /// First sight of a process: reads its name and mappings and pins its files. Does nothing for
    /// one that is known.
    pub fn observe(&mut self, pid: u32) {
        if self.known.contains_key(&pid) {
            return;
        }
        let life = self.begin_life();
        let mut looks = Spent::new(Instant::now(), LOOKS_FREE);
        let mappings = read_mappings(pid, &Mappings::default(), &mut looks, &mut self.files);
        if mappings.is_none() {
            self.ended_unread += 1;
        }
        let known = Known {
            life,
            comm: scan::comm(pid),
            cgroup: scan::cgroup(pid),
            command_line: scan::command_line(pid, self.command_lines),
            mappings: mappings.unwrap_or_default(),
            replaced: Replaced::default(),
            looks,
            pause: PAUSE_MIN,
            next_scan: None,
            next_perf_map: None,
        };
        self.known.insert(pid, known);
        self.changed.insert(pid);
        self.look_later(pid, 0, Instant::now());
    }

    /// A known process created another one, which begins with the same mappings: nothing is read.
    pub fn forked(&mut self, parent: u32, child: u32, comm: &str) {
        let life = self.begin_life();
        let Some(known) = self.known.get(&parent) else {
            return;
        };
        let child_known = Known {
            life,
            comm: Some(comm.to_owned()),
            cgroup: known.cgroup.clone(),
            command_line: known.command_line.clone(),
            mappings: known.mappings.clone(),
            replaced: known.replaced.clone(),
            looks: Spent::new(Instant::now(), LOOKS_FREE),
            pause: PAUSE_MIN,
            next_scan: None,
            next_perf_map: None,
        };
        self.known.insert(child, child_known);
    }

    /// A process executes another program: nothing known of it holds, the next address triggers a
    /// scan.
    pub fn execed(&mut self, pid: u32, comm: &str) {
        let life = self.begin_life();
        let mut looks = Spent::new(Instant::now(), LOOKS_FREE);
        let mappings = read_mappings(pid, &Mappings::default(), &mut looks, &mut self.files);
        let known = Known {
            life,
            comm: Some(comm.to_owned()),
            cgroup: scan::cgroup(pid),
            command_line: scan::command_line(pid, self.command_lines),
            mappings: mappings.unwrap_or_default(),
            replaced: Replaced::default(),
            looks,
            pause: PAUSE_MIN,
            next_scan: None,
            next_perf_map: None,
        };
        self.known.insert(pid, known);
        self.changed.insert(pid);
        self.look_later(pid, 0, Instant::now());
    }

    /// A process ended. Files stay pinned, for what was sampled in them.
    pub fn exited(&mut self, pid: u32) {
        self.known.remove(&pid);
    }

    /// Where an address of a process lies, now.
    pub fn locate(&mut self, pid: u32, address: u64) -> Place {
        self.locate_at(pid, address, Instant::now())
    }

    fn locate_at(&mut self, pid: u32, address: u64, now: Instant) -> Place {
        let Self {
            known,
            files,
            changed,
            ..
        } = self;
        let Entry::Occupied(mut entry) = known.entry(pid) else {
            return Place::Unmapped { address };
        };
        let process = entry.get_mut();
        if process.mappings.find(address).is_none()
            && process.next_scan.is_none_or(|due| now >= due)
            && process.looks.may(now)
        {
            let Known {
                mappings, looks, ..
            } = process;
            if let Some(mappings) = read_mappings(pid, mappings, looks, files) {
                process.mappings = mappings;
                changed.insert(pid);
            }
            process.rescanned(address, now);
        }
        let Some(mapping) = process.mappings.find(address) else {
            return Place::Unmapped { address };
        };
        let life = process.life;
        let place = place_in(mapping, address, life);
        if mapping.backing == Backing::Anonymous
            && process.next_perf_map.is_none_or(|due| now >= due)
        {
            process.next_perf_map = Some(now + PERF_MAP_PAUSE);
            self.find_perf_map(pid, life);
        }
        place
    }

    /// When [`look_again`](Self::look_again) wants to be called.
    pub fn next_look(&self) -> Option<Instant> {
        self.young.first().map(|&(due, ..)| due)
    }

    /// Reads the mappings of young processes again that are due.
    pub fn look_again(&mut self, now: Instant) {
        while let Some(&(due, pid, look)) = self.young.first()
            && due <= now
        {
            self.young.pop_first();
            let Some(process) = self.known.get_mut(&pid) else {
                continue;
            };
            let Known {
                mappings, looks, ..
            } = process;
            if !looks.may(now) {
                continue;
            }
            let Some(mappings) = read_mappings(pid, mappings, looks, &mut self.files) else {
                continue;
            };
            if mappings != process.mappings {
                process.mappings = mappings;
                self.changed.insert(pid);
            }
            self.look_later(pid, look + 1, now);
        }
    }

    fn look_later(&mut self, pid: u32, look: usize, now: Instant) {
        if let Some(&pause) = YOUNG.get(look)
            && self.young.len() < YOUNG_MAX
        {
            self.young.insert((now + pause, pid, look));
        }
    }

    /// Processes whose mappings have been read since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.changed)
    }

    /// The unwinder does not know the mappings of this process: those known here are reported as
    /// changed.
    pub fn report_again(&mut self, pid: u32) {
        if self.known.contains_key(&pid) {
            self.changed.insert(pid);
        }
    }

    /// Executable mappings of a process, by address.
    pub fn mappings(&self, pid: u32) -> impl Iterator<Item = &Mapping> {
        self.known
            .get(&pid)
            .into_iter()
            .flat_map(|process| process.mappings.iter())
    }

    /// Name of a process's main thread, if the process is known.
    pub fn comm(&self, pid: u32) -> Option<String> {
        self.known.get(&pid)?.comm.clone()
    }

    /// Command line of a process, if it is known.
    pub fn command_line(&self, pid: u32) -> Option<String> {
        self.known.get(&pid)?.command_line.clone()
    }

    /// A process as a profile tells of it; its name is empty where it is not known.
    pub fn describe(&self, pid: u32) -> Process {
        let known = self.known.get(&pid);
        let text = |text: Option<&String>| text.cloned().unwrap_or_default();
        Process {
            pid,
            comm: text(known.and_then(|process| process.comm.as_ref())),
            cgroup: text(known.and_then(|process| process.cgroup.as_ref())),
        }
    }

    /// Forgets processes whose end was not told, and lets go of files and perf maps that no process has any
    /// more; gives both. What was sampled in such files must have been taken out before.
    pub fn sweep(&mut self) -> Swept {
        let is_dead = |pid: &u32| !scan::is_alive(*pid);
        let ended: Vec<u32> = self.known.keys().copied().filter(is_dead).collect();
        for pid in &ended {
            self.known.remove(pid);
        }
        let lives: BTreeSet<LifeId> = self.known.values().map(|process| process.life).collect();
        self.perf_maps.retain(|life, _| lives.contains(life));
        let mappings = self
            .known
            .values()
            .flat_map(|process| process.mappings.iter().chain(process.replaced.mappings()));
        let used: BTreeSet<FileId> = mappings
            .filter_map(|mapping| match mapping.backing {
                Backing::File(file) => Some(file),
                Backing::Vdso | Backing::Uprobes | Backing::Anonymous => None,
            })
            .collect();
        Swept {
            ended,
            files: self.files.release(&used),
        }
    }

    /// Every file seen, by the position of its [`FileId`].
    pub fn files(&self) -> &[Arc<PinnedFile>] {
        &self.files.list
    }

    /// Perf maps of lives.
    pub fn perf_maps(&self) -> &HashMap<LifeId, Arc<File>> {
        &self.perf_maps
    }

    /// What went wrong without costing a sample, with how often.
    pub fn notes(&self) -> BTreeMap<&'static str, u64> {
        let mut notes = self.files.notes();
        notes.extend(silence());
        notes.insert(
            "process ended before its mappings were read",
            self.ended_unread,
        );
        notes
    }

    fn begin_life(&mut self) -> LifeId {
        // After four thousand million lives the first ones are long forgotten.
        self.lives = self.lives.wrapping_add(1);
        LifeId(self.lives)
    }

    /// Opened while the process lives: its root is gone with it.
    fn find_perf_map(&mut self, pid: u32, life: LifeId) {
        if !self.perf_maps.contains_key(&life)
            && let Some(file) = scan::perf_map(pid)
        {
            self.perf_maps.insert(life, Arc::new(file));
        }
    }
}

/// Where an address of a mapping lies, of this life of its process.
pub(super) fn place_in(mapping: &Mapping, address: u64, life: LifeId) -> Place {
    let from_start = address - mapping.start;
    match mapping.backing {
        Backing::File(file) => Place::File {
            file,
            offset: mapping.file_offset + from_start,
        },
        Backing::Vdso => Place::Vdso { offset: from_start },
        Backing::Uprobes => Place::Uretprobe,
        Backing::Anonymous => Place::Anonymous { life, address },
    }
}

/// Reads the mappings of a process, and how long that takes.
pub(super) fn read_mappings(
    pid: u32,
    before: &Mappings,
    looks: &mut Spent,
    files: &mut Files,
) -> Option<Mappings> {
    let (mappings, took) = scan::mappings(pid, before, files)?;
    looks.took(took);
    Some(mappings)
}

impl Default for Processes {
    fn default() -> Self {
        Self::new()
    }
}

impl Known {
    /// After a scan for an address: if it helped, the next unknown address may scan at once.
    fn rescanned(&mut self, address: u64, now: Instant) {
        if self.mappings.find(address).is_some() {
            self.pause = PAUSE_MIN;
            self.next_scan = None;
        } else {
            self.next_scan = Some(now + self.pause);
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::{PAUSE_MIN, Place, Processes};

    /// Our own code lies in our own executable, a wild address nowhere.
    #[test]
    fn locates_our_own_code() {
        let mut processes = Processes::new();
        let pid = std::process::id();
        processes.observe(pid);
        let address = locates_our_own_code as *const () as u64;
        let Place::File { file, .. } = processes.locate(pid, address) else {
            panic!("not in a file")
        };
        let pinned = &processes.files()[file.index()];
        assert_eq!(pinned.path, std::env::current_exe().unwrap());
        assert!(pinned.file.is_some());
        assert_eq!(processes.locate(pid, 16), Place::Unmapped { address: 16 });
    }

    /// Wild addresses do not make us read the mappings every time.
    #[test]
    fn scans_pause_after_a_miss() {
        let mut processes = Processes::new();
        let pid = std::process::id();
        processes.observe(pid);
        let now = Instant::now();
        processes.locate_at(pid, 16, now);
        assert_eq!(processes.known[&pid].next_scan, Some(now + PAUSE_MIN));
        processes.locate_at(pid, 16, now + PAUSE_MIN / 2);
        assert_eq!(processes.known[&pid].next_scan, Some(now + PAUSE_MIN));
        processes.locate_at(pid, 16, now + PAUSE_MIN);
        assert!(processes.known[&pid].next_scan > Some(now + PAUSE_MIN * 2));
    }

    /// Files that no process has any more are let go of, and what is used stays.
    #[test]
    fn sweep_lets_go_of_files() {
        let mut processes = Processes::new();
        let (pid, gone) = (std::process::id(), u32::MAX);
        processes.observe(pid);
        processes.forked(pid, gone, "gone");
        let files = processes.files().len();
        let swept = processes.sweep();
        assert_eq!((swept.ended, swept.files.len()), (vec![gone], 0));
        processes.exited(pid);
        let swept = processes.sweep();
        assert_eq!((swept.ended.len(), swept.files.len()), (0, files));
        assert!(processes.files().iter().all(|file| file.file.is_none()));
        assert!(processes.sweep().files.is_empty(), "each once");
        processes.observe(pid);
        assert!(
            processes.files().len() > files,
            "positions are not used twice"
        );
    }

    /// A child has its parent's mappings without a look at it; a process that is gone has none.
    #[test]
    fn fork_copies_and_exit_forgets() {
        let mut processes = Processes::new();
        let (pid, child) = (std::process::id(), u32::MAX);
        processes.observe(pid);
        processes.forked(pid, child, "child");
        let address = fork_copies_and_exit_forgets as *const () as u64;
        assert!(matches!(
            processes.locate(child, address),
            Place::File { .. }
        ));
        processes.exited(child);
        assert_eq!(
            processes.locate(child, address),
            Place::Unmapped { address }
        );
    }
}
