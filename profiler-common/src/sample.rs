//! The record of one sample: a fixed header, then the kernel stack, then the user stack.
//!
//! On the ring: [`SampleHeader`], `kernel_len` return addresses of the kernel stack, `user_len`
//! addresses of the user stack, both leaf first, nothing between them. The record is sent at its
//! actual length.

use crate::limits::{COMM_LEN, KERNEL_FRAMES_MAX, USER_FRAMES_MAX};

/// First field of every record on the ring: what kind of record it is.
pub const KIND_SAMPLE: u32 = 1;

/// The CPU ran user code when the sample hit.
pub const ORIGIN_USER: u8 = 0;
/// The CPU ran kernel code, entered by an interrupt or exception: the user pc is the instruction
/// itself.
pub const ORIGIN_INTERRUPT: u8 = 1;
/// The CPU ran kernel code, entered by a system call: the user pc is the address after the call.
pub const ORIGIN_SYSCALL: u8 = 2;

/// What is known of a sample beside its stacks.
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
pub struct SampleHeader {
    /// [`KIND_SAMPLE`].
    pub kind: u32,
    /// CPU the sample was taken on.
    pub cpu: u32,
    /// `CLOCK_MONOTONIC`, ns.
    pub time_ns: u64,
    /// Process id (the kernel's tgid) in the initial pid namespace.
    pub tgid: u32,
    /// Thread id (the kernel's pid) in the initial pid namespace.
    pub tid: u32,
    /// Name of the thread at the time, zero-terminated.
    pub comm: [u8; COMM_LEN],
    /// Frames of the kernel stack.
    pub kernel_len: u16,
    /// Frames of the user stack.
    pub user_len: u16,
    /// [`StopReason`](crate::outcome::StopReason) of the user stack.
    pub stop: u8,
    /// [`ORIGIN_USER`], [`ORIGIN_INTERRUPT`] or [`ORIGIN_SYSCALL`].
    pub origin: u8,
    /// Explicit padding, zero.
    pub padding: u16,
}

/// Bytes of the header.
pub const HEADER_BYTES: usize = size_of::<SampleHeader>();
/// Most frames of both stacks together.
pub const FRAMES_MAX: usize = KERNEL_FRAMES_MAX + USER_FRAMES_MAX;
/// Bytes of the longest record.
pub const SAMPLE_BYTES_MAX: usize = HEADER_BYTES + FRAMES_MAX * size_of::<u64>();

const _: () = assert!(HEADER_BYTES == 48 && align_of::<SampleHeader>() == 8);

#[cfg(feature = "user")]
mod decode {
    use zerocopy::FromBytes;

    use super::{KIND_SAMPLE, SampleHeader};
    use crate::{
        limits::{KERNEL_FRAMES_MAX, USER_FRAMES_MAX},
        outcome::StopReason,
    };

    /// A checked view of a sample record.
    #[derive(Clone, Copy, Debug)]
    pub struct Sample<'a> {
        /// The fixed part.
        pub header: &'a SampleHeader,
        /// Kernel stack, leaf first; every address but a leaf hit in kernel mode is a return address.
        pub kernel: &'a [u64],
        /// User stack, leaf first; every address but the first is a return address.
        pub user: &'a [u64],
        /// Why the user stack ended.
        pub stop: StopReason,
    }

    impl<'a> Sample<'a> {
        /// Reads a record off the ring, `None` where its bytes contradict themselves.
        #[must_use]
        pub fn decode(bytes: &'a [u8]) -> Option<Self> {
            let (header, stacks) = SampleHeader::ref_from_prefix(bytes).ok()?;
            let kernel_len = usize::from(header.kernel_len);
            let user_len = usize::from(header.user_len);
            let sane = header.kind == KIND_SAMPLE
                && kernel_len <= KERNEL_FRAMES_MAX
                && user_len <= USER_FRAMES_MAX;
            if !sane {
                return None;
            }
            let (kernel, rest) = <[u64]>::ref_from_prefix_with_elems(stacks, kernel_len).ok()?;
            let (user, _) = <[u64]>::ref_from_prefix_with_elems(rest, user_len).ok()?;
            let stop = StopReason::from_id(header.stop)?;
            Some(Self {
                header,
                kernel,
                user,
                stop,
            })
        }
    }
}

#[cfg(feature = "user")]
pub use decode::Sample;
