//! Which side waits for the other: a backend that waits for its client when a recording begins, with nothing on its way between them,
//! is between requests, and what comes next is the first of one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
};

use profiler_common::{
    tcp::tcp_state,
    wire::{WireHeader, source},
};
use rustc_hash::FxHashMap;

use super::{
    peers::{is_server, title},
    protocol::TransactionState,
};
use crate::{
    record::finish::monotonic_ns,
    sockets::{self, unix::UnixSockets},
};

/// A backend and its client.
#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) pid: u32,
    pub(super) title: String,
    /// Inode numbers of its socket and of its client's; twice the first where that one is elsewhere.
    pub(super) socket: u32,
    pub(super) client: u32,
    /// Nothing was on its way.
    is_quiet: bool,
}

/// What a backend does, by its title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doing {
    /// It works.
    Working,
    /// It waits for its client, in this state.
    Waiting(TransactionState),
    /// It does not say.
    Unknown,
}

/// All of this host.
pub(super) fn served() -> Vec<Served> {
    let servers: Vec<u32> = (sockets::everybody().into_iter())
        .filter(|pid| is_server(*pid))
        .collect();
    let namespaces = sockets::namespaces_of(servers.iter().copied());
    // First what is on its way: a request that was is at its server by then, which does not wait any more.
    let accepted: Vec<(u32, u32, bool)> = (namespaces.values())
        .filter_map(|namespace| sockets::within(namespace, accepted).ok())
        .flatten()
        .collect();
    let owners = sockets::owners_of(servers.iter().copied());
    let titles: BTreeMap<u32, String> = servers.into_iter().map(|pid| (pid, title(pid))).collect();
    let served = accepted
        .into_iter()
        .filter_map(|(socket, client, is_quiet)| {
            let pid = *owners.get(&socket)?;
            Some(Served {
                pid,
                title: titles.get(&pid)?.clone(),
                socket,
                client,
                is_quiet,
            })
        });
    served.collect()
}

/// Connections that servers have accepted, of the namespace that the thread is in.
fn accepted() -> io::Result<Vec<(u32, u32, bool)>> {
    let mut accepted: Vec<_> = UnixSockets::list()?.accepted().collect();
    let all = sockets::tcp::sockets(0)?;
    let is_quiet = |found: &sockets::tcp::Found| found.listed.queues == (0, 0);
    let ends = |found: &sockets::tcp::Found| (found.listed.ends.local, found.listed.ends.remote);
    let by_ends: HashMap<_, _> = all.iter().map(|found| (ends(found), found)).collect();
    let listening = all
        .iter()
        .filter(|found| found.listed.state == tcp_state::LISTEN);
    let ports: BTreeSet<u16> = listening.map(|found| ends(found).0.port()).collect();
    for found in all
        .iter()
        .filter(|found| found.listed.state == tcp_state::ESTABLISHED)
    {
        let (local, remote) = ends(found);
        if ports.contains(&local.port()) {
            let client = by_ends.get(&(remote, local)).copied().unwrap_or(found);
            accepted.push((
                found.inode,
                client.inode,
                is_quiet(found) && is_quiet(client),
            ));
        }
    }
    Ok(accepted)
}

impl Served {
    /// What it does.
    pub(super) fn doing(&self) -> Doing {
        doing(&self.title)
    }
}

fn doing(title: &str) -> Doing {
    let title = title.trim_end();
    if !title.starts_with("postgres: ") || title.ends_with(']') || title.ends_with(')') {
        // An aborted transaction ends so, too.
        return if title.ends_with(" idle in transaction (aborted)") {
            Doing::Waiting(TransactionState::Failed)
        } else {
            Doing::Unknown
        };
    }
    if title.ends_with(" idle") {
        Doing::Waiting(TransactionState::Idle)
    } else if title.ends_with(" idle in transaction") {
        Doing::Waiting(TransactionState::Open)
    } else {
        Doing::Working
    }
}

/// Sockets whose server waited at one time.
#[derive(Debug, Default)]
pub(super) struct Idle {
    /// By inode number, at either end.
    states: FxHashMap<u64, TransactionState>,
    /// Backends of those that waited and of the others.
    backends: FxHashMap<u64, u32>,
    /// When it was looked, ns: nothing was seen of them before.
    since_ns: u64,
}

impl Idle {
    /// Those of a list that was just made.
    pub(super) fn of(served: &[Served]) -> Self {
        let ends = |one: &Served| [one.socket, one.client].map(u64::from);
        let mut states = FxHashMap::default();
        for one in served.iter().filter(|one| one.is_quiet) {
            if let Doing::Waiting(state) = one.doing() {
                states.extend(ends(one).map(|inode| (inode, state)));
            }
        }
        Self {
            states,
            backends: (served.iter())
                .flat_map(|one| ends(one).map(|inode| (inode, one.pid)))
                .collect(),
            since_ns: monotonic_ns(),
        }
    }

    /// The transaction of a connection of which this is the first that is seen, if its server waited.
    pub(super) fn state(&self, header: &WireHeader) -> Option<TransactionState> {
        let begin_ns = match header.entry_ns {
            0 => header.exit_ns,
            entry_ns => entry_ns,
        };
        let is_plain = header.source == source::SOCKET && begin_ns > self.since_ns;
        (self.states.get(&header.inode).copied()).filter(|_| is_plain)
    }

    /// The backend of a connection that was there.
    pub(super) fn backend(&self, header: &WireHeader) -> Option<u32> {
        let backend = self.backends.get(&header.inode).copied();
        backend.filter(|_| header.source == source::SOCKET)
    }

    /// When it was looked, ns.
    pub(super) fn since_ns(&self) -> u64 {
        self.since_ns
    }
}

#[cfg(test)]
mod tests {
    use super::{Doing, TransactionState, doing};

    /// Only a backend that waits for its client is idle.
    #[test]
    fn titles_say_who_waits() {
        for (activity, expected) in [
            (" idle", Doing::Waiting(TransactionState::Idle)),
            (
                " idle in transaction",
                Doing::Waiting(TransactionState::Open),
            ),
            (
                " idle in transaction (aborted)",
                Doing::Waiting(TransactionState::Failed),
            ),
            (" SELECT", Doing::Working),
            (" UPDATE waiting", Doing::Working),
            ("", Doing::Unknown),
        ] {
            for peer in ["[local]", "10.0.0.7(5123)"] {
                let title = format!("postgres: 15/main: me shop {peer}{activity}");
                assert_eq!(doing(&title), expected, "{title}");
            }
        }
        assert_eq!(doing("app idle"), Doing::Unknown);
    }
}
