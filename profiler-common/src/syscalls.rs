//! System calls: what the kernel side keeps of them, per thread while one is under way and in sums of
//! those that are over.

use crate::limits::COMM_LEN;

/// Bits of [`CallSettings::wanted`].
pub mod wanted {
    /// System calls are counted at all.
    pub const CALLS: u32 = 1;
    /// Each thread has sums of its own.
    pub const BY_THREAD: u32 = 2;
    /// Each descriptor has sums of its own.
    pub const BY_DESCRIPTOR: u32 = 4;
    /// Errors are counted by their number.
    pub const ERRORS: u32 = 8;
    /// Stacks are taken.
    pub const STACKS: u32 = 16;
}

/// Numbers of system calls that fit the table of those that take a descriptor first.
pub const NUMBERS_MAX: usize = 512;

/// Set in the number of a call that a 32-bit program made on a 64-bit kernel: such numbers are of another
/// table.
pub const COMPAT: u32 = 1 << 29;

/// What the loader tells the programs of this capability.
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
pub struct CallSettings {
    /// Bits of [`wanted`].
    pub wanted: u32,
    /// Byte offset in `task_struct` of the word that says whether the call under way is a 32-bit program's;
    /// 0 where there is none.
    pub task_compat: u32,
    /// Bits of that word that say so.
    pub compat_mask: u32,
    /// `task_struct.files`
    pub task_files: u32,
    /// `files_struct.fdt`
    pub files_fdt: u32,
    /// `fdtable.max_fds`
    pub fdt_max: u32,
    /// `fdtable.fd`
    pub fdt_fd: u32,
    /// `file.f_inode`
    pub file_inode: u32,
    /// `inode.i_ino`
    pub inode_number: u32,
    /// `inode.i_mode`
    pub inode_mode: u32,
    /// Bit n: the call of that number takes a descriptor as its first argument.
    pub takes_descriptor: [u64; NUMBERS_MAX / 64],
}

impl CallSettings {
    /// What the object holds before the loader has written anything: nothing is wanted.
    pub const UNSET: Self = Self {
        wanted: 0,
        task_compat: 0,
        compat_mask: 0,
        task_files: 0,
        files_fdt: 0,
        fdt_max: 0,
        fdt_fd: 0,
        file_inode: 0,
        inode_number: 0,
        inode_mode: 0,
        takes_descriptor: [0; NUMBERS_MAX / 64],
    };
}

const _: () = assert!(size_of::<CallSettings>() == 104 && align_of::<CallSettings>() == 8);

/// What a followed thread does with regard to system calls.
pub mod state {
    /// Is in none.
    pub const OUTSIDE: u32 = 0;
    /// Is in one that it entered while it was followed.
    pub const INSIDE: u32 = 1;
    /// Is in one that it entered before.
    pub const INSIDE_BEFORE: u32 = 2;
    /// Was just made: what it returns from first is the call that made it, or an exec that is ours.
    pub const NEW: u32 = 3;
}

/// A followed thread, and the call that it is in.
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
pub struct Call {
    /// Its process.
    pub tgid: u32,
    /// One of [`state`].
    pub state: u32,
    /// The call's number, with [`COMPAT`].
    pub number: u32,
    /// The descriptor that it works on, -1 if none or not wanted.
    pub descriptor: i32,
    /// When it was entered, or when the recording began, `CLOCK_MONOTONIC`, ns.
    pub since_ns: u64,
    /// Inode number of the descriptor's file, 0 if not known.
    pub inode: u64,
    /// Time in calls that no stack stands for yet, ns.
    pub unshown_ns: u64,
    /// Type and mode of that inode (`i_mode`).
    pub mode: u32,
    /// Explicit padding, zero.
    pub padding: u32,
}

const _: () = assert!(size_of::<Call>() == 48 && align_of::<Call>() == 8);

/// What one sum is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
pub struct CellKey {
    /// Process.
    pub tgid: u32,
    /// Number of the call, with [`COMPAT`].
    pub number: u32,
    /// Thread, 0 where threads are not told apart.
    pub tid: u32,
    /// Descriptor, -1 where there is none or descriptors are not told apart.
    pub descriptor: i32,
    /// Inode number of the descriptor's file, so that a reused descriptor is another one.
    pub inode: u64,
}

const _: () = assert!(size_of::<CellKey>() == 24 && align_of::<CellKey>() == 8);

/// Sums over calls.
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
pub struct Cell {
    /// Calls that were entered and returned.
    pub calls: u64,
    /// Calls that returned an error, those in `before` included.
    pub errors: u64,
    /// Time of `calls`, ns.
    pub total_ns: u64,
    /// Longest of `calls`, ns.
    pub max_ns: u64,
    /// Calls that were under way when the recording began, and returned.
    pub before: u64,
    /// Time of those since the recording began, ns.
    pub before_ns: u64,
    /// Calls that did not return because their thread ended in them.
    pub ended: u64,
    /// Time of those, ns.
    pub ended_ns: u64,
    /// `calls` by [`bucket`] of their time.
    pub histogram: [u64; BUCKETS],
}

impl Cell {
    /// No calls.
    pub const EMPTY: Self = Self {
        calls: 0,
        errors: 0,
        total_ns: 0,
        max_ns: 0,
        before: 0,
        before_ns: 0,
        ended: 0,
        ended_ns: 0,
        histogram: [0; BUCKETS],
    };
}

/// Bits of a time that tell buckets of one power of two apart.
const FINE_BITS: u32 = 3;
/// Buckets of one power of two.
const FINE: u32 = 1 << FINE_BITS;
/// Times from 2^40 ns (18 minutes) on are all in the last bucket.
const OCTAVES_END: u32 = 40;

/// Buckets of a histogram.
pub const BUCKETS: usize = ((OCTAVES_END - FINE_BITS + 1) * FINE) as usize;

/// The bucket of a time: exact below 8 ns, then eight to each power of two. The middle of a bucket is
/// within 1/16 of every time in it.
#[inline(always)]
#[must_use]
#[expect(
    clippy::inline_always,
    reason = "compiled into BPF, where a call costs the verifier"
)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "what is cast is below the number of buckets"
)]
pub const fn bucket(ns: u64) -> u32 {
    if ns >> OCTAVES_END != 0 {
        return BUCKETS as u32 - 1;
    }
    if ns < FINE as u64 {
        return ns as u32;
    }
    let octave = u64::BITS - 1 - ns.leading_zeros();
    let fine = (ns >> (octave - FINE_BITS)) as u32 & (FINE - 1);
    (octave - FINE_BITS + 1) * FINE + fine
}

/// The least time of a bucket; of the one behind the last, the end of the last.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "an index of a bucket")]
pub const fn bucket_begin(index: usize) -> u64 {
    let (coarse, fine) = (index as u32 / FINE, index as u32 % FINE);
    if coarse == 0 {
        return fine as u64;
    }
    ((FINE + fine) as u64) << (coarse - 1)
}

/// What errors are counted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
pub struct ErrorKey {
    /// Process.
    pub tgid: u32,
    /// Number of the call, with [`COMPAT`].
    pub number: u32,
    /// The error's number, positive.
    pub errno: u32,
}

/// First field of a record on the ring: a descriptor has sums for the first time.
pub const KIND_DESCRIPTOR: u32 = 8;
/// First field of a record on the ring: a thread that has sums of its own ended.
pub const KIND_CALLER_END: u32 = 9;

/// Either of these: what user space should look at, or name, before it is gone.
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
pub struct CallerEvent {
    /// [`KIND_DESCRIPTOR`] or [`KIND_CALLER_END`].
    pub kind: u32,
    /// Process.
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// The descriptor.
    pub descriptor: i32,
    /// Inode number of its file.
    pub inode: u64,
    /// Type and mode of that inode.
    pub mode: u32,
    /// Explicit padding, zero.
    pub padding: u32,
    /// The thread's name, zero-terminated.
    pub comm: [u8; COMM_LEN],
}

const _: () = assert!(size_of::<CallerEvent>() == 48 && align_of::<CallerEvent>() == 8);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{BUCKETS, bucket, bucket_begin};

    /// Buckets follow each other without a gap, and each holds the times from its beginning on.
    #[test]
    fn buckets_cover_all_times() {
        for index in 0..BUCKETS {
            let (begin, end) = (bucket_begin(index), bucket_begin(index + 1));
            assert!(begin < end);
            assert_eq!(bucket(begin) as usize, index);
            assert_eq!(bucket(end - 1) as usize, index);
        }
        assert_eq!(bucket_begin(BUCKETS), 1 << 40);
        assert_eq!(bucket(u64::MAX) as usize, BUCKETS - 1);
    }

    proptest! {
        /// The middle of a bucket is within a sixteenth of every time in it.
        #[test]
        fn error_is_bounded(ns in 0_u64..1 << 40) {
            let index = bucket(ns) as usize;
            let middle = u64::midpoint(bucket_begin(index), bucket_begin(index + 1) - 1);
            prop_assert!(middle.abs_diff(ns) * 16 <= ns);
        }
    }
}
