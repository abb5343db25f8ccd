//! Copies of buffers of the running process: whole, or where they are longer than there is room, their ends.

use core::ptr;

use aya_ebpf::helpers::generated;
use profiler_common::{
    outcome::Counter,
    wire::{CROWDED_BYTES, CROWDED_MIN, HEAD_BYTES, TAIL_BYTES, WHOLE_BYTES},
};

use crate::maps::{count, is_crowded};

/// Copies a buffer, or its first and last bytes, to where there is room for [`WHOLE_BYTES`]; gives how many of each.
#[inline(always)]
pub(crate) fn copy_buffer(address: u64, length: u64, to: *mut u8) -> (u32, u32) {
    if length > CROWDED_MIN as u64 && is_crowded() {
        return copy_ends::<CROWDED_BYTES, CROWDED_BYTES>(address, length, to);
    }
    if length <= WHOLE_BYTES as u64 {
        let is_read = read_bounded::<WHOLE_BYTES>(to, length, address);
        return (if is_read { length as u32 } else { 0 }, 0);
    }
    copy_ends::<HEAD_BYTES, TAIL_BYTES>(address, length, to)
}

/// Copies the first and the last bytes of a buffer that is longer.
#[inline(always)]
fn copy_ends<const HEAD: usize, const TAIL: usize>(
    address: u64,
    length: u64,
    to: *mut u8,
) -> (u32, u32) {
    if !read_user(to, HEAD as u64, address) {
        return (0, 0);
    }
    // SAFETY: within the room.
    let behind = unsafe { to.add(HEAD) };
    let is_read = read_user(behind, TAIL as u64, address + length - TAIL as u64);
    (HEAD as u32, if is_read { TAIL as u32 } else { 0 })
}

/// Copies memory of the running process that is no longer than there is room, or nothing.
#[inline(always)]
pub(crate) fn read_bounded<const ROOM: usize>(to: *mut u8, length: u64, from: u64) -> bool {
    // Volatile, so that what is checked is what is used: of a length that lies on the stack and is checked in one
    // register and passed in another Linux 6.1 does not know the bound.
    // SAFETY: a local variable.
    let length = unsafe { ptr::read_volatile(&raw const length) };
    length <= ROOM as u64 && read_user(to, length, from)
}

/// Copies memory of the running process.
#[inline(always)]
pub(crate) fn read_user(to: *mut u8, length: u64, from: u64) -> bool {
    // SAFETY: the destination is a live map value with that much room, which the verifier checks; the helper checks
    // the source.
    let result =
        unsafe { generated::bpf_probe_read_user(to.cast(), length as u32, from as *const _) };
    if result != 0 {
        count(Counter::WireUnreadable);
    }
    result == 0
}
