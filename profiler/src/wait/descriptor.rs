//! What a descriptor of a process is: a file's path, a pipe, a socket with its peer.

use std::{collections::HashMap, fs, os::unix::fs::MetadataExt, time::Instant};

use procfs::{
    FromBufReadSI, current_system_info,
    net::{self, TcpNetEntries, UdpNetEntries},
};

use crate::{
    foreign::whole_lines,
    sockets::{self, unix::UnixSockets},
};

/// Sockets from which on what is remembered is forgotten before more are.
const SOCKETS_MAX: usize = 65_536;
/// Network namespaces from which on that is so.
const NAMESPACES_MAX: usize = 1024;
/// The tables are read for one part in so many of the time.
const LOOK_SHARE: u32 = 20;

/// Longest table of sockets that is looked through: 50,000 sockets.
const TABLE_BYTES_MAX: u64 = 8 << 20;

/// Sockets by inode number: the tables of a network namespace are long and slow to read.
#[derive(Debug, Default)]
pub(crate) struct Descriptors {
    sockets: HashMap<u64, String>,
    /// By namespace, when its tables may be read again.
    next: HashMap<u64, Instant>,
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
        if !self.sockets.contains_key(&inode) {
            self.list(pid);
        }
        let known = self.sockets.get(&inode).cloned();
        known.unwrap_or_else(|| "socket".to_owned())
    }

    /// Reads the tables of a process's network namespace, unless that was done a moment ago: they are long where there are
    /// many sockets, and a server of short connections has a new one all the time.
    fn list(&mut self, pid: u32) {
        let namespace = fs::metadata(format!("/proc/{pid}/ns/net")).map_or(0, |file| file.ino());
        let began = Instant::now();
        if self.next.get(&namespace).is_some_and(|next| *next > began) {
            return;
        }
        if self.sockets.len() >= SOCKETS_MAX || self.next.len() >= NAMESPACES_MAX {
            self.sockets.clear();
            self.next.clear();
        }
        self.sockets.extend(names(pid));
        let next = Instant::now() + LOOK_SHARE * began.elapsed();
        self.next.insert(namespace, next);
    }
}

/// Every socket in the tables of a process's network namespace.
fn names(pid: u32) -> HashMap<u64, String> {
    let mut names = HashMap::new();
    let tcp = ["net/tcp", "net/tcp6"].map(|name| table::<TcpNetEntries>(pid, name));
    for entry in tcp.into_iter().flatten().flat_map(|table| table.0) {
        let text = if entry.state == net::TcpState::Listen {
            format!("tcp listening on {}", entry.local_address)
        } else {
            format!("tcp {}", entry.remote_address)
        };
        names.insert(entry.inode, text);
    }
    let udp = ["net/udp", "net/udp6"].map(|name| table::<UdpNetEntries>(pid, name));
    for entry in udp.into_iter().flatten().flat_map(|table| table.0) {
        let text = match entry.remote_address.port() {
            0 => format!("udp on {}", entry.local_address),
            _ => format!("udp {}", entry.remote_address),
        };
        names.insert(entry.inode, text);
    }
    let listed = sockets::namespaces_of([pid]).pop_first();
    let unix =
        listed.and_then(|(_, namespace)| sockets::within(&namespace, UnixSockets::list).ok());
    let unix_name = |inode: u64| {
        let name = unix.as_ref()?.name(u32::try_from(inode).ok()?)?;
        Some(format!("unix {name}"))
    };
    let (text, _) = whole_lines(pid, "net/unix", TABLE_BYTES_MAX).unwrap_or_default();
    // The seventh word; what follows it is a name, which may be anything.
    let number = |line: &str| line.split_whitespace().nth(6)?.parse().ok();
    for inode in String::from_utf8_lossy(&text).lines().filter_map(number) {
        let name = unix_name(inode).unwrap_or_else(|| "unix socket".to_owned());
        names.insert(inode, name);
    }
    // Of no use: those without an owner.
    names.remove(&0);
    names
}

/// A table of sockets of the process's network namespace; of a long one, its beginning.
fn table<T: FromBufReadSI>(pid: u32, name: &str) -> Option<T> {
    let (text, _) = whole_lines(pid, name, TABLE_BYTES_MAX).ok()?;
    T::from_buf_read(text.as_slice(), current_system_info()).ok()
}
