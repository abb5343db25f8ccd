//! The record of a process's life: fork, exec, exit.

use crate::limits::COMM_LEN;

/// A target process created another process, which is a target too.
pub const KIND_FORK: u32 = 2;
/// A target process replaced its program: every mapping known of it is void.
pub const KIND_EXEC: u32 = 3;
/// The last thread of a target process ended.
pub const KIND_EXIT: u32 = 4;

/// One event. All ids are of the initial pid namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(
        zerocopy::FromBytes,
        zerocopy::IntoBytes,
        zerocopy::Immutable,
        zerocopy::KnownLayout
    )
)]
#[repr(C)]
pub struct ProcessEvent {
    /// [`KIND_FORK`], [`KIND_EXEC`] or [`KIND_EXIT`].
    pub kind: u32,
    /// The process: of a fork, the child.
    pub tgid: u32,
    /// The parent of a fork, else zero.
    pub parent: u32,
    /// Explicit padding, zero.
    pub padding: u32,
    /// `CLOCK_MONOTONIC`, ns.
    pub time_ns: u64,
    /// Name of the process at the time (of an exec, the new one), zero-terminated.
    pub comm: [u8; COMM_LEN],
}

const _: () = assert!(size_of::<ProcessEvent>() == 40 && align_of::<ProcessEvent>() == 8);
