//! Connections grouped by whom they are with, and what their number and lives say. Pure.

use crate::sums::add_count;
use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    connections::{Connection, Role},
    end::End,
    times::Times,
};
use crate::output::figures::bytes;

/// Connections per second to one peer from which on they are worth a word.
const CHURN_PER_SECOND: f64 = 0.5;
/// Fewest connections that such a word rests on.
const CHURN_LEAST: u64 = 10;
/// Most requests of each: setting one up costs as much as several.
const CHURN_REQUESTS: u64 = 20;
/// Longest median life of such connections.
const CHURN_LIFE_NS: u64 = 1_000_000_000;

/// All connections with one peer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Peer {
    /// A client's peer with its port, a server's without, as `ADDRESS -> our PORT`.
    pub(super) name: String,
    pub(super) role: Role,
    /// Connections begun in the recording.
    pub(super) begun: u64,
    /// Of those, refused, not answered or given up.
    pub(super) failed: u64,
    /// Connections ended by a reset, of either side.
    pub(super) reset: u64,
    /// Connections still open.
    pub(super) open: u64,
    /// All of them, those that were there before too.
    pub(super) connections: u64,
    /// Lives of those begun and ended, ns.
    lives: Times,
    /// Times to connect, ns.
    connects: Times,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) retransmits: u64,
    /// Requests with their answers, at most.
    pub(super) exchanges: u64,
}

impl Peer {
    /// A quantile of the lives of connections that were begun and ended in the recording, ns.
    pub(super) fn life_ns(&self, percent: u64) -> Option<u64> {
        self.lives.quantile(percent)
    }

    /// A quantile of the times to connect, ns.
    pub(super) fn connect_ns(&self, percent: u64) -> Option<u64> {
        self.connects.quantile(percent)
    }

    /// Of nobody yet.
    pub(super) fn empty(name: String, role: Role) -> Self {
        Self {
            name,
            role,
            begun: 0,
            failed: 0,
            reset: 0,
            open: 0,
            connections: 0,
            lives: Times::default(),
            connects: Times::default(),
            sent: 0,
            received: 0,
            retransmits: 0,
            exchanges: 0,
        }
    }

    /// Adds those with another peer, or of another process.
    pub(super) fn merge(&mut self, other: Self) {
        add_count(&mut self.begun, other.begun);
        add_count(&mut self.failed, other.failed);
        add_count(&mut self.reset, other.reset);
        add_count(&mut self.open, other.open);
        add_count(&mut self.connections, other.connections);
        self.lives.merge(other.lives);
        self.connects.merge(other.connects);
        add_count(&mut self.sent, other.sent);
        add_count(&mut self.received, other.received);
        add_count(&mut self.retransmits, other.retransmits);
        add_count(&mut self.exchanges, other.exchanges);
    }

    /// With times that take little room.
    pub(super) fn coarse(self) -> Self {
        Self {
            lives: self.lives.coarse(),
            connects: self.connects.coarse(),
            ..self
        }
    }

    /// Connections begun in a second.
    #[expect(clippy::cast_precision_loss, reason = "a rate, for people")]
    pub(super) fn per_second(&self, duration: Duration) -> f64 {
        self.begun as f64 / duration.as_secs_f64().max(1e-3)
    }

    /// Requests with their answers of each connection, at most.
    pub(super) fn exchanges_each(&self) -> u64 {
        self.exchanges.div_ceil(self.connections.max(1))
    }

    /// A word on what the numbers mean, where they mean something.
    pub(super) fn diagnosis(&self, duration: Duration) -> Option<String> {
        let rate = self.per_second(duration);
        let life = self.life_ns(50)?;
        let each = self.exchanges_each();
        let churns = rate >= CHURN_PER_SECOND
            && self.begun >= CHURN_LEAST
            && life <= CHURN_LIFE_NS
            && each <= CHURN_REQUESTS;
        if !churns {
            return None;
        }
        let ms = Duration::from_nanos(life).as_secs_f64() * 1e3;
        let carried = (self.sent + self.received).div_ceil(self.connections.max(1));
        let used = match (each, carried) {
            (0, 0) => "none of them used".to_owned(),
            (0, _) => format!("each used for {} one way", bytes(carried)),
            (1, _) => "each used for one request".to_owned(),
            (each, _) => format!("each used for {each} requests at most"),
        };
        Some(match self.role {
            Role::Client => format!(
                "{rate:.1} connections/s to {}, median life {ms:.1} ms, {used}: keep connections open, or use a pool",
                self.name
            ),
            Role::Server | Role::Unknown => format!(
                "{rate:.1} connections/s from {}, median life {ms:.1} ms, {used}: that peer would do with a pool",
                self.name
            ),
        })
    }
}

/// Groups, the busiest first.
pub(super) fn group(connections: &[Connection]) -> Vec<Peer> {
    let mut peers: BTreeMap<(Role, String), Peer> = BTreeMap::new();
    for connection in connections {
        let name = name(connection);
        let peer = peers
            .entry((connection.role, name.clone()))
            .or_insert_with(|| Peer::empty(name, connection.role));
        add(peer, connection);
    }
    sorted(peers.into_values().collect())
}

/// In order, the busiest first.
pub(super) fn sorted(mut peers: Vec<Peer>) -> Vec<Peer> {
    peers.sort_by_key(|peer| std::cmp::Reverse((peer.begun, peer.open)));
    peers
}

/// Whom a connection is with.
pub(super) fn name(connection: &Connection) -> String {
    let ends = &connection.ends;
    match connection.role {
        Role::Client | Role::Unknown => ends.remote.to_string(),
        Role::Server => format!("{} -> our {}", ends.remote.ip(), ends.local.port()),
    }
}

/// Adds a connection, as far as it has not been told yet.
pub(super) fn add(peer: &mut Peer, connection: &Connection) {
    let (sent, received) = connection.bytes();
    peer.connections += 1;
    peer.sent += sent;
    peer.received += received;
    peer.retransmits += u64::from(connection.segments().2);
    peer.exchanges += u64::from(connection.exchanges());
    peer.begun += u64::from(connection.before.is_none());
    if let Some(ns) = connection.connect_ns()
        && !connection.is_connect_told
    {
        peer.connects.add(ns);
    }
    match connection.ended {
        None => peer.open += 1,
        Some((_, End::Refused | End::Failed(_) | End::GivenUp)) => peer.failed += 1,
        Some((_, End::TimedOut)) if connection.established_ns.is_none() => peer.failed += 1,
        Some((at, end)) => {
            peer.reset += u64::from(matches!(end, End::ResetByPeer | End::ResetByUs));
            if let Some(ns) = connection.age_ns(at) {
                peer.lives.add(ns);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use profiler_common::tcp::tcp_state::{CLOSE, ESTABLISHED, LAST_ACK, SYN_SENT};

    use super::{
        super::{connections::Connections, example::change},
        group,
    };

    /// Many short connections to one peer are a finding; few, or long ones, are none.
    #[test]
    fn churn_is_found() {
        let diagnosis = |count: u16, life_ms: u64| {
            let mut connections = Connections::default();
            for port in 1..=count {
                let start = u64::from(port) * 1000;
                connections.take(&change(port, start, CLOSE, SYN_SENT));
                connections.take(&change(port, start + 100, SYN_SENT, ESTABLISHED));
                let end = start + life_ms * 1_000_000;
                let mut last = change(port, end, LAST_ACK, CLOSE);
                last.figures.data_segments_out = 2;
                last.figures.data_segments_in = 9;
                connections.take(&last);
            }
            let peers = group(connections.list());
            assert_eq!((peers.len(), peers[0].begun), (1, u64::from(count)));
            assert_eq!(peers[0].connect_ns(50), Some(100));
            peers[0].diagnosis(Duration::from_secs(1))
        };
        assert_eq!(
            diagnosis(31, 12).as_deref(),
            Some(
                "31.0 connections/s to 127.0.0.1:5432, median life 12.0 ms, each used for 2 requests at most: keep connections open, or use a pool"
            )
        );
        assert!(
            diagnosis(12, 12).is_some(),
            "seldom, and for two requests each"
        );
        assert_eq!(diagnosis(31, 5000), None);
        assert_eq!(diagnosis(4, 12), None);
    }
}
