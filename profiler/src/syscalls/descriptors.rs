//! What the descriptors are that calls work on. Looked up when the kernel side tells of a descriptor for the first
//! time; by then a short-lived one may be closed, and then only its kind is known.

use std::collections::BTreeMap;

use profiler_common::syscalls::{CallerEvent, CellKey};

use crate::{foreign::descriptor_inode, wait::Descriptors};

/// `S_IFMT` of include/uapi/linux/stat.h, and the kinds below it.
const KIND: u32 = 0o170_000;

/// Most texts that are kept: as many as there are sums, several times over.
const TEXTS_MAX: usize = 65_536;

/// Texts by process, descriptor and inode number.
#[derive(Debug, Default)]
pub(super) struct Files {
    descriptors: Descriptors,
    texts: BTreeMap<(u32, i32, u64), String>,
}

impl Files {
    /// Looks a descriptor up, unless it is known.
    pub(super) fn learn(&mut self, event: &CallerEvent) {
        let key = (event.tgid, event.descriptor, event.inode);
        if self.texts.contains_key(&key) {
            return;
        }
        if self.texts.len() >= TEXTS_MAX {
            return;
        }
        let text = self
            .look_up(event)
            .unwrap_or_else(|| by_mode(event.mode).to_owned());
        self.texts.insert(key, text);
    }

    /// What the descriptor of a row is.
    pub(super) fn text(&self, key: &CellKey) -> Option<&str> {
        if key.descriptor < 0 {
            return None;
        }
        let text = self.texts.get(&(key.tgid, key.descriptor, key.inode));
        Some(text.map_or("not looked up", String::as_str))
    }

    /// What it is, if it still is the file that the call worked on.
    fn look_up(&mut self, event: &CallerEvent) -> Option<String> {
        let number = u32::try_from(event.descriptor).ok()?;
        if descriptor_inode(event.tgid, number)? != event.inode {
            return None;
        }
        Some(self.descriptors.describe(event.tgid, number))
    }
}

fn by_mode(mode: u32) -> &'static str {
    match mode & KIND {
        0o140_000 => "socket, closed since",
        0o120_000 => "link, closed since",
        0o100_000 => "file, closed since",
        0o060_000 => "block device, closed since",
        0o040_000 => "folder, closed since",
        0o020_000 => "character device, closed since",
        0o010_000 => "pipe, closed since",
        // Such as epoll and eventfd, whose inode has no kind.
        _ if mode != 0 => "anonymous file, closed since",
        _ => "not open",
    }
}

#[cfg(test)]
mod tests {
    use std::os::{fd::AsRawFd, unix::fs::MetadataExt};

    use profiler_common::syscalls::{CallerEvent, CellKey, KIND_DESCRIPTOR};

    use super::Files;

    /// An open descriptor is named; one that is another file by now is only a kind.
    #[test]
    fn descriptors_are_named_or_have_a_kind() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let inode = file.as_file().metadata().unwrap().ino();
        let mut files = Files::default();
        let mut text = |inode| {
            let descriptor = file.as_file().as_raw_fd();
            let event = CallerEvent {
                kind: KIND_DESCRIPTOR,
                tgid: std::process::id(),
                tid: 0,
                descriptor,
                inode,
                mode: 0o100_600,
                padding: 0,
                comm: [0; 16],
            };
            files.learn(&event);
            let key = CellKey {
                tgid: event.tgid,
                descriptor,
                inode,
                ..CellKey::default()
            };
            files.text(&key).map(str::to_owned)
        };
        assert_eq!(text(inode).as_deref(), file.path().to_str());
        assert_eq!(text(inode + 1).as_deref(), Some("file, closed since"));
    }
}
