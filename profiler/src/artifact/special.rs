//! What a path that the user typed may name that is no regular file: a device, a pipe, a socket, also behind links.
//! It is written in place, so nobody else may have put it there.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{
            ffi::OsStringExt,
            fs::{MetadataExt, OpenOptionsExt},
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FileType, Mode, OFlags, PROC_SUPER_MAGIC, Stat, fstat, fstatfs, open, readlinkat},
    io::Errno,
};

use super::folder;

/// Most links that are followed, as many as the kernel does.
const LINKS_MAX: usize = 40;

/// Opens what is at a path for writing in place; `None` where there is nothing, or a regular file.
pub(super) fn open_typed(path: &Path) -> io::Result<Option<File>> {
    let mut path = path.to_owned();
    let mut foreign_link = None;
    for _ in 0..LINKS_MAX {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Whatever the reason is, a new file in that folder meets it too.
        let Ok(found) = open(&path, flags, Mode::empty()) else {
            return Ok(None);
        };
        let status = fstat(&found)?;
        let kind = FileType::from_raw_mode(status.st_mode);
        match kind {
            FileType::RegularFile => return Ok(None),
            FileType::Directory => return Err(io::ErrorKind::IsADirectory.into()),
            FileType::Symlink if is_of_proc(&found) => {
                follow(foreign_link, "a descriptor")?;
                return open_magic(&path).map(Some);
            }
            _ => check_owner(&path, &status, kind)?,
        }
        if kind == FileType::Symlink {
            if !is_trusted(status.st_uid) {
                foreign_link = Some(status.st_uid);
            }
            path = folder(&path).join(target(&found)?);
            continue;
        }
        if matches!(kind, FileType::BlockDevice | FileType::CharacterDevice) {
            follow(foreign_link, "a device")?;
        }
        return open_for_writing(&format!("/proc/self/fd/{}", found.as_raw_fd()), 0).map(Some);
    }
    Err(Errno::LOOP.into())
}

/// Where everybody may put names, a link, pipe or device counts only of us or of whose the folder is, as with the
/// kernel's `fs.protected_symlinks`.
fn check_owner(path: &Path, status: &Stat, kind: FileType) -> io::Result<()> {
    let folder = folder(path).metadata()?;
    let is_open_to_all = folder.mode() & 0o002 != 0;
    let owner = status.st_uid;
    if !is_open_to_all || is_trusted(owner) || owner == folder.uid() {
        return Ok(());
    }
    let what = match kind {
        FileType::Symlink => "link",
        FileType::Fifo => "pipe",
        FileType::Socket => "socket",
        _ => "device",
    };
    Err(refused(&format!(
        "a {what} of user {owner} in a folder that everybody may write to"
    )))
}

/// Refuses what nobody but its owner would be led to by a link.
fn follow(foreign_link: Option<u32>, what: &str) -> io::Result<()> {
    match foreign_link {
        Some(owner) => Err(refused(&format!("a link of user {owner} leads to {what}"))),
        None => Ok(()),
    }
}

fn is_trusted(owner: u32) -> bool {
    owner == 0 || owner == rustix::process::geteuid().as_raw()
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

fn target(link: &OwnedFd) -> io::Result<PathBuf> {
    let target = readlinkat(link.as_fd(), "", Vec::new())?;
    Ok(std::ffi::OsString::from_vec(target.into_bytes()).into())
}

/// `/dev/stdout` leads to one: its text is no path.
fn is_of_proc(link: &OwnedFd) -> bool {
    fstatfs(link).is_ok_and(|system| system.f_type == PROC_SUPER_MAGIC)
}

/// A descriptor of ours, or of another process: what is behind it stays, also a regular file.
fn open_magic(path: &Path) -> io::Result<File> {
    open_for_writing(path, OFlags::APPEND.bits())
}

fn open_for_writing(path: &(impl AsRef<Path> + ?Sized), flags: u32) -> io::Result<File> {
    let flags = OFlags::NOCTTY.bits() | flags;
    File::options()
        .write(true)
        .custom_flags(flags.cast_signed())
        .open(path)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        io::Read,
        os::unix::fs::{PermissionsExt, chown, symlink},
        path::Path,
    };

    use rustix::fs::{CWD, Mode, mknodat};

    use super::open_typed;
    use crate::artifact::{Artifact, Destination};

    fn pipe(path: &Path) {
        mknodat(
            CWD,
            path,
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o666),
            0,
        )
        .unwrap();
    }

    /// A typed path may be a device or a pipe, also behind links of ours, and a descriptor.
    #[test]
    fn typed_special_files_are_opened() {
        assert!(open_typed(Path::new("/dev/null")).unwrap().is_some());
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        symlink("/dev/null", at("one")).unwrap();
        symlink("one", at("two")).unwrap();
        assert!(open_typed(&at("two")).unwrap().is_some());
        symlink("loop", at("loop")).unwrap();
        assert_eq!(
            open_typed(&at("loop")).unwrap_err().raw_os_error(),
            Some(40)
        );
        symlink(".", at("here")).unwrap();
        assert_eq!(
            open_typed(&at("here")).unwrap_err().kind(),
            std::io::ErrorKind::IsADirectory
        );
        fs::write(at("file"), "").unwrap();
        symlink("file", at("to-file")).unwrap();
        symlink("nothing", at("to-nothing")).unwrap();
        for plain in ["file", "to-file", "nothing", "to-nothing"] {
            assert!(open_typed(&at(plain)).unwrap().is_none(), "{plain}");
        }
    }

    /// `/dev/stdout` is what standard output is, also a file, which stays what it is.
    #[test]
    fn descriptors_are_written_to() {
        use std::os::fd::AsRawFd;
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, "before ").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("stdout");
        symlink(
            format!("/proc/self/fd/{}", file.as_file().as_raw_fd()),
            &link,
        )
        .unwrap();
        Artifact::open(&Destination::File(link.clone()))
            .unwrap()
            .write(b"after")
            .unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"before after");
        assert!(link.is_symlink());
    }

    /// A name that is ours is a new file, whatever stood there: what a link led to, or who reads a pipe, gets nothing.
    #[test]
    fn own_names_replace_what_was_planted() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("victim"), "victim").unwrap();
        symlink("victim", at("link")).unwrap();
        symlink("/dev/null", at("device")).unwrap();
        pipe(&at("pipe"));
        for name in ["link", "device", "pipe"] {
            Artifact::open(&Destination::Ours(at(name)))
                .unwrap()
                .write(b"new")
                .unwrap();
            assert!(at(name).symlink_metadata().unwrap().is_file(), "{name}");
            assert_eq!(fs::read(at(name)).unwrap(), b"new");
        }
        assert_eq!(fs::read(at("victim")).unwrap(), b"victim");
        fs::create_dir(at("folder")).unwrap();
        assert!(Artifact::open(&Destination::Ours(at("folder"))).is_err());
    }

    /// In a folder of everybody, what somebody else has put there is not written to, and no link of somebody else
    /// leads us to a device. Wants root, to be somebody else.
    #[test]
    fn planted_names_are_refused() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
        let at = |name: &str| folder.path().join(name);
        symlink("/dev/null", at("theirs")).unwrap();
        std::os::unix::fs::lchown(at("theirs"), Some(65534), None).unwrap();
        pipe(&at("pipe"));
        chown(at("pipe"), Some(65534), None).unwrap();
        symlink("/dev/null", at("ours")).unwrap();
        let refused = |name: &str| {
            let error = Artifact::open(&Destination::File(at(name))).unwrap_err();
            assert!(error.hint().unwrap().contains("-o FILE"), "{error}");
            error.to_string()
        };
        assert!(
            refused("theirs")
                .contains("a link of user 65534 in a folder that everybody may write to")
        );
        assert!(refused("pipe").contains("a pipe of user 65534"));
        assert!(open_typed(&at("ours")).unwrap().is_some());
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        assert!(refused("theirs").contains("leads to a device"));
        // Their own pipe, in a folder that is not everybody's, may have been typed.
        let reader = std::thread::spawn({
            let pipe = at("pipe");
            move || {
                let mut text = String::new();
                fs::File::open(pipe)
                    .unwrap()
                    .read_to_string(&mut text)
                    .unwrap();
                text
            }
        });
        Artifact::open(&Destination::File(at("pipe")))
            .unwrap()
            .write(b"told")
            .unwrap();
        assert_eq!(reader.join().unwrap(), "told");
    }
}
