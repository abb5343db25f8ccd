//! The file behind a mapping of a target.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::Path,
};

use rustix::{
    fs::{Mode, OFlags, makedev, open},
    io::Errno,
};

use super::{Refused, Regular, Root};

/// Bytes of a file that are compared with what is mapped of it.
const COMPARED: usize = 4096;

/// A mapping, as a process's list of mappings tells it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapped<'a> {
    /// Whose.
    pub(crate) pid: u32,
    /// First address.
    pub(crate) start: u64,
    /// First address behind it.
    pub(crate) end: u64,
    /// Offset in the file of what is mapped at `start`.
    pub(crate) file_offset: u64,
    /// Device number, which is not always `fstat`'s (btrfs, overlayfs).
    pub(crate) device: (i32, i32),
    /// Inode number.
    pub(crate) inode: u64,
    /// Path as the target sees it.
    pub(crate) path: &'a Path,
    /// Where the file's ELF header is mapped, if it is: first address and end.
    pub(crate) head: Option<(u64, u64)>,
}

/// Finds what is really mapped, deleted or not; where that is not allowed, the file of that name as the target sees
/// it, if it is still the same one.
pub(crate) fn find_mapped(mapped: &Mapped<'_>) -> Result<Regular, Refused> {
    let Mapped {
        pid, start, end, ..
    } = mapped;
    match link(&format!("/proc/{pid}/map_files/{start:x}-{end:x}")) {
        Ok(descriptor) => {
            let found = Regular::of(descriptor)?;
            let is_it = found.inode() == mapped.inode || is_equal(&found, mapped)?;
            is_it.then_some(found).ok_or(Refused::Replaced)
        }
        Err(_) => find_by_name(mapped),
    }
}

/// The file of that name. Its inode number is not given to another file while it is mapped; its device number may be
/// called otherwise, then the contents decide.
fn find_by_name(mapped: &Mapped<'_>) -> Result<Regular, Refused> {
    let root = Root::of(mapped.pid)?;
    let found = root.find(&root.inside(mapped.path))?;
    if found.inode() != mapped.inode {
        return Err(Refused::Replaced);
    }
    let number = |part: i32| u32::try_from(part).unwrap_or(u32::MAX);
    let (major, minor) = mapped.device;
    let is_it = found.device() == makedev(number(major), number(minor));
    if is_it || is_equal(&found, mapped)? {
        Ok(found)
    } else {
        Err(Refused::Replaced)
    }
}

/// Finds the program of a process.
pub(crate) fn find_program(pid: u32) -> Result<Regular, Refused> {
    Regular::of(link(&format!("/proc/{pid}/exe"))?)
}

/// What one of the links of procfs named above leads to, without opening it.
fn link(path: &str) -> Result<OwnedFd, Errno> {
    open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// Whether the file begins with what is mapped of its beginning; where that is not mapped, whether what is mapped is in
/// it.
fn is_equal(found: &Regular, mapped: &Mapped<'_>) -> Result<bool, Refused> {
    let (start, end, offset) = match mapped.head {
        Some((start, end)) => (start, end, 0),
        None => (mapped.start, mapped.end, mapped.file_offset),
    };
    let length =
        usize::try_from(end.saturating_sub(start)).map_or(COMPARED, |all| all.min(COMPARED));
    let mut of_file = vec![0; length];
    let mut of_memory = vec![0; length];
    let file = found.open()?;
    let read = read_up_to_end(&file, &mut of_file, offset);
    let memory = File::open(format!("/proc/{}/mem", mapped.pid))?;
    memory.read_exact_at(&mut of_memory, start)?;
    // Behind the end of the file its last page is filled with zeros.
    Ok(read > 0 && of_file == of_memory)
}

fn read_up_to_end(file: &File, buffer: &mut [u8], offset: u64) -> usize {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) | Err(_) => break,
            Ok(read) => filled += read,
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

    use super::{Mapped, Refused, find_by_name, find_mapped, find_program};

    /// The mapping of this program that holds its own code, as `/proc/self/maps` has it.
    fn own(path: &mut PathBuf) -> Mapped<'_> {
        let address = own as *const () as u64;
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let number = |text: &str| u64::from_str_radix(text, 16).unwrap();
        let range = |line: &str| {
            let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            (number(start), number(end))
        };
        let holds = |line: &&str| (range(line).0..range(line).1).contains(&address);
        let line = maps.lines().find(holds).unwrap();
        let words: Vec<&str> = line.split_whitespace().collect();
        let (major, minor) = words[3].split_once(':').unwrap();
        let part = |text: &str| i32::from_str_radix(text, 16).unwrap();
        *path = PathBuf::from(words[5]);
        let head = |line: &&str| line.contains(words[5]) && line.contains(" 00000000 ");
        Mapped {
            pid: std::process::id(),
            start: range(line).0,
            end: range(line).1,
            file_offset: number(words[2]),
            device: (part(major), part(minor)),
            inode: words[4].parse().unwrap(),
            head: maps.lines().find(head).map(range),
            path,
        }
    }

    /// Our own code lies in our own program, by each of the ways.
    #[test]
    fn own_program_is_found() {
        let mut path = PathBuf::new();
        let mapped = own(&mut path);
        let program = find_program(mapped.pid).unwrap().identity();
        assert_eq!(find_mapped(&mapped).unwrap().identity(), program);
        assert_eq!(find_by_name(&mapped).unwrap().identity(), program);
        // A device of another name: the contents decide.
        let elsewhere = Mapped {
            device: (1, 2),
            ..mapped
        };
        assert_eq!(find_by_name(&elsewhere).unwrap().identity(), program);
        let by_code = Mapped {
            head: None,
            ..elsewhere
        };
        assert_eq!(find_by_name(&by_code).unwrap().identity(), program);
    }

    /// Another file in its place is refused: by its inode number, or by its contents where only that one is equal.
    #[test]
    fn another_file_is_refused() {
        let mut path = PathBuf::new();
        let mapped = own(&mut path);
        let other = tempfile::NamedTempFile::new().unwrap();
        fs::write(other.path(), "other").unwrap();
        let replaced = Mapped {
            path: other.path(),
            ..mapped
        };
        let cause = |mapped: &Mapped<'_>| find_by_name(mapped).unwrap_err();
        assert_eq!(cause(&replaced), Refused::Replaced);
        let equal_inode = Mapped {
            device: (1, 2),
            inode: fs::metadata(other.path()).unwrap().ino(),
            ..replaced
        };
        assert_eq!(cause(&equal_inode), Refused::Replaced);
        let gone = Mapped {
            path: "/nowhere".as_ref(),
            ..mapped
        };
        assert_eq!(cause(&gone), Refused::Gone);
    }
}
