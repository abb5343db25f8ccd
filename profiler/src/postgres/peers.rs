//! Where connections lead: asks the kernel for the paths of unix sockets, and processes for their titles.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use profiler_common::wire::{WireHeader, family, source};

use super::{
    origin::{Origin, Transport},
    protocol::Side,
};
use crate::sockets::{self, unix::UnixSockets};

/// How often the list of unix sockets is made anew at most: it is long where there are many.
const LIST_EVERY: Duration = Duration::from_millis(500);

/// What is known of other ends.
#[derive(Debug, Default)]
pub(super) struct Peers {
    unix: Option<(Instant, UnixSockets)>,
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

    /// The path of the server that a client's unix socket is connected to.
    fn path(&mut self, header: &WireHeader, side: Side) -> Option<String> {
        let inode = match header.source {
            source::TLS => header.carrier,
            _ => header.inode,
        };
        let inode = u32::try_from(inode).ok().filter(|_| side == Side::Client)?;
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

/// What a process calls itself; empty if it is gone.
fn title(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let title = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(title).into_owned()
}
