//! What targets send and receive through sockets: at return from a call the bytes that it carried are copied, as then
//! they are in memory and their number is known. At entry only the time is noted, of calls that send: an answer can
//! be there before such a call returns.
//!
//! The kernel side understands nothing of the bytes, with one exception: a message that may be a password is cut off
//! behind its length.

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_RB_NO_WAKEUP,
    helpers::{bpf_ktime_get_ns, generated},
    programs::TracePointContext,
};
use profiler_common::{
    outcome::Counter,
    wire::{
        HEAD_BYTES, KIND_WIRE, RECEIVED, SENT, TAIL_BYTES, VECTOR_BYTES, VECTORS_MAX, WHOLE_BYTES,
        WIRE_HEADER_BYTES, WireHeader, WireSocket, family, interest, source,
    },
};

use crate::{
    arch, descriptor, filter,
    filter::Target,
    maps::{
        EVENTS, WIRE_ENTRIES, WIRE_INTERESTS, WIRE_SCRATCH, WIRE_SOCKETS, WireScratch, count,
        tcp_setting, wire_setting,
    },
    task::{Task, read_at, user_at},
    tcp, tls,
};

/// `IPPROTO_TCP`
const TCP: u16 = 6;
/// `MSG_OOB`, `MSG_PEEK` and `MSG_ERRQUEUE`: not the stream, or not taken off it.
const NOT_THE_STREAM: u64 = 0x1 | 0x2 | 0x2000;
/// Offsets in `struct user_msghdr` of `include/linux/socket.h`.
const MESSAGE_VECTORS: u64 = 16;

/// Where a call has its bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Second argument: their address.
    Buffer,
    /// Second argument: an array of `struct iovec`.
    Vectors,
    /// Second argument: a `struct user_msghdr`.
    Message,
}

/// How a system call passes bytes through the descriptor that is its first argument.
#[derive(Clone, Copy)]
pub(crate) struct Transfer {
    shape: Shape,
    direction: u8,
    /// Which argument has flags; 0 for none.
    flags: u8,
}

impl Transfer {
    pub(crate) const READ: Self = Self::new(Shape::Buffer, RECEIVED, 0);
    pub(crate) const WRITE: Self = Self::new(Shape::Buffer, SENT, 0);
    pub(crate) const READV: Self = Self::new(Shape::Vectors, RECEIVED, 0);
    pub(crate) const WRITEV: Self = Self::new(Shape::Vectors, SENT, 0);
    pub(crate) const RECVFROM: Self = Self::new(Shape::Buffer, RECEIVED, 3);
    pub(crate) const SENDTO: Self = Self::new(Shape::Buffer, SENT, 3);
    pub(crate) const RECVMSG: Self = Self::new(Shape::Message, RECEIVED, 2);
    pub(crate) const SENDMSG: Self = Self::new(Shape::Message, SENT, 2);

    const fn new(shape: Shape, direction: u8, flags: u8) -> Self {
        Self {
            shape,
            direction,
            flags,
        }
    }
}

/// A thread enters a call that may send.
#[inline(always)]
pub(crate) fn entered() {
    let Some(target) = filter::current_target() else {
        return;
    };
    // SAFETY: always callable. CLOCK_MONOTONIC.
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some(entry) = WIRE_ENTRIES.get_ptr_mut(target.tid) {
        // SAFETY: a live map value, of which this thread is the only writer.
        unsafe { *entry = now };
    } else if WIRE_ENTRIES.insert(target.tid, now, 0).is_err() {
        count(Counter::WireEntriesFull);
    }
}

/// A thread returns from a call that may have carried bytes.
#[inline(always)]
pub(crate) fn returned(ctx: &TracePointContext) {
    let Some(target) = filter::current_target() else {
        return;
    };
    let result: i64 = read_at(ctx.as_ptr() as u64, wire_setting!(result)).unwrap_or(-1);
    if result < 0 {
        return;
    }
    // SAFETY: always callable. CLOCK_MONOTONIC.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some((number, arguments)) = arch::returning_call(arch::user_registers(Task::current()))
    else {
        return;
    };
    let Some(transfer) = arch::transfer(number) else {
        return;
    };
    if flags(transfer, &arguments) & NOT_THE_STREAM != 0 {
        return;
    }
    let Some((socket, inode)) = descriptor::socket(arguments[0] as u32) else {
        return;
    };
    let Some(family) = stream(socket) else {
        return;
    };
    if result == 0 && transfer.direction == SENT {
        return;
    }
    let entry = match transfer.direction {
        // SAFETY: a single word, of which this thread is the only writer.
        SENT => unsafe { WIRE_ENTRIES.get(target.tid) }
            .copied()
            .unwrap_or(0),
        _ => 0,
    };
    let call = Returned {
        target,
        transfer,
        length: result as u64,
        times: (entry, now),
        socket: (socket, inode, family),
    };
    tell(&call, &arguments);
}

/// A call that carried bytes through a stream socket.
struct Returned {
    target: Target,
    transfer: Transfer,
    length: u64,
    /// When it was entered and when it returned.
    times: (u64, u64),
    /// Address, inode number and family.
    socket: (u64, u64, u8),
}

#[inline(always)]
fn flags(transfer: Transfer, arguments: &[u64; 4]) -> u64 {
    match transfer.flags {
        2 => arguments[2],
        3 => arguments[3],
        _ => 0,
    }
}

/// The family of a socket if it carries a stream of bytes; of unix sockets all are taken to.
#[inline(always)]
fn stream(socket: u64) -> Option<u8> {
    let number: u16 = read_at(socket, tcp_setting!(family))?;
    let number = number as u8;
    match number {
        family::UNIX => Some(number),
        family::INET | family::INET6 => {
            let protocol: u16 = read_at(socket, tcp_setting!(protocol))?;
            (protocol == TCP).then_some(number)
        }
        _ => None,
    }
}

#[inline(always)]
fn tell(call: &Returned, arguments: &[u64; 4]) {
    let (socket, inode, family) = call.socket;
    tls::carried(call.target.tid, socket, inode, family);
    if !is_wanted(socket, inode) {
        return;
    }
    let Some(position) = position(call) else {
        count(Counter::WireSocketsFull);
        return;
    };
    let Some(scratch) = WIRE_SCRATCH.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: this CPU's own slot; the kernel does not run a program of system calls within another.
    let scratch = unsafe { &mut *scratch };
    let header = &mut scratch.header;
    header.kind = KIND_WIRE;
    header.direction = call.transfer.direction;
    header.family = family;
    (header.source, header.padding) = (source::SOCKET, 0);
    header.length = call.length;
    (header.entry_ns, header.exit_ns) = call.times;
    header.socket = socket;
    header.inode = inode;
    header.carrier = 0;
    header.position = position;
    header.tgid = call.target.tgid;
    header.tid = call.target.tid;
    header.padding2 = 0;
    (header.local, header.remote) = ([0; 16], [0; 16]);
    (header.local_port, header.remote_port) = (0, 0);
    if family != family::UNIX {
        tcp::local(socket, &mut header.local, &mut header.local_port);
        tcp::remote(socket, &mut header.remote, &mut header.remote_port);
    }
    (header.head, header.tail) = (0, 0);
    copy(call, arguments, scratch);
    send(scratch);
}

/// Whether user space wants what goes through a socket.
#[inline(always)]
pub(crate) fn is_wanted(socket: u64, inode: u64) -> bool {
    // SAFETY: two words, written by user space only.
    let known = unsafe { WIRE_INTERESTS.get(socket) };
    !known.is_some_and(|&[of, wanted]| of == inode && wanted == u64::from(interest::NONE))
}

/// The position of the call's first byte in its direction's stream.
#[inline(always)]
fn position(call: &Returned) -> Option<u64> {
    let (socket, inode, family) = call.socket;
    let direction = call.transfer.direction;
    if family != family::UNIX {
        let end = if direction == SENT {
            read_at(socket, wire_setting!(write_seq))?
        } else {
            received_end(socket)?
        };
        return Some(u64::from(end.wrapping_sub(call.length as u32)));
    }
    let seen = match WIRE_SOCKETS.get_ptr_mut(socket) {
        Some(seen) => seen,
        None => {
            let _ = WIRE_SOCKETS.insert(
                socket,
                WireSocket {
                    inode,
                    bytes: [0; 2],
                },
                0,
            );
            WIRE_SOCKETS.get_ptr_mut(socket)?
        }
    };
    // SAFETY: a live map value; two threads that send at once on one socket get their order wrong, and user space
    // notices what does not fit.
    let seen = unsafe { &mut *seen };
    if seen.inode != inode {
        *seen = WireSocket {
            inode,
            bytes: [0; 2],
        };
    }
    let bytes = if direction == SENT {
        &mut seen.bytes[0]
    } else {
        &mut seen.bytes[1]
    };
    let position = *bytes;
    *bytes += call.length;
    Some(position)
}

/// The sequence number behind what was taken from a TCP socket. The peer's end, which counts as one byte, is taken
/// with the last ones (`found_fin_ok` of net/ipv4/tcp.c).
#[inline(always)]
fn received_end(socket: u64) -> Option<u32> {
    let end: u32 = read_at(socket, wire_setting!(copied_seq))?;
    let next: u32 = read_at(socket, wire_setting!(rcv_nxt))?;
    let has_end = end == next && tcp::peer_ended(socket);
    Some(end.wrapping_sub(u32::from(has_end)))
}

/// Copies the bytes of a call, or its first and last ones.
#[inline(always)]
fn copy(call: &Returned, arguments: &[u64; 4], scratch: &mut WireScratch) {
    if call.length == 0 {
        return;
    }
    match call.transfer.shape {
        Shape::Buffer => {
            let bytes = (&raw mut scratch.bytes).cast();
            (scratch.header.head, scratch.header.tail) =
                copy_buffer(arguments[1], call.length, bytes);
        }
        Shape::Vectors => copy_vectors(arguments[1], call.length, scratch),
        Shape::Message => {
            let vectors = user_at::<u64>(arguments[1] + MESSAGE_VECTORS).unwrap_or(0);
            copy_vectors(vectors, call.length, scratch);
        }
    }
    let first = [0, 1, 2, 3, 4].map(|index: usize| scratch.bytes[index]);
    hide_password(first, &mut scratch.header);
}

/// Leaves out a password (`p`, PasswordMessage and its like), if it is one: its length says that it is the whole call.
#[inline(always)]
pub(crate) fn hide_password(first: [u8; 5], header: &mut WireHeader) {
    let [tag, a, b, c, d] = first;
    if tag == b'p' && u64::from(u32::from_be_bytes([a, b, c, d])) + 1 == header.length {
        header.head = if header.head < 5 { header.head } else { 5 };
        header.tail = 0;
    }
}

/// Copies a buffer, or its first and last bytes, to where there is room for [`WHOLE_BYTES`]; gives how many of each.
#[inline(always)]
pub(crate) fn copy_buffer(address: u64, length: u64, to: *mut u8) -> (u32, u32) {
    if length <= WHOLE_BYTES as u64 {
        let is_read = read_user(to, length, address);
        return (if is_read { length as u32 } else { 0 }, 0);
    }
    if !read_user(to, HEAD_BYTES as u64, address) {
        return (0, 0);
    }
    // SAFETY: within the room.
    let behind = unsafe { to.add(HEAD_BYTES) };
    let is_read = read_user(
        behind,
        TAIL_BYTES as u64,
        address + length - TAIL_BYTES as u64,
    );
    (
        HEAD_BYTES as u32,
        if is_read { TAIL_BYTES as u32 } else { 0 },
    )
}

/// Copies bytes of several buffers, one behind the other.
#[inline(always)]
fn copy_vectors(vectors: u64, length: u64, scratch: &mut WireScratch) {
    let mut filled = 0_u64;
    let wanted = if length < VECTOR_BYTES as u64 {
        length
    } else {
        VECTOR_BYTES as u64
    };
    for index in 0..VECTORS_MAX as u64 {
        let vector = vectors + index * 16;
        let (Some(base), Some(size)) = (user_at::<u64>(vector), user_at::<u64>(vector + 8)) else {
            break;
        };
        if filled >= wanted {
            break;
        }
        let room = wanted - filled;
        let part = if size < room { size } else { room };
        if part == 0 {
            continue;
        }
        scratch.filled = filled;
        // SAFETY: a live map value. Volatile, so that what is checked is what is used.
        let at = unsafe { core::ptr::read_volatile(&raw const scratch.filled) };
        if at >= VECTOR_BYTES as u64 {
            break;
        }
        // SAFETY: within the first half of the array, and what is copied is no longer than the other half.
        let behind = unsafe { (&raw mut scratch.bytes).cast::<u8>().add(at as usize) };
        scratch.part = part;
        // SAFETY: as above.
        let part = unsafe { core::ptr::read_volatile(&raw const scratch.part) };
        if part > VECTOR_BYTES as u64 || !read_user(behind, part, base) {
            break;
        }
        filled += part;
    }
    scratch.header.head = filled as u32;
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

#[inline(always)]
fn send(scratch: &mut WireScratch) {
    count(Counter::WireTaken);
    // SAFETY: a live map value. Volatile, so that what is checked is what is used.
    let head = unsafe { core::ptr::read_volatile(&raw const scratch.header.head) } as usize;
    // SAFETY: as above.
    let tail = unsafe { core::ptr::read_volatile(&raw const scratch.header.tail) } as usize;
    if head > WHOLE_BYTES || tail > TAIL_BYTES {
        return;
    }
    let record = (&raw const *scratch).cast::<u8>();
    // SAFETY: `header` and `bytes` adjoin and the length ends within them.
    let record = unsafe { core::slice::from_raw_parts(record, WIRE_HEADER_BYTES + head + tail) };
    if EVENTS
        .output_untyped::<[u8]>(record, u64::from(BPF_RB_NO_WAKEUP))
        .is_err()
    {
        count(Counter::WireLost);
    }
}
