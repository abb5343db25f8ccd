//! The ring from the kernel: bytes in, checked records out.

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{MapData, RingBuf};
use profiler_common::{
    event::{KIND_EXEC, KIND_EXIT, KIND_FORK, ProcessEvent},
    limits::RING_BYTES,
    off_cpu::{KIND_THREAD_END, ThreadTimes},
    sample::{KIND_CALL, KIND_OFF_CPU, KIND_SAMPLE, KIND_SAMPLE_REST, Sample},
    syscalls::{CallerEvent, KIND_CALLER_END, KIND_DESCRIPTOR},
    tcp::{KIND_TCP, TcpEvent},
    wire::{KIND_WIRE, Wire},
};
use zerocopy::FromBytes;

use super::KernelError;

/// One record of the kernel side.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// A sample, or a span off the CPU.
    Sample(Sample<'a>),
    /// A thread ended, with the account of its time.
    ThreadEnd(&'a ThreadTimes),
    /// A process forked, execed or exited.
    Process(&'a ProcessEvent),
    /// A descriptor has sums of system calls for the first time, or a thread with such sums ended.
    Caller(&'a CallerEvent),
    /// Something happened to a TCP connection.
    Tcp(&'a TcpEvent),
    /// Bytes went through a socket.
    Wire(Wire<'a>),
    /// Bytes that contradict themselves; of a sample if they say so.
    Malformed,
}

impl<'a> Record<'a> {
    /// Reads a record off its bytes.
    pub fn decode(bytes: &'a [u8]) -> Self {
        let kind = u32::read_from_prefix(bytes).map(|(kind, _)| kind);
        let record = match kind {
            Ok(KIND_SAMPLE | KIND_SAMPLE_REST | KIND_OFF_CPU | KIND_CALL) => {
                Sample::decode(bytes).map(Self::Sample)
            }
            Ok(KIND_FORK | KIND_EXEC | KIND_EXIT) => ProcessEvent::ref_from_prefix(bytes)
                .ok()
                .map(|(event, _)| Self::Process(event)),
            Ok(KIND_THREAD_END) => ThreadTimes::ref_from_prefix(bytes)
                .ok()
                .map(|(times, _)| Self::ThreadEnd(times)),
            Ok(KIND_DESCRIPTOR | KIND_CALLER_END) => CallerEvent::ref_from_prefix(bytes)
                .ok()
                .map(|(event, _)| Self::Caller(event)),
            Ok(KIND_TCP) => TcpEvent::ref_from_prefix(bytes)
                .ok()
                .map(|(event, _)| Self::Tcp(event)),
            Ok(KIND_WIRE) => Wire::decode(bytes).map(Self::Wire),
            _ => None,
        };
        record.unwrap_or(Self::Malformed)
    }
}

/// The reader's end of the ring buffer. Readable (poll) after a process event or the first sample
/// of a process; other samples do not wake the reader, who polls.
pub struct Ring {
    ring: RingBuf<MapData>,
}

impl Ring {
    #[expect(
        clippy::unnecessary_wraps,
        reason = "made like every other map, which can fail"
    )]
    pub(super) fn new(ring: RingBuf<MapData>) -> Result<Self, KernelError> {
        Ok(Self { ring })
    }

    /// Hands every record that is there to `each`. What comes meanwhile may be for the next time: whoever makes records
    /// faster than they are read would keep the reader here for ever.
    pub fn drain(&mut self, mut each: impl FnMut(Record<'_>)) {
        let mut room = RING_BYTES;
        while let Some(item) = self.ring.next() {
            each(Record::decode(&item));
            room = room.saturating_sub(on_ring(item.len()));
            if room == 0 {
                return;
            }
        }
    }
}

/// What a record of this length takes up: it has a head of 8 bytes and begins at a multiple of 8.
const fn on_ring(length: usize) -> usize {
    length.next_multiple_of(8) + 8
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl std::os::fd::AsRawFd for Ring {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.ring.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Record;

    /// Bytes copied to 8-byte alignment, as the ring gives them.
    fn decode(bytes: &[u8]) -> bool {
        let mut words = vec![0_u64; bytes.len().div_ceil(8)];
        zerocopy::IntoBytes::as_mut_bytes(words.as_mut_slice())[..bytes.len()]
            .copy_from_slice(bytes);
        let aligned = &zerocopy::IntoBytes::as_bytes(words.as_slice())[..bytes.len()];
        matches!(Record::decode(aligned), Record::Malformed)
    }

    proptest! {
        /// No bytes make the decoder panic or read past their end.
        #[test]
        fn any_bytes_decode_or_are_malformed(kind in 0_u32..13, mut bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            if bytes.len() >= 4 {
                bytes[..4].copy_from_slice(&kind.to_ne_bytes());
            }
            let malformed = decode(&bytes);
            prop_assert!(malformed || bytes.len() >= 40);
        }
    }
}
