//! blazesym opens files by path: that of our own descriptor. Without capabilities that is allowed only where the
//! file's mode allows it; others are copied, up to a bound.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
};

use rustix::fs::{MemfdFlags, memfd_create};

/// Longest file that is copied: it stays in memory as long as it is read.
pub(super) const COPIED_MAX: u64 = 64 << 20;

/// A path by which a file can be opened, as long as this lives.
pub(super) struct Readable {
    pub(super) path: String,
    _copy: Option<File>,
}

impl Readable {
    pub(super) fn of(file: &OwnedFd) -> io::Result<Self> {
        let path = path(file);
        match File::open(&path) {
            Ok(_) => Ok(Self { path, _copy: None }),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Self::copied(file),
            Err(error) => Err(error),
        }
    }

    fn copied(file: &OwnedFd) -> io::Result<Self> {
        let source = FromStart::of(file)?;
        if source.file.metadata()?.len() > COPIED_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut copy = File::from(memfd_create("file", MemfdFlags::CLOEXEC)?);
        // To write more would be the end of this process, should the file grow now.
        io::copy(&mut source.take(COPIED_MAX), &mut copy)?;
        copy.flush()?;
        Ok(Self {
            path: path(&copy),
            _copy: Some(copy),
        })
    }
}

/// Folder of our own descriptors: the child has gone into it while it was allowed to, as `/proc` may be closed to it.
const FOLDER: &str = if cfg!(test) { "/proc/self/fd" } else { "." };

/// The file's path, by our own descriptor.
fn path(file: &impl AsRawFd) -> String {
    format!("{FOLDER}/{}", file.as_raw_fd())
}

/// Reads a file from its beginning, whatever was read of it before and whoever else reads it now.
pub(super) struct FromStart {
    file: File,
    at: u64,
}

impl FromStart {
    pub(super) fn of(file: &OwnedFd) -> io::Result<Self> {
        let file = File::from(file.try_clone()?);
        Ok(Self { file, at: 0 })
    }
}

impl Read for FromStart {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, os::fd::OwnedFd};

    use super::{COPIED_MAX, Readable};

    /// A copy has what the file has, from its beginning; what is beyond the bound is not copied.
    #[test]
    fn copies_are_whole_or_none() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"contents").unwrap();
        let file = OwnedFd::from(file);
        let copy = Readable::copied(&file).unwrap();
        assert_eq!(fs::read(&copy.path).unwrap(), b"contents");
        let long = tempfile::tempfile().unwrap();
        long.set_len(COPIED_MAX + 1).unwrap();
        assert!(Readable::copied(&OwnedFd::from(long)).is_err());
    }
}
