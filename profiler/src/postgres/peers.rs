//! Where connections lead: asks the kernel for the paths of unix sockets, and processes for their titles.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use profiler_common::wire::{WireHeader, family};

use super::{
    origin::{Origin, Transport},
    protocol::Side,
    streams,
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
        let (transport, peer) = if header.family == family::UNIX {
            let path = match side {
                Side::Client => self.path(header),
                Side::Server => None,
            };
            (
                Transport::Unix,
                path.unwrap_or_else(|| "[local]".to_owned()),
            )
        } else {
            let remote = streams::remote(header);
            let text = match side {
                Side::Client => remote.to_string(),
                // The client's port says nothing.
                Side::Server => remote.ip().to_string(),
            };
            (Transport::Tcp, text)
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

    /// The path of the server that a unix socket is connected to.
    fn path(&mut self, header: &WireHeader) -> Option<String> {
        let inode = u32::try_from(header.inode).ok()?;
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
