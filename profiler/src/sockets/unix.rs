//! Unix sockets: which is connected to which, and the path or abstract name that one of them is bound to.

use std::{collections::HashMap, io};

use super::netlink::{attribute, dump, find, u32_at};

/// `AF_UNIX`
const UNIX: u8 = 1;
/// `UDIAG_SHOW_NAME | UDIAG_SHOW_PEER | UDIAG_SHOW_RQLEN` of `include/uapi/linux/unix_diag.h`
const SHOW: u32 = 1 | 4 | 16;
/// `UNIX_DIAG_NAME`, `UNIX_DIAG_PEER`, `UNIX_DIAG_RQLEN`
const NAME: u16 = 0;
const PEER: u16 = 2;
const QUEUES: u16 = 4;
/// Bytes of `struct unix_diag_req` and `struct unix_diag_msg`.
const REQUEST: usize = 24;
const MESSAGE: usize = 16;

/// A unix socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    peer: Option<u32>,
    name: Option<String>,
    /// Bytes that are not read yet.
    unread: u32,
}

/// Unix sockets by inode number.
#[derive(Debug, Default)]
pub(crate) struct UnixSockets(HashMap<u32, Found>);

/// Whether a socket with this inode number is there.
pub(crate) fn is_open(inode: u64) -> io::Result<bool> {
    let Ok(inode) = u32::try_from(inode) else {
        return Ok(false);
    };
    let mut request = [0; REQUEST];
    request[0] = UNIX;
    request[8..12].copy_from_slice(&inode.to_ne_bytes());
    // Any cookie.
    request[16..24].fill(0xff);
    let mut is_open = false;
    find(&request, &mut |_| is_open = true)?;
    Ok(is_open)
}

impl UnixSockets {
    /// All of the network namespace that the thread is in.
    pub(crate) fn list() -> io::Result<Self> {
        let mut request = [0; REQUEST];
        request[0] = UNIX;
        // In every state.
        request[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
        request[12..16].copy_from_slice(&SHOW.to_ne_bytes());
        let mut all = HashMap::new();
        dump(&request, &mut |message| all.extend(socket(message)))?;
        Ok(Self(all))
    }

    /// What a socket is bound to, or else its peer: of a connection to a server that is the server's path. Abstract
    /// names begin with `@`.
    pub(crate) fn name(&self, inode: u32) -> Option<&str> {
        let found = self.0.get(&inode)?;
        let peer = || self.0.get(&found.peer?)?.name.as_deref();
        found.name.as_deref().or_else(peer)
    }

    /// Those that a server has accepted: their inode numbers, their peers', and whether neither has anything to read.
    pub(crate) fn accepted(&self) -> impl Iterator<Item = (u32, u32, bool)> {
        let unread = |inode: u32| self.0.get(&inode).map(|found| found.unread);
        self.0.iter().filter_map(move |(inode, found)| {
            let peer = found.peer.filter(|_| found.name.is_some())?;
            let is_quiet = found.unread == 0 && unread(peer) == Some(0);
            Some((*inode, peer, is_quiet))
        })
    }

    /// The socket at the other end.
    pub(crate) fn peer(&self, inode: u32) -> Option<u32> {
        self.0.get(&inode)?.peer
    }
}

/// One `unix_diag_msg` with its attributes.
pub(crate) fn socket(message: &[u8]) -> Option<(u32, Found)> {
    let attributes = message.get(MESSAGE..)?;
    let name = attribute(attributes, NAME).map(|bytes| match bytes {
        [0, rest @ ..] => format!("@{}", String::from_utf8_lossy(rest)),
        path => String::from_utf8_lossy(path)
            .trim_end_matches('\0')
            .to_owned(),
    });
    let found = Found {
        peer: attribute(attributes, PEER).and_then(|bytes| u32_at(bytes, 0)),
        name,
        unread: attribute(attributes, QUEUES)
            .and_then(|bytes| u32_at(bytes, 0))
            .unwrap_or_default(),
    };
    Some((u32_at(message, 4)?, found))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        os::{
            fd::{AsFd, AsRawFd},
            unix::net::{UnixListener, UnixStream},
        },
    };

    use super::{UnixSockets, is_open};

    fn inode(socket: impl AsFd) -> u32 {
        let descriptor = socket.as_fd().as_raw_fd();
        let link = std::fs::read_link(format!("/proc/self/fd/{descriptor}")).unwrap();
        let link = link.to_str().unwrap();
        let number = link.trim_start_matches("socket:[").trim_end_matches(']');
        number.parse().unwrap()
    }

    /// A client's socket has no name of its own: it is called by its server's path.
    #[test]
    fn clients_are_named_after_their_server() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server");
        let listener = UnixListener::bind(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let (server, _) = listener.accept().unwrap();
        let all = UnixSockets::list().unwrap();
        let path = path.to_str();
        assert_eq!(all.peer(inode(&client)), Some(inode(&server)));
        assert_eq!(all.name(inode(&client)), path);
        assert_eq!(all.name(inode(&server)), path);
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(all.name(inode(&one)), None);
        let is_quiet = || {
            let all = UnixSockets::list().unwrap();
            let both = (inode(&server), inode(&client));
            let mut accepted = all.accepted();
            accepted.find_map(|(one, other, is_quiet)| ((one, other) == both).then_some(is_quiet))
        };
        assert_eq!(is_quiet(), Some(true));
        (&client).write_all(b"x").unwrap();
        assert_eq!(is_quiet(), Some(false));
        let number = u64::from(inode(&one));
        assert!(is_open(number).unwrap());
        let twin = one.try_clone().unwrap();
        drop(one);
        assert!(is_open(number).unwrap(), "as long as anybody holds it");
        drop(twin);
        assert!(!is_open(number).unwrap());
    }
}
