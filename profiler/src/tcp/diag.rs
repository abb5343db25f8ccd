//! Asks the kernel for the TCP sockets of the network namespace that the thread is in (`man 7 sock_diag`).

use std::io;

use profiler_common::tcp::{Figures, tcp_state};
use rustix::{
    fd::OwnedFd,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send,
        socket_with,
    },
};

use super::connections::{Ends, Listed, address};

/// `SOCK_DIAG_BY_FAMILY`
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 0x301;
/// `NLMSG_ERROR` and `NLMSG_DONE`
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `IPPROTO_TCP`, `AF_INET`, `AF_INET6`
const TCP: u8 = 6;
const INET: u8 = 2;
const INET6: u8 = 10;
/// `INET_DIAG_INFO`, and its bit in a request.
const INFO: u16 = 2;
const INFO_BIT: u8 = 1 << (INFO - 1);

/// Bytes of `struct nlmsghdr`, `inet_diag_req_v2` and `inet_diag_msg`.
const HEADER: usize = 16;
const REQUEST: usize = 56;
const MESSAGE: usize = 72;

/// A socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) listed: Listed,
    /// The kernel's number of it, which is never used again.
    pub(super) cookie: u64,
    /// Inode number, as /proc/PID/fd has it; 0 of one that no process holds.
    pub(super) inode: u32,
}

/// All TCP sockets, listening ones too. `net` is what to call the namespace.
pub(super) fn sockets(net: u32) -> io::Result<Vec<Found>> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    let mut found = Vec::new();
    for family in [INET, INET6] {
        dump(&socket, family, net, &mut found)?;
    }
    Ok(found)
}

fn dump(socket: &OwnedFd, family: u8, net: u32, found: &mut Vec<Found>) -> io::Result<()> {
    send(socket, &request(family), SendFlags::empty())?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let (length, _) = recv(socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        if length == 0 {
            return Ok(());
        }
        if take(&buffer[..length], net, found)? {
            return Ok(());
        }
    }
}

fn request(family: u8) -> [u8; HEADER + REQUEST] {
    let mut bytes = [0; HEADER + REQUEST];
    let length = u32::try_from(bytes.len()).unwrap_or(0);
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&DUMP.to_ne_bytes());
    bytes[HEADER] = family;
    bytes[HEADER + 1] = TCP;
    bytes[HEADER + 2] = INFO_BIT;
    // In every state.
    bytes[HEADER + 4..HEADER + 8].copy_from_slice(&u32::MAX.to_ne_bytes());
    bytes
}

/// Takes the messages of one datagram; says whether they were the last.
fn take(mut bytes: &[u8], net: u32, found: &mut Vec<Found>) -> io::Result<bool> {
    while let (Some(length), Some(kind)) = (u32_at(bytes, 0), u16_at(bytes, 4)) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let message = bytes.get(HEADER..length);
        let message = message.ok_or(io::ErrorKind::InvalidData)?;
        match kind {
            DONE => return Ok(true),
            ERROR => {
                let error = u32_at(message, 0).unwrap_or(0).cast_signed();
                return Err(io::Error::from_raw_os_error(-error));
            }
            BY_FAMILY => found.extend(socket(message, net)),
            _ => {}
        }
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    Ok(false)
}

/// One `inet_diag_msg` with its attributes.
fn socket(message: &[u8], net: u32) -> Option<Found> {
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

/// The contents of an attribute.
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16_at(bytes, 0)?);
        if u16_at(bytes, 2)? == wanted {
            return bytes.get(4..length);
        }
        bytes = bytes.get(aligned(length.max(4))..)?;
    }
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
        rtt_us: word(68)?,
        min_rtt_us: word(148)?,
        retransmits: word(100)?,
        peer_ended: 0,
    })
}

fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
    };

    use profiler_common::tcp::tcp_state;
    use proptest::prelude::*;

    use super::{sockets, take};

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
    }

    proptest! {
        /// No bytes make the reader panic or run on for ever.
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = take(&bytes, 1, &mut Vec::new());
        }
    }
}
