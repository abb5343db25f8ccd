//! Following TCP connections.

use aya::{
    Ebpf,
    maps::{HashMap, MapData},
    programs::{RawTracePoint, TracePoint},
};
use profiler_common::{
    limits::{LISTENERS_MAX, SOCKETS_MAX},
    tcp::{Listener, Socket, TcpSettings},
};

use super::{
    Kernel, KernelError,
    load::{failed, map, program},
    plain::plain,
    tracefs,
};

/// Programs and their tracepoints. The end of a socket first, so that none is followed beyond it.
const PROGRAMS: [(&str, &str); 5] = [
    ("tcp_destroyed", "tcp_destroy_sock"),
    ("tcp_state", "inet_sock_set_state"),
    ("tcp_retransmit", "tcp_retransmit_skb"),
    ("tcp_reset_sent", "tcp_send_reset"),
    ("tcp_reset_received", "tcp_receive_reset"),
];

/// The program at return from accepting, and its calls.
const ACCEPTED: &str = "tcp_accepted";
const ACCEPTING: [&str; 2] = ["accept4", "accept"];

plain! {
    /// [`Socket`] as aya wants it.
    Owner(Socket);
    /// [`Listener`] as aya wants it.
    Place(Listener);
}

/// The maps that user space writes.
pub(super) struct Connections {
    cookies: HashMap<MapData, u64, Owner>,
    listeners: HashMap<MapData, Place, u32>,
}

impl Connections {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            cookies: map(ebpf, "COOKIES", HashMap::try_from)?,
            listeners: map(ebpf, "LISTENERS", HashMap::try_from)?,
        })
    }
}

/// Sizes of the maps: as small as can be where nothing is wanted of them.
pub(super) fn sizes(settings: &TcpSettings) -> [(&'static str, u32); 3] {
    let size = |size: usize| match settings.wanted {
        0 => 1,
        _ => u32::try_from(size).unwrap_or(u32::MAX),
    };
    [
        ("SOCKETS", size(SOCKETS_MAX)),
        ("COOKIES", size(SOCKETS_MAX)),
        ("LISTENERS", size(LISTENERS_MAX)),
    ]
}

/// Loads what is no raw tracepoint, if it is wanted.
pub(super) fn load(ebpf: &mut Ebpf, settings: &TcpSettings) -> Result<(), KernelError> {
    if settings.wanted == 0 {
        return Ok(());
    }
    let hook: &mut TracePoint = program(ebpf, ACCEPTED)?;
    hook.load()
        .map_err(|source| failed("load", ACCEPTED, source))
}

/// The programs that are wanted.
pub(super) fn programs(settings: &TcpSettings) -> &'static [(&'static str, &'static str)] {
    match settings.wanted {
        0 => &[],
        _ => &PROGRAMS,
    }
}

impl Kernel {
    /// Begins to follow connections.
    pub fn attach_tcp(&mut self) -> Result<(), KernelError> {
        for (name, tracepoint) in PROGRAMS {
            let hook: &mut RawTracePoint = program(&mut self.ebpf, name)?;
            let link = hook.attach(tracepoint).and_then(|id| hook.take_link(id));
            self.tcp_links
                .push(link.map_err(|source| failed("attach", name, source))?);
        }
        tracefs::with(|_| {
            ACCEPTING
                .iter()
                .try_for_each(|call| self.attach_call(ACCEPTED, "exit", call))
        })
    }

    /// Follows a socket that is there already. Says whether there was room.
    pub fn follow_socket(&mut self, cookie: u64, owner: Socket) -> bool {
        self.connections
            .cookies
            .insert(cookie, Owner(owner), 0)
            .is_ok()
    }

    /// What comes to this port is a target's. Says whether there was room.
    pub fn follow_listener(&mut self, listener: Listener, tgid: u32) -> bool {
        self.connections
            .listeners
            .insert(Place(listener), tgid, 0)
            .is_ok()
    }

    /// It is gone, so that there is room for others.
    pub fn forget_socket(&mut self, cookie: u64) {
        // One that is not there is as good.
        let _ = self.connections.cookies.remove(&cookie);
    }

    /// Ports whose connections are followed, and whose they are.
    pub fn listeners(&self) -> Vec<(Listener, u32)> {
        let entries = self.connections.listeners.iter().filter_map(Result::ok);
        entries.map(|(place, tgid)| (place.0, tgid)).collect()
    }

    /// What comes to this port is nobody's any more.
    pub fn forget_listener(&mut self, listener: Listener) {
        // As above.
        let _ = self.connections.listeners.remove(&Place(listener));
    }
}
