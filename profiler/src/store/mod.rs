//! The store: a folder of windows, a file each, which is there whole or not at all. Nothing else is needed to
//! read it, and nothing has to be repaired after a crash. `clock` tells when the wall clock was set, by which windows
//! are named.
//!
//! One daemon writes, which a lock on the folder sees to. Readers need only read permission, which
//! the owner's group has: see `trusted`.

pub(crate) mod clock;
mod name;
mod read;
pub mod retention;
mod table;
pub(crate) mod trusted;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::fs::{FlockOperation, flock};

pub(crate) use self::name::instant_text;
#[cfg(test)]
pub(crate) use self::read::UNREADABLE;
pub(crate) use self::table::{Identity, Link, Table, pack, unpack};
use self::{clock::Clock, retention::Retention};
pub use self::{
    name::{Capability, Sampled, WindowName},
    read::{Selection, Span, each, open, sampled, select},
    table::{Figure, Who},
};
use crate::artifact::{self, Artifact, ArtifactError, Destination};

/// Folder of windows in the state directory.
const FOLDER: &str = "windows";
/// What is in a state directory where nothing else is.
const OURS: [&str; 2] = [FOLDER, crate::export::FOLDER];

/// Most bytes of a window, packed or not: what reads one may have little memory.
pub const WINDOW_BYTES_MAX: u64 = 64 << 20;

/// A window as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What its name says.
    pub name: WindowName,
    /// Size of its file.
    pub bytes: u64,
}

/// The store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be made or looked at.
    #[error(
        "cannot use the state directory {}: {source}",
        crate::printable::shown(path)
    )]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could exchange what is in it.
    #[error("cannot trust the state directory {}: {why}", path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// Another daemon writes to it.
    #[error(
        "another profiler daemon uses the state directory {}",
        crate::printable::shown(path)
    )]
    InUse {
        /// Which.
        path: PathBuf,
    },
}

impl StoreError {
    /// What mends it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Folder { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run as root or as a member of the directory's group, or name another directory"
            }
            Self::Folder { .. } => {
                "[state] directory in the configuration names it, --state DIR for a report; does `profiler daemon` run?"
            }
            Self::Exposed { .. } => {
                "name one with [state] directory that only root, or the user of this daemon, may change"
            }
            Self::InUse { .. } => {
                "stop it, or give this one another directory with [state] directory"
            }
        };
        Some(hint.to_owned())
    }
}

/// Why a window was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LostWindow {
    /// No room for its file.
    DiskFull,
    /// The state directory cannot be written to.
    NotWritable,
    /// Earlier windows were still being written.
    WriterBusy,
    /// Its names could not be found or its file not be made, for another reason.
    Failed,
}

impl LostWindow {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Self::DiskFull => "disk full",
            Self::NotWritable => "state directory not writable",
            Self::WriterBusy => "writer behind",
            Self::Failed => "could not be written",
        }
    }

    fn of(error: &ArtifactError) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::NotWritable
            }
            _ => Self::Failed,
        }
    }
}

/// What was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Deleted {
    /// Windows.
    pub windows: u64,
    /// Bytes of their files.
    pub bytes: u64,
    /// Windows that should have been and could not.
    pub failed: u64,
}

/// The store, open for writing.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

impl Store {
    /// Opens it, making the folder where there is none, for its owner and group. One that others
    /// could read is tightened. Removes what a daemon that was killed left unfinished.
    pub fn open(state: &Path) -> Result<Self, StoreError> {
        let folder = state.join(FOLDER);
        let failed = |source| StoreError::Folder {
            path: state.to_owned(),
            source,
        };
        if let Some(why) = trusted::why_exposed(&folder).map_err(failed)? {
            return Err(StoreError::Exposed {
                path: state.to_owned(),
                why,
            });
        }
        if make_folders(state, &folder).map_err(failed)? {
            let group = trusted::group_of(&folder).map_err(failed)?;
            tracing::warn!(
                "{} could be read by everybody, and is for its owner and group from now on: a user who reads it with \
                 `profiler report --since` joins the group {group}",
                state.display()
            );
        }
        let lock = File::open(&folder).map_err(failed)?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(StoreError::InUse {
                    path: state.to_owned(),
                });
            }
            Err(error) => return Err(failed(error.into())),
        }
        artifact::remove_unfinished(&folder).map_err(failed)?;
        Ok(Self {
            folder,
            _lock: lock,
        })
    }

    /// Writes a window whole, under a name that no other has, which it gives back.
    pub fn write(
        &self,
        mut name: WindowName,
        bytes: &[u8],
    ) -> Result<WindowName, (LostWindow, ArtifactError)> {
        let path = loop {
            let path = self.folder.join(name.to_string());
            if !path.exists() {
                break path;
            }
            name = name.next();
        };
        let artifact = Artifact::open_as(&Destination::Ours(path), trusted::FILE_MODE);
        artifact
            .and_then(|artifact| artifact.write(bytes))
            .map_err(|error| (LostWindow::of(&error), error))?;
        Ok(name)
    }

    /// Deletes what is not to be kept; gives what was deleted and what is left. What a clock that was set ahead has
    /// between now and then is no age.
    pub(crate) fn retain(
        &self,
        retention: Retention,
        clock: &Clock,
    ) -> io::Result<(Deleted, Vec<Entry>)> {
        let mut entries = list_folder(&self.folder)?;
        let mut deleted = Deleted::default();
        let as_now = |ms| clock.as_now(ms);
        let mut gone = retention::expired(&entries, retention, (now_ms(), &as_now));
        while let Some(position) = gone.pop() {
            let path = self.folder.join(entries[position].name.to_string());
            if fs::remove_file(path).is_ok() {
                deleted.windows += 1;
                deleted.bytes += entries.remove(position).bytes;
            } else {
                deleted.failed += 1;
            }
        }
        Ok((deleted, entries))
    }
}

/// Says whether one of them had to be tightened. The state directory itself is only where nothing
/// else is in it.
fn make_folders(state: &Path, folder: &Path) -> io::Result<bool> {
    let mut tightened = false;
    let is_ours = |entry: fs::DirEntry| OURS.iter().any(|name| entry.file_name() == *name);
    match fs::read_dir(state) {
        Ok(mut entries) => {
            if entries.all(|entry| entry.is_ok_and(is_ours)) {
                tightened = trusted::tighten_folder(&fs::canonicalize(state)?)?;
            }
        }
        Err(_) => tightened = trusted::make_folder(state)?,
    }
    Ok(trusted::make_folder(folder)? || tightened)
}

/// Milliseconds after the Unix epoch, by the wall clock.
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    milliseconds(now.unwrap_or_default())
}

/// Whole milliseconds.
pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Every window in a state directory, by time. Other files are left aside.
pub fn list(state: &Path) -> Result<Vec<Entry>, StoreError> {
    list_folder(&state.join(FOLDER)).map_err(|source| StoreError::Folder {
        path: state.to_owned(),
        source,
    })
}

fn list_folder(folder: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = WindowName::parse(&entry.file_name().to_string_lossy());
        // A file that is deleted meanwhile is none; nor is what is no file.
        if let (Some(name), Ok(metadata)) = (name, entry.metadata())
            && metadata.is_file()
        {
            entries.push(Entry {
                name,
                bytes: metadata.len(),
            });
        }
    }
    entries.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::{Capability, Clock, Retention, Store, StoreError, WindowName, list};

    fn name(begin_ms: u64) -> WindowName {
        WindowName::new(Capability::Sampling, (begin_ms, begin_ms + 1000), "host")
    }

    /// Windows of the same times are all kept, each under a name of its own.
    #[test]
    fn windows_never_overwrite() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        for bytes in [b"one", b"two"] {
            store.write(name(1000), bytes).unwrap();
        }
        let entries = list(state.path()).unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[1].name, name(1000).next());
    }

    /// What was left unfinished goes; other files stay; one daemon at a time.
    #[test]
    fn opening_cleans_up_and_locks() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join("windows");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(".profiler-a1b2"), "half").unwrap();
        fs::write(folder.join("README"), "mine").unwrap();
        let store = Store::open(state.path()).unwrap();
        assert!(folder.join("README").exists() && !folder.join(".profiler-a1b2").exists());
        assert!(list(state.path()).unwrap().is_empty());
        let second = Store::open(state.path());
        assert!(matches!(second, Err(StoreError::InUse { .. })));
        drop(store);
        Store::open(state.path()).unwrap();
    }

    /// What is too old is deleted and counted; what is left is listed.
    #[test]
    fn retention_deletes_and_counts() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let now = super::now_ms();
        for begin in [1000, 2000, now] {
            store.write(name(begin), b"12345").unwrap();
        }
        let retention = Retention {
            age: Duration::from_secs(3600),
            bytes: 1000,
        };
        let (deleted, left) = store.retain(retention, &Clock::watch()).unwrap();
        assert_eq!((deleted.windows, deleted.bytes, deleted.failed), (2, 10, 0));
        assert_eq!(left, list(state.path()).unwrap());
        assert_eq!(left.len(), 1);
    }
}
