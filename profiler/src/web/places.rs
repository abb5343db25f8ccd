//! Who has a connection, and who has to give way. Pure.
//!
//! A connection waits until its header is there. When there is no room for a new one, the oldest of
//! those that wait gives way, of the peer that has most of them. A request then takes a place among
//! the answers, of which each peer has only so many. `/healthz` needs none.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

/// Connections at a time.
const CONNECTIONS_MAX: usize = 96;
/// Requests that are answered at a time, but for those of `/healthz`.
const ANSWERS_MAX: usize = 32;
/// Of these, requests of one peer.
const PEER_ANSWERS_MAX: usize = 24;

/// Who has a connection, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    /// Anybody on this machine: everybody has all of its addresses.
    Loopback,
    V4(Ipv4Addr),
    /// A network of 64 bits, which one machine may have.
    V6([u8; 8]),
    /// Of a unix socket.
    User(u32),
}

impl Peer {
    pub(super) fn at(address: IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self::Loopback,
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let mut network = [0; 8];
                network.copy_from_slice(&address.octets()[..8]);
                Self::V6(network)
            }
        }
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Its header is not there yet.
    Waits,
    /// It is answered.
    Answered,
    /// It has got no place, or needs none.
    Passing,
}

/// All connections. `A` ends one of them.
#[derive(Debug)]
pub(super) struct Table<A> {
    next: u64,
    pub(super) connections: BTreeMap<u64, (Peer, Phase, Option<A>)>,
}

impl<A> Table<A> {
    /// Takes a new one in; gives the one that has to give way, if there was no room.
    pub(super) fn admit(&mut self, peer: Peer) -> (u64, Option<A>) {
        let full = self.connections.len() >= CONNECTIONS_MAX;
        let out = full.then(|| self.least_worthy()).flatten();
        let out = out.and_then(|id| self.connections.remove(&id)?.2);
        let id = self.next;
        self.next += 1;
        self.connections.insert(id, (peer, Phase::Waits, None));
        (id, out)
    }

    /// The one of those that wait that has waited longest, of the peer that has most of them.
    fn least_worthy(&self) -> Option<u64> {
        let mut waiting = BTreeMap::<Peer, (usize, u64)>::new();
        for (&id, (peer, phase, _)) in &self.connections {
            if *phase == Phase::Waits {
                waiting.entry(*peer).or_insert((0, id)).0 += 1;
            }
        }
        let most = waiting.into_values().max_by_key(|(count, _)| *count);
        most.map(|(_, oldest)| oldest)
    }

    /// Takes a place among the answers; says whether there was one.
    pub(super) fn answer(&mut self, id: u64) -> bool {
        let Some((peer, ..)) = self.connections.get(&id) else {
            return false;
        };
        let all = self.connections.values();
        let answered = all.filter(|(_, phase, _)| *phase == Phase::Answered);
        let (count, of_peer) = answered.fold((0, 0), |(count, of_peer), (other, ..)| {
            (count + 1, of_peer + usize::from(other == peer))
        });
        let has_place = count < ANSWERS_MAX && of_peer < PEER_ANSWERS_MAX;
        let phase = if has_place {
            Phase::Answered
        } else {
            Phase::Passing
        };
        self.set(id, phase);
        has_place
    }

    pub(super) fn set(&mut self, id: u64, phase: Phase) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.1 = phase;
        }
    }
}

impl<A> Default for Table<A> {
    fn default() -> Self {
        Self {
            next: 0,
            connections: BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        ANSWERS_MAX, CONNECTIONS_MAX, IpAddr, Ipv4Addr, PEER_ANSWERS_MAX, Peer, Phase, Table,
    };

    fn peer(last: u8) -> Peer {
        Peer::V4(Ipv4Addr::new(10, 0, 0, last))
    }

    /// Takes in, with its number as what ends it.
    fn admit(table: &mut Table<u64>, peer: Peer) -> (u64, Option<u64>) {
        let (id, out) = table.admit(peer);
        table.connections.get_mut(&id).unwrap().2 = Some(id);
        (id, out)
    }

    /// A full table still has room for everybody: the peer that holds most of it loses its oldest
    /// connection, but none whose request is there.
    #[test]
    fn newcomers_displace_who_holds_most() {
        let mut table = Table::default();
        let (answered, _) = admit(&mut table, peer(1));
        assert!(table.answer(answered));
        let (modest, _) = admit(&mut table, peer(2));
        while table.connections.len() < CONNECTIONS_MAX {
            assert_eq!(admit(&mut table, peer(1)).1, None);
        }
        let (newcomer, out) = admit(&mut table, peer(3));
        assert_eq!(out, Some(2));
        for _ in 0..1000 {
            assert!(admit(&mut table, peer(1)).1 > Some(2));
        }
        assert_eq!(table.connections.len(), CONNECTIONS_MAX);
        for kept in [answered, modest, newcomer] {
            assert!(table.connections.contains_key(&kept));
        }
    }

    /// One peer cannot have all answers, all together have so many, and what ended makes room.
    #[test]
    fn answers_are_shared() {
        let mut table = Table::default();
        let answered = |table: &mut Table<u64>, of: Peer| {
            let (id, _) = admit(table, of);
            table.answer(id).then_some(id)
        };
        let first = answered(&mut table, peer(1)).unwrap();
        for _ in 1..PEER_ANSWERS_MAX {
            assert!(answered(&mut table, peer(1)).is_some());
        }
        assert_eq!(answered(&mut table, peer(1)), None);
        for _ in PEER_ANSWERS_MAX..ANSWERS_MAX {
            assert!(answered(&mut table, peer(2)).is_some());
        }
        assert_eq!(answered(&mut table, peer(3)), None);
        table.connections.remove(&first);
        assert!(answered(&mut table, peer(1)).is_some());
        let waiting = |table: &Table<u64>| {
            let all = table.connections.values();
            all.filter(|connection| connection.1 == Phase::Waits)
                .count()
        };
        assert_eq!(waiting(&table), 0);
    }

    /// Everybody on this machine is one peer, and so is a network that one machine may have.
    #[test]
    fn peers_are_who_can_be_told_apart() {
        let at = |text: &str| Peer::at(text.parse::<IpAddr>().unwrap());
        for text in ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.2"] {
            assert_eq!(at(text), Peer::Loopback, "{text}");
        }
        assert_eq!(at("::ffff:10.0.0.1"), peer(1));
        assert_eq!(at("2001:db8::1"), at("2001:db8::2:3"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
    }
}
