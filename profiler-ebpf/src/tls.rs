//! What targets send and receive through a TLS library, before it is encrypted and after it is decrypted: uprobes at the
//! entry of its functions note the call, uprobes at the instructions by which they return copy its bytes. No return
//! address of the target is changed.
//!
//! A function may call another one of them, and a tail call goes on in another one: only the outermost counts. It is
//! told by the stack pointer, which at its return is what it was at its entry.
//!
//! Uprobes can be preempted, by another thread that hits one too: so no record is built in memory of the CPU, but on the
//! ring itself. What lies in a table is taken for a thread's or a connection's own only if it says so after it was read.

use core::ptr;

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_RB_NO_WAKEUP, pt_regs},
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns, generated},
    programs::ProbeContext,
};
use profiler_common::{
    outcome::Counter,
    tls::Passing,
    wire::{KIND_WIRE, RECEIVED, SENT, WHOLE_BYTES, WireHeader, family, source},
};

use crate::{
    arch, buffer, filter, interest,
    maps::{
        EVENTS, TLS_CALLS, TLS_STREAMS, TlsCall, TlsKey, TlsStream, WireSocket, count, wire_setting,
    },
    task::user_at,
    tcp, wire,
};

/// Room for the bytes of a record: the ring gives memory in sizes that are fixed when a program is loaded.
const SMALL: usize = 256;
const MEDIUM: usize = 2048;

/// A record with room for bytes.
#[repr(C)]
struct Record<const ROOM: usize> {
    header: WireHeader,
    bytes: [u8; ROOM],
}

/// Bytes that a function passed.
struct Passed {
    key: TlsKey,
    buffer: u64,
    length: u64,
    direction: u8,
    /// Of the first one.
    position: u64,
    entry_ns: u64,
}

/// A thread enters a function that passes plaintext.
#[inline(always)]
pub(crate) fn entered(ctx: &ProbeContext) {
    let Some(target) = filter::current_target() else {
        return;
    };
    let registers = registers(ctx);
    let stack = arch::stack_pointer(registers);
    if is_within_another(target.tid, stack) {
        return;
    }
    // SAFETY: always callable from a uprobe.
    let cookie = unsafe { generated::bpf_get_attach_cookie(ctx.as_ptr()) };
    let passing = Passing::from_cookie(cookie);
    let [connection, buffer, _, fourth, fifth] = arch::arguments(registers);
    let slot = arch::return_slot(registers);
    let call = TlsCall {
        tid: u64::from(target.tid),
        connection,
        buffer,
        length_at: match passing.length_argument {
            3 => fourth,
            4 => fifth,
            _ => 0,
        },
        stack,
        slot,
        caller: user_at::<u64>(slot).unwrap_or(0),
        // SAFETY: always callable. CLOCK_MONOTONIC.
        entry_ns: unsafe { bpf_ktime_get_ns() },
        direction: u64::from(passing.direction),
        socket: [0; 3],
    };
    if TLS_CALLS.insert(target.tid, call, 0).is_err() {
        count(Counter::TlsFull);
    }
}

/// Whether the thread is in a function that was noted and has not returned: it lies further up the stack, and where it
/// returns to is still there. One that was left by `longjmp` is not.
#[inline(always)]
fn is_within_another(tid: u32, stack: u64) -> bool {
    let Some(noted) = TLS_CALLS.get_ptr(tid) else {
        return false;
    };
    // SAFETY: a live map value, written by this thread only.
    let noted = unsafe { &*noted };
    noted.stack > stack && user_at::<u64>(noted.slot) == Some(noted.caller)
}

/// A thread used a socket: if it is in a function of a TLS library, it is the one beneath.
#[inline(always)]
pub(crate) fn carried(tid: u32, socket: &WireSocket) {
    if wire_setting!(tls) == 0 {
        return;
    }
    if let Some(call) = TLS_CALLS.get_ptr_mut(tid) {
        // SAFETY: a live map value, written by this thread only.
        unsafe { (*call).socket = [socket.sock, socket.inode, u64::from(socket.family)] };
    }
}

/// A thread is about to return from a function that passes plaintext.
#[inline(always)]
pub(crate) fn returned(ctx: &ProbeContext) {
    let id = bpf_get_current_pid_tgid();
    let (tgid, tid) = ((id >> 32) as u32, id as u32);
    let registers = registers(ctx);
    let Some(call) = TLS_CALLS.get_ptr(tid) else {
        return;
    };
    // SAFETY: a live map value, written by this thread only.
    let call = unsafe { *call };
    if call.stack != arch::stack_pointer(registers) || call.tid != u64::from(tid) {
        return;
    }
    let _ = TLS_CALLS.remove(tid);
    let result = arch::result(registers) as i32;
    if result <= 0 {
        return;
    }
    let length = match call.length_at {
        0 => result as u64,
        address => user_at::<u64>(address).unwrap_or(0),
    };
    if length == 0 {
        return;
    }
    let key = TlsKey {
        connection: call.connection,
        tgid: u64::from(tgid),
    };
    let Some(stream) = stream(key) else {
        count(Counter::TlsFull);
        return;
    };
    if stream.inode == 0 && call.socket[0] != 0 {
        learn(stream, call.socket);
    }
    let direction = call.direction as u8;
    let seen = if direction == SENT {
        &mut stream.bytes[0]
    } else {
        &mut stream.bytes[1]
    };
    let position = *seen;
    *seen += length;
    if !interest::is_wanted(stream.id, call.connection) {
        return;
    }
    let passed = Passed {
        key,
        buffer: call.buffer,
        length,
        direction,
        position,
        entry_ns: call.entry_ns,
    };
    if length <= SMALL as u64 {
        tell::<SMALL>(&passed, stream);
    } else if length <= MEDIUM as u64 {
        tell::<MEDIUM>(&passed, stream);
    } else {
        tell::<WHOLE_BYTES>(&passed, stream);
    }
}

/// A connection is given up: another one may get its address.
#[inline(always)]
pub(crate) fn freed(ctx: &ProbeContext) {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let [connection, ..] = arch::arguments(registers(ctx));
    let key = TlsKey {
        connection,
        tgid: u64::from(tgid),
    };
    let Some(stream) = TLS_STREAMS.get_ptr_mut(key) else {
        return;
    };
    // SAFETY: a live map value; threads that use one connection take turns.
    let stream = unsafe { &mut *stream };
    if interest::is_wanted(stream.id, connection) {
        let passed = Passed {
            key,
            buffer: 0,
            length: 0,
            direction: RECEIVED,
            position: stream.bytes[1],
            entry_ns: 0,
        };
        tell::<0>(&passed, stream);
    }
    let _ = TLS_STREAMS.remove(key);
}

/// The running thread ends, or runs another program: what it was in is gone.
#[inline(always)]
pub(crate) fn ended() {
    if wire_setting!(tls) != 0 {
        let _ = TLS_CALLS.remove(bpf_get_current_pid_tgid() as u32);
    }
}

#[inline(always)]
fn registers(ctx: &ProbeContext) -> &pt_regs {
    // SAFETY: the kernel's own context of this program type.
    unsafe { &*ctx.regs }
}

/// What was seen of a connection, begun if nothing was.
#[inline(always)]
fn stream(key: TlsKey) -> Option<&'static mut TlsStream> {
    let stream = match TLS_STREAMS.get_ptr_mut(key) {
        Some(stream) => stream,
        None => {
            // SAFETY: always callable. Two CPUs do not begin a stream in the same ns and be 256 apart.
            let (now, cpu) = unsafe { (bpf_ktime_get_ns(), generated::bpf_get_smp_processor_id()) };
            let begun = TlsStream {
                key,
                id: now << 8 | u64::from(cpu & 0xff),
                bytes: [0; 2],
                inode: 0,
                local: [0; 16],
                remote: [0; 16],
                local_port: 0,
                remote_port: 0,
                family: 0,
            };
            let _ = TLS_STREAMS.insert(key, begun, 0);
            TLS_STREAMS.get_ptr_mut(key)?
        }
    };
    // SAFETY: a live map value; threads that use one connection take turns.
    Some(unsafe { &mut *stream })
}

/// Notes the socket beneath a connection.
#[inline(always)]
fn learn(stream: &mut TlsStream, [socket, inode, family]: [u64; 3]) {
    stream.inode = inode;
    stream.family = family as u32;
    if family != u64::from(family::UNIX) {
        tcp::local(socket, &mut stream.local, &mut stream.local_port);
        tcp::remote(socket, &mut stream.remote, &mut stream.remote_port);
    }
}

/// Hands on what was passed, with its bytes as far as there is room.
#[inline(always)]
fn tell<const ROOM: usize>(passed: &Passed, stream: &TlsStream) {
    let id = bpf_get_current_pid_tgid();
    let header = WireHeader {
        kind: KIND_WIRE,
        head: 0,
        tail: 0,
        direction: passed.direction,
        family: stream.family as u8,
        source: source::TLS,
        padding: 0,
        length: passed.length,
        entry_ns: if passed.direction == SENT {
            passed.entry_ns
        } else {
            0
        },
        // SAFETY: always callable. CLOCK_MONOTONIC.
        exit_ns: unsafe { bpf_ktime_get_ns() },
        socket: stream.id,
        inode: passed.key.connection,
        carrier: stream.inode,
        position: passed.position,
        tgid: (id >> 32) as u32,
        tid: id as u32,
        local: stream.local,
        remote: stream.remote,
        local_port: stream.local_port,
        remote_port: stream.remote_port,
        padding2: 0,
    };
    // SAFETY: a live map value. Volatile, as it must be read after all that was taken from there.
    if unsafe { ptr::read_volatile(&raw const stream.key) } != passed.key {
        count(Counter::TlsFull);
        return;
    }
    count(Counter::WireTaken);
    let Some(mut entry) = EVENTS.reserve_untyped::<Record<ROOM>>(0) else {
        count(Counter::WireLost);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry has room for it.
    unsafe { (&raw mut (*record).header).write(header) };
    if ROOM > 0 {
        // SAFETY: the header was written above.
        copy::<ROOM>(passed, record);
    }
    entry.submit(u64::from(BPF_RB_NO_WAKEUP));
}

#[inline(always)]
fn copy<const ROOM: usize>(passed: &Passed, record: *mut Record<ROOM>) {
    // SAFETY: its header was written.
    let header = unsafe { &mut (*record).header };
    // SAFETY: within the record.
    let bytes = unsafe { (&raw mut (*record).bytes).cast::<u8>() };
    if ROOM == WHOLE_BYTES {
        (header.head, header.tail) = buffer::copy_buffer(passed.buffer, passed.length, bytes);
    } else if buffer::read_bounded::<ROOM>(bytes, passed.length, passed.buffer) {
        header.head = passed.length as u32;
    }
    // SAFETY: five bytes of the room; where none were copied the head is not longer than nothing.
    let first = [0, 1, 2, 3, 4].map(|index| unsafe { bytes.add(index).read() });
    wire::hide_password(first, header);
}
