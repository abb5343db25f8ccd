//! One question to the kernel's socket monitor and its answers, for the network namespace that the thread is in.

use std::io;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

/// `SOCK_DIAG_BY_FAMILY`
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`, and `NLM_F_DUMP` with it.
const ONE: u16 = 0x1;
const DUMP: u16 = 0x301;
/// `NLMSG_ERROR` and `NLMSG_DONE`
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

/// Asks for all sockets that a request of `man 7 sock_diag` means, and hands out each message about one.
pub(super) fn dump(request: &[u8], each: &mut impl FnMut(&[u8])) -> io::Result<()> {
    ask(request, DUMP, |bytes| take(bytes, each))
}

/// Asks for one socket, and hands out the message about it if it is there.
pub(super) fn find(request: &[u8], each: &mut impl FnMut(&[u8])) -> io::Result<()> {
    let found = ask(request, ONE, |bytes| take(bytes, each).map(|_| true));
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        found => found,
    }
}

/// Asks, and hands out the datagrams that come until one of them is the last.
fn ask(
    request: &[u8],
    flags: u16,
    mut each: impl FnMut(&[u8]) -> io::Result<bool>,
) -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::SOCK_DIAG),
    )?;
    send(&socket, &with_header(request, flags), SendFlags::empty())?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let (length, _) = recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        if length == 0 || each(&buffer[..length])? {
            return Ok(());
        }
    }
}

fn with_header(request: &[u8], flags: u16) -> Vec<u8> {
    let length = u32::try_from(HEADER + request.len()).unwrap_or(0);
    let mut bytes = Vec::with_capacity(HEADER + request.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(BY_FAMILY.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.resize(HEADER, 0);
    bytes.extend(request);
    bytes
}

/// Takes the messages of one datagram; says whether they were the last.
pub(crate) fn take(mut bytes: &[u8], each: &mut impl FnMut(&[u8])) -> io::Result<bool> {
    while let (Some(length), Some(kind)) = (u32_at(bytes, 0), u16_at(bytes, 4)) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let message = bytes.get(HEADER..length);
        let message = message.ok_or(io::ErrorKind::InvalidData)?;
        match kind {
            DONE => return Ok(true),
            ERROR => {
                let error = u32_at(message, 0).unwrap_or(0).cast_signed();
                return Err(io::Error::from_raw_os_error(error.wrapping_neg()));
            }
            BY_FAMILY => each(message),
            _ => {}
        }
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
    }
    Ok(false)
}

/// The contents of an attribute, of those that follow a message's fixed part.
pub(super) fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16_at(bytes, 0)?);
        if u16_at(bytes, 2)? == wanted {
            return bytes.get(4..length);
        }
        bytes = bytes.get(aligned(length.max(4))..)?;
    }
}

fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
