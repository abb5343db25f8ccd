//! Where connections lead: asks the kernel for the paths of unix sockets, and processes for their titles.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use profiler_common::wire::{WireHeader, family, source};

use super::{
    encoding::legible,
    kinds,
    origin::{Origin, Transport},
    protocol::Side,
};
use crate::{
    foreign::{ask, proc_bytes, proc_text},
    sockets::{self, unix::UnixSockets},
};

/// Longest title of a process that is read, in bytes: a server's has some hundred.
const TITLE_MAX: u64 = 4096;

/// How often the list of unix sockets is made anew at most: it is long where there are many.
const LIST_EVERY: Duration = Duration::from_millis(500);

/// How often processes are looked through at most for who has a socket.
const OTHER_ENDS_EVERY: Duration = Duration::from_secs(1);

/// What is known of other ends.
#[derive(Debug, Default)]
pub(super) struct Peers {
    unix: Option<(Instant, UnixSockets)>,
    other_ends: Option<OtherEnds>,
    next_look: Option<Instant>,
}

/// Sockets on this host and whose they are.
#[derive(Debug)]
struct OtherEnds {
    unix: UnixSockets,
    /// Inode numbers by local and remote address.
    tcp: HashMap<(SocketAddr, SocketAddr), u32>,
    /// The servers' processes by inode number.
    owners: BTreeMap<u32, u32>,
}

impl OtherEnds {
    fn list() -> io::Result<Self> {
        let sockets = sockets::tcp::sockets(0)?.into_iter();
        let servers = sockets::everybody()
            .into_iter()
            .filter(|pid| is_server(*pid));
        Ok(Self {
            unix: UnixSockets::list()?,
            tcp: sockets
                .map(|found| (found.listed.ends, found.inode))
                .map(|(ends, inode)| ((ends.local, ends.remote), inode))
                .collect(),
            owners: sockets::owners_of(servers),
        })
    }
}

impl Peers {
    /// Where a new connection leads.
    pub(super) fn origin(&mut self, header: &WireHeader, side: Side) -> Origin {
        let transport = match (header.source, header.family) {
            (source::TLS, _) => Transport::Tls,
            (_, family::UNIX) => Transport::Unix,
            _ => Transport::Tcp,
        };
        let remote = sockets::tcp::address(header.remote, header.remote_port);
        let peer = match (header.family, side) {
            (family::INET | family::INET6, Side::Client) => remote.to_string(),
            // The client's port says nothing.
            (family::INET | family::INET6, Side::Server) => remote.ip().to_string(),
            (family::UNIX, _) => self
                .path(header, side)
                .unwrap_or_else(|| "[local]".to_owned()),
            // The program moves what is encrypted itself.
            _ => "unknown".to_owned(),
        };
        let origin = Origin {
            side,
            transport,
            pid: header.tgid,
            peer: Some(Arc::from(peer)),
            database: None,
            user: None,
            application: None,
            backend: None,
        };
        match side {
            Side::Client => origin,
            Side::Server => origin.with_title(&title(header.tgid)),
        }
    }

    /// The server's end of a connection, if it is a process on this host.
    pub(super) fn backend(&mut self, header: &WireHeader, side: Side) -> Option<u32> {
        if side == Side::Server {
            return Some(header.tgid);
        }
        let local = sockets::tcp::address(header.local, header.local_port);
        let remote = sockets::tcp::address(header.remote, header.remote_port);
        let is_here = header.family == family::UNIX || local.ip() == remote.ip();
        let other = |ends: &OtherEnds| match header.family {
            family::UNIX => ends.unix.peer(u32::try_from(inode(header)).ok()?),
            _ => ends.tcp.get(&(remote, local)).copied(),
        };
        let find = |ends: &OtherEnds| ends.owners.get(&other(ends)?).copied();
        if let Some(found) = self.other_ends.as_ref().and_then(find) {
            return Some(found);
        }
        let is_due = self.next_look.is_none_or(|next| next <= Instant::now());
        if !is_here || !is_due {
            return None;
        }
        let (_, namespace) = sockets::namespaces_of([header.tgid]).pop_first()?;
        let began = Instant::now();
        self.other_ends = sockets::within(&namespace, OtherEnds::list).ok();
        // Where there are many processes that takes long.
        self.next_look = Some(Instant::now() + OTHER_ENDS_EVERY + 50 * began.elapsed());
        self.other_ends.as_ref().and_then(find)
    }

    /// The path of the server that a client's unix socket is connected to.
    fn path(&mut self, header: &WireHeader, side: Side) -> Option<String> {
        let inode = u32::try_from(inode(header))
            .ok()
            .filter(|_| side == Side::Client)?;
        let name = |list: &Option<(Instant, UnixSockets)>| {
            let (_, sockets) = list.as_ref()?;
            sockets.name(inode).map(str::to_owned)
        };
        if let Some(name) = name(&self.unix) {
            return Some(name);
        }
        let is_fresh = |(made, _): &(Instant, UnixSockets)| made.elapsed() < LIST_EVERY;
        if self.unix.as_ref().is_some_and(is_fresh) {
            return None;
        }
        let (_, namespace) = sockets::namespaces_of([header.tgid]).pop_first()?;
        let list = sockets::within(&namespace, UnixSockets::list).ok()?;
        self.unix = Some((Instant::now(), list));
        name(&self.unix)
    }
}

/// Those among processes that work for a server and have no client, with their kinds.
pub(super) fn workers(pids: BTreeSet<u32>) -> BTreeMap<u32, &'static str> {
    let servers = pids.into_iter().filter(|pid| is_server(*pid));
    let workers = servers.filter_map(|pid| Some((pid, kinds::worker(&title(pid))?)));
    workers.collect()
}

/// The kind of a backend and who is served by it, by its title.
pub(super) fn served_by(pid: u32, title: &str) -> (&'static str, Origin) {
    let origin = Origin {
        side: Side::Server,
        transport: Transport::Tcp,
        pid,
        peer: None,
        database: None,
        user: None,
        application: None,
        backend: Some(pid),
    };
    (kinds::with_client(title), origin.with_title(title))
}

/// Whether somebody has a socket open still, in one of these namespaces. What passes through a TLS library is of its
/// process alone.
pub(super) fn is_open(last: &WireHeader, namespaces: &BTreeMap<u32, File>) -> bool {
    let local = sockets::tcp::address(last.local, last.local_port);
    let remote = sockets::tcp::address(last.remote, last.remote_port);
    let look = || match last.family {
        family::UNIX => sockets::unix::is_open(last.inode),
        _ => sockets::tcp::is_open(local, remote, last.inode),
    };
    last.source == source::SOCKET
        && (namespaces.values()).any(|namespace| sockets::within(namespace, look).unwrap_or(false))
}

/// The number of the socket's inode; of TLS, of the one beneath.
fn inode(header: &WireHeader) -> u64 {
    match header.source {
        source::TLS => header.carrier,
        _ => header.inode,
    }
}

/// Whether a process may be a backend: it has the name of the server's program.
pub(super) fn is_server(pid: u32) -> bool {
    let name = proc_text(pid, "comm", TITLE_MAX).unwrap_or_default();
    name.starts_with("post") || name.starts_with("edb-post")
}

/// What a process calls itself; empty if it is gone.
pub(super) fn title(pid: u32) -> String {
    // It is in the process's own memory.
    let read = ask(pid, move || proc_bytes(pid, "cmdline", TITLE_MAX));
    let (bytes, _) = read.and_then(Result::ok).unwrap_or_default();
    let title = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    legible(title)
}
