//! Reading of no more than so many bytes.

use std::{
    fs::File,
    io::{self, Read},
};

/// Reads the beginning of a file; says whether that was all of it.
fn read_up_to(file: impl Read, bytes_max: u64) -> io::Result<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    let mut limited = file.take(bytes_max.saturating_add(1));
    limited.read_to_end(&mut bytes)?;
    let most = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let is_whole = bytes.len() <= most;
    bytes.truncate(most);
    Ok((bytes, is_whole))
}

/// Longest of the kernel's files that tell a fact or two of a process or a thread.
const FACTS_MAX: u64 = 1 << 16;

/// Such a file.
pub(crate) fn proc_facts(pid: u32, name: &str) -> Option<String> {
    proc_text(pid, name, FACTS_MAX)
}

/// Inode number of what a process has open as this descriptor, without a look at that.
pub(crate) fn descriptor_inode(pid: u32, descriptor: u32) -> Option<u64> {
    let facts = proc_facts(pid, &format!("fdinfo/{descriptor}"))?;
    let inode = facts.lines().find_map(|line| line.strip_prefix("ino:"));
    inode?.trim().parse().ok()
}

/// The beginning of a file that the kernel keeps of a process: `name` is one of its own below `/proc/PID`. Says
/// whether that was all of it.
pub(crate) fn proc_bytes(pid: u32, name: &str, bytes_max: u64) -> io::Result<(Vec<u8>, bool)> {
    read_up_to(File::open(format!("/proc/{pid}/{name}"))?, bytes_max)
}

/// The same, up to the end of its last line that was read whole: half a line may seem to say something else.
pub(crate) fn whole_lines(pid: u32, name: &str, bytes_max: u64) -> io::Result<(Vec<u8>, bool)> {
    let (mut bytes, is_whole) = proc_bytes(pid, name, bytes_max)?;
    if !is_whole {
        let end = bytes.iter().rposition(|&byte| byte == b'\n');
        bytes.truncate(end.map_or(0, |end| end + 1));
    }
    Ok((bytes, is_whole))
}

/// The same as text, `None` where there is none.
pub(crate) fn proc_text(pid: u32, name: &str, bytes_max: u64) -> Option<String> {
    let (bytes, _) = proc_bytes(pid, name, bytes_max).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::read_up_to;

    /// A file of exactly so many bytes is whole, one more is too long, and nothing beyond is kept.
    #[test]
    fn bounds_hold() {
        assert_eq!(read_up_to(&b"abc"[..], 3).unwrap(), (b"abc".to_vec(), true));
        assert_eq!(
            read_up_to(&b"abcd"[..], 3).unwrap(),
            (b"abc".to_vec(), false)
        );
        let (bytes, is_whole) = read_up_to(std::io::repeat(7), 10).unwrap();
        assert_eq!((bytes.len(), is_whole), (10, false));
    }
}
