//! TCP connections of targets: each change of state, each segment sent again, each reset is told with the
//! socket's figures. These tracepoints are not hit by ordinary segments, so that traffic costs nothing.
//!
//! A client's socket is its process's, as it connects in a system call. A server's is made in an interrupt;
//! it is known by the port that it listens on.

use aya_ebpf::{
    EbpfContext,
    bindings::BPF_RB_NO_WAKEUP,
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    programs::{RawTracePointContext, TracePointContext},
};
use profiler_common::{
    outcome::Counter,
    tcp::{Figures, KIND_TCP, Listener, Socket, TcpEvent, role, tcp_state, what},
};

use crate::{
    descriptor::SocketFile,
    filter,
    maps::{COOKIES, EVENTS, LISTENERS, SOCKETS, count, tcp_setting, wire_setting},
    task::read_at,
};

/// `IPPROTO_TCP`
const TCP: u16 = 6;
/// `AF_INET` and `AF_INET6`
const INET: u16 = 2;
const INET6: u16 = 10;
/// Bit of `SOCK_DONE` in `sk_flags` (enum sock_flags of include/net/sock.h): the peer's end was received.
const DONE: u64 = 1 << 1;

/// A socket changes its state: `sk`, `old`, `new`.
#[inline(always)]
pub(crate) fn state_changed(ctx: &RawTracePointContext) {
    let socket = ctx.arg::<u64>(0);
    let (old, new) = (ctx.arg::<u64>(1) as u8, ctx.arg::<u64>(2) as u8);
    let protocol: Option<u16> = read_at(socket, tcp_setting!(protocol));
    if protocol != Some(TCP) {
        return;
    }
    if new == tcp_state::LISTEN {
        listens(socket);
        return;
    }
    if old == tcp_state::CLOSE && new == tcp_state::SYN_SENT {
        connects(socket);
    } else if old == tcp_state::SYN_RECV && new == tcp_state::ESTABLISHED {
        accepts(socket);
    }
    tell(socket, what::STATE, (old, new));
}

/// A target listens.
#[inline(always)]
fn listens(socket: u64) {
    let Some(target) = filter::current_target() else {
        return;
    };
    if LISTENERS.insert(listener(socket), target.tgid, 0).is_err() {
        count(Counter::SocketsFull);
    }
}

#[inline(always)]
fn listener(socket: u64) -> Listener {
    let port: u16 = read_at(socket, tcp_setting!(local_port)).unwrap_or(0);
    Listener {
        net: net(socket),
        port: u32::from(port),
    }
}

/// Inode number of its network namespace.
#[inline(always)]
fn net(socket: u64) -> u32 {
    let net: u64 = read_at(socket, tcp_setting!(net)).unwrap_or(0);
    read_at(net, tcp_setting!(net_inode)).unwrap_or(0)
}

#[inline(always)]
fn connects(socket: u64) {
    if let Some(target) = filter::current_target() {
        follow(socket, target.tgid, role::CLIENT);
    }
}

#[inline(always)]
fn accepts(socket: u64) {
    // SAFETY: values are single words, read once.
    let listening = unsafe { LISTENERS.get(listener(socket)) }.copied();
    match listening {
        Some(tgid) => follow(socket, tgid, role::SERVER),
        None if tcp_setting!(all) != 0 => follow(socket, 0, role::SERVER),
        None => {}
    }
}

#[inline(always)]
fn follow(socket: u64, tgid: u32, role: u32) {
    if SOCKETS.insert(socket, Socket { tgid, role }, 0).is_ok() {
        count(Counter::ConnectionsBegun);
    } else {
        count(Counter::SocketsFull);
    }
}

/// The owner of a socket that is followed; one that user space named by its cookie is from now on.
#[inline(always)]
fn owner(socket: u64) -> Option<Socket> {
    // SAFETY: written once, when the socket is not in use yet.
    if let Some(owner) = unsafe { SOCKETS.get(socket) } {
        return Some(*owner);
    }
    let cookie: u64 = read_at(socket, tcp_setting!(cookie))?;
    // SAFETY: written by user space only.
    let owner = *unsafe { COOKIES.get(cookie) }?;
    let _ = SOCKETS.insert(socket, owner, 0);
    Some(owner)
}

/// Something else happened to the socket that is the first argument, if there is one.
#[inline(always)]
pub(crate) fn happened(ctx: &RawTracePointContext, what: u32) {
    let socket = ctx.arg::<u64>(0);
    if socket != 0 {
        tell(socket, what, (0, 0));
    }
}

/// A thread returns from accepting: the result is the descriptor of the connection's socket. Several processes may listen on
/// the port that it came to: its owner is this one.
#[inline(always)]
pub(crate) fn accepted(ctx: &TracePointContext) {
    let result: i64 = read_at(ctx.as_ptr() as u64, wire_setting!(result)).unwrap_or(-1);
    if result < 0 {
        return;
    }
    let file = SocketFile::behind(result as u32);
    let Some(socket) = file.and_then(SocketFile::sock) else {
        return;
    };
    if owner(socket).is_none() {
        return;
    }
    let target = filter::current_target();
    if target.is_none() && tcp_setting!(all) == 0 {
        tell(socket, what::TAKEN, (0, 0));
        let _ = SOCKETS.remove(socket);
        return;
    }
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let role = role::SERVER;
    // Where that fails the owner is the one who listens.
    let _ = SOCKETS.insert(socket, Socket { tgid, role }, 0);
    tell(socket, what::ACCEPTED, (0, 0));
}

/// The socket is gone: its address may be another's.
#[inline(always)]
pub(crate) fn destroyed(ctx: &RawTracePointContext) {
    let _ = SOCKETS.remove(ctx.arg::<u64>(0));
}

#[inline(always)]
fn tell(socket: u64, what: u32, (old, new): (u8, u8)) {
    let Some(owner) = owner(socket) else {
        return;
    };
    let mut event = TcpEvent {
        kind: KIND_TCP,
        what,
        // SAFETY: always callable. CLOCK_MONOTONIC.
        time_ns: unsafe { bpf_ktime_get_ns() },
        socket,
        owner,
        net: net(socket),
        error: read_at(socket, tcp_setting!(error)).unwrap_or(0),
        local: [0; 16],
        remote: [0; 16],
        local_port: 0,
        remote_port: 0,
        old,
        new,
        padding: 0,
        figures: figures(socket),
    };
    local(socket, &mut event.local, &mut event.local_port);
    remote(socket, &mut event.remote, &mut event.remote_port);
    if EVENTS
        .output_untyped::<TcpEvent>(&event, u64::from(BPF_RB_NO_WAKEUP))
        .is_err()
    {
        count(Counter::EventLost);
    }
}

/// The local address and port of a socket.
#[inline(always)]
pub(crate) fn local(socket: u64, address: &mut [u8; 16], port: &mut u16) {
    let places = (tcp_setting!(local4), tcp_setting!(local6));
    end(socket, places, address);
    let bytes: u16 = read_at(socket, tcp_setting!(source_port)).unwrap_or(0);
    *port = u16::from_be(bytes);
}

/// The remote address and port of a socket.
#[inline(always)]
pub(crate) fn remote(socket: u64, address: &mut [u8; 16], port: &mut u16) {
    let places = (tcp_setting!(remote4), tcp_setting!(remote6));
    end(socket, places, address);
    let bytes: u16 = read_at(socket, tcp_setting!(remote_port)).unwrap_or(0);
    *port = u16::from_be(bytes);
}

/// An address, which lies elsewhere by family.
#[inline(always)]
fn end(socket: u64, (four, six): (u32, u32), address: &mut [u8; 16]) {
    let family: u16 = read_at(socket, tcp_setting!(family)).unwrap_or(0);
    *address = [0; 16];
    if family == INET6 {
        *address = read_at(socket, six).unwrap_or([0; 16]);
    } else if family == INET {
        mapped(address, read_at(socket, four));
    }
}

#[inline(always)]
fn mapped(address: &mut [u8; 16], four: Option<[u8; 4]>) {
    let [a, b, c, d] = four.unwrap_or([0; 4]);
    *address = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
}

#[inline(always)]
fn figures(socket: u64) -> Figures {
    Figures {
        bytes_sent: read_at(socket, tcp_setting!(bytes_sent)).unwrap_or(0),
        bytes_retransmitted: read_at(socket, tcp_setting!(bytes_retrans)).unwrap_or(0),
        bytes_received: read_at(socket, tcp_setting!(bytes_received)).unwrap_or(0),
        segments_out: read_at(socket, tcp_setting!(segs_out)).unwrap_or(0),
        segments_in: read_at(socket, tcp_setting!(segs_in)).unwrap_or(0),
        data_segments_out: read_at(socket, tcp_setting!(data_segs_out)).unwrap_or(0),
        data_segments_in: read_at(socket, tcp_setting!(data_segs_in)).unwrap_or(0),
        rtt_us: read_at::<u32>(socket, tcp_setting!(srtt)).unwrap_or(0) >> 3,
        min_rtt_us: read_at(socket, tcp_setting!(min_rtt)).unwrap_or(u32::MAX),
        retransmits: read_at(socket, tcp_setting!(retransmits)).unwrap_or(0),
        peer_ended: u32::from(peer_ended(socket)),
    }
}

/// Whether the peer's end was received.
#[inline(always)]
pub(crate) fn peer_ended(socket: u64) -> bool {
    let flags: u64 = read_at(socket, tcp_setting!(flags)).unwrap_or(0);
    flags & DONE != 0
}
