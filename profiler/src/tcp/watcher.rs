//! A watch under way: from what is open when it begins, over the kernel side's events, to what is open now. `session`
//! and `keeper` say when it begins, and what becomes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    ops::RangeInclusive,
    time::Duration,
};

use profiler_common::{
    config::Settings,
    event::{KIND_EXIT, KIND_FORK},
    tcp::{Listener, Socket, TcpEvent, TcpSettings, role, tcp_state},
    wire::WireSettings,
};

use super::connections::{Connection, Connections};
use crate::{
    error::Error,
    kernel::{
        Kernel, Record, Ring, Wanted, call_offsets, result_offset, tcp_offsets, wire_offsets,
    },
    record::ring_watch::RingWatch,
    sockets::{self, tcp::Found},
};

/// A watch under way.
pub(super) struct Watcher {
    pub(super) kernel: Kernel,
    ring: Ring,
    /// Targets, and what they have forked, that live.
    pub(super) alive: BTreeSet<u32>,
    pub(super) connections: Connections,
    /// Whether everybody's are watched.
    all: bool,
    /// Connections that could not be followed because a table was full.
    pub(super) unfollowed: u64,
    /// Network namespaces that could not be looked into, each time that it was tried.
    pub(super) unlisted: u64,
}

/// Sockets of some namespaces, by the namespace's inode number.
type Lists = BTreeMap<u32, Listing>;

/// Sockets of a namespace.
struct Listing {
    found: Vec<Found>,
    /// Ports that its clients are given.
    given: RangeInclusive<u16>,
}

impl Watcher {
    /// Loads the kernel side; nothing is watched yet. `all` for everybody's connections.
    pub(super) fn load(settings: &Settings, all: bool) -> Result<Self, Error> {
        let wanted = Wanted {
            calls: call_offsets()?,
            tcp: TcpSettings {
                wanted: 1,
                all: u32::from(all),
                ..tcp_offsets()?
            },
            wire: WireSettings {
                result: result_offset()?,
                ..wire_offsets()?
            },
        };
        let (kernel, ring, _) = Kernel::load_with(settings, &wanted)?;
        Ok(Self {
            kernel,
            ring,
            alive: BTreeSet::new(),
            connections: Connections::default(),
            all,
            unfollowed: 0,
            unlisted: 0,
        })
    }

    /// The ring wakes when a process begins or ends; connections do not.
    pub(super) fn watch_ring(&self) -> Result<RingWatch, Error> {
        RingWatch::begin(&self.ring)
    }

    /// Takes what is on the ring; each event is told with its connection.
    pub(super) fn drain(&mut self, mut told: impl FnMut(&TcpEvent, &Connection)) {
        let Self {
            ring,
            connections,
            alive,
            ..
        } = self;
        ring.drain(|record| match record {
            Record::Tcp(event) => {
                if let Some(connection) = connections.take(event) {
                    told(event, connection);
                }
            }
            Record::Process(event) if event.kind == KIND_FORK => {
                alive.insert(event.tgid);
            }
            Record::Process(event) if event.kind == KIND_EXIT => {
                alive.remove(&event.tgid);
            }
            _ => {}
        });
    }

    /// Processes whose connections are watched.
    pub(super) fn pids(&self) -> Vec<u32> {
        if self.all {
            sockets::everybody()
        } else {
            self.alive.iter().copied().collect()
        }
    }

    /// Notes the connections and listening sockets that these processes have already, and has them followed.
    pub(super) fn list_open(&mut self, pids: &[u32]) {
        let owners = sockets::owners_of(pids.iter().copied());
        if owners.is_empty() && !self.all {
            return;
        }
        for listing in self.lists(pids).into_values() {
            self.list_namespace(&listing, &owners);
        }
    }

    fn list_namespace(&mut self, listing: &Listing, owners: &BTreeMap<u32, u32>) {
        self.follow_listeners(&listing.found, owners);
        // All that listen: a worker has connections that came to its master's port.
        let ports: BTreeSet<Listener> = (listing.found.iter())
            .filter(|socket| socket.listed.state == tcp_state::LISTEN)
            .map(listener)
            .collect();
        for socket in &listing.found {
            let owner = owners.get(&socket.inode).copied();
            let is_over = matches!(
                socket.listed.state,
                tcp_state::LISTEN | tcp_state::TIME_WAIT | tcp_state::CLOSE | tcp_state::SYN_RECV
            );
            if is_over || (owner.is_none() && !self.all) {
                continue;
            }
            let is_given = listing.given.contains(&socket.listed.ends.local.port());
            let owner = Socket {
                tgid: owner.unwrap_or(0),
                role: match (ports.contains(&listener(socket)), is_given) {
                    (true, _) => role::SERVER,
                    (false, true) => role::CLIENT,
                    // Perhaps of a server that listens no more.
                    (false, false) => role::UNKNOWN,
                },
            };
            self.unfollowed += u64::from(!self.kernel.follow_socket(socket.cookie, owner));
            self.connections
                .there_before(&socket.listed, socket.cookie, owner);
        }
    }

    /// What comes to the ports of targets is theirs.
    fn follow_listeners(&mut self, found: &[Found], owners: &BTreeMap<u32, u32>) {
        for socket in found {
            if socket.listed.state == tcp_state::LISTEN
                && let Some(&tgid) = owners.get(&socket.inode)
            {
                let listener = listener(socket);
                self.unfollowed += u64::from(!self.kernel.follow_listener(listener, tgid));
            }
        }
    }

    /// Notes what these processes have open now, with its figures. Gives the namespaces that were looked into.
    pub(super) fn list_again(&mut self, pids: &[u32]) -> BTreeSet<u32> {
        let lists = self.lists(pids);
        for socket in lists.values().flat_map(|listing| &listing.found) {
            if !matches!(
                socket.listed.state,
                tcp_state::LISTEN | tcp_state::TIME_WAIT | tcp_state::CLOSE
            ) {
                self.connections.still_there(&socket.listed);
            }
        }
        lists.into_keys().collect()
    }

    /// Ports whose process has ended are nobody's, unless another target listens there.
    pub(super) fn forget_listeners(&mut self) {
        let stale = self.kernel.listeners().into_iter();
        let stale: Vec<Listener> = stale
            .filter(|(_, tgid)| !self.alive.contains(tgid))
            .map(|(listener, _)| listener)
            .collect();
        if stale.is_empty() {
            return;
        }
        for listener in stale {
            self.kernel.forget_listener(listener);
        }
        let pids = self.pids();
        let owners = sockets::owners_of(pids.iter().copied());
        for listing in self.lists(&pids).into_values() {
            self.follow_listeners(&listing.found, &owners);
        }
    }

    /// Every TCP socket in the namespaces of these processes.
    fn lists(&mut self, pids: &[u32]) -> Lists {
        let mut lists = Lists::new();
        for (net, namespace) in sockets::namespaces_of(pids.iter().copied()) {
            match listed_in(net, &namespace) {
                Ok(listing) => {
                    lists.insert(net, listing);
                }
                Err(_) => self.unlisted += 1,
            }
        }
        lists
    }

    /// Time inside our BPF programs so far, where it is measured.
    pub(super) fn bpf_time(&self) -> Option<Duration> {
        self.kernel.bpf_time()
    }
}

fn listener(socket: &Found) -> Listener {
    let ends = socket.listed.ends;
    Listener {
        net: ends.net,
        port: u32::from(ends.local.port()),
    }
}

fn listed_in(net: u32, namespace: &File) -> io::Result<Listing> {
    sockets::within(namespace, || {
        Ok(Listing {
            found: sockets::tcp::sockets(net)?,
            given: sockets::tcp::given_ports(),
        })
    })
}
