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
//! What waits for a file system itself cannot be helped: a FUSE file system that any user may enter
//! (`user_allow_other`) answers when its owner likes.

mod bounded;
mod mapped;
mod refused;
mod regular;
mod root;

pub(crate) use self::{
    bounded::{proc_bytes, proc_text, read_bounded, read_up_to},
    mapped::{Mapped, find_mapped, find_program},
    refused::{Refusals, Refused},
    regular::{Identity, Regular, reopen},
    root::Root,
};
