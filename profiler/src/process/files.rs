//! Files that code was mapped from, each pinned by one descriptor for all processes that map it.
//!
//! A file is known by what `fstat` says of the pinned descriptor. As long as that is open, the inode cannot be given to
//! another file. What `/proc/PID/maps` says of it would not do: files of several subvolumes or layers can have one pair
//! of numbers there, and a process can map another file between two looks of ours.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsString,
    fs::File,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicUsize},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{mappings::Line, roots::Roots, share::Share};
use crate::foreign::{Identity, Refusals, Refused, Regular, Root};

/// Most files kept open. A busy host maps a few thousand distinct ones.
const PINNED_MAX: usize = 16_384;
/// Most files that are known without being open.
const UNOPENED_MAX: usize = 16_384;
/// Descriptors that the profiler needs beside those, one for each mapping of a process that is looked at included.
const OTHER_DESCRIPTORS: u64 = 8192;
/// Longest path that is kept, in bytes: many long ones would take all memory.
const PATH_MAX: usize = 1024;

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
    /// User id of the file's owner, 0 where it is not open.
    pub(crate) owner: u32,
}

/// A file that could not be opened: nothing but its name is used. Never one with a file that was.
type Unopened = ((i32, i32), u64, PathBuf);

/// All files seen so far.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) list: Vec<Arc<PinnedFile>>,
    ids: HashMap<Identity, FileId>,
    unopened: HashMap<Unopened, FileId>,
    /// How many are pinned, and for whom.
    share: Share,
    roots: Roots,
    /// Stands in the place of every file that was let go of.
    released: Option<Arc<PinnedFile>>,
    /// Stands for all files beyond those that are known.
    nameless: Option<FileId>,
    /// Files that could not be opened: nothing in them gets a name.
    refusals: Refusals,
    /// Files not opened because too many were.
    over_limit: u64,
    /// Mappings kept of all processes.
    pub(super) mappings: Arc<AtomicUsize>,
    /// Lists of mappings whose end was left out.
    pub(super) cut: u64,
}

impl Files {
    pub(super) fn new() -> Self {
        raise_descriptor_limit();
        Self::default()
    }

    /// The file behind a mapping, as it was found, pinned now if it is new.
    pub(super) fn pin(
        &mut self,
        pid: u32,
        line: &Line,
        path: &Path,
        found: Result<Regular, Refused>,
    ) -> FileId {
        found
            .and_then(|found| self.pin_found(pid, line, path, &found))
            .unwrap_or_else(|cause| self.without_file(line, path, cause))
    }

    fn pin_found(
        &mut self,
        pid: u32,
        line: &Line,
        path: &Path,
        found: &Regular,
    ) -> Result<FileId, Refused> {
        let identity = found.identity();
        if let Some(&id) = self.ids.get(&identity) {
            return Ok(id);
        }
        if !self.share.has_room(pid, PINNED_MAX) {
            return Err(Refused::TooMany);
        }
        let file = found.open()?;
        let root = self.roots.of(pid);
        let id = self.push(PinnedFile {
            path: short(path),
            file: Some(file),
            first_mapping: (line.start, line.end, line.file_offset),
            owner: found.owner(),
            root,
        });
        self.ids.insert(identity, id);
        self.share.take(pid, id);
        Ok(id)
    }

    fn without_file(&mut self, line: &Line, path: &Path, cause: Refused) -> FileId {
        let key = (line.device, line.inode, short(path));
        if let Some(&id) = self.unopened.get(&key) {
            return id;
        }
        match cause {
            Refused::TooMany => self.over_limit += 1,
            cause => self.refusals.count(cause),
        }
        if self.unopened.len() >= UNOPENED_MAX {
            return self.nameless();
        }
        let id = self.push(PinnedFile {
            first_mapping: (line.start, line.end, line.file_offset),
            ..PinnedFile::without(key.2.clone())
        });
        self.unopened.insert(key, id);
        id
    }

    fn nameless(&mut self) -> FileId {
        if let Some(id) = self.nameless {
            return id;
        }
        let id = self.push(PinnedFile::without("[file not opened]".into()));
        self.nameless = Some(id);
        id
    }

    fn push(&mut self, file: PinnedFile) -> FileId {
        let id = FileId(u32::try_from(self.list.len()).unwrap_or(u32::MAX));
        self.list.push(Arc::new(file));
        id
    }

    /// Lets go of all files but these, and gives those that were let go of. Their positions are not used again,
    /// but by an empty file.
    pub(super) fn release(&mut self, used: &BTreeSet<FileId>) -> BTreeSet<FileId> {
        let Self {
            list,
            ids,
            unopened,
            share,
            released,
            ..
        } = self;
        let empty = released.get_or_insert_with(|| Arc::new(PinnedFile::without(PathBuf::new())));
        let mut gone = BTreeSet::new();
        let mut keep = |id: &FileId| {
            let keep = used.contains(id);
            if !keep && let Some(slot) = list.get_mut(id.index()) {
                *slot = Arc::clone(empty);
                gone.insert(*id);
            }
            keep
        };
        ids.retain(|_, id| keep(id));
        unopened.retain(|_, id| keep(id));
        share.give_back(&gone);
        gone
    }

    /// What could not be opened, with how often.
    pub(super) fn notes(&self) -> BTreeMap<&'static str, u64> {
        let counted = [
            ("mapped file not opened, too many open", self.over_limit),
            ("list of mappings too long, its end left out", self.cut),
        ];
        self.refusals.notes().chain(counted).collect()
    }
}

impl PinnedFile {
    fn without(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            first_mapping: (0, 0, 0),
            owner: 0,
            root: None,
        }
    }
}

/// A path as it is kept: of a long one, its end.
fn short(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    match bytes.len().checked_sub(PATH_MAX) {
        None | Some(0) => path.to_owned(),
        Some(over) => {
            let kept = [b"/...", &bytes[over..]].concat();
            OsString::from_vec(kept).into()
        }
    }
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

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
    };

    use super::{FileId, Files, Line, PATH_MAX, Refused, short};
    use crate::foreign::Root;

    fn pin(files: &mut Files, path: &Path, line: &Line) -> FileId {
        let own = std::process::id();
        let found = Root::of(own).and_then(|root| root.find(path));
        files.pin(own, line, path, found)
    }

    /// What the kernel's list of mappings says of two files may be equal: it is not by that that they are known.
    const LINE: Line = Line {
        start: 0x1000,
        end: 0x2000,
        file_offset: 0,
        device: (0, 77),
        inode: 7,
    };

    /// One file is one by whatever name; other files are others, whatever the kernel's list calls them; so is one that
    /// was copied over.
    #[test]
    fn files_are_known_by_themselves() {
        let folder = tempfile::tempdir().unwrap();
        let [one, link, other] = ["one", "link", "other"].map(|name| folder.path().join(name));
        fs::write(&one, "one").unwrap();
        fs::write(&other, "two").unwrap();
        fs::hard_link(&one, &link).unwrap();
        let mut files = Files::default();
        let first = pin(&mut files, &one, &LINE);
        assert_eq!(pin(&mut files, &link, &LINE), first);
        assert_ne!(pin(&mut files, &other, &LINE), first);
        fs::write(&one, "longer").unwrap();
        assert_ne!(pin(&mut files, &one, &LINE), first);
    }

    /// A file that could not be opened is never one that was, nor one of another name; it is counted once.
    #[test]
    fn unopened_files_are_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let one = folder.path().join("one");
        fs::write(&one, "one").unwrap();
        let mut files = Files::default();
        let first = pin(&mut files, &one, &LINE);
        let mut refuse =
            |path: &str| files.pin(1, &LINE, Path::new(path), Err(Refused::NotRegular));
        let (pipe, again, other) = (refuse("/pipe"), refuse("/pipe"), refuse("/other"));
        assert!(pipe != first && pipe == again && pipe != other);
        assert!(files.list[pipe.index()].file.is_none());
        let cause = Refused::NotRegular.text();
        assert_eq!(files.notes()[cause], 2);
    }

    /// Of a long path the end is kept.
    #[test]
    fn long_paths_are_short() {
        let long = PathBuf::from(format!("/{}/end", "a".repeat(4000)));
        let kept = short(&long);
        assert!(kept.as_os_str().len() <= PATH_MAX + 4 && kept.ends_with("end"));
        assert_eq!(short(Path::new("/a/b")), Path::new("/a/b"));
    }
}
