//! What lies behind a descriptor of the running task. No lock is taken: it can be stale only where another thread closes
//! it meanwhile.

use crate::{
    maps::call_setting,
    task::{Task, read_at},
};

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
