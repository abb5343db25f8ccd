//! Events as the kernel side tells them, for tests.

use profiler_common::tcp::{Figures, KIND_TCP, Socket, TcpEvent, role, what};

/// 127.0.0.1, as the kernel side tells it.
pub(super) const LOOPBACK: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1];

/// A change of state of the socket between 127.0.0.1:PORT and 127.0.0.1:5432.
pub(super) fn change(port: u16, time_ns: u64, old: u8, new: u8) -> TcpEvent {
    TcpEvent {
        kind: KIND_TCP,
        what: what::STATE,
        time_ns,
        socket: u64::from(port),
        owner: Socket {
            tgid: 7,
            role: role::CLIENT,
        },
        net: 1,
        error: 0,
        local: LOOPBACK,
        remote: LOOPBACK,
        local_port: port,
        remote_port: 5432,
        old,
        new,
        padding: 0,
        figures: Figures::default(),
    }
}
