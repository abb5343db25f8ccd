//! The root directory of a target, below which its paths are looked up.

use std::{
    borrow::Cow,
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags, fstat, open, openat2},
    io::Errno,
};

use super::{Refused, Regular};

/// How often a look-up begins again while something below the root is renamed.
const TRIES: usize = 8;

/// A root directory.
#[derive(Debug)]
pub(crate) struct Root {
    descriptor: OwnedFd,
    /// How we see it: `/` where it is ours, or another mount namespace's.
    seen: PathBuf,
}

impl Root {
    /// That of a process, as long as it lives.
    pub(crate) fn of(pid: u32) -> Result<Self, Refused> {
        let link = format!("/proc/{pid}/root");
        Ok(Self {
            seen: fs::read_link(&link).unwrap_or_default(),
            ..Self::at(Path::new(&link))?
        })
    }

    fn at(path: &Path) -> Result<Self, Refused> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            descriptor: open(path, flags, Mode::empty())?,
            seen: PathBuf::new(),
        })
    }

    /// A path of `/proc/PID/maps` as the target sees it: where only its root was changed, the kernel writes there how we
    /// see it.
    pub(crate) fn inside<'a>(&self, path: &'a Path) -> Cow<'a, Path> {
        match path.strip_prefix(&self.seen) {
            Ok(rest) if rest.is_relative() => Path::new("/").join(rest).into(),
            _ => path.into(),
        }
    }

    /// Device and inode number, by which those of several processes are known to be one.
    pub(crate) fn device_and_inode(&self) -> Option<(u64, u64)> {
        let stat = fstat(&self.descriptor).ok()?;
        Some((stat.st_dev, stat.st_ino))
    }

    /// A regular file by its path as the target sees it. Links are followed as the target would, never out of its root.
    pub(crate) fn find(&self, path: &Path) -> Result<Regular, Refused> {
        Regular::of(self.look_up(path)?)
    }

    fn look_up(&self, path: &Path) -> Result<OwnedFd, Refused> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..TRIES {
            match openat2(&self.descriptor, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                found => return Ok(found?),
            }
        }
        Err(Refused::Busy)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::Read,
        os::unix::{fs::symlink, net::UnixListener},
        path::Path,
    };

    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

    use super::{super::Refused, Root};

    /// A root in a folder of its own, with a file `f`.
    fn root() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("f"), "inside").unwrap();
        let root = Root::at(folder.path()).unwrap();
        (folder, root)
    }

    fn refused(root: &Root, path: &str) -> Refused {
        root.find(Path::new(path)).unwrap_err()
    }

    /// A regular file is read, by whatever path the target has for it.
    #[test]
    fn regular_files_are_opened() {
        let (folder, root) = root();
        symlink("/f", folder.path().join("absolute")).unwrap();
        symlink("../../../f", folder.path().join("upwards")).unwrap();
        for path in ["f", "/f", "/../f", "absolute", "upwards"] {
            let mut text = String::new();
            let mut file = root.find(Path::new(path)).unwrap().open().unwrap();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "inside", "{path}");
        }
    }

    /// Where only the root was changed, paths begin with how we see it.
    #[test]
    fn paths_are_those_of_the_target() {
        let (folder, root) = root();
        let seen = |seen: &Path| Root {
            seen: seen.to_owned(),
            descriptor: root.descriptor.try_clone().unwrap(),
        };
        let below = folder.path().join("f");
        assert_eq!(seen(folder.path()).inside(&below), Path::new("/f"));
        assert_eq!(seen(Path::new("/")).inside(&below), below);
        assert_eq!(seen(Path::new("/other")).inside(&below), below);
    }

    /// What waits or acts when it is opened is not opened.
    #[test]
    fn special_files_are_refused() {
        let (folder, root) = root();
        let make = |name: &str, kind, device| {
            let path = folder.path().join(name);
            mknodat(CWD, &path, kind, Mode::from_raw_mode(0o644), device)
        };
        make("pipe", FileType::Fifo, 0).unwrap();
        let _listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        symlink("pipe", folder.path().join("link")).unwrap();
        for path in ["pipe", "socket", "link", "/", "."] {
            assert_eq!(refused(&root, path), Refused::NotRegular, "{path}");
        }
        // Only root may make one: /dev/null.
        if make("device", FileType::CharacterDevice, makedev(1, 3)).is_ok() {
            assert_eq!(refused(&root, "device"), Refused::NotRegular);
        }
    }

    /// No link leads out of the root: a path outside means one inside, and links of procfs are not followed.
    #[test]
    fn links_stay_inside() {
        let (folder, root) = root();
        let outside = tempfile::NamedTempFile::new().unwrap();
        symlink(outside.path(), folder.path().join("out")).unwrap();
        assert_eq!(refused(&root, "out"), Refused::Gone);
        symlink("loop", folder.path().join("loop")).unwrap();
        assert_eq!(refused(&root, "loop"), Refused::Link);
        let system = Root::at(Path::new("/")).unwrap();
        for path in [
            "/proc/self/exe",
            "/proc/self/fd/0",
            "/proc/self/root/etc/passwd",
        ] {
            assert_eq!(refused(&system, path), Refused::Link, "{path}");
        }
    }

    /// Regular files of the kernel's are refused: some take away what others were to read.
    #[test]
    fn files_of_the_kernel_are_refused() {
        let system = Root::at(Path::new("/")).unwrap();
        for path in ["/proc/kmsg", "/proc/version", "/sys/kernel/notes"] {
            assert_eq!(refused(&system, path), Refused::Kernel, "{path}");
        }
    }
}
