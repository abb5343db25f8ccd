//! Files that code was mapped from, each pinned by one descriptor for all processes that map it.
//!
//! As long as the descriptor is open, the inode cannot be given to another file, so device and inode
//! number identify it.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::Arc,
};

use super::roots::Roots;
use crate::foreign::Root;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Most files kept open. A busy host maps a few thousand distinct ones.
const PINNED_MAX: usize = 16_384;
/// Descriptors that the profiler needs beside those.
const OTHER_DESCRIPTORS: u64 = 512;

/// Position in the list of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub(super) u32);

impl FileId {
    /// The position.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A file that code was mapped from.
#[derive(Debug)]
pub struct PinnedFile {
    /// Its path as the target saw it.
    pub path: PathBuf,
    /// The file itself, if it could be opened.
    pub file: Option<File>,
    /// Where the first process that had it mapped its code: address, end, offset in the file.
    pub first_mapping: (u64, u64, u64),
    /// That process's root: its debug information is looked for below it.
    pub(crate) root: Option<Arc<Root>>,
}

/// One executable mapping of a file, as a process's list of mappings tells it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapped<'a> {
    pub(super) pid: u32,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) file_offset: u64,
    /// Device and inode number.
    pub(super) identity: (i32, i32, u64),
    pub(super) path: &'a std::path::Path,
}

/// All files seen so far.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) list: Vec<Arc<PinnedFile>>,
    ids: HashMap<(i32, i32, u64), FileId>,
    roots: Roots,
    pinned: usize,
    /// Stands in the place of every file that was let go of.
    released: Option<Arc<PinnedFile>>,
    /// Files that could not be opened: nothing in them gets a name.
    pub(super) unopened: u64,
    /// Files not opened because too many were.
    pub(super) over_limit: u64,
}

impl Files {
    pub(super) fn new() -> Self {
        raise_descriptor_limit();
        Self::default()
    }

    /// The file behind a mapping, pinned now if it is new.
    pub(super) fn pin(&mut self, mapped: &Mapped<'_>) -> FileId {
        if let Some(&id) = self.ids.get(&mapped.identity) {
            return id;
        }
        let id = FileId(u32::try_from(self.list.len()).unwrap_or(u32::MAX));
        let file = self.open(mapped);
        let first_mapping = (mapped.start, mapped.end, mapped.file_offset);
        let root = self.roots.of(mapped.pid);
        self.list.push(Arc::new(PinnedFile {
            path: mapped.path.to_owned(),
            file,
            first_mapping,
            root,
        }));
        self.ids.insert(mapped.identity, id);
        id
    }

    /// Lets go of all files but these, and gives those that were let go of. Their positions are not used again,
    /// but by an empty file.
    pub(super) fn release(&mut self, used: &BTreeSet<FileId>) -> BTreeSet<FileId> {
        let Self {
            list,
            ids,
            pinned,
            released,
            ..
        } = self;
        let empty = released.get_or_insert_with(|| {
            Arc::new(PinnedFile {
                path: PathBuf::new(),
                file: None,
                first_mapping: (0, 0, 0),
                root: None,
            })
        });
        let mut gone = BTreeSet::new();
        ids.retain(|_, id| {
            let keep = used.contains(id);
            if !keep && let Some(slot) = list.get_mut(id.index()) {
                *pinned -= usize::from(slot.file.is_some());
                *slot = Arc::clone(empty);
                gone.insert(*id);
            }
            keep
        });
        gone
    }

    fn open(&mut self, mapped: &Mapped<'_>) -> Option<File> {
        if self.pinned >= PINNED_MAX {
            self.over_limit += 1;
            return None;
        }
        let file = open_mapped(mapped);
        match file {
            Some(_) => self.pinned += 1,
            None => self.unopened += 1,
        }
        file
    }
}

/// Opens what is really mapped, deleted or not; where that is not allowed, the file of that name as
/// the target sees it, if it is still the same one.
pub(super) fn open_mapped(mapped: &Mapped<'_>) -> Option<File> {
    let Mapped {
        pid,
        start,
        end,
        identity,
        path,
        ..
    } = mapped;
    if let Ok(file) = File::open(format!("/proc/{pid}/map_files/{start:x}-{end:x}")) {
        return Some(file);
    }
    let below_root = path.strip_prefix("/").unwrap_or(path);
    let file = File::open(PathBuf::from(format!("/proc/{pid}/root")).join(below_root)).ok()?;
    let same = file.metadata().is_ok_and(|found| found.ino() == identity.2);
    same.then_some(file)
}

/// The soft limit is often 1,024, for programs that use `select`; the hard one is ours to use.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = PINNED_MAX as u64 + OTHER_DESCRIPTORS;
    let current = limit.current.unwrap_or(u64::MAX);
    let raised = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if raised > current {
        // A refusal costs names of some files, which are counted.
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: Some(raised),
                maximum: limit.maximum,
            },
        );
    }
}
