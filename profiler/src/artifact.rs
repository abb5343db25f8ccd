//! Output files that are whole or not there at all.
//!
//! A file is opened before recording starts, so that a bad path fails first, without a name in its
//! folder; it gets its name, replacing an older file of that name, only when every byte is written.
//! A process killed in between leaves nothing. Only what the user typed may be something else than a file.

mod special;

use std::{
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use crate::printable::shown;

/// What names of files in the making begin with.
const UNFINISHED: &str = ".profiler-";

/// Mode of a new file.
const OWNER_ONLY: u32 = 0o600;

/// Where a result goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Standard output.
    Stdout,
    /// What the user typed: a file, replaced whole, or a device, a pipe or a descriptor, written in place.
    File(PathBuf),
    /// A file of a name that nobody typed, replaced whole. Others may have put something there: no link is
    /// followed, and nothing is written in place.
    Ours(PathBuf),
}

/// A destination that was found writable.
#[derive(Debug)]
pub struct Artifact {
    path: Option<PathBuf>,
    sink: Sink,
}

#[derive(Debug)]
enum Sink {
    Stdout,
    /// An unnamed file in the folder of the destination.
    Unnamed(File),
    /// The same, on file systems without unnamed files.
    Named(tempfile::NamedTempFile),
    /// Something that is no regular file, such as `/dev/null` or a pipe: written in place.
    Special(File),
}

/// Why a result cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", shown(path))]
pub struct ArtifactError {
    path: PathBuf,
    source: io::Error,
}

impl ArtifactError {
    /// What kind of failure it was.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// What mends it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self.source.kind() {
            io::ErrorKind::NotFound => "create its folder first, or choose another with -o FILE",
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                "choose a place you may write to with -o FILE"
            }
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some space, or choose another disk with -o FILE; nothing half-written was left"
            }
            io::ErrorKind::IsADirectory => "name a file in it",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

impl Artifact {
    /// Opens the destination without touching what may be there. A new file is for its owner alone,
    /// as it tells of other users' processes; one of ours that is replaced keeps its mode.
    pub fn open(destination: &Destination) -> Result<Self, ArtifactError> {
        let mode = match destination {
            Destination::File(path) | Destination::Ours(path) => {
                mode_of(path).unwrap_or(OWNER_ONLY)
            }
            Destination::Stdout => OWNER_ONLY,
        };
        Self::open_as(destination, mode)
    }

    /// Opens the destination; a file has this mode, whatever the umask is.
    pub(crate) fn open_as(destination: &Destination, mode: u32) -> Result<Self, ArtifactError> {
        match destination {
            Destination::Stdout => Ok(Self {
                path: None,
                sink: Sink::Stdout,
            }),
            Destination::File(path) | Destination::Ours(path) => {
                let is_typed = matches!(destination, Destination::File(_));
                let sink = open_sink(path, is_typed, mode).map_err(|source| ArtifactError {
                    path: path.clone(),
                    source,
                })?;
                Ok(Self {
                    path: Some(path.clone()),
                    sink,
                })
            }
        }
    }

    /// Its path, unless it is standard output.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Writes everything and gives the file its name. A reader that closed the pipe is no error.
    pub fn write(self, bytes: &[u8]) -> Result<(), ArtifactError> {
        let path = self
            .path
            .unwrap_or_else(|| PathBuf::from("standard output"));
        let result = match self.sink {
            Sink::Stdout => write_stdout(bytes),
            Sink::Unnamed(file) => write_unnamed(file, &path, bytes),
            Sink::Named(file) => write_named(file, &path, bytes),
            Sink::Special(mut file) => file.write_all(bytes),
        };
        match result {
            Err(source) if source.kind() != io::ErrorKind::BrokenPipe => {
                Err(ArtifactError { path, source })
            }
            _ => Ok(()),
        }
    }
}

/// Removes what somebody who was killed left unfinished in a folder of ours.
///
/// # Errors
///
/// Of a folder that cannot be listed. A file that stays harms nobody.
pub fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

fn write_stdout(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The mode of a file of our own. Who else has made one there may not choose who reads the next
/// one.
fn mode_of(path: &Path) -> Option<u32> {
    let there = fs::symlink_metadata(path).ok()?;
    let is_ours = there.is_file() && there.uid() == rustix::process::geteuid().as_raw();
    is_ours.then(|| there.mode() & 0o777)
}

fn open_sink(path: &Path, is_typed: bool, mode: u32) -> io::Result<Sink> {
    if is_typed {
        if let Some(special) = special::open_typed(path)? {
            return Ok(Sink::Special(special));
        }
    } else if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let permissions = fs::Permissions::from_mode(mode);
    match rustix::fs::open(
        folder(path),
        OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::from_raw_mode(OWNER_ONLY),
    ) {
        Ok(file) => {
            let file = File::from(file);
            file.set_permissions(permissions)?;
            Ok(Sink::Unnamed(file))
        }
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {
            let file = tempfile::Builder::new()
                .prefix(UNFINISHED)
                .tempfile_in(folder(path))?;
            file.as_file().set_permissions(permissions)?;
            Ok(Sink::Named(file))
        }
        Err(error) => Err(error.into()),
    }
}

fn write_unnamed(mut file: File, path: &Path, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.sync_data()?;
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    // A link cannot replace a name, a rename can: link beside it, whole already, then rename.
    let beside = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .make_in(folder(path), |name| {
            Ok(rustix::fs::linkat(
                CWD,
                &source,
                CWD,
                name,
                AtFlags::SYMLINK_FOLLOW,
            )?)
        })?;
    beside
        .into_temp_path()
        .persist(path)
        .map_err(|error| error.error)
}

fn write_named(mut file: tempfile::NamedTempFile, path: &Path, bytes: &[u8]) -> io::Result<()> {
    file.write_all(bytes)?;
    file.as_file().sync_data()?;
    file.persist(path).map(drop).map_err(|error| error.error)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::Permissions,
        os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    };

    use super::{Artifact, Destination};

    /// A new file is for its owner alone; one of ours keeps its mode, and a link to one does not
    /// lend it.
    #[test]
    fn new_files_are_for_their_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.svg");
        let written = || {
            let artifact = Artifact::open(&Destination::File(path.clone())).unwrap();
            artifact.write(b"new").unwrap();
            std::fs::symlink_metadata(&path).unwrap().mode() & 0o777
        };
        assert_eq!(written(), 0o600);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(written(), 0o644);
        let other = folder.path().join("other");
        std::fs::rename(&path, &other).unwrap();
        symlink(&other, &path).unwrap();
        assert_eq!(written(), 0o600);
        let file = Destination::File(path.clone());
        Artifact::open_as(&file, 0o640).unwrap().write(b"").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
    }

    /// The old file stays until the new one is whole, and no other name is left behind.
    #[test]
    fn replaces_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.svg");
        std::fs::write(&path, "old").unwrap();
        let artifact = Artifact::open(&Destination::File(path.clone())).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        artifact.write(b"new").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    /// An artifact that is never written leaves nothing.
    #[test]
    fn abandoned_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        drop(Artifact::open(&Destination::File(folder.path().join("out.svg"))).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    /// A bad path fails at opening, with a hint.
    #[test]
    fn bad_path_fails_first() {
        let error = Artifact::open(&Destination::File("/nonexistent/out.svg".into())).unwrap_err();
        assert!(error.hint().unwrap().contains("folder"), "{error}");
        assert!(Artifact::open(&Destination::File("/tmp".into())).is_err());
    }
}
