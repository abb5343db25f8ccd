//! What connections did in one window of time, as it is stored: one JSON object, compressed. Windows read back add up.
//! Pure.
//!
//! Connections are grouped by process, peer and side. One that lives on is in each window with what it carried in it.

use crate::sums::{add_count, add_time};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    io,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    account::Account,
    connections::{Connection, Role},
    peers::{self, Peer},
};
use crate::{
    output::OutputError,
    store::{Figure, Identity, Link, Table, Who, pack, unpack},
};

/// Of what is written now.
const VERSION: u32 = 1;
/// Groups that are told apart while a window lasts.
const APART_MAX: usize = 20_000;
/// Groups that are kept whole, those with most connections; the others are summed.
const KEPT_MAX: usize = 1000;
/// In the place of a peer's name.
const OTHERS: &str = "(others)";
/// Note: see [`KEPT_MAX`] and [`APART_MAX`].
const SUMMED: &str = "group of a process and peer summed with others";
const FOUND_NO_ROOM: &str = "connection of a further process and peer, summed with others";
/// Note: see [`Sum::add`].
const LEFT_OUT: &str =
    "connection of processes that are not told apart or whose unit is not known, left out";

/// Connections of a process with a peer.
#[derive(Debug, Serialize, Deserialize)]
struct Group {
    /// 0 of all processes that are not told apart, and where it is not known.
    pid: u32,
    comm: String,
    /// Its cgroup; empty where it is not known, as in windows of before it was kept.
    #[serde(default)]
    cgroup: String,
    peer: Peer,
    /// Of the peer's connections, those that the window before has told of.
    carried: u64,
    /// Those that ended, by how.
    ends: BTreeMap<String, u64>,
}

impl Group {
    fn empty(pid: u32, role: Role, peer: &str) -> Self {
        Self {
            pid,
            comm: String::new(),
            cgroup: String::new(),
            peer: Peer::empty(peer.to_owned(), role),
            carried: 0,
            ends: BTreeMap::new(),
        }
    }
}

/// What connections do while a window lasts.
#[derive(Debug, Default)]
pub(super) struct Groups {
    apart: BTreeMap<(u32, Role, String), Group>,
    /// Connections that were there before and had not been told of.
    found: u64,
    found_no_room: u64,
}

impl Groups {
    /// Adds what a connection did.
    pub(super) fn add(&mut self, connection: &Connection) {
        let mut key = (connection.pid, connection.role, peers::name(connection));
        if self.apart.len() >= APART_MAX && !self.apart.contains_key(&key) {
            self.found_no_room += 1;
            key = (0, connection.role, OTHERS.to_owned());
        }
        let group = self
            .apart
            .entry(key)
            .or_insert_with_key(|(pid, role, name)| Group::empty(*pid, *role, name));
        peers::add(&mut group.peer, connection);
        group.carried += u64::from(connection.is_told);
        self.found += u64::from(connection.before.is_some() && !connection.is_told);
        if let Some((_, end)) = connection.ended {
            *group.ends.entry(end.text()).or_default() += 1;
        }
    }

    /// Processes with connections.
    pub(super) fn pids(&self) -> BTreeSet<u32> {
        self.apart.keys().map(|(pid, ..)| *pid).collect()
    }
}

/// A window.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Window {
    title: String,
    duration: Duration,
    link: Link,
    groups: Vec<Group>,
    account: Account,
}

impl Window {
    /// What came, as many groups of it as there is room for. `known` are those processes that are.
    pub(super) fn new(
        what: (String, Duration),
        link: Link,
        came: Groups,
        known: &BTreeMap<u32, Identity>,
        mut account: Account,
    ) -> Self {
        let mut groups: Vec<Group> = came.apart.into_values().collect();
        groups.sort_by_key(|group| {
            let peer = &group.peer;
            Reverse((peer.connections, peer.sent + peer.received))
        });
        let rest = groups.split_off(groups.len().min(KEPT_MAX));
        account.note(SUMMED, rest.len() as u64);
        account.note(FOUND_NO_ROOM, came.found_no_room);
        add_count(&mut account.before, came.found);
        let mut others: BTreeMap<Role, Group> = BTreeMap::new();
        for group in rest {
            let role = group.peer.role;
            let empty = || Group::empty(0, role, OTHERS);
            let sum = others.entry(role).or_insert_with(empty);
            sum.peer.merge(group.peer);
            add_count(&mut sum.carried, group.carried);
            for (end, count) in group.ends {
                add_count(sum.ends.entry(end).or_default(), count);
            }
        }
        groups.extend(others.into_values());
        let finish = |group: Group| {
            let Identity { comm, cgroup } = known.get(&group.pid).cloned().unwrap_or_default();
            Group {
                comm,
                cgroup,
                peer: group.peer.coarse(),
                ..group
            }
        };
        Self {
            title: what.0,
            duration: what.1,
            link,
            groups: groups.into_iter().map(finish).collect(),
            account,
        }
    }

    /// Reads one back.
    pub(crate) fn read(bytes: &[u8]) -> io::Result<Self> {
        unpack(VERSION, bytes)
    }

    fn sum(&self, figure: impl Fn(&Group) -> u64) -> u64 {
        self.groups.iter().map(figure).sum()
    }
}

impl Table for Window {
    fn title(&self) -> &str {
        &self.title
    }

    fn duration(&self) -> Duration {
        self.duration
    }

    fn events(&self) -> u64 {
        self.account.listed + self.account.before
    }

    fn lost(&self) -> u64 {
        self.account.lost.values().sum()
    }

    fn note(&mut self, note: String, count: u64) {
        self.account.note(&note, count);
    }

    fn to_bytes(&self) -> Result<Vec<u8>, OutputError> {
        pack(VERSION, self)
    }

    fn sums(&self) -> Vec<(Figure, u64)> {
        let failed = self.sum(|group| group.peer.failed);
        let reset = self.sum(|group| group.peer.reset);
        let ended = self.sum(|group| group.ends.values().sum());
        vec![
            (Figure::Opened, self.sum(|group| group.peer.begun)),
            (Figure::Closed, ended.saturating_sub(failed + reset)),
            (Figure::Failed, failed),
            (Figure::Reset, reset),
            (
                Figure::Retransmitted,
                self.sum(|group| group.peer.retransmits),
            ),
        ]
    }
}

/// Connections that are open, by side and peer.
type Open = BTreeMap<(Role, String), u64>;

/// Windows together.
#[derive(Default)]
pub(crate) struct Sum {
    peers: BTreeMap<(Role, String), Peer>,
    /// Connections that ended, by how.
    pub(super) ends: BTreeMap<String, u64>,
    pub(super) account: Account,
    pub(super) duration: Duration,
    pub(super) titles: BTreeSet<String>,
    /// The last window, and the connections that were open at its end.
    last: Option<(Link, Open)>,
}

impl Sum {
    /// Adds the connections of those who are wanted. The account stays that of everybody. Windows come in their order.
    pub(crate) fn add(&mut self, window: Window, who: &Who) {
        let last = self.last.as_ref();
        let is_next = last.is_some_and(|(last, _)| last.next() == window.link);
        if !is_next {
            self.keep_open();
            // Nobody else has told of them.
            add_count(&mut self.account.before, window.sum(|group| group.carried));
        }
        let mut open = Open::new();
        let mut left_out = 0;
        for group in window.groups {
            let Group {
                pid,
                comm,
                cgroup,
                mut peer,
                carried,
                ends,
            } = group;
            let Some(is_wanted) = who.has(pid, &comm, &cgroup) else {
                add_count(&mut left_out, peer.connections);
                continue;
            };
            if !is_wanted {
                continue;
            }
            let key = (peer.role, peer.name.clone());
            add_count(
                open.entry(key.clone()).or_default(),
                std::mem::take(&mut peer.open),
            );
            if is_next {
                peer.connections = peer.connections.saturating_sub(carried);
            }
            let empty = || Peer::empty(peer.name.clone(), peer.role);
            self.peers.entry(key).or_insert_with(empty).merge(peer);
            for (end, count) in ends {
                add_count(self.ends.entry(end).or_default(), count);
            }
        }
        self.last = Some((window.link, open));
        self.account.merge(&window.account);
        self.account.note(LEFT_OUT, left_out);
        add_time(&mut self.duration, window.duration);
        self.titles.insert(window.title);
    }

    /// To be called after the last window; gives the peers, the busiest first.
    pub(super) fn finish(&mut self) -> Vec<Peer> {
        self.keep_open();
        peers::sorted(std::mem::take(&mut self.peers).into_values().collect())
    }

    /// What was open when the last window ended stays so: what became of it is not known.
    fn keep_open(&mut self) {
        for (key, open) in self.last.take().into_iter().flat_map(|(_, open)| open) {
            if let Some(peer) = self.peers.get_mut(&key) {
                add_count(&mut peer.open, open);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use profiler_common::tcp::tcp_state::{CLOSE, ESTABLISHED, LAST_ACK, SYN_SENT};

    use super::{
        super::{connections::Connections, example::change},
        Account, Figure, Groups, Identity, KEPT_MAX, Link, Sum, Table, Who, Window,
    };

    /// What connections did until now, as a window.
    fn window(connections: &mut Connections, link: Link) -> Window {
        let mut groups = Groups::default();
        connections.settle(u64::MAX, |one| groups.add(one));
        connections.roll(|one| groups.add(one));
        let app = Identity {
            comm: "app".to_owned(),
            cgroup: "/system.slice/app.service".to_owned(),
        };
        let known = BTreeMap::from([(7, app)]);
        let what = ("app".to_owned(), Duration::from_secs(1));
        Window::new(what, link, groups, &known, Account::default())
    }

    fn sum(windows: &[&Window], who: &Who) -> Sum {
        let mut sum = Sum::default();
        for window in windows {
            let bytes = window.to_bytes().unwrap();
            sum.add(Window::read(&bytes).unwrap(), who);
        }
        sum
    }

    /// Two connections, of which one ends in the second window.
    fn windows() -> [Window; 2] {
        let mut connections = Connections::default();
        for port in [1, 2] {
            connections.take(&change(port, 10, CLOSE, SYN_SENT));
            let mut event = change(port, 30, SYN_SENT, ESTABLISHED);
            event.figures.bytes_sent = 100;
            connections.take(&event);
        }
        let first = window(&mut connections, Link::default());
        let mut event = change(1, 50, LAST_ACK, CLOSE);
        event.figures.bytes_sent = 130;
        event.figures.retransmits = 2;
        connections.take(&event);
        [first, window(&mut connections, Link::default().next())]
    }

    /// A connection over two windows is one connection, with all that it carried; without the first one it was there
    /// before.
    #[test]
    fn windows_add_up() {
        let [first, second] = windows();
        let mut both = sum(&[&first, &second], &Who::default());
        let peers = both.finish();
        let [peer] = &peers[..] else {
            panic!("{peers:?}")
        };
        assert_eq!((peer.begun, peer.connections, peer.open), (2, 2, 1));
        assert_eq!((peer.sent, peer.retransmits), (230, 2));
        assert_eq!(
            (peer.connect_ns(50), peer.life_ns(50)),
            (Some(20), Some(41))
        );
        assert_eq!(both.ends.values().sum::<u64>(), 1);
        assert_eq!(both.account.before, 0);
        let mut later = sum(&[&second], &Who::default());
        let peers = later.finish();
        assert_eq!(
            (peers[0].begun, peers[0].connections, peers[0].open),
            (0, 2, 1)
        );
        assert_eq!((peers[0].sent, later.account.before), (30, 2));
    }

    /// Those that are gone with a window that is lost are not open for ever, and those that go on are counted again.
    #[test]
    fn a_gap_breaks_the_chain() {
        let [first, mut second] = windows();
        second.link = second.link.next();
        let mut holed = sum(&[&first, &second], &Who::default());
        assert_eq!(holed.finish()[0].open, 3);
        assert_eq!(holed.account.before, 2);
    }

    /// Only whose connections are wanted are there; metrics have everybody's.
    #[test]
    fn others_are_left_out() {
        let [first, second] = windows();
        let who = Who {
            pids: vec![8],
            ..Who::default()
        };
        assert!(sum(&[&first], &who).finish().is_empty());
        let sums = [
            (Figure::Opened, 0),
            (Figure::Closed, 1),
            (Figure::Failed, 0),
            (Figure::Reset, 0),
            (Figure::Retransmitted, 2),
        ];
        assert_eq!(second.sums(), sums);
    }

    /// A unit's connections are known by the cgroup of their process. Windows of before cgroups were kept are read, and
    /// what cannot be told of them is counted.
    #[test]
    fn units_are_told_apart() {
        let [first, _] = windows();
        let of = |unit: &str| Who {
            unit: Some(unit.to_owned()),
            ..Who::default()
        };
        assert_eq!(sum(&[&first], &of("app")).finish()[0].connections, 2);
        let mut other = sum(&[&first], &of("other"));
        assert!(other.finish().is_empty() && !other.account.notes.contains_key(super::LEFT_OUT));
        let mut plain = serde_json::to_value(&first).unwrap();
        plain["groups"][0].as_object_mut().unwrap().remove("cgroup");
        let before: Window = serde_json::from_value(plain).unwrap();
        let mut unknown = sum(&[&before], &of("app"));
        assert!(unknown.finish().is_empty());
        assert_eq!(unknown.account.notes[super::LEFT_OUT], 2);
        assert_eq!(sum(&[&before], &Who::default()).finish()[0].connections, 2);
    }

    /// However many peers there are, a window is bounded, and no connection is missing.
    #[test]
    fn windows_are_bounded() {
        let mut connections = Connections::default();
        let many = u16::try_from(2 * KEPT_MAX).unwrap();
        for port in 1..=many {
            let mut event = change(port, 10, CLOSE, SYN_SENT);
            event.remote_port = port;
            connections.take(&event);
        }
        let window = window(&mut connections, Link::default());
        assert_eq!(window.groups.len(), KEPT_MAX + 1);
        assert_eq!(window.account.notes[super::SUMMED], KEPT_MAX as u64);
        let peers = sum(&[&window], &Who::default()).finish();
        let begun: u64 = peers.iter().map(|peer| peer.begun).sum();
        assert_eq!(begun, u64::from(many));
    }
}
