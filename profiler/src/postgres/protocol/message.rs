//! What messages there are: their tags, lengths that are possible, and how much of each is ever copied.
//!
//! Lengths are those of a message without its tag, as they stand on the wire. The limits are the server's
//! (`SocketBackend` in src/backend/tcop/postgres.c) and libpq's (`pqParseInput3` in
//! src/interfaces/libpq/fe-protocol3.c), as of `PostgreSQL` 17.

use super::chunk::{Direction, Stamp};

/// Bytes of a statement's text and name that are looked at.
pub(super) const TEXT_MAX: usize = 65_536;
/// So much of a text that is longer, unless too many are under way.
pub(super) const LONG_TEXT_MAX: usize = 1 << 20;
/// Longest message that is not one of those that carry data or text, to the server and from it.
const SMALL_MAX: u32 = 10_000;
const SMALL_ANSWER_MAX: u32 = 30_000;
/// Longest message at all: a palloc of 1 GiB - 1.
const LARGE_MAX: u32 = 0x3fff_ffff;
/// Longest description of a row: 1,664 columns with names of 63 bytes and 18 bytes of facts.
const COLUMNS_MAX: u32 = 1_664 * 82 + 6;

/// Codes of the messages that open a connection (src/include/libpq/pqcomm.h).
pub(super) const CANCEL: u32 = 80_877_102;
pub(super) const SSL: u32 = 80_877_103;
pub(super) const GSS: u32 = 80_877_104;
/// Longest start-up packet (`MAX_STARTUP_PACKET_LENGTH`).
const STARTUP_MAX: u32 = 10_000;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The first message of a connection, with its code: it has no tag.
    Startup(u32),
    /// Any other, with its tag.
    Tagged(u8),
}

/// A message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) kind: Kind,
    /// Bytes on the wire, all of them.
    pub(super) bytes: u64,
    /// What was kept of what follows tag and length, or the code.
    pub(super) body: &'a [u8],
    /// Bytes that were left out of a long text, which is still the same statement.
    pub(super) left_out: u64,
    /// All of it was kept, or left out so.
    pub(super) is_whole: bool,
    /// The first byte.
    pub(super) begin: Stamp,
    /// The last byte.
    pub(super) end: Stamp,
}

/// How much of a message is copied when it does not come in one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keep {
    /// At most so many bytes,
    pub(super) bytes: usize,
    /// and at most so many strings.
    pub(super) strings: u32,
}

impl Keep {
    pub(super) const NOTHING: Self = Self::bytes(0);

    const fn bytes(bytes: usize) -> Self {
        Self {
            bytes,
            strings: u32::MAX,
        }
    }

    const fn strings(strings: u32, bytes: usize) -> Self {
        Self { bytes, strings }
    }

    /// The beginning of some bytes that is copied, up to the last string's end; what may be copied next is less by it.
    pub(super) fn part_of<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let mut taken = &bytes[..bytes.len().min(self.bytes)];
        let nulls = taken.iter().enumerate().filter(|(_, byte)| **byte == 0);
        for (at, _) in nulls {
            self.strings -= 1;
            if self.strings == 0 {
                taken = &taken[..=at];
                break;
            }
        }
        self.bytes -= taken.len();
        taken
    }

    /// Nothing secret is copied: of Bind the two names, of errors what precedes the text, of start-up what
    /// names the session; neither passwords nor keys, values, rows or data.
    pub(super) fn of(direction: Direction, kind: Kind) -> Self {
        match (direction, kind) {
            (_, Kind::Startup(CANCEL | SSL | GSS)) => Self::NOTHING,
            (_, Kind::Startup(_)) => Self::bytes(STARTUP_MAX as usize),
            (Direction::Frontend, Kind::Tagged(tag)) => match tag {
                b'Q' | b'D' | b'C' | b'E' => Self::strings(1, TEXT_MAX),
                b'P' | b'B' => Self::strings(2, TEXT_MAX),
                b'F' => Self::bytes(4),
                _ => Self::NOTHING,
            },
            (Direction::Backend, Kind::Tagged(tag)) => match tag {
                b'C' => Self::bytes(64),
                b'E' => Self::strings(3, 256),
                b'S' => Self::strings(2, 256),
                // The kind of authentication, and of SASL how its first mechanism begins.
                b'R' => Self::bytes(8),
                b'K' | b'v' => Self::bytes(4),
                b'Z' => Self::bytes(1),
                _ => Self::NOTHING,
            },
        }
    }
}

/// A message of this kind and length can be.
#[inline]
pub(super) fn is_plausible(direction: Direction, kind: Kind, length: u32) -> bool {
    let (least, most) = match (direction, kind) {
        (_, Kind::Startup(SSL | GSS)) => (8, 8),
        // The key has 4 bytes in protocol 3.0 and up to 256 from 3.2 on.
        (_, Kind::Startup(CANCEL)) => (16, 12 + 256),
        (_, Kind::Startup(code)) if code >> 16 == 3 => (9, STARTUP_MAX),
        (_, Kind::Startup(_)) => return false,
        (Direction::Frontend, Kind::Tagged(tag)) => match tag {
            b'Q' => (5, LARGE_MAX),
            b'P' => (8, LARGE_MAX),
            b'B' => (12, LARGE_MAX),
            b'F' => (14, LARGE_MAX),
            b'd' => (4, LARGE_MAX),
            b'E' => (9, SMALL_MAX),
            b'D' | b'C' => (6, SMALL_MAX),
            b'f' => (5, SMALL_MAX),
            b'S' | b'H' | b'c' | b'X' => (4, 4),
            // PG_MAX_AUTH_TOKEN_LENGTH
            b'p' => (4, 65_539),
            _ => return false,
        },
        (Direction::Backend, Kind::Tagged(tag)) => match tag {
            b'1' | b'2' | b'3' | b'n' | b's' | b'I' | b'c' => (4, 4),
            b'Z' => (5, 5),
            // COMPLETION_TAG_BUFSIZE
            b'C' => (6, 4 + 64),
            b'S' => (6, SMALL_ANSWER_MAX),
            b'T' => (6, COLUMNS_MAX),
            b't' => (6, 4 * 65_535 + 6),
            b'D' => (6, LARGE_MAX),
            b'd' => (4, LARGE_MAX),
            b'E' | b'N' => (5, LARGE_MAX),
            b'A' => (10, LARGE_MAX),
            b'V' => (8, LARGE_MAX),
            b'R' => (8, SMALL_ANSWER_MAX),
            b'G' | b'H' | b'W' => (7, SMALL_ANSWER_MAX),
            b'K' => (12, 8 + 256),
            b'v' => (12, SMALL_ANSWER_MAX),
            _ => return false,
        },
    };
    (least..=most).contains(&length)
}
