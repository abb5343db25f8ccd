//! The ring of one perf event: what the kernel writes about a CPU, without a program of ours.
//!
//! Layout: `struct perf_event_mmap_page` and what follows it, `perf_event_open(2)`.

use std::{
    io,
    os::fd::{AsFd, FromRawFd, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use aya_obj::generated::{perf_event_attr, perf_event_mmap_page};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes of the page before the data.
const HEAD_BYTES: usize = 4096;
/// Bytes of data: some hundred programs that begin between two looks.
const DATA_BYTES: usize = 1 << 17;
/// `PERF_FLAG_FD_CLOEXEC`
const CLOEXEC: libc::c_ulong = 1 << 3;
/// Bytes of `struct perf_event_header`: type, misc, size.
const HEADER_BYTES: usize = 8;

/// An event of one CPU, with its ring.
pub(super) struct PerfRing {
    head: NonNull<perf_event_mmap_page>,
    _event: OwnedFd,
}

// SAFETY: the memory is shared with the kernel anyway; on our side one owner reads it.
unsafe impl Send for PerfRing {}

impl PerfRing {
    /// Opens an event of all processes on a CPU.
    pub(super) fn open(attributes: &mut perf_event_attr, cpu: u32) -> io::Result<Self> {
        let cpu = i32::try_from(cpu).unwrap_or(i32::MAX);
        let attributes: *mut perf_event_attr = attributes;
        // SAFETY: the attributes live as long as the call and hold their own size.
        let fd =
            unsafe { libc::syscall(libc::SYS_perf_event_open, attributes, -1, cpu, -1, CLOEXEC) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0);
        let fd = fd.ok_or_else(io::Error::last_os_error)?;
        // SAFETY: the kernel has just made it, and nobody else has it.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: a new mapping at an address of the kernel's choice.
        let memory = unsafe {
            mmap(
                std::ptr::null_mut(),
                HEAD_BYTES + DATA_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                event.as_fd(),
                0,
            )
        }?;
        let head = NonNull::new(memory.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            head,
            _event: event,
        })
    }

    /// Takes out what is there: each record's type and what follows its header.
    pub(super) fn drain(&mut self, mut take: impl FnMut(u32, &[u8])) {
        let written = self.written().load(Ordering::Acquire);
        let mut read = self.read().load(Ordering::Relaxed);
        let mut record = Vec::new();
        while written.wrapping_sub(read) >= HEADER_BYTES as u64 {
            self.copy(read, HEADER_BYTES, &mut record);
            let kind = record.first_chunk().copied().map_or(0, u32::from_ne_bytes);
            let size = record.last_chunk().copied().map_or(0, u16::from_ne_bytes);
            let bytes = usize::from(size);
            if bytes < HEADER_BYTES || written.wrapping_sub(read) < u64::from(size) {
                // Never seen; going on from here would read nonsense.
                read = written;
                break;
            }
            let body = read.wrapping_add(HEADER_BYTES as u64);
            self.copy(body, bytes - HEADER_BYTES, &mut record);
            take(kind, &record);
            read = read.wrapping_add(u64::from(size));
        }
        self.read().store(read, Ordering::Release);
    }

    /// Copies so many bytes from a position on: they may go round the end.
    fn copy(&self, from: u64, bytes: usize, into: &mut Vec<u8>) {
        into.clear();
        // SAFETY: the data follow the page, in the same mapping.
        let data = unsafe { self.head.cast::<u8>().add(HEAD_BYTES) };
        // A remainder of a number below the size of memory fits.
        let start = usize::try_from(from % DATA_BYTES as u64).unwrap_or(0);
        for at in start..start + bytes.min(DATA_BYTES) {
            // SAFETY: the remainder lies within the data.
            let byte = unsafe { data.add(at % DATA_BYTES) };
            // SAFETY: as above; the kernel does not write to it until we say that it was read.
            into.push(unsafe { byte.read_volatile() });
        }
    }

    /// How many bytes the kernel has written.
    fn written(&self) -> &AtomicU64 {
        // SAFETY: a member of the page, which is mapped as long as we are.
        let member = unsafe { &raw mut (*self.head.as_ptr()).data_head };
        // SAFETY: aligned, and the kernel writes it as a whole.
        unsafe { AtomicU64::from_ptr(member) }
    }

    /// How many we have read.
    fn read(&self) -> &AtomicU64 {
        // SAFETY: as above.
        let member = unsafe { &raw mut (*self.head.as_ptr()).data_tail };
        // SAFETY: as above.
        unsafe { AtomicU64::from_ptr(member) }
    }
}

impl Drop for PerfRing {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it any more.
        let _ = unsafe { munmap(self.head.as_ptr().cast(), HEAD_BYTES + DATA_BYTES) };
    }
}
