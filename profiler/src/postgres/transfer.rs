//! What one call of a target carried, as the kernel side copied it: the unit that is put in order and understood. Pure.

use profiler_common::wire::{SENT, Wire, WireHeader};

use super::protocol::{Chunk, Direction, Flow};

/// A call that carried bytes, with them.
#[derive(Clone, Debug)]
pub(super) struct Transfer {
    pub(super) header: WireHeader,
    pub(super) bytes: Vec<u8>,
}

impl Transfer {
    pub(super) fn new(wire: &Wire<'_>) -> Self {
        Self {
            header: *wire.header,
            bytes: [wire.head, wire.tail].concat(),
        }
    }

    /// The time that counts for the order: what was sent could be answered from the entry on, what was received was
    /// there at the return. An entry that is not known was before the recording.
    pub(super) fn time_ns(&self) -> u64 {
        match (self.header.direction, self.header.entry_ns) {
            (SENT, entry_ns) if entry_ns > 0 => entry_ns,
            _ => self.header.exit_ns,
        }
    }

    pub(super) fn head(&self) -> &[u8] {
        let head = usize::try_from(self.header.head).unwrap_or(usize::MAX);
        &self.bytes[..head.min(self.bytes.len())]
    }

    pub(super) fn flow(&self) -> Flow {
        match self.header.direction {
            SENT => Flow::Sent,
            _ => Flow::Received,
        }
    }

    pub(super) fn chunk(&self, direction: Direction, position: u64) -> Chunk<'_> {
        let (head, tail) = self.bytes.split_at(self.head().len());
        Chunk {
            direction,
            position,
            length: self.header.length,
            head,
            tail,
            entry_ns: self.time_ns(),
            exit_ns: self.header.exit_ns,
            tid: self.header.tid,
        }
    }
}
