//! Network namespaces of processes, and looking around in one. A thread of our own enters it, and ends there.

use std::{collections::BTreeMap, fs::File, io, os::fd::AsFd, os::unix::fs::MetadataExt};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The namespaces of these processes, each once, by inode number, which is how the kernel side calls them.
pub(crate) fn of(pids: impl IntoIterator<Item = u32>) -> BTreeMap<u32, File> {
    let files = pids.into_iter().filter_map(|pid| {
        let file = File::open(format!("/proc/{pid}/ns/net")).ok()?;
        let inode = u32::try_from(file.metadata().ok()?.ino()).ok()?;
        Some((inode, file))
    });
    files.collect()
}

/// Does something in a namespace. Any but our own can be entered with `CAP_SYS_ADMIN` only.
pub(crate) fn within<T: Send>(
    namespace: &File,
    each: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let own = File::open("/proc/thread-self/ns/net").and_then(|own| own.metadata());
    if own.is_ok_and(|own| {
        namespace
            .metadata()
            .is_ok_and(|other| own.ino() == other.ino())
    }) {
        return each();
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            each()
        });
        thread
            .join()
            .unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    })
}

#[cfg(test)]
mod tests {
    use super::of;

    /// Processes in one namespace have it in common; one that is gone has none.
    #[test]
    fn namespaces_are_listed_once() {
        let own = std::process::id();
        assert_eq!(of([own, own, 4_194_304]).len(), 1);
    }
}
