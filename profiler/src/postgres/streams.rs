//! Sockets: which of them speak Postgres, and a machine of the protocol for each that does. Pure.

use std::{collections::hash_map::Entry, mem, sync::Arc};

use profiler_common::wire::{SENT, WireHeader, family, source};
use rustc_hash::FxHashMap;

use super::{
    account::Sockets,
    dialect::{Dialect, Parameters, Speech},
    encrypted::Encrypted,
    origin::Origin,
    protocol::{
        Call, Connection, Direction, Ending, Event, Recognition, Side, Statement, recognise,
    },
    texts::Texts,
    transfer::Transfer,
};

/// Bytes to come of a message from which on they need not be copied: what is under way already comes all the same.
const PASSING_MIN: u64 = 256 << 10;

/// Most sockets that are followed at once.
const SOCKETS_MAX: usize = 50_000;

/// What is to be done about a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Nothing more of it is wanted: its address and inode number.
    pub(super) ignore: Option<(u64, u64)>,
    /// It is encrypted.
    pub(super) is_encrypted: bool,
    /// It is within a long message, or no longer.
    pub(super) passing: Option<Passing>,
    /// It runs a statement whose text was not seen, or has just done so.
    pub(super) unknown: Option<Unknown>,
}

/// Whose statement has no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    /// A call through the connection's socket.
    pub(super) header: WireHeader,
    pub(super) side: Side,
    /// The server's process, once it was told ([`Streams::set_backend`]).
    pub(super) backend: Option<u32>,
}

/// Of which bytes of a socket nothing more is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passing {
    /// Address and inode number.
    pub(super) socket: (u64, u64),
    /// The position before which that is so, of what is sent and received.
    pub(super) until: [Option<u64>; 2],
}

/// All sockets.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// By address.
    followed: FxHashMap<u64, Stream>,
    sockets: Sockets,
    encrypted: Encrypted,
    events: Vec<Event>,
}

#[derive(Debug)]
struct Stream {
    inode: u64,
    /// Who used it last.
    pid: u32,
    what: What,
}

#[derive(Debug)]
enum What {
    /// What was carried so far.
    Undecided(Vec<Transfer>),
    Postgres(Box<Conversation>),
    /// Something else, or its end was seen.
    Other,
}

/// Why nothing more of a socket is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It does not speak Postgres.
    Other,
    /// It is encrypted; what is inside is not known.
    Encrypted,
    /// Postgres asked for it to be encrypted.
    PostgresEncrypted,
}

/// A connection with Postgres.
#[derive(Debug)]
struct Conversation {
    side: Side,
    origin: Arc<Origin>,
    connection: Connection,
    /// Where the next byte sent and received is expected, extended to 64 bits.
    positions: [Option<u64>; 2],
    /// What the kernel side was told of long messages: where they end, of what is sent and received.
    passing: [Option<u64>; 2],
    /// The server's process, if it is known.
    backend: Option<u32>,
    /// A call without a text was told.
    is_unknown: bool,
    dialect: Dialect,
}

impl Streams {
    /// Counts a record that made no sense.
    pub(super) fn malformed(&mut self) {
        self.sockets.malformed += 1;
    }

    /// Counts records from after the end of the recording, of which nothing is told.
    pub(super) fn leave_out(&mut self, records: usize) {
        self.sockets.records += records as u64;
    }

    pub(super) fn sockets(&self) -> Sockets {
        let mut sockets = self.sockets;
        let undecided = |stream: &&Stream| matches!(stream.what, What::Undecided(_));
        sockets.undecided += self.followed.values().filter(undecided).count() as u64;
        sockets.encrypted = self.encrypted.counts();
        sockets
    }

    /// Takes a transfer, in order. `find` says where a connection leads, of one that is new, and by what the server reads
    /// it if its beginning was not seen.
    pub(super) fn take(
        &mut self,
        transfer: Transfer,
        texts: &mut Texts,
        find: impl FnOnce(&WireHeader, Side, bool) -> (Origin, Parameters),
        mut tell: impl FnMut(&Event, &Arc<Origin>, &Texts),
    ) -> Told {
        self.sockets.records += 1;
        let header = transfer.header;
        if is_within_tls(&header) {
            self.encrypted.passed(&header);
        }
        self.end_another(&header, texts, &mut tell);
        let is_full = self.followed.len() >= SOCKETS_MAX;
        let stream = match self.followed.entry(header.socket) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(_) if is_full => {
                self.sockets.overflowed += 1;
                return Told::default();
            }
            Entry::Vacant(entry) => entry.insert(Stream {
                inode: header.inode,
                pid: header.tgid,
                what: What::Undecided(Vec::new()),
            }),
        };
        stream.pid = header.tgid;
        let ready = match &mut stream.what {
            What::Other => return Told::default(),
            What::Postgres(_) => vec![transfer],
            What::Undecided(waiting) => {
                waiting.push(transfer);
                let buffers: Vec<_> = waiting.iter().map(|one| (one.flow(), one.head())).collect();
                match recognise(&buffers) {
                    // The library gave the connection up.
                    Recognition::Undecided if header.length == 0 && is_within_tls(&header) => {
                        self.close(header.socket, closed(&header), texts, tell);
                        return Told::default();
                    }
                    Recognition::Undecided => return Told::default(),
                    Recognition::Postgres(side) => {
                        self.sockets.postgres += 1;
                        let waiting = mem::take(waiting);
                        let is_begun = begins(side, &waiting);
                        let (origin, parameters) = find(&header, side, is_begun);
                        let mut conversation = Conversation::new(side, Arc::new(origin));
                        conversation.dialect.parameters = parameters;
                        stream.what = What::Postgres(Box::new(conversation));
                        waiting
                    }
                    Recognition::Tls if !is_within_tls(&header) => {
                        return self.give_up(&header, Why::Encrypted);
                    }
                    Recognition::Tls | Recognition::Other => {
                        return self.give_up(&header, Why::Other);
                    }
                }
            }
        };
        self.hear(ready, texts, tell)
    }

    /// Takes what a connection with Postgres carried.
    fn hear(
        &mut self,
        transfers: Vec<Transfer>,
        texts: &mut Texts,
        mut tell: impl FnMut(&Event, &Arc<Origin>, &Texts),
    ) -> Told {
        let is_tls = |event: &Event| matches!(event, Event::Opaque(opaque) if opaque.is_tls());
        let mut told = Told::default();
        for transfer in transfers {
            let header = transfer.header;
            let Some(Stream {
                what: What::Postgres(conversation),
                ..
            }) = self.followed.get_mut(&header.socket)
            else {
                break;
            };
            conversation.take(&transfer, texts, &mut self.events);
            told.passing = conversation.passing(&header).or(told.passing);
            // That is told of all that are encrypted together.
            let is_encrypted = self.events.iter().any(is_tls);
            self.events.retain(|event| !is_tls(event));
            conversation.tell(&mut self.events, texts, &mut tell);
            told.unknown = conversation.unknown(&header).or(told.unknown);
            if header.length == 0 {
                self.close(header.socket, closed(&header), texts, &mut tell);
            } else if is_encrypted {
                told = self.give_up(&header, Why::PostgresEncrypted);
            }
        }
        told
    }

    /// Wants nothing more of a socket.
    fn give_up(&mut self, header: &WireHeader, why: Why) -> Told {
        match why {
            Why::Other => self.sockets.other += 1,
            Why::Encrypted => self.encrypted.found(header, false),
            Why::PostgresEncrypted => {
                self.sockets.postgres -= 1;
                self.encrypted.found(header, true);
            }
        }
        if is_within_tls(header) {
            // Its number is not given again.
            self.followed.remove(&header.socket);
        } else if let Some(stream) = self.followed.get_mut(&header.socket) {
            stream.what = What::Other;
        }
        Told {
            ignore: Some((header.socket, header.inode)),
            is_encrypted: why != Why::Other,
            ..Told::default()
        }
    }

    /// Says which process is the server's end of a connection.
    pub(super) fn set_backend(&mut self, socket: u64, backend: u32) {
        if let Some(stream) = self.followed.get_mut(&socket)
            && let What::Postgres(conversation) = &mut stream.what
        {
            conversation.backend = Some(backend);
        }
    }

    /// Another socket has the address of one that must have been closed.
    fn end_another(
        &mut self,
        header: &WireHeader,
        texts: &mut Texts,
        tell: &mut impl FnMut(&Event, &Arc<Origin>, &Texts),
    ) {
        let known = self.followed.get(&header.socket);
        if known.is_some_and(|stream| stream.inode != header.inode) {
            self.close(header.socket, closed(header), texts, tell);
        }
    }

    fn close(
        &mut self,
        socket: u64,
        (ending, time_ns): (Ending, u64),
        texts: &mut Texts,
        mut tell: impl FnMut(&Event, &Arc<Origin>, &Texts),
    ) {
        let Some(stream) = self.followed.remove(&socket) else {
            return;
        };
        match stream.what {
            What::Postgres(mut conversation) => {
                conversation.end((ending, time_ns), texts, &mut self.events);
                conversation.tell(&mut self.events, texts, &mut tell);
            }
            What::Undecided(_) => self.sockets.undecided += 1,
            What::Other => {}
        }
    }

    /// Ends the connections that a process used last, as it is gone or nothing more of it is wanted.
    pub(super) fn leave(
        &mut self,
        pid: u32,
        ending: (Ending, u64),
        texts: &mut Texts,
        mut tell: impl FnMut(&Event, &Arc<Origin>, &Texts),
    ) {
        let of_it = self.followed.iter().filter(|(_, stream)| stream.pid == pid);
        let sockets: Vec<u64> = of_it.map(|(socket, _)| *socket).collect();
        for socket in sockets {
            self.close(socket, ending, texts, &mut tell);
        }
    }

    /// The recording is over.
    pub(super) fn finish(
        &mut self,
        time_ns: u64,
        texts: &mut Texts,
        mut tell: impl FnMut(&Event, &Arc<Origin>, &Texts),
    ) {
        for stream in self.followed.values_mut() {
            if let What::Postgres(conversation) = &mut stream.what {
                let ending = (Ending::Recording, time_ns);
                conversation.end(ending, texts, &mut self.events);
                conversation.tell(&mut self.events, texts, &mut tell);
            }
        }
    }
}

impl Conversation {
    fn new(side: Side, origin: Arc<Origin>) -> Self {
        Self {
            side,
            origin,
            connection: Connection::new(side),
            positions: [None; 2],
            passing: [None; 2],
            backend: None,
            is_unknown: false,
            dialect: Dialect::default(),
        }
    }

    /// Nothing more will come.
    fn end(
        &mut self,
        (ending, time_ns): (Ending, u64),
        texts: &mut Texts,
        events: &mut Vec<Event>,
    ) {
        if let Some(id) = self.connection.under_way(time_ns) {
            texts.is_under_way(id);
        }
        self.connection.end(ending, time_ns, events);
    }

    fn take(&mut self, transfer: &Transfer, texts: &mut Texts, events: &mut Vec<Event>) {
        let header = &transfer.header;
        let direction = self.direction(header);
        let next = &mut self.positions[usize::from(header.direction == SENT)];
        let position = match (header.source, header.family) {
            (source::SOCKET, family::INET | family::INET6) => extended(*next, header.position),
            _ => header.position,
        };
        *next = Some(position.saturating_add(header.length));
        if header.length > 0 {
            let chunk = transfer.chunk(direction, position);
            let mut speech = Speech {
                texts,
                dialect: &mut self.dialect,
                time_ns: transfer.time_ns(),
            };
            self.connection.take(&chunk, &mut speech, events);
        }
    }

    /// Whether the kernel side should know that a long message has begun or is over.
    fn passing(&mut self, header: &WireHeader) -> Option<Passing> {
        let which = usize::from(header.direction != SENT);
        let bytes = self.connection.passing_bytes(self.direction(header));
        let end = header.position.wrapping_add(header.length);
        let until = (bytes >= PASSING_MIN).then(|| end.wrapping_add(bytes));
        let is_told = match self.passing[which] {
            None => until.is_none(),
            Some(told) => until == Some(told) || (bytes > 0 && until.is_none()),
        };
        if is_told {
            return None;
        }
        self.passing[which] = until;
        Some(Passing {
            socket: (header.socket, header.inode),
            until: self.passing,
        })
    }

    /// Finds out which statement a call was whose text was sent before the recording.
    fn recognise(&mut self, call: &mut Call, texts: &mut Texts) {
        if !matches!(call.statement, Statement::Named(_)) {
            return;
        }
        let id = self
            .backend
            .and_then(|backend| texts.of_call(backend, call));
        match id {
            Some(id) => {
                self.connection.learn(&call.statement, id);
                call.statement = Statement::Known(id);
            }
            None => self.is_unknown = true,
        }
    }

    fn unknown(&mut self, header: &WireHeader) -> Option<Unknown> {
        let is_unknown = mem::take(&mut self.is_unknown) || self.connection.runs_unknown();
        is_unknown.then_some(Unknown {
            header: *header,
            side: self.side,
            backend: self.backend,
        })
    }

    fn direction(&self, header: &WireHeader) -> Direction {
        match (self.side, header.direction == SENT) {
            (Side::Client, true) | (Side::Server, false) => Direction::Frontend,
            (Side::Client, false) | (Side::Server, true) => Direction::Backend,
        }
    }

    /// Tells what has happened, each statement by the number that all its texts have.
    fn tell(
        &mut self,
        events: &mut Vec<Event>,
        texts: &mut Texts,
        tell: &mut impl FnMut(&Event, &Arc<Origin>, &Texts),
    ) {
        for mut event in events.drain(..) {
            match &mut event {
                Event::Call(call) => {
                    self.recognise(call, texts);
                    call.statement = texts.canonical(call.statement.clone());
                }
                Event::Prepared(prepared) => {
                    prepared.statement = texts.canonical(prepared.statement.clone());
                }
                Event::Session(session) => {
                    self.origin = Arc::new(self.origin.with_session(session));
                }
                _ => {}
            }
            tell(&event, &self.origin, texts);
        }
    }
}

fn closed(header: &WireHeader) -> (Ending, u64) {
    (Ending::Closed, header.exit_ns)
}

/// Whether a connection begins with what was carried: its client's first byte is that of a length.
fn begins(side: Side, carried: &[Transfer]) -> bool {
    let is_clients =
        |transfer: &&Transfer| (transfer.header.direction == SENT) == (side == Side::Client);
    let first = carried.iter().find(is_clients);
    first.is_some_and(|first| first.head().first() == Some(&0))
}

/// Whether it was seen within a TLS library.
fn is_within_tls(header: &WireHeader) -> bool {
    header.source == source::TLS
}

/// A sequence number of 32 bits as the position next to the one that is expected. Positions begin high enough to go
/// back from.
fn extended(expected: Option<u64>, sequence: u64) -> u64 {
    const LOW: u64 = 0xffff_ffff;
    let Some(expected) = expected else {
        return (1 << 32) | (sequence & LOW);
    };
    let low = |number: u64| (number & LOW) as u32;
    let distance = low(sequence).wrapping_sub(low(expected)).cast_signed();
    expected.saturating_add_signed(i64::from(distance))
}

#[cfg(test)]
mod tests {
    use super::{Arc, Conversation, PASSING_MIN, SENT, Side, Transfer, WireHeader, family};
    use crate::postgres::{encrypted::tests::header, origin::tests::origin, texts::Texts};

    fn transfer(position: u64, bytes: Vec<u8>) -> Transfer {
        let length = bytes.len() as u64;
        let header = WireHeader {
            head: u32::try_from(length).unwrap(),
            direction: SENT,
            family: family::UNIX,
            length,
            entry_ns: 1,
            exit_ns: 2,
            position,
            ..header(5, 3, 4, 0)
        };
        Transfer { header, bytes }
    }

    /// The kernel side is told once that a long message has begun, where it ends, and once that it is over.
    #[test]
    fn long_messages_are_told_once() {
        let mut conversation = Conversation::new(Side::Server, Arc::new(origin()));
        let (mut texts, mut events) = (Texts::default(), Vec::new());
        let idle = b"Z\0\0\0\x05I".to_vec();
        let long = 2 * PASSING_MIN;
        let mut row = vec![b'D'];
        row.extend(u32::try_from(long + 4).unwrap().to_be_bytes());
        row.resize(8192, 0);
        let mut position = 0;
        let mut told = Vec::new();
        let total = long + 5;
        let mut carry = |bytes: Vec<u8>| {
            let transfer = transfer(position, bytes);
            position += transfer.header.length;
            conversation.take(&transfer, &mut texts, &mut events);
            told.extend(
                conversation
                    .passing(&transfer.header)
                    .map(|told| told.until),
            );
        };
        let end = idle.len() as u64 + total;
        carry(idle);
        carry(row);
        let mut left = total - 8192;
        while left > 0 {
            let piece = left.min(8192);
            carry(vec![0; usize::try_from(piece).unwrap()]);
            left -= piece;
        }
        assert_eq!(told, [[Some(end), None], [None, None]]);
    }
}
