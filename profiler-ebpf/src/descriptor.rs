//! What lies behind a descriptor of the running task. No lock is taken: it can be stale only where another thread closes
//! it meanwhile.

use crate::{
    maps::{call_setting, wire_setting},
    task::{Task, read_at},
};

/// `S_IFMT` and `S_IFSOCK`
const TYPE_BITS: u16 = 0o170_000;
const SOCKET: u16 = 0o140_000;
/// The `struct file` of a descriptor.
#[inline(always)]
pub(crate) fn file(descriptor: u32) -> Option<u64> {
    let files: u64 = read_at(Task::current().0 as u64, call_setting!(task_files))?;
    let table: u64 = read_at(files, call_setting!(files_fdt))?;
    let descriptors: u32 = read_at(table, call_setting!(fdt_max))?;
    if descriptor >= descriptors {
        return None;
    }
    let list: u64 = read_at(table, call_setting!(fdt_fd))?;
    read_at(list + u64::from(descriptor) * 8, 0)
}

/// The `struct inode` of a file.
#[inline(always)]
pub(crate) fn inode(file: u64) -> Option<u64> {
    read_at(file, call_setting!(file_inode))
}

/// An inode's number.
#[inline(always)]
pub(crate) fn number(inode: u64) -> Option<u64> {
    read_at(inode, call_setting!(inode_number))
}

/// An inode's type and permissions.
#[inline(always)]
pub(crate) fn mode(inode: u64) -> Option<u16> {
    read_at(inode, call_setting!(inode_mode))
}

/// The socket behind a descriptor of the running task: its address and its inode number.
#[inline(always)]
pub(crate) fn socket(descriptor: u32) -> Option<(u64, u64)> {
    let file = file(descriptor)?;
    let inode = inode(file)?;
    if mode(inode)? & TYPE_BITS != SOCKET {
        return None;
    }
    let outer: u64 = read_at(file, wire_setting!(file_private))?;
    let socket: u64 = read_at(outer, wire_setting!(socket_sk))?;
    Some((socket, number(inode)?))
}
