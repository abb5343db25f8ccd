//! The one door to files whose path a target can influence. Nothing else opens such a file, and
//! `cargo xtask check` says so.
//!
//! A path of a target may lead to a pipe or a device, whose mere opening waits or does something,
//! and to a link out of the target's root. So each path is looked up below the target's own root by
//! `openat2`, without links of procfs, as a descriptor that opens nothing (`O_PATH`). Only what is
//! then found to be a regular file of an ordinary file system is opened, through our own descriptor.
//!
//! Links of procfs are followed here alone: `/proc/PID/root`, `/proc/PID/map_files/*`,
//! `/proc/PID/exe` and our own `/proc/self/fd/*`. Where `openat2` is refused (a seccomp filter), nothing
//! is opened and the cause is counted: there is no weaker way.
//!
//! What a process's memory answers, and when, is for the process to say: `ask` waits for it a while only. How long a
//! user's files or one process may keep us busy is bounded too, each for itself, so that none is at the cost of others.

mod answer;
mod bounded;
mod contents;
mod fuse;
mod mapped;
mod owners;
mod refused;
mod regular;
mod root;
mod spent;

pub(crate) use self::{
    answer::{ask, notes as silence, ran},
    bounded::{descriptor_inode, proc_bytes, proc_facts, proc_text, whole_lines},
    contents::{Contents, plain},
    mapped::{Mapped, find_mapped, find_program},
    owners::Owners,
    refused::{Refusals, Refused},
    regular::{Identity, Regular, reopen},
    root::Root,
    spent::Spent,
};
