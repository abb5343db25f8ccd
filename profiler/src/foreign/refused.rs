//! Why a foreign file is not read, in words for an account.

use std::{collections::BTreeMap, fmt, io};

use rustix::io::Errno;

/// A cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Refused {
    /// There is no such file, or the process is gone.
    Gone,
    /// We may not.
    Denied,
    /// A pipe, a device, a socket or a folder.
    NotRegular,
    /// Reading it may wait, or take away what others were to read.
    Kernel,
    /// A program that is not root's is its file system (FUSE), and answers when it likes.
    OfProgram,
    /// Its path leads through a link of procfs, or through too many links.
    Link,
    /// Another file than the one that was meant.
    Replaced,
    /// Its owner holds a lease on it.
    Busy,
    /// The kernel or a filter does not know `openat2`.
    Unsupported,
    /// We have too many files open, or the system has.
    TooMany,
    /// Its parts are larger or more than what is read.
    TooLarge,
    /// Its process did not let it be looked at in time.
    Silent,
    /// The file system says no.
    Unreadable,
}

impl Refused {
    /// The cause in words that stay.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Gone => "foreign file not opened, it or its process is gone",
            Self::Denied => "foreign file not opened, permission denied",
            Self::NotRegular => "foreign file not opened, it is no regular file",
            Self::Kernel => "foreign file not opened, it is one of the kernel's own",
            Self::OfProgram => {
                "foreign file not opened, its file system is a user's program (FUSE)"
            }
            Self::Link => "foreign file not opened, its path has a link that is not followed",
            Self::Replaced => "foreign file not opened, another file stands in its place",
            Self::Busy => "foreign file not opened, its owner keeps it busy",
            Self::Unsupported => "foreign file not opened, the system call openat2 is refused",
            Self::TooMany => "foreign file not opened, too many open",
            Self::TooLarge => "foreign ELF file not read, its parts are too large",
            Self::Silent => "foreign file not opened, its process does not answer",
            Self::Unreadable => "foreign file could not be read",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.text())
    }
}

impl std::error::Error for Refused {}

impl From<Errno> for Refused {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT | Errno::NOTDIR | Errno::SRCH | Errno::NAMETOOLONG => Self::Gone,
            Errno::ACCESS | Errno::PERM => Self::Denied,
            Errno::LOOP | Errno::XDEV => Self::Link,
            Errno::AGAIN => Self::Busy,
            Errno::NOSYS | Errno::TOOBIG | Errno::INVAL => Self::Unsupported,
            Errno::MFILE | Errno::NFILE => Self::TooMany,
            Errno::NXIO | Errno::NODEV => Self::NotRegular,
            _ => Self::Unreadable,
        }
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Errno::from_io_error(&error).map_or(Self::Unreadable, Self::from)
    }
}

/// How often each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refusals(BTreeMap<Refused, u64>);

impl Refusals {
    /// Once more.
    pub(crate) fn count(&mut self, cause: Refused) {
        *self.0.entry(cause).or_default() += 1;
    }

    /// For the account.
    pub(crate) fn notes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(cause, count)| (cause.text(), *count))
    }
}
