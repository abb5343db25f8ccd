//! Cuts the bytes of one direction into messages, however they arrive. A message that comes in one piece is not
//! copied; of one that does not, only what [`Keep`] says is. Bodies without interest are skipped by count.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{
    super::{encoding::is_plain, sql::shortened},
    chunk::{Direction, Stamp, saturated},
    fields::number,
    message::{Keep, Kind, LONG_TEXT_MAX, Message, TEXT_MAX, is_plausible},
};

/// Most long texts that are kept at a time, of all connections: 32 MiB.
const LONG_MAX: usize = 32;
/// How many are.
static LONG: AtomicUsize = AtomicUsize::new(0);

/// Bytes of the buffer that are kept between messages; one that had to grow further is given back.
const BUFFER_KEPT: usize = 4096;

/// Which messages come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One without a tag.
    Startup,
    /// Any other.
    Tagged,
}

/// Cuts one direction into messages.
#[derive(Debug)]
pub(super) struct Framer {
    direction: Direction,
    form: Form,
    header: [u8; 8],
    /// Bytes of the header that have come.
    header_bytes: usize,
    begin: Stamp,
    body: Option<Body>,
    kept: Vec<u8>,
    /// Where `kept` may be long.
    long: Option<Long>,
    /// What was left out of it.
    shortening: Shortening,
}

/// How a text that is longer than most is made shorter while it comes. It is done at lengths that depend on nothing
/// but the text, so that equal statements stay equal.
#[derive(Debug)]
struct Shortening {
    /// Bytes that are kept when it is done next.
    at: usize,
    /// Bytes left out so far.
    left_out: usize,
}

impl Default for Shortening {
    fn default() -> Self {
        Self {
            at: TEXT_MAX,
            left_out: 0,
        }
    }
}

impl Shortening {
    /// Shortens the text that begins at `begin` if it is as long as that. Gives the bytes that are free again.
    fn apply(&mut self, kept: &mut Vec<u8>, begin: usize) -> usize {
        if kept.len() < self.at {
            return 0;
        }
        let before = kept.len();
        let text = kept.get(begin..).filter(|text| is_plain(text));
        if let Some(short) = text.and_then(shortened) {
            kept.truncate(begin);
            kept.extend_from_slice(&short);
        }
        // A text that does not become shorter is looked at more seldom.
        self.at = TEXT_MAX.max(2 * kept.len());
        let free = before - kept.len();
        self.left_out += free;
        free
    }
}

/// The right to keep a long text.
#[derive(Debug)]
struct Long(());

impl Long {
    fn take() -> Option<Self> {
        let one_more = |count: usize| (count < LONG_MAX).then_some(count + 1);
        let taken = LONG.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.is_ok().then_some(Self(()))
    }
}

impl Drop for Long {
    fn drop(&mut self) {
        LONG.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, Debug)]
struct Body {
    kind: Kind,
    bytes: u64,
    remaining: u64,
    keep: Keep,
}

impl Body {
    /// Whether it has the text of a statement.
    fn is_text(&self, direction: Direction) -> bool {
        direction == Direction::Frontend && matches!(self.kind, Kind::Tagged(b'Q' | b'P'))
    }

    /// Whether it is one of a statement that is longer than most.
    fn is_long_text(&self, direction: Direction) -> bool {
        self.is_text(direction) && self.remaining > TEXT_MAX as u64
    }

    /// Where the text begins: in Parse after the statement's name.
    fn text_begin(&self, kept: &[u8]) -> Option<usize> {
        match self.kind {
            Kind::Tagged(b'P') => Some(kept.iter().position(|byte| *byte == 0)? + 1),
            _ => Some(0),
        }
    }
}

/// What the next bytes made.
#[derive(Debug)]
pub(super) enum Framed<'a> {
    Message(Message<'a>),
    /// Nothing: more must come.
    Starved,
    /// Nonsense: no message begins so, or where one begins is not known any more.
    Broken,
}

impl Framer {
    pub(super) fn new(direction: Direction) -> Self {
        Self {
            direction,
            form: Form::Tagged,
            header: [0; 8],
            header_bytes: 0,
            begin: Stamp::default(),
            body: None,
            kept: Vec::new(),
            long: None,
            shortening: Shortening::default(),
        }
    }

    /// The next byte begins a message.
    pub(super) fn restart(&mut self, form: Form) {
        self.form = form;
        self.header_bytes = 0;
        self.body = None;
        self.kept = Vec::new();
        self.long = None;
    }

    /// Bytes of a message that has begun and is not complete.
    pub(super) fn pending_bytes(&self) -> u64 {
        match &self.body {
            Some(body) => body.bytes - body.remaining,
            None => self.header_bytes as u64,
        }
    }

    /// Bytes to come of a message that nothing more is kept of.
    pub(super) fn passing_bytes(&self) -> u64 {
        match &self.body {
            Some(body) if body.keep.bytes == 0 || body.keep.strings == 0 => body.remaining,
            _ => 0,
        }
    }

    /// Bytes that are allocated.
    pub(super) fn memory(&self) -> usize {
        self.kept.capacity()
    }

    /// First bytes of a message that is not one; for what is told of it.
    pub(super) fn header(&self) -> [u8; 8] {
        self.header
    }

    /// Takes bytes up to the end of a message.
    pub(super) fn next<'a, 'b: 'a>(&'a mut self, input: &mut &'b [u8], stamp: Stamp) -> Framed<'a> {
        if self.body.is_none() {
            if self.header_bytes == 0 {
                if let Some(framed) = self.whole(input, stamp) {
                    return framed;
                }
                self.begin = stamp;
            }
            let size = match self.form {
                Form::Startup => 8,
                Form::Tagged => 5,
            };
            let count = (size - self.header_bytes).min(input.len());
            let (bytes, rest) = input.split_at(count);
            self.header[self.header_bytes..][..count].copy_from_slice(bytes);
            self.header_bytes += count;
            *input = rest;
            if self.header_bytes < size {
                return Framed::Starved;
            }
            let Some(mut body) = self.head() else {
                return Framed::Broken;
            };
            self.header_bytes = 0;
            if self.kept.capacity() > BUFFER_KEPT {
                self.kept = Vec::new();
            }
            self.kept.clear();
            self.long = None;
            self.shortening = Shortening::default();
            if body.is_long_text(self.direction) {
                self.long = Long::take();
                body.keep.bytes = if self.long.is_some() {
                    LONG_TEXT_MAX
                } else {
                    TEXT_MAX
                };
            }
            self.body = Some(body);
        }
        self.fill(input);
        self.complete(stamp)
    }

    /// Passes over bytes that were not copied or never came.
    pub(super) fn hole(&mut self, bytes: u64, stamp: Stamp) -> Framed<'_> {
        match &mut self.body {
            Some(body) if body.remaining >= bytes => {
                body.remaining -= bytes;
                body.keep = Keep::NOTHING;
                self.complete(stamp)
            }
            _ => Framed::Broken,
        }
    }

    /// A message that has come whole.
    fn whole<'a>(&self, input: &mut &'a [u8], stamp: Stamp) -> Option<Framed<'a>> {
        if self.form == Form::Startup {
            return None;
        }
        let (tag, rest) = input.split_first()?;
        let (kind, length) = (Kind::Tagged(*tag), number(rest)?);
        if !is_plausible(self.direction, kind, length) {
            return Some(Framed::Broken);
        }
        let bytes = u64::from(length) + 1;
        let (message, rest) = input.split_at_checked(saturated(bytes))?;
        let body = &message[5..];
        if self.direction == Direction::Frontend && body.len() > TEXT_MAX {
            return None;
        }
        *input = rest;
        Some(Framed::Message(Message {
            kind,
            bytes,
            body,
            left_out: 0,
            is_whole: true,
            begin: stamp,
            end: stamp,
        }))
    }

    /// What a message is, from its header.
    fn head(&self) -> Option<Body> {
        let (kind, length, tag_bytes, header_bytes) = match self.form {
            Form::Startup => {
                let kind = Kind::Startup(number(&self.header[4..])?);
                (kind, number(&self.header)?, 0, 8)
            }
            Form::Tagged => {
                let kind = Kind::Tagged(self.header[0]);
                (kind, number(&self.header[1..])?, 1, 5)
            }
        };
        let bytes = u64::from(length) + tag_bytes;
        is_plausible(self.direction, kind, length).then(|| Body {
            kind,
            bytes,
            remaining: bytes - header_bytes,
            keep: Keep::of(self.direction, kind),
        })
    }

    /// Takes bytes of a body.
    fn fill(&mut self, input: &mut &[u8]) {
        let Some(body) = &mut self.body else {
            return;
        };
        let (mut bytes, rest) = input.split_at(saturated(body.remaining).min(input.len()));
        *input = rest;
        body.remaining -= bytes.len() as u64;
        while !bytes.is_empty() && body.keep.bytes > 0 && body.keep.strings > 0 {
            let room = self.shortening.at.checked_sub(self.kept.len());
            let room = room.filter(|room| *room > 0).unwrap_or(bytes.len());
            let (piece, behind) = bytes.split_at(bytes.len().min(room));
            bytes = behind;
            let taken = body.keep.part_of(piece);
            self.kept.extend_from_slice(taken);
            if body.keep.strings == 1
                && body.is_text(self.direction)
                && let Some(begin) = body.text_begin(&self.kept)
            {
                body.keep.bytes += self.shortening.apply(&mut self.kept, begin);
            }
        }
    }

    fn complete(&mut self, stamp: Stamp) -> Framed<'_> {
        let Some(body) = self.body.take_if(|body| body.remaining == 0) else {
            return Framed::Starved;
        };
        let header_bytes = match body.kind {
            Kind::Startup(_) => 8,
            Kind::Tagged(_) => 5,
        };
        self.form = Form::Tagged;
        let left_out = self.shortening.left_out as u64;
        Framed::Message(Message {
            kind: body.kind,
            bytes: body.bytes,
            body: &self.kept,
            left_out,
            is_whole: self.kept.len() as u64 + left_out + header_bytes == body.bytes,
            begin: self.begin,
            end: stamp,
        })
    }
}
