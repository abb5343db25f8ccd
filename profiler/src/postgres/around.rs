//! What connections are met in: other processes, and what was known of them when the recording began.

use profiler_common::wire::WireHeader;
use rustc_hash::FxHashMap;

use super::{
    backends::Backends,
    conversation::{Met, World},
    dialect::Parameters,
    idle::Idle,
    peers::{Peers, is_server, title},
    protocol::{Side, StatementId},
};
use crate::record::finish::monotonic_ns;

/// What connections are met in.
pub(super) struct Around<'a> {
    pub(super) peers: &'a mut Peers,
    pub(super) backends: &'a mut Backends,
    pub(super) idle: &'a Idle,
    pub(super) ran: &'a mut FxHashMap<u64, (StatementId, u64)>,
}

impl World for Around<'_> {
    fn meet(&mut self, header: &WireHeader, side: Side, is_begun: bool) -> Met {
        let mut met = Met {
            origin: self.peers.origin(header, side),
            parameters: Parameters::default(),
            idle: self.idle.state(header),
            since_ns: self.idle.since_ns(),
            ran: self.ran.remove(&header.inode),
            backend: None,
        };
        if is_begun {
            return met;
        }
        // By now the process may be gone that used it.
        let known = self.idle.backend(header);
        met.backend = known.or_else(|| self.peers.backend(header, side));
        if let Some(backend) = met.backend {
            (met.parameters, met.origin.application) =
                self.backends.session(backend).unwrap_or_default();
            if side == Side::Client {
                met.origin = met.origin.with_title(&title(backend));
                met.origin.backend = Some(backend);
            }
        }
        met
    }

    fn is_server(&mut self, pid: u32) -> bool {
        is_server(pid)
    }

    fn now_ns(&mut self) -> u64 {
        monotonic_ns()
    }
}
