//! Reading of no more than so many bytes.

use std::{
    fs::File,
    io::{self, Read},
};

use super::Refused;

/// Reads a file from where it stands up to its end; one that is longer is refused.
pub(crate) fn read_bounded(file: impl Read, bytes_max: u64) -> Result<Vec<u8>, Refused> {
    match read_up_to(file, bytes_max)? {
        (bytes, true) => Ok(bytes),
        (_, false) => Err(Refused::TooLong),
    }
}

/// Reads the beginning of a file; says whether that was all of it.
pub(crate) fn read_up_to(file: impl Read, bytes_max: u64) -> io::Result<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    let mut limited = file.take(bytes_max.saturating_add(1));
    limited.read_to_end(&mut bytes)?;
    let most = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let is_whole = bytes.len() <= most;
    bytes.truncate(most);
    Ok((bytes, is_whole))
}

/// The beginning of a file that the kernel keeps of a process: `name` is one of its own below `/proc/PID`. Says
/// whether that was all of it.
pub(crate) fn proc_bytes(pid: u32, name: &str, bytes_max: u64) -> io::Result<(Vec<u8>, bool)> {
    read_up_to(File::open(format!("/proc/{pid}/{name}"))?, bytes_max)
}

/// The same as text, `None` where there is none.
pub(crate) fn proc_text(pid: u32, name: &str, bytes_max: u64) -> Option<String> {
    let (bytes, _) = proc_bytes(pid, name, bytes_max).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::{Refused, read_bounded, read_up_to};

    /// A file of exactly so many bytes is whole, one more is too long, and nothing beyond is kept.
    #[test]
    fn bounds_hold() {
        assert_eq!(read_bounded(&b"abc"[..], 3), Ok(b"abc".to_vec()));
        assert_eq!(read_bounded(&b"abcd"[..], 3), Err(Refused::TooLong));
        let (bytes, is_whole) = read_up_to(std::io::repeat(7), 10).unwrap();
        assert_eq!((bytes.len(), is_whole), (10, false));
    }
}
