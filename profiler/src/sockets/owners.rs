//! Whose a socket is: the processes that have it open.

use std::{collections::BTreeMap, fs};

/// Most descriptors of one process that are looked through: a server of many connections has some ten thousand.
const DESCRIPTORS_MAX: usize = 65_536;

/// Inode numbers of the sockets that these processes have open; of several, the first.
pub(crate) fn of(pids: impl IntoIterator<Item = u32>) -> BTreeMap<u32, u32> {
    let mut owners = BTreeMap::new();
    for pid in pids {
        let folder = fs::read_dir(format!("/proc/{pid}/fd"));
        for entry in folder.into_iter().flatten().flatten().take(DESCRIPTORS_MAX) {
            if let Some(inode) = fs::read_link(entry.path())
                .ok()
                .and_then(|link| socket(link.to_str()?))
            {
                owners.entry(inode).or_insert(pid);
            }
        }
    }
    owners
}

/// Of `socket:[INODE]`.
fn socket(link: &str) -> Option<u32> {
    link.strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

/// Every process there is.
pub(crate) fn everybody() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::fd::AsRawFd, os::unix::fs::MetadataExt};

    use super::{everybody, of, socket};

    /// A socket of this process is found under its inode number.
    #[test]
    fn own_socket_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let file = std::fs::metadata(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
        let own = std::process::id();
        assert_eq!(of([own])[&u32::try_from(file.ino()).unwrap()], own);
        assert!(everybody().contains(&own));
        assert_eq!(
            (socket("socket:[12]"), socket("pipe:[12]")),
            (Some(12), None)
        );
    }
}
