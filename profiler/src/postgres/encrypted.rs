//! Connections that are encrypted, and which of them are read through a TLS library all the same. Pure.
//!
//! What passes through the library is a stream of its own. Usually the socket beneath is known, as the library used it
//! within one of its calls; where a program moves the bytes itself it is not, and one encrypted socket of the same
//! process is taken to be it.

use profiler_common::wire::WireHeader;
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

/// Most connections that are told apart; more are counted as not read.
const CONNECTIONS_MAX: usize = 100_000;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Encrypted {
    /// Encrypted sockets by inode number: whose, and whether Postgres is known to be inside.
    sockets: FxHashMap<u64, (u32, bool)>,
    /// Sockets beneath streams of the library.
    carriers: FxHashSet<u64>,
    /// Streams of the library without a known socket: whose.
    loose: FxHashMap<u64, u32>,
    /// Encrypted sockets that found no room.
    overflowed: u64,
}

/// How many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    /// Read through the library.
    pub(super) read: u64,
    /// Of Postgres, and not read.
    pub(super) postgres: u64,
    /// Not read, and it is not known what is inside.
    pub(super) unknown: u64,
}

impl Counts {
    /// Field by field.
    pub(super) fn with(self, other: Self, each: fn(u64, u64) -> u64) -> Self {
        Self {
            read: each(self.read, other.read),
            postgres: each(self.postgres, other.postgres),
            unknown: each(self.unknown, other.unknown),
        }
    }
}

impl Encrypted {
    /// A socket is encrypted; Postgres is known to be inside or not.
    pub(super) fn found(&mut self, header: &WireHeader, is_postgres: bool) {
        if self.sockets.len() < CONNECTIONS_MAX {
            self.sockets
                .insert(header.inode, (header.tgid, is_postgres));
        } else {
            self.overflowed += 1;
        }
    }

    /// Something passed through the library.
    pub(super) fn passed(&mut self, header: &WireHeader) {
        if self.carriers.len() + self.loose.len() >= CONNECTIONS_MAX {
            return;
        }
        if header.carrier == 0 {
            self.loose.insert(header.socket, header.tgid);
        } else if self.carriers.insert(header.carrier) {
            self.loose.remove(&header.socket);
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let mut loose: FxHashMap<u32, u64> = FxHashMap::default();
        for pid in self.loose.values() {
            *loose.entry(*pid).or_default() += 1;
        }
        let mut counts = Counts {
            unknown: self.overflowed,
            ..Counts::default()
        };
        for (inode, (pid, is_postgres)) in &self.sockets {
            let left = loose.get_mut(pid).filter(|left| **left > 0);
            if self.carriers.contains(inode) {
                counts.read += 1;
            } else if let Some(left) = left {
                *left -= 1;
                counts.read += 1;
            } else if *is_postgres {
                counts.postgres += 1;
            } else {
                counts.unknown += 1;
            }
        }
        counts
    }
}

#[cfg(test)]
pub(super) mod tests {
    use zerocopy::FromZeros;

    use super::{Counts, Encrypted, WireHeader};

    pub(in crate::postgres) fn header(
        tgid: u32,
        socket: u64,
        inode: u64,
        carrier: u64,
    ) -> WireHeader {
        WireHeader {
            tgid,
            socket,
            inode,
            carrier,
            ..WireHeader::new_zeroed()
        }
    }

    /// A connection is read if a stream has it beneath, or one of its process has nothing beneath; it counts once.
    #[test]
    fn connections_are_matched() {
        let mut encrypted = Encrypted::default();
        for inode in [11, 12, 13] {
            encrypted.found(&header(7, 0, inode, 0), inode != 13);
        }
        encrypted.found(&header(8, 0, 14, 0), true);
        let count = |read, postgres, unknown| Counts {
            read,
            postgres,
            unknown,
        };
        assert_eq!(encrypted.counts(), count(0, 3, 1));
        encrypted.passed(&header(7, 1, 0, 0));
        encrypted.passed(&header(7, 1, 0, 12));
        encrypted.passed(&header(7, 1, 0, 12));
        assert_eq!(encrypted.counts(), count(1, 2, 1));
        encrypted.passed(&header(8, 2, 0, 0));
        encrypted.passed(&header(8, 3, 0, 0));
        assert_eq!(encrypted.counts(), count(2, 1, 1));
    }
}
