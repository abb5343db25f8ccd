//! A file that was found and is not open yet, and its opening.

use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, fstatfs, open};

use super::{Refused, fuse};

/// File systems whose regular files are the kernel's: reading `/proc/kmsg` waits, reading
/// `trace_pipe` takes away. From `include/uapi/linux/magic.h`.
const OF_THE_KERNEL: [i64; 14] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0xf97c_ff8c, // selinuxfs
    0x4341_5d53, // smackfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0xcafe_4a11, // bpf
    0x6165_676c, // pstore
    0x6265_6570, // configfs
    0xde5e_81e4, // efivarfs
    0x4249_4e4d, // binfmt_misc
];

/// What a file is known by. Nobody who cannot write to the file can make another one of equal
/// identity, as long as a descriptor keeps its inode from being used again. Device numbers are
/// `fstat`'s: those of `/proc/PID/maps` are shared by files of different subvolumes or layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    size: i64,
    /// When its contents or its owner changed last: a file that is copied over is another one.
    changed: (i64, u64),
}

impl Identity {
    fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// Device and inode number, which a file keeps when its contents change.
    pub(crate) fn numbers(&self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

/// A regular file, held by a descriptor that opens nothing.
#[derive(Debug)]
pub(crate) struct Regular {
    descriptor: OwnedFd,
    stat: Stat,
}

impl Regular {
    /// Looks at what an `O_PATH` descriptor holds.
    pub(super) fn of(descriptor: OwnedFd) -> Result<Self, Refused> {
        let stat = fstat(&descriptor)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Refused::NotRegular);
        }
        let system = fstatfs(&descriptor)?.f_type;
        if OF_THE_KERNEL.contains(&system) {
            return Err(Refused::Kernel);
        }
        if system == fuse::MAGIC && !fuse::is_trusted(stat.st_dev) {
            return Err(Refused::OfProgram);
        }
        Ok(Self { descriptor, stat })
    }

    /// What it is known by.
    pub(crate) fn identity(&self) -> Identity {
        Identity::of(&self.stat)
    }

    /// Device number, as `fstat` has it.
    pub(super) fn device(&self) -> u64 {
        self.stat.st_dev
    }

    /// Inode number.
    pub(crate) fn inode(&self) -> u64 {
        self.stat.st_ino
    }

    /// User id of its owner.
    pub(crate) fn owner(&self) -> u32 {
        self.stat.st_uid
    }

    /// Opens it for reading.
    pub(crate) fn open(&self) -> Result<File, Refused> {
        reopen(&self.descriptor)
    }
}

/// Opens what one of our own descriptors holds once more, for reading from its beginning. A lease on it makes us fail
/// rather than wait.
pub(crate) fn reopen(descriptor: impl AsFd) -> Result<File, Refused> {
    let path = format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(File::from(open(path, flags, Mode::empty())?))
}
