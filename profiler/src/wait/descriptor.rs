//! What a descriptor of a process is: a file's path, a pipe, a socket with its peer.

use std::{collections::HashMap, fs, net::SocketAddr};

use procfs::{
    FromBufReadSI, current_system_info,
    net::{self, TcpNetEntries, UdpNetEntries},
};

use crate::{
    foreign::whole_lines,
    sockets::{self, unix::UnixSockets},
};

/// Most sockets that are remembered.
const SOCKETS_MAX: usize = 4096;

/// Longest table of sockets that is looked through: 50,000 sockets.
const TABLE_BYTES_MAX: u64 = 8 << 20;

/// Sockets by inode number: the tables of a network namespace are long and slow to read.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    sockets: HashMap<u64, String>,
}

impl Descriptors {
    /// What it is now; only its number if it is closed.
    pub(crate) fn describe(&mut self, pid: u32, descriptor: u32) -> String {
        let Ok(link) = fs::read_link(format!("/proc/{pid}/fd/{descriptor}")) else {
            return format!("descriptor {descriptor}");
        };
        let link = link.to_string_lossy();
        let numbered = |kind: &str| {
            let number = link.strip_prefix(kind)?.strip_suffix(']')?;
            number.parse::<u64>().ok()
        };
        if let Some(inode) = numbered("socket:[") {
            return self.socket(pid, inode);
        }
        if numbered("pipe:[").is_some() {
            return "pipe".to_owned();
        }
        match link.strip_prefix("anon_inode:") {
            Some(name) => name.trim_matches(['[', ']']).to_owned(),
            None => link.into_owned(),
        }
    }

    fn socket(&mut self, pid: u32, inode: u64) -> String {
        if let Some(known) = self.sockets.get(&inode) {
            return known.clone();
        }
        if self.sockets.len() >= SOCKETS_MAX {
            self.sockets.clear();
        }
        let text = look_up(pid, inode).unwrap_or_else(|| "socket".to_owned());
        self.sockets.insert(inode, text.clone());
        text
    }
}

/// Looks through the tables of the process's network namespace.
fn look_up(pid: u32, inode: u64) -> Option<String> {
    let tcp = ["net/tcp", "net/tcp6"].map(|name| table::<TcpNetEntries>(pid, name));
    let mut tcp = tcp.into_iter().flatten().flat_map(|table| table.0);
    if let Some(entry) = tcp.find(|entry| entry.inode == inode) {
        return Some(if entry.state == net::TcpState::Listen {
            format!("tcp listening on {}", entry.local_address)
        } else {
            format!("tcp {}", entry.remote_address)
        });
    }
    let udp = ["net/udp", "net/udp6"].map(|name| table::<UdpNetEntries>(pid, name));
    let mut udp = udp.into_iter().flatten().flat_map(|table| table.0);
    if let Some(entry) = udp.find(|entry| entry.inode == inode) {
        return Some(match entry.remote_address {
            SocketAddr::V4(peer) if peer.port() != 0 => format!("udp {peer}"),
            SocketAddr::V6(peer) if peer.port() != 0 => format!("udp {peer}"),
            _ => format!("udp on {}", entry.local_address),
        });
    }
    let (unix, _) = whole_lines(pid, "net/unix", TABLE_BYTES_MAX).ok()?;
    let unix = String::from_utf8_lossy(&unix);
    // The seventh word; what follows it is a name, which may be anything.
    let number = |line: &str| line.split_whitespace().nth(6)?.parse().ok();
    unix.lines().find(|line| number(line) == Some(inode))?;
    Some(
        unix_name(pid, inode)
            .map_or_else(|| "unix socket".to_owned(), |name| format!("unix {name}")),
    )
}

/// A table of sockets of the process's network namespace; of a long one, its beginning.
fn table<T: FromBufReadSI>(pid: u32, name: &str) -> Option<T> {
    let (text, _) = whole_lines(pid, name, TABLE_BYTES_MAX).ok()?;
    T::from_buf_read(text.as_slice(), current_system_info()).ok()
}

/// The path of a unix socket or of the one that it is connected to.
fn unix_name(pid: u32, inode: u64) -> Option<String> {
    let inode = u32::try_from(inode).ok()?;
    let (_, namespace) = sockets::namespaces_of([pid]).pop_first()?;
    let all = sockets::within(&namespace, UnixSockets::list).ok()?;
    all.name(inode).map(str::to_owned)
}
