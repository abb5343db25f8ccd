//! The record of one sample: a fixed header, then the kernel stack, the user stack and the Python stack.
//!
//! On the ring: [`SampleHeader`], `kernel_len` return addresses of the kernel stack, `user_len`
//! addresses of the user stack, `python_len` frames of the Python stack at two words each
//! ([`PythonFrame`](crate::python::PythonFrame)), all leaf first, nothing between them. The record is
//! sent at its actual length.

use crate::{
    limits::{
        COMM_LEN, KERNEL_FRAMES_MAX, PYTHON_FRAMES_MIN, STACK_COPY_BYTES, STACK_RED_ZONE_BYTES,
        USER_FRAMES_MAX,
    },
    unwind::Registers,
};

/// First field of every record on the ring: what kind of record it is.
pub const KIND_SAMPLE: u32 = 1;

/// A sample with a [`Rest`]: the walk stopped where the kernel side knew no mapping, and user space may
/// go on. Always of the same length, the stacks followed by what room they leave.
pub const KIND_SAMPLE_REST: u32 = 5;

/// A thread was off the CPU: the stack it left with, and for how long. Laid out as [`KIND_SAMPLE`].
pub const KIND_OFF_CPU: u32 = 6;

/// A thread returned from a system call: the stack it was called with, and how much time in calls the stack
/// stands for. Laid out as [`KIND_SAMPLE`].
pub const KIND_CALL: u32 = 10;

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
    /// [`KIND_SAMPLE`] or [`KIND_SAMPLE_REST`].
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
    /// Of a [`KIND_OFF_CPU`] record, the [`State`](crate::off_cpu::State) it was in; else zero.
    pub state: u8,
    /// Bits of [`off_cpu::wait`](crate::off_cpu::wait).
    pub wait: u8,
    /// Where the walk up the user stack failed: the stack address that could not be read, or the code
    /// address in no known mapping; else 0 or without meaning.
    pub fault: u64,
    /// Of a [`KIND_OFF_CPU`] record, how long it was off the CPU, ns; `time_ns` is its beginning. Of a
    /// [`KIND_CALL`] record, the time that it stands for. Else zero.
    pub duration_ns: u64,
    /// The first arguments of the system call that it was in.
    pub arguments: [u64; 3],
    /// The number of that call, -1 if it was in none.
    pub syscall: i32,
    /// Thread that owned the futex it waited for, by glibc's word beside the futex; 0 if not known. Of a call
    /// that polls, the first descriptor, -1 if it could not be read.
    pub operand: u32,
    /// Frames of the Python stack.
    pub python_len: u16,
    /// [`PythonStop`](crate::outcome::PythonStop) of the Python stack.
    pub python_stop: u8,
    /// [`GIL_UNKNOWN`], [`GIL_FREE`] or [`GIL_HELD`].
    pub gil: u8,
    /// Of the Python frames, those innermost ones that are sent in their order. Behind them the others go round: the
    /// oldest of them is at `python_left_out`, modulo their number.
    pub python_inner: u16,
    /// Python frames between both parts that are not sent.
    pub python_left_out: u16,
}

/// The thread has nothing to do with a global interpreter lock, or it is not known.
pub const GIL_UNKNOWN: u8 = 0;
/// The thread did not hold its interpreter's lock.
pub const GIL_FREE: u8 = 1;
/// It did.
pub const GIL_HELD: u8 = 2;

/// Where a walk stopped for want of a mapping: the frame whose caller is looked for, and the stack
/// from there on. It is walked and dropped at once, never kept.
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
pub struct Rest {
    /// The frame, which is the last of the user stack so far.
    pub frame: Registers,
    /// How it was found: bits of [`unwind::how`](crate::unwind::how).
    pub how: u32,
    /// Bytes of `stack` that were copied.
    pub bytes: u32,
    /// The stack from [`Rest::base`] on.
    pub stack: [u8; STACK_RED_ZONE_BYTES + STACK_COPY_BYTES],
}

impl Rest {
    /// Address of the first byte of the copy: below the stack pointer by [`STACK_RED_ZONE_BYTES`].
    #[must_use]
    pub fn base(&self) -> u64 {
        self.frame.sp.wrapping_sub(STACK_RED_ZONE_BYTES as u64)
    }
}

/// Bytes of the header.
pub const HEADER_BYTES: usize = size_of::<SampleHeader>();
/// Most words of all stacks together.
pub const WORDS_MAX: usize = KERNEL_FRAMES_MAX + USER_FRAMES_MAX + 2 * PYTHON_FRAMES_MIN;
/// Bytes of a record without and with a [`Rest`], at most and always.
pub const SAMPLE_BYTES_MAX: usize = HEADER_BYTES + WORDS_MAX * size_of::<u64>();
/// See [`SAMPLE_BYTES_MAX`].
pub const SAMPLE_REST_BYTES: usize = SAMPLE_BYTES_MAX + size_of::<Rest>();

const _: () = assert!(HEADER_BYTES == 104 && align_of::<SampleHeader>() == 8);

#[cfg(feature = "user")]
mod decode {
    use zerocopy::FromBytes;

    use super::{
        KIND_CALL, KIND_OFF_CPU, KIND_SAMPLE, KIND_SAMPLE_REST, Rest, SAMPLE_BYTES_MAX,
        SampleHeader,
    };
    use crate::{
        limits::{KERNEL_FRAMES_MAX, PYTHON_FRAMES_MAX, USER_FRAMES_MAX},
        outcome::{PythonStop, StopReason},
    };

    /// A checked view of a sample record.
    #[derive(Clone, Copy, Debug)]
    pub struct Sample<'a> {
        /// The fixed part.
        pub header: &'a SampleHeader,
        /// Kernel stack, leaf first; every address but a leaf hit in kernel mode is a return address.
        pub kernel: &'a [u64],
        /// User stack, leaf first; every address but the first is a return address, or stands one byte
        /// behind the instruction that a signal interrupted.
        pub user: &'a [u64],
        /// Why the user stack ended.
        pub stop: StopReason,
        /// Python stack, leaf first: see [`PythonFrame`](crate::python::PythonFrame::from_words).
        pub python: &'a [[u64; 2]],
        /// Why the Python stack ended.
        pub python_stop: PythonStop,
        /// What user space may go on from.
        pub rest: Option<&'a Rest>,
    }

    impl<'a> Sample<'a> {
        /// Reads a record off the ring, `None` where its bytes contradict themselves.
        #[must_use]
        pub fn decode(bytes: &'a [u8]) -> Option<Self> {
            let (header, stacks) = SampleHeader::ref_from_prefix(bytes).ok()?;
            let kernel_len = usize::from(header.kernel_len);
            let user_len = usize::from(header.user_len);
            let python_len = usize::from(header.python_len);
            let has_rest = header.kind == KIND_SAMPLE_REST;
            let sane = (matches!(header.kind, KIND_SAMPLE | KIND_OFF_CPU | KIND_CALL) || has_rest)
                && kernel_len <= KERNEL_FRAMES_MAX
                && user_len <= USER_FRAMES_MAX
                && python_len <= PYTHON_FRAMES_MAX
                && usize::from(header.python_inner) <= python_len;
            if !sane {
                return None;
            }
            let (kernel, rest) = <[u64]>::ref_from_prefix_with_elems(stacks, kernel_len).ok()?;
            let (user, rest) = <[u64]>::ref_from_prefix_with_elems(rest, user_len).ok()?;
            let (python, _) = <[[u64; 2]]>::ref_from_prefix_with_elems(rest, python_len).ok()?;
            let python_stop = PythonStop::from_id(header.python_stop)?;
            let stop = StopReason::from_id(header.stop)?;
            let rest = if has_rest {
                Some(
                    Rest::ref_from_prefix(bytes.get(SAMPLE_BYTES_MAX..)?)
                        .ok()?
                        .0,
                )
            } else {
                None
            };
            Some(Self {
                header,
                kernel,
                user,
                stop,
                python,
                python_stop,
                rest,
            })
        }
    }
}

#[cfg(feature = "user")]
pub use decode::Sample;
