//! A thread that waits, as the list of tasks shows it.

use crate::unwind::Registers;

/// One thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
pub struct Sleeper {
    /// Its id in the initial pid namespace.
    pub tid: u64,
    /// The user registers with which it entered the kernel.
    pub frame: Registers,
}

const _: () = assert!(size_of::<Sleeper>() == 32);
