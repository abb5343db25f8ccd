//! What a system call carried of a connection, and the stream that the chunks of a direction make.

use serde::{Deserialize, Serialize};

/// Where bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the server.
    Frontend,
    /// From the server.
    Backend,
}

/// Whose system calls are seen. It decides which clock starts and ends a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Of the client: a call lasts from the entry of its send to the exit of the last read.
    Client,
    /// Of the server: a call lasts from the exit of its read to the entry of the last send.
    Server,
}

/// What one system call carried of one direction of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Where to.
    pub direction: Direction,
    /// Position in the stream of the first byte. Positions of a direction are contiguous unless something
    /// was missed.
    pub position: u64,
    /// Bytes carried. `head` are the first of them, `tail` the last; what lies between was not copied.
    pub length: u64,
    /// The first bytes.
    pub head: &'a [u8],
    /// The last bytes.
    pub tail: &'a [u8],
    /// When the call was entered, ns.
    pub entry_ns: u64,
    /// When it returned, ns.
    pub exit_ns: u64,
    /// Thread that made the call.
    pub tid: u32,
}

/// When and by whom a byte was carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The one of the call's two times that counts, ns.
    pub(super) time_ns: u64,
    /// Number of the chunk, to tell bytes that came together.
    pub(super) chunk: u64,
    /// Thread that made the call.
    pub(super) tid: u32,
}

impl Chunk<'_> {
    /// Requests count from the moment when the client began to send or the server had read them, answers from
    /// the moment when the server began to send or the client had read them.
    pub(super) fn stamp(&self, side: Side, chunk: u64) -> Stamp {
        let time_ns = match (side, self.direction) {
            (Side::Client, Direction::Frontend) | (Side::Server, Direction::Backend) => {
                self.entry_ns
            }
            (Side::Client, Direction::Backend) | (Side::Server, Direction::Frontend) => {
                self.exit_ns
            }
        };
        Stamp {
            time_ns,
            chunk,
            tid: self.tid,
        }
    }
}

/// How far a direction of a connection has been seen.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stream {
    next: Option<u64>,
}

/// What a chunk brings that was not seen before, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fresh<'a> {
    /// Bytes before the chunk that no chunk carried.
    pub(super) missing: u64,
    pub(super) head: &'a [u8],
    /// Bytes between head and tail.
    pub(super) hole: u64,
    pub(super) tail: &'a [u8],
}

impl Stream {
    /// Takes a chunk's bytes into account: what was seen before is left out.
    pub(super) fn advance<'a>(&mut self, chunk: &Chunk<'a>) -> Fresh<'a> {
        let head_bytes = chunk.head.len().min(saturated(chunk.length));
        let head = &chunk.head[..head_bytes];
        let rest = chunk.length - head_bytes as u64;
        let tail_bytes = chunk.tail.len().min(saturated(rest));
        let tail = &chunk.tail[chunk.tail.len() - tail_bytes..];
        let hole = rest - tail_bytes as u64;

        let next = self.next.unwrap_or(chunk.position);
        let seen = next.saturating_sub(chunk.position);
        let end = chunk.position.saturating_add(chunk.length);
        self.next = Some(end.max(next));
        let (head, seen) = without(head, seen);
        let hole_seen = seen.min(hole);
        let (tail, _) = without(tail, seen - hole_seen);
        Fresh {
            missing: chunk.position.saturating_sub(next),
            head,
            hole: hole - hole_seen,
            tail,
        }
    }
}

/// What remains of bytes without the first ones, and how many of those lie behind them.
fn without(bytes: &[u8], first: u64) -> (&[u8], u64) {
    let here = bytes.len().min(saturated(first));
    (&bytes[here..], first - here as u64)
}

pub(super) fn saturated(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Chunk, Direction, Fresh, Side, Stream};

    fn chunk<'a>(position: u64, length: u64, head: &'a [u8], tail: &'a [u8]) -> Chunk<'a> {
        Chunk {
            direction: Direction::Frontend,
            position,
            length,
            head,
            tail,
            entry_ns: 1,
            exit_ns: 2,
            tid: 3,
        }
    }

    fn fresh<'a>(missing: u64, head: &'a [u8], hole: u64, tail: &'a [u8]) -> Fresh<'a> {
        Fresh {
            missing,
            head,
            hole,
            tail,
        }
    }

    /// Bytes that were seen before are left out, wherever they end; bytes that never came are counted.
    #[test]
    fn chunks_make_a_stream() {
        let mut stream = Stream::default();
        let mut take = |position, length, head, tail| {
            let chunk = chunk(position, length, head, tail);
            stream.advance(&chunk)
        };
        assert_eq!(take(100, 3, b"abc", b""), fresh(0, b"abc", 0, b""));
        assert_eq!(take(100, 3, b"abc", b""), fresh(0, b"", 0, b""));
        assert_eq!(take(101, 4, b"bcde", b""), fresh(0, b"de", 0, b""));
        assert_eq!(take(107, 1, b"h", b""), fresh(2, b"h", 0, b""));
        assert_eq!(take(106, 10, b"gh", b"op"), fresh(0, b"", 6, b"op"));
        assert_eq!(take(110, 8, b"", b"pqr"), fresh(0, b"", 0, b"qr"));
        // Nonsense is cut to the length.
        assert_eq!(take(118, 2, b"stuv", b"wx"), fresh(0, b"st", 0, b""));
        let last = take(u64::MAX, 9, b"", b"");
        assert_eq!((last.missing, last.hole), (u64::MAX - 120, 9));
    }

    /// Requests and answers are stamped by the clocks of the side that is seen.
    #[test]
    fn sides_have_their_clocks() {
        let request = chunk(0, 0, b"", b"");
        let answer = Chunk {
            direction: Direction::Backend,
            ..request
        };
        let times = |side| [request, answer].map(|chunk| chunk.stamp(side, 0).time_ns);
        assert_eq!(times(Side::Client), [1, 2]);
        assert_eq!(times(Side::Server), [2, 1]);
    }
}
