//! Whether a socket speaks Postgres, and which end of it is ours, from the first buffers that are seen.

use super::{
    chunk::{Direction, Side, saturated},
    event::{Session, TransactionState},
    fields::number,
    message::{CANCEL, GSS, Kind, SSL, is_plausible},
    startup::{is_tls, is_tls_records},
};

/// Which way a buffer went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// We sent it.
    Sent,
    /// We received it.
    Received,
}

/// What a socket speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recognition {
    /// Postgres, and we are this side of it.
    Postgres(Side),
    /// TLS, from the first byte on or since before it was seen: whether Postgres is inside cannot be seen.
    Tls,
    /// Something else: this is for who counts turns to say.
    Other,
    /// More buffers are needed.
    Undecided,
}

/// Looks at buffers of a socket, in order. A start-up packet decides, or messages that make sense in one
/// direction only: two headers in a row, or one message that ends its buffer. Never a single byte.
pub fn recognise(buffers: &[(Flow, &[u8])]) -> Recognition {
    for &(flow, bytes) in buffers {
        if bytes.first_chunk().is_some_and(|header| is_tls(*header)) || is_tls_records(bytes) {
            return Recognition::Tls;
        }
        let to_server = is_startup(bytes) || is_chain(Direction::Frontend, bytes);
        let from_server = is_chain(Direction::Backend, bytes);
        let side = match (flow, to_server, from_server) {
            (Flow::Sent, true, false) | (Flow::Received, false, true) => Side::Client,
            (Flow::Received, true, false) | (Flow::Sent, false, true) => Side::Server,
            _ => continue,
        };
        return Recognition::Postgres(side);
    }
    Recognition::Undecided
}

/// The bytes are a start-up packet or a request that comes in its place.
fn is_startup(bytes: &[u8]) -> bool {
    let (Some(length), Some(code)) = (number(bytes), bytes.get(4..).and_then(number)) else {
        return false;
    };
    if length as usize != bytes.len()
        || !is_plausible(Direction::Frontend, Kind::Startup(code), length)
    {
        return false;
    }
    matches!(code, CANCEL | SSL | GSS) || Session::read(code, &bytes[8..]).is_some()
}

/// The bytes begin with messages of this direction.
fn is_chain(direction: Direction, mut bytes: &[u8]) -> bool {
    let mut headers = 0;
    loop {
        let Some((tag, rest)) = bytes.split_first() else {
            // The last one ended the buffer.
            return headers > 0;
        };
        let Some(length) = number(rest) else {
            return headers > 1;
        };
        if !is_plausible(direction, Kind::Tagged(*tag), length) {
            return false;
        }
        headers += 1;
        let Some((body, behind)) = rest[4..].split_at_checked(saturated(u64::from(length) - 4))
        else {
            return headers > 1;
        };
        if !is_sensible(direction, *tag, body) {
            return false;
        }
        bytes = behind;
    }
}

/// A message's body is what one of this kind has.
fn is_sensible(direction: Direction, tag: u8, body: &[u8]) -> bool {
    let is_string = || body.iter().position(|byte| *byte == 0) == Some(body.len() - 1);
    match (direction, tag) {
        (Direction::Frontend, b'Q') | (Direction::Backend, b'C') => is_string(),
        (Direction::Frontend, b'D' | b'C') => {
            matches!(body[0], b'S' | b'P') && body.ends_with(b"\0")
        }
        (Direction::Backend, b'Z') => TransactionState::read(body).is_some(),
        (Direction::Backend, b'E' | b'N') => body.ends_with(b"\0\0"),
        _ => true,
    }
}
