//! Asks the kernel for the TCP sockets of the network namespace that the thread is in (`man 7 sock_diag`).

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
};

use profiler_common::tcp::{Figures, tcp_state};

use super::netlink::{attribute, dump, find, u32_at};

/// `IPPROTO_TCP`, `AF_INET`, `AF_INET6`
const TCP: u8 = 6;
const INET: u8 = 2;
const INET6: u8 = 10;
/// `INET_DIAG_INFO`, and its bit in a request.
const INFO: u16 = 2;
const INFO_BIT: u8 = 1 << (INFO - 1);

/// Bytes of `inet_diag_req_v2` and `inet_diag_msg`.
const REQUEST: usize = 56;
const MESSAGE: usize = 72;

/// Both ends of a connection and the namespace that they are in: who it is while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ends {
    pub(crate) net: u32,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

/// A connection that is there now, as the kernel lists it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listed {
    pub(crate) ends: Ends,
    pub(crate) state: u8,
    pub(crate) figures: Figures,
    pub(crate) queues: (u32, u32),
}

/// A socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) listed: Listed,
    /// The kernel's number of it, which is never used again.
    pub(crate) cookie: u64,
    /// Inode number, as /proc/PID/fd has it; 0 of one that no process holds.
    pub(crate) inode: u32,
}

/// All TCP sockets, listening ones too. `net` is what to call the namespace.
pub(crate) fn sockets(net: u32) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for family in [INET, INET6] {
        dump(&request(family), &mut |message| {
            found.extend(socket(message, net));
        })?;
    }
    Ok(found)
}

/// Ports that the kernel gives to clients, in the network namespace that the thread is in.
pub(crate) fn given_ports() -> RangeInclusive<u16> {
    let text =
        std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut words = text.split_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(last))) => first..=last,
        // What Linux comes with.
        _ => 32_768..=60_999,
    }
}

/// Whether a connection is there with this inode number, which it has as long as a process holds it.
pub(crate) fn is_open(local: SocketAddr, remote: SocketAddr, inode: u64) -> io::Result<bool> {
    let family = if local.is_ipv4() { INET } else { INET6 };
    let mut bytes = request(family);
    bytes[8..10].copy_from_slice(&local.port().to_be_bytes());
    bytes[10..12].copy_from_slice(&remote.port().to_be_bytes());
    for (at, address) in [(12, local.ip()), (28, remote.ip())] {
        match address {
            IpAddr::V4(address) => bytes[at..at + 4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => bytes[at..at + 16].copy_from_slice(&address.octets()),
        }
    }
    // `INET_DIAG_NOCOOKIE`
    bytes[48..56].fill(0xff);
    let mut is_open = false;
    find(&bytes, &mut |message| {
        is_open |= socket(message, 0).is_some_and(|found| u64::from(found.inode) == inode);
    })?;
    Ok(is_open)
}

fn request(family: u8) -> [u8; REQUEST] {
    let mut bytes = [0; REQUEST];
    bytes[0] = family;
    bytes[1] = TCP;
    bytes[2] = INFO_BIT;
    // In every state.
    bytes[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
    bytes
}

/// An address of the kernel; one of IPv4 that is mapped into IPv6 is one of IPv4.
pub(crate) fn address(bytes: [u8; 16], port: u16) -> SocketAddr {
    let address = Ipv6Addr::from(bytes);
    let plain = address.to_ipv4_mapped();
    SocketAddr::new(plain.map_or(IpAddr::V6(address), IpAddr::V4), port)
}

/// One `inet_diag_msg` with its attributes.
pub(crate) fn socket(message: &[u8], net: u32) -> Option<Found> {
    let (family, state) = (*message.first()?, *message.get(1)?);
    let port = |at: usize| {
        Some(u16::from_be_bytes(
            message.get(at..at + 2)?.try_into().ok()?,
        ))
    };
    let place = |at: usize, port: u16| {
        let bytes: [u8; 16] = message.get(at..at + 16)?.try_into().ok()?;
        let mut whole = bytes;
        if family == INET {
            whole = [0; 16];
            whole[10..12].copy_from_slice(&[0xff; 2]);
            whole[12..].copy_from_slice(&bytes[..4]);
        }
        Some(address(whole, port))
    };
    let cookie = u64::from(u32_at(message, 44)?) | u64::from(u32_at(message, 48)?) << 32;
    let ends = Ends {
        net,
        local: place(8, port(4)?)?,
        remote: place(24, port(6)?)?,
    };
    let mut figures = attribute(message.get(MESSAGE..)?, INFO)
        .and_then(info)
        .unwrap_or_default();
    let has_ended = matches!(
        state,
        tcp_state::CLOSE_WAIT | tcp_state::LAST_ACK | tcp_state::CLOSING | tcp_state::TIME_WAIT
    );
    figures.peer_ended = u32::from(has_ended);
    Some(Found {
        listed: Listed {
            ends,
            state,
            figures,
            queues: (u32_at(message, 56)?, u32_at(message, 60)?),
        },
        cookie,
        inode: u32_at(message, 68)?,
    })
}

/// What matters of `struct tcp_info`, which has grown at its end only.
fn info(bytes: &[u8]) -> Option<Figures> {
    let word = |at| u32_at(bytes, at);
    let long = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    Some(Figures {
        bytes_sent: long(200)?,
        bytes_retransmitted: long(208)?,
        bytes_received: long(128)?,
        segments_out: word(136)?,
        segments_in: word(140)?,
        data_segments_in: word(152)?,
        data_segments_out: word(156)?,
        rtt_us: word(68)?,
        min_rtt_us: word(148)?,
        retransmits: word(100)?,
        peer_ended: 0,
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
    };

    use profiler_common::tcp::tcp_state;
    use proptest::prelude::*;

    use super::{super::netlink::take, is_open, socket, sockets};

    /// A connection of this very process is listed with what it has sent, from both ends.
    #[test]
    fn own_connection_is_listed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        client.write_all(&[7; 1234]).unwrap();
        let all = sockets(1).unwrap();
        let ours = |local: &TcpStream| {
            let ends = (local.local_addr().unwrap(), local.peer_addr().unwrap());
            *all.iter()
                .find(|found| (found.listed.ends.local, found.listed.ends.remote) == ends)
                .unwrap()
        };
        let (sent, received) = (ours(&client), ours(&server));
        assert_eq!(sent.listed.state, tcp_state::ESTABLISHED);
        assert_eq!(sent.listed.figures.bytes_sent, 1234);
        assert_eq!(received.listed.figures.bytes_received, 1234);
        assert_eq!(received.listed.queues.0, 1234);
        assert!(sent.inode != 0 && sent.cookie != received.cookie);
        assert!(
            all.iter()
                .any(|found| found.listed.state == tcp_state::LISTEN)
        );
        let (local, remote) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let is_open = |inode: u32| is_open(local, remote, inode.into()).unwrap();
        assert!(is_open(sent.inode) && !is_open(sent.inode + 1));
        drop(client);
        assert!(!is_open(sent.inode));
    }

    proptest! {
        /// No bytes make the reader panic or run on for ever.
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = take(&bytes, &mut |message| {
                let _ = socket(message, 1);
            });
        }
    }
}
