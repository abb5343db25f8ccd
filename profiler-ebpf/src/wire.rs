//! What targets send and receive through sockets: at return from a call the bytes that it carried are copied, as then
//! they are in memory and their number is known. At entry only the time is noted, of calls that send: an answer can
//! be there before such a call returns.
//!
//! The kernel side understands nothing of the bytes, with one exception: a message that may be a password is cut off
//! behind its length.

use core::{ffi::c_void, mem::transmute, ptr};

use aya_ebpf::{
    bindings::BPF_RB_NO_WAKEUP,
    helpers::{bpf_ktime_get_ns, bpf_loop},
};
use profiler_common::{
    outcome::Counter,
    wire::{
        KIND_WIRE, PIECES_MAX, RECEIVED, SENT, TAIL_BYTES, VECTOR_BYTES, VECTORS_MAX, WHOLE_BYTES,
        WIRE_HEADER_BYTES, WireHeader, family, source,
    },
};

use crate::{
    arch, atomic,
    buffer::{copy_buffer, read_user},
    descriptor::SocketFile,
    filter,
    filter::Target,
    interest::{interest, is_ignored, is_passed, note},
    maps::{
        EVENTS, WIRE_ENTRIES, WIRE_SCRATCH, WIRE_SCRATCHES, WIRE_SOCKETS, WireScratch, WireSocket,
        count, tcp_setting, wire_setting,
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

/// Bytes of a piece of a long buffer.
const PIECE: u64 = WHOLE_BYTES as u64;

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
pub(crate) fn returned() {
    let Some(target) = filter::current_target() else {
        return;
    };
    let Some(call) = arch::returning_call(arch::user_registers(Task::current())) else {
        return;
    };
    if call.result < 0 {
        return;
    }
    let Some(transfer) = arch::transfer(call.number) else {
        return;
    };
    if flags(transfer, &call.arguments) & NOT_THE_STREAM != 0 {
        return;
    }
    if call.result == 0 && transfer.direction == SENT {
        return;
    }
    // SAFETY: always callable. CLOCK_MONOTONIC.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some((file, socket)) = known(call.arguments[0] as u32) else {
        return;
    };
    let entry = match transfer.direction {
        // SAFETY: a single word, of which this thread is the only writer.
        SENT => unsafe { WIRE_ENTRIES.get(target.tid) }
            .copied()
            .unwrap_or(0),
        _ => 0,
    };
    let returned = Returned {
        target,
        transfer,
        length: call.result as u64,
        times: (entry, now),
        socket: file,
    };
    tell(&returned, socket, &call.arguments);
}

/// A call that carried bytes through a stream socket.
struct Returned {
    target: Target,
    transfer: Transfer,
    length: u64,
    /// When it was entered and when it returned.
    times: (u64, u64),
    socket: SocketFile,
}

#[inline(always)]
fn flags(transfer: Transfer, arguments: &[u64; 4]) -> u64 {
    match transfer.flags {
        2 => arguments[2],
        3 => arguments[3],
        _ => 0,
    }
}

/// The stream socket behind a descriptor of the running task, and what is known of it. Once bytes have been carried its
/// addresses do not change, so they are read once.
#[inline(always)]
fn known(descriptor: u32) -> Option<(SocketFile, &'static mut WireSocket)> {
    let file = SocketFile::behind(descriptor)?;
    if let Some(socket) = WIRE_SOCKETS.get_ptr_mut(file.inode) {
        // SAFETY: a live map value; two threads that send at once on one socket get their order wrong, and user space
        // notices what does not fit.
        let socket = unsafe { &mut *socket };
        if socket.inode == file.number {
            return (socket.family != 0).then_some((file, socket));
        }
    }
    let new = met(file)?;
    if WIRE_SOCKETS.insert(file.inode, new, 0).is_err() {
        count(Counter::WireSocketsFull);
        return None;
    }
    if new.family == 0 {
        return None;
    }
    // SAFETY: as above.
    let socket = unsafe { &mut *WIRE_SOCKETS.get_ptr_mut(file.inode)? };
    Some((file, socket))
}

/// A socket that nothing is known of; without a family if it carries no stream. Of unix sockets all are taken to.
#[inline(always)]
fn met(file: SocketFile) -> Option<WireSocket> {
    let sock = file.sock()?;
    let mut new = WireSocket {
        inode: file.number,
        sock,
        bytes: [0; 2],
        local: [0; 16],
        remote: [0; 16],
        local_port: 0,
        remote_port: 0,
        family: 0,
        seen_ns: 0,
        woken_ns: 0,
        turned_ns: 0,
        direction: 0,
    };
    let family: u16 = read_at(sock, tcp_setting!(family))?;
    match family as u8 {
        family::UNIX => new.family = u32::from(family),
        family::INET | family::INET6 => {
            let protocol: u16 = read_at(sock, tcp_setting!(protocol))?;
            if protocol == TCP {
                new.family = u32::from(family);
                tcp::local(sock, &mut new.local, &mut new.local_port);
                tcp::remote(sock, &mut new.remote, &mut new.remote_port);
            }
        }
        _ => {}
    }
    Some(new)
}

#[inline(always)]
fn tell(call: &Returned, socket: &mut WireSocket, arguments: &[u64; 4]) {
    tls::carried(call.target.tid, socket);
    let interest = interest(call.socket.inode, call.socket.number);
    note(call.transfer.direction, call.times.1, socket);
    if is_ignored(interest, socket, call.times.1) {
        return;
    }
    let Some(position) = position(call, socket) else {
        return;
    };
    let Some((index, scratch)) = claimed() else {
        count(Counter::Busy);
        return;
    };
    write_header(call, socket, position, &mut scratch.header);
    // In a full table its place may be another socket's by now.
    // SAFETY: a live map value. Volatile, as it is read for the second time.
    if unsafe { ptr::read_volatile(&raw const socket.inode) } == call.socket.number {
        let turned_ns = socket.turned_ns;
        if !interest.is_some_and(|interest| is_passed(interest, &scratch.header, turned_ns)) {
            copy(call, arguments, (index, scratch));
        }
        send(scratch);
    } else {
        count(Counter::WireSocketsFull);
    }
    atomic::release(&raw mut scratch.taken);
}

/// A record that no other thread builds: one of this CPU's.
#[inline(always)]
fn claimed() -> Option<(u32, &'static mut WireScratch)> {
    for index in 0..WIRE_SCRATCHES as u32 {
        let scratch = WIRE_SCRATCH.get_ptr_mut(index)?;
        // SAFETY: a live map value.
        if atomic::claim(unsafe { &raw mut (*scratch).taken }) {
            // SAFETY: it is ours alone.
            return Some((index, unsafe { &mut *scratch }));
        }
    }
    None
}

#[inline(always)]
fn write_header(call: &Returned, socket: &WireSocket, position: u64, header: &mut WireHeader) {
    header.kind = KIND_WIRE;
    header.direction = call.transfer.direction;
    header.family = socket.family as u8;
    (header.source, header.padding) = (source::SOCKET, 0);
    header.length = call.length;
    (header.entry_ns, header.exit_ns) = call.times;
    header.socket = call.socket.inode;
    header.inode = call.socket.number;
    header.carrier = 0;
    header.position = position;
    header.tgid = call.target.tgid;
    header.tid = call.target.tid;
    header.padding2 = 0;
    (header.local, header.remote) = (socket.local, socket.remote);
    (header.local_port, header.remote_port) = (socket.local_port, socket.remote_port);
    (header.head, header.tail) = (0, 0);
}

/// The position of the call's first byte in its direction's stream.
#[inline(always)]
fn position(call: &Returned, socket: &mut WireSocket) -> Option<u64> {
    let is_sent = call.transfer.direction == SENT;
    if socket.family as u8 != family::UNIX {
        let end = if is_sent {
            read_at(socket.sock, wire_setting!(write_seq))?
        } else {
            received_end(socket.sock)?
        };
        return Some(u64::from(end.wrapping_sub(call.length as u32)));
    }
    let bytes = if is_sent {
        &mut socket.bytes[0]
    } else {
        &mut socket.bytes[1]
    };
    let position = *bytes;
    *bytes += call.length;
    Some(position)
}

/// The sequence number behind what was taken from a TCP socket. The peer's end, which counts as one byte, is taken
/// with the last ones (`found_fin_ok` of net/ipv4/tcp.c).
#[inline(always)]
fn received_end(sock: u64) -> Option<u32> {
    let end: u32 = read_at(sock, wire_setting!(copied_seq))?;
    if !tcp::peer_ended(sock) {
        return Some(end);
    }
    let next: u32 = read_at(sock, wire_setting!(rcv_nxt))?;
    Some(end.wrapping_sub(u32::from(end == next)))
}

/// Copies the bytes of a call, or its first and last ones.
#[inline(always)]
fn copy(call: &Returned, arguments: &[u64; 4], (index, scratch): (u32, &mut WireScratch)) {
    if call.length == 0 {
        return;
    }
    match call.transfer.shape {
        Shape::Buffer => {
            let told = send_pieces(arguments[1], index, scratch);
            let bytes = (&raw mut scratch.bytes).cast();
            (scratch.header.head, scratch.header.tail) =
                copy_buffer(arguments[1] + told, scratch.header.length, bytes);
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

/// Tells the first bytes of a long buffer in records of their own; gives how many. The header is for the rest then.
#[inline(always)]
fn send_pieces(address: u64, mut index: u32, scratch: &mut WireScratch) -> u64 {
    if scratch.header.length <= PIECE {
        return 0;
    }
    let length = scratch.header.length;
    (scratch.from, scratch.left) = (address, length);
    // SAFETY: a function pointer is only an address to the helper.
    let callback = unsafe {
        transmute::<unsafe extern "C" fn(u32, *mut c_void) -> i64, *mut c_void>(send_piece)
    };
    // SAFETY: the callback matches the helper's prototype, and its context is what it takes it to be.
    unsafe { bpf_loop(PIECES_MAX, callback, (&raw mut index).cast(), 0) };
    // SAFETY: live map values. Volatile, as the callback wrote them.
    let (left, position) = unsafe {
        (
            ptr::read_volatile(&raw const scratch.left),
            ptr::read_volatile(&raw const scratch.header.position),
        )
    };
    let told = length - left;
    (scratch.header.length, scratch.header.position) = (left, position);
    told
}

/// One iteration: send a piece of what is left. The context is the index of the record. Returns 1 to end the loop.
unsafe extern "C" fn send_piece(_iteration: u32, context: *mut c_void) -> i64 {
    // SAFETY: a live variable of the caller.
    let index = unsafe { *context.cast::<u32>() };
    let Some(scratch) = WIRE_SCRATCH.get_ptr_mut(index) else {
        return 1;
    };
    // SAFETY: claimed by the caller, which does not use it meanwhile.
    let scratch = unsafe { &mut *scratch };
    if scratch.left <= PIECE {
        return 1;
    }
    scratch.header.length = PIECE;
    let bytes = (&raw mut scratch.bytes).cast();
    (scratch.header.head, scratch.header.tail) = copy_buffer(scratch.from, PIECE, bytes);
    send(scratch);
    scratch.header.position = scratch.header.position.wrapping_add(PIECE);
    scratch.from += PIECE;
    scratch.left -= PIECE;
    0
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
