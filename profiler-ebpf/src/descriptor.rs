//! What lies behind a descriptor of the running task. No lock is taken: it can be stale only where another thread closes
//! it meanwhile.

use crate::{
    maps::{call_setting, wire_setting},
    task::{Task, read_at},
};

/// `S_IFMT` and `S_IFSOCK`
const TYPE_BITS: u16 = 0o170_000;
const SOCKET: u16 = 0o140_000;
/// From `i_mode` to `i_ino` in `struct inode` of kernels 5.8 to 6.18, which lets both be read at once.
const MODE_TO_NUMBER: u32 = 64;

/// The `struct file` of a descriptor.
#[inline(always)]
pub(crate) fn file(descriptor: u32) -> Option<u64> {
    let files: u64 = read_at(Task::current().0 as u64, call_setting!(task_files))?;
    let table: u64 = read_at(files, call_setting!(files_fdt))?;
    let (descriptors, list) = if call_setting!(fdt_fd) == call_setting!(fdt_max) + 8 {
        let [descriptors, list]: [u64; 2] = read_at(table, call_setting!(fdt_max))?;
        (descriptors as u32, list)
    } else {
        let descriptors: u32 = read_at(table, call_setting!(fdt_max))?;
        (descriptors, read_at(table, call_setting!(fdt_fd))?)
    };
    if descriptor >= descriptors {
        return None;
    }
    read_at(list + u64::from(descriptor) * 8, 0)
}

/// The `struct inode` of a file.
#[inline(always)]
pub(crate) fn inode(file: u64) -> Option<u64> {
    read_at(file, call_setting!(file_inode))
}

/// An inode's type and permissions, and its number.
#[inline(always)]
pub(crate) fn mode_and_number(inode: u64) -> Option<(u16, u64)> {
    if call_setting!(inode_number) == call_setting!(inode_mode) + MODE_TO_NUMBER {
        let words: [u64; MODE_TO_NUMBER as usize / 8 + 1] =
            read_at(inode, call_setting!(inode_mode))?;
        return Some((words[0] as u16, words[MODE_TO_NUMBER as usize / 8]));
    }
    let mode = read_at(inode, call_setting!(inode_mode))?;
    Some((mode, read_at(inode, call_setting!(inode_number))?))
}

/// A file that is a socket.
#[derive(Clone, Copy)]
pub(crate) struct SocketFile {
    file: u64,
    /// Address of its inode.
    pub(crate) inode: u64,
    /// That one's number.
    pub(crate) number: u64,
}

impl SocketFile {
    /// The one behind a descriptor of the running task.
    #[inline(always)]
    pub(crate) fn behind(descriptor: u32) -> Option<Self> {
        let file = file(descriptor)?;
        let inode = inode(file)?;
        let (mode, number) = mode_and_number(inode)?;
        (mode & TYPE_BITS == SOCKET).then_some(Self {
            file,
            inode,
            number,
        })
    }

    /// Its `struct sock`.
    #[inline(always)]
    pub(crate) fn sock(self) -> Option<u64> {
        let outer: u64 = read_at(self.file, wire_setting!(file_private))?;
        read_at(outer, wire_setting!(socket_sk))
    }
}
