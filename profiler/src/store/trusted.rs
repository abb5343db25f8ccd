//! Folders and files of the daemon's own: nobody else may exchange them, nobody but the owner's
//! group may read them.
//!
//! A path is trusted if each part of it belongs to root or to the user that the daemon runs as, and
//! if nobody else may put something else in its place. Modes do not depend on the umask.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
    process::geteuid,
};

/// Of folders: for the owner, and to be read by the group.
const FOLDER_MODE: u32 = 0o750;
/// Of files.
pub(crate) const FILE_MODE: u32 = 0o640;
/// Of folders on the way that were not there.
const PARENT_MODE: u32 = 0o755;
/// Most bytes of a file with a token or headers.
const TEXT_MAX: u64 = 64 << 10;
/// The user of `profiler.service`.
const SERVICE: &str = "profiler";

/// The users who may own what the daemon trusts.
struct Owners {
    own: u32,
    /// The service's user, where root runs the daemon by hand on what the service has kept.
    service: Option<u32>,
}

impl Owners {
    fn now() -> Self {
        let own = geteuid().as_raw();
        let service = (own == 0).then(|| id_of("/etc/passwd", SERVICE)).flatten();
        Self { own, service }
    }

    fn has(&self, uid: u32) -> bool {
        uid == 0 || uid == self.own || Some(uid) == self.service
    }
}

/// Why others could exchange what a path leads to, if they could: as it is written and as it is
/// resolved. What is not there yet is nobody's.
pub(crate) fn why_exposed(path: &Path) -> io::Result<Option<String>> {
    let path = std::path::absolute(path)?;
    let there = path.ancestors().find(|part| part.exists());
    let real = there.map(fs::canonicalize).transpose()?;
    let owners = Owners::now();
    let parts = path
        .ancestors()
        .chain(real.iter().flat_map(|real| real.ancestors()));
    for part in parts {
        let Ok(metadata) = fs::symlink_metadata(part) else {
            continue;
        };
        let (uid, mode) = (metadata.uid(), metadata.mode());
        let shown = part.display();
        if !owners.has(uid) {
            return Ok(Some(format!("{shown} belongs to user {uid}")));
        }
        if metadata.is_dir() && mode & 0o002 != 0 && mode & 0o1000 == 0 {
            return Ok(Some(format!("everybody may write to {shown}")));
        }
    }
    Ok(None)
}

/// Makes a folder where there is none. One that is there is tightened; says whether it had to be.
pub(crate) fn make_folder(path: &Path) -> io::Result<bool> {
    if let Some(parent) = path.parent() {
        DirBuilder::new()
            .recursive(true)
            .mode(PARENT_MODE)
            .create(parent)?;
    }
    match DirBuilder::new().mode(FOLDER_MODE).create(path) {
        Ok(()) => {
            open_folder(path)?.set_permissions(Permissions::from_mode(FOLDER_MODE))?;
            Ok(false)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => tighten_folder(path),
        Err(error) => Err(error),
    }
}

/// Takes from a folder what others may do in it; says whether they could do anything. Its files
/// lose it too: each of them may have another name elsewhere.
pub(crate) fn tighten_folder(path: &Path) -> io::Result<bool> {
    let folder = open_folder(path)?;
    let mut tightened = tighten(&folder, FOLDER_MODE)?;
    for entry in fs::read_dir(path)?.flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        // It may be gone by now.
        if is_file && let Ok(file) = open_file(&entry.path(), libc::O_NOFOLLOW) {
            tightened |= tighten(&file, FILE_MODE)?;
        }
    }
    Ok(tightened)
}

fn tighten(file: &File, most: u32) -> io::Result<bool> {
    let mode = file.metadata()?.mode() & 0o7777;
    let tightened = mode & (0o7000 | most);
    if tightened != mode {
        file.set_permissions(Permissions::from_mode(tightened))?;
    }
    Ok(tightened != mode)
}

fn open_folder(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// For reading. Only a regular file: nothing else is waited for.
fn open_file(path: &Path, flags: i32) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | flags)
        .open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it is no regular file"))
    }
}

/// All bytes of a regular file that is no symbolic link, up to so many.
pub(crate) fn read_bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    read_all(open_file(path, libc::O_NOFOLLOW)?, most)
}

/// A small text that somebody has written for us, such as a token. Nobody else may have written it.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let file = open_file(path, 0)?;
    if file.metadata()?.mode() & 0o002 != 0 {
        return Err(io::Error::other("everybody may write to it"));
    }
    let bytes = read_all(file, TEXT_MAX)?;
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

fn read_all(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// Gives a socket that was just bound its mode: the socket itself, not what somebody has put in its
/// place. Gives its device and inode.
pub(crate) fn set_socket_mode(path: &Path, mode: u32) -> io::Result<(u64, u64)> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if !metadata.file_type().is_socket() || metadata.uid() != geteuid().as_raw() {
        return Err(io::Error::other("somebody has put something in its place"));
    }
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&file);
    let link = PathBuf::from(format!("/proc/self/fd/{descriptor}"));
    fs::set_permissions(link, Permissions::from_mode(mode))?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The name of a file's group, else its number.
pub(crate) fn group_of(path: &Path) -> io::Result<String> {
    let gid = fs::metadata(path)?.gid();
    let name = lines_of("/etc/group").into_iter();
    let name = name
        .filter(|(_, id)| *id == gid)
        .map(|(name, _)| name)
        .next();
    Ok(name.unwrap_or_else(|| gid.to_string()))
}

fn id_of(table: &str, name: &str) -> Option<u32> {
    let lines = lines_of(table).into_iter();
    lines
        .filter(|(other, _)| other == name)
        .map(|(_, id)| id)
        .next()
}

/// Names and numbers of `/etc/passwd` or `/etc/group`.
fn lines_of(table: &str) -> Vec<(String, u32)> {
    let text = fs::read_to_string(table).unwrap_or_default();
    let line = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((name, fields.nth(1)?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::{MetadataExt, PermissionsExt, symlink},
        path::Path,
    };

    use super::{make_folder, read_bounded, read_text, tighten_folder, why_exposed};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// A folder of ours is trusted, one below a folder that everybody may write to is not, nor one
    /// behind a link into it; the sticky bit makes the difference.
    #[test]
    fn what_others_may_exchange_is_exposed() {
        let folder = tempfile::tempdir().unwrap();
        let (open, link) = (folder.path().join("open"), folder.path().join("link"));
        fs::create_dir(&open).unwrap();
        fs::create_dir(open.join("state")).unwrap();
        symlink(&open, &link).unwrap();
        assert_eq!(why_exposed(&open.join("state/windows")).unwrap(), None);
        chmod(&open, 0o777);
        for path in [open.join("state"), link.join("state"), open.join("new")] {
            let why = why_exposed(&path).unwrap().unwrap();
            assert!(why.contains("everybody may write"), "{why}");
        }
        chmod(&open, 0o1777);
        assert_eq!(why_exposed(&link.join("state")).unwrap(), None);
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::lchown(&link, Some(65534), None).unwrap();
            let why = why_exposed(&link.join("state")).unwrap().unwrap();
            assert!(why.contains("belongs to user 65534"), "{why}");
        }
    }

    /// Folders are made for owner and group; what others could do is taken from old ones, with
    /// their files, once.
    #[test]
    fn folders_are_tightened() {
        let folder = tempfile::tempdir().unwrap();
        let made = folder.path().join("a/b");
        assert!(!make_folder(&made).unwrap());
        assert_eq!((mode(&made), mode(made.parent().unwrap())), (0o750, 0o755));
        chmod(&made, 0o755);
        fs::write(made.join("window"), "x").unwrap();
        chmod(&made.join("window"), 0o644);
        symlink("/etc/passwd", made.join("link")).unwrap();
        assert!(make_folder(&made).unwrap());
        assert_eq!((mode(&made), mode(&made.join("window"))), (0o750, 0o640));
        assert!(!tighten_folder(&made).unwrap());
        chmod(&made, 0o700);
        assert!(!make_folder(&made).unwrap());
        assert_eq!(mode(&made), 0o700, "what is tighter stays");
        let link = folder.path().join("link");
        symlink(&made, &link).unwrap();
        assert!(make_folder(&link).is_err(), "a link is no folder of ours");
    }

    /// Neither a pipe nor a link nor what is too large is read, and nothing is waited for.
    #[test]
    fn only_bounded_regular_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let pipe = rustix::fs::FileType::Fifo;
        let (mode, here) = (rustix::fs::Mode::RUSR, rustix::fs::CWD);
        rustix::fs::mknodat(here, path("pipe"), pipe, mode, 0).unwrap();
        fs::write(path("file"), "12345").unwrap();
        symlink(path("file"), path("link")).unwrap();
        assert_eq!(read_bounded(&path("file"), 5).unwrap(), b"12345");
        for (name, most) in [("file", 4), ("pipe", 9), ("link", 9), ("none", 9)] {
            assert!(read_bounded(&path(name), most).is_err(), "{name}");
        }
        assert_eq!(read_text(&path("link")).unwrap(), "12345");
        assert!(read_text(&path("pipe")).is_err());
        chmod(&path("file"), 0o666);
        assert!(read_text(&path("file")).is_err());
    }
}
