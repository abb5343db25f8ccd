//! Sockets: which of them speak Postgres, and a machine of the protocol for each that does. Pure.

use std::{collections::hash_map::Entry, mem, sync::Arc};

use profiler_common::wire::{SENT, WireHeader, family, passing, source};
use rustc_hash::FxHashMap;

use super::{
    account::Sockets,
    dialect::{Dialect, Parameters, Speech},
    encrypted::Encrypted,
    now::UnderWay,
    origin::Origin,
    protocol::{
        Call, Connection, Direction, Ending, Event, Now, Recognition, Side, Statement, StatementId,
        TransactionState,
    },
    report::text,
    texts::Texts,
    transfer::Transfer,
    undecided::{Shown, Undecided, quiet_ns},
};

/// Bytes to come of a message from which on they need not be copied: what is under way already comes all the same.
const PASSING_MIN: u64 = 256 << 10;

/// Most sockets that are followed at once.
const SOCKETS_MAX: usize = 50_000;

/// What is to be done about a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// Nothing more of it is wanted.
    pub(super) ignore: Option<Ignore>,
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

/// A socket of which nothing more is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ignore {
    /// Address and inode number.
    pub(super) socket: (u64, u64),
    /// Since when, and until it was silent for how long, ns.
    pub(super) since_ns: u64,
    pub(super) quiet_ns: u64,
}

/// What is known of a connection that is met.
pub(super) struct Met {
    pub(super) origin: Origin,
    /// By what the server reads it, if its beginning was not seen.
    pub(super) parameters: Parameters,
    /// The server waited for its client when the recording began: the state of the transaction.
    pub(super) idle: Option<TransactionState>,
    /// When the recording began, ns.
    pub(super) since_ns: u64,
    /// What ran then, and since when, ns.
    pub(super) ran: Option<(StatementId, u64)>,
    /// The server's process, if it is known.
    pub(super) backend: Option<u32>,
}

/// Of which bytes of a socket nothing more is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passing {
    /// Address and inode number.
    pub(super) socket: (u64, u64),
    /// The position before which that is so, of what is sent and received.
    pub(super) until: [Option<u64>; 2],
    /// One of [`passing`].
    pub(super) why: u64,
}

/// What is asked of the rest of the system.
pub(super) trait World {
    /// Where a connection leads that is new; whether its beginning was seen.
    fn meet(&mut self, header: &WireHeader, side: Side, is_begun: bool) -> Met;
    /// Whether a process is one of a server.
    fn is_server(&mut self, pid: u32) -> bool;
    /// `CLOCK_MONOTONIC`, ns.
    fn now_ns(&mut self) -> u64;
}

/// All sockets.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// By address.
    followed: FxHashMap<u64, Stream>,
    sockets: Sockets,
    encrypted: Encrypted,
    events: Vec<Event>,
    /// Connections of Postgres that were met.
    met: u32,
}

#[derive(Debug)]
struct Stream {
    /// Of what it carried last: who it is, and who used it.
    last: WireHeader,
    what: What,
}

#[derive(Debug)]
enum What {
    /// Nothing so far.
    Undecided(Undecided),
    Postgres(Box<Conversation>),
    /// Something else, given up for the first time, the second, … at this time, ns.
    Other {
        tries: u32,
        since_ns: u64,
    },
}

/// Why nothing more of a socket is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It has not spoken Postgres up to now, ns.
    Other(u64),
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
    /// The last call, if it had no text and nothing was asked since.
    last: Option<Call>,
    /// Texts that became known, to be told.
    learned: Vec<Event>,
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
        let open = |stream: &&Stream| matches!(stream.what, What::Postgres(_));
        sockets.open = self.followed.values().filter(open).count() as u64;
        sockets.encrypted = self.encrypted.counts();
        sockets
    }

    /// Takes a transfer, in order. `world` says what is known of a connection that is new.
    pub(super) fn take(
        &mut self,
        transfer: Transfer,
        texts: &mut Texts,
        world: &mut impl World,
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
                last: header,
                what: What::Undecided(Undecided::default()),
            }),
        };
        if stream.last.tgid != header.tgid {
            stream.last = header;
        }
        if let What::Other { tries, since_ns } = stream.what {
            // It was silent for long enough: else the kernel side would not tell it.
            if header.exit_ns <= since_ns || is_within_tls(&header) {
                return Told::default();
            }
            self.sockets.other = self.sockets.other.saturating_sub(1);
            stream.what = What::Undecided(Undecided::again(tries));
        }
        let What::Undecided(undecided) = &mut stream.what else {
            return self.hear(vec![transfer], texts, tell);
        };
        let Shown {
            recognition,
            passing,
        } = undecided.take(transfer);
        let told = match recognition {
            // The library gave the connection up.
            Recognition::Undecided if header.length == 0 && is_within_tls(&header) => {
                self.close(header.socket, closed(&header), texts, tell);
                Told::default()
            }
            Recognition::Undecided => Told::default(),
            Recognition::Postgres(side) => {
                self.sockets.postgres += 1;
                let heard = undecided.heard();
                self.met = self.met.wrapping_add(1).max(1);
                let conversation = Conversation::meet((side, self.met), &header, &heard, world);
                stream.what = What::Postgres(Box::new(conversation));
                self.hear(heard, texts, tell)
            }
            Recognition::Tls if !is_within_tls(&header) => self.give_up(&header, Why::Encrypted),
            Recognition::Other if world.is_server(header.tgid) => {
                undecided.keep();
                Told::default()
            }
            Recognition::Tls | Recognition::Other => {
                self.give_up(&header, Why::Other(world.now_ns()))
            }
        };
        Told {
            passing: told.passing.or(passing),
            ..told
        }
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
            conversation.used_by(header.tgid);
            if conversation.direction(&header) == Direction::Frontend && header.length > 0 {
                conversation.look_back(transfer.time_ns(), texts);
                conversation.last = None;
            }
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
            Why::Other(_) => self.sockets.other += 1,
            Why::Encrypted => self.encrypted.found(header, false),
            Why::PostgresEncrypted => {
                self.sockets.postgres -= 1;
                self.encrypted.found(header, true);
            }
        }
        if is_within_tls(header) {
            // Its number is not given again.
            self.followed.remove(&header.socket);
        }
        // For good, as what is encrypted stays so.
        let mut ignore = Ignore {
            socket: (header.socket, header.inode),
            since_ns: u64::MAX,
            quiet_ns: u64::MAX,
        };
        if let Some(stream) = self.followed.get_mut(&header.socket) {
            let mut tries = 0;
            if let (Why::Other(now_ns), What::Undecided(undecided)) = (why, &stream.what) {
                tries = undecided.tries();
                (ignore.since_ns, ignore.quiet_ns) = (now_ns, quiet_ns(tries));
            }
            stream.what = What::Other {
                tries,
                since_ns: ignore.since_ns,
            };
        }
        Told {
            ignore: Some(ignore),
            is_encrypted: !matches!(why, Why::Other(_)),
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
        if known.is_some_and(|stream| stream.last.inode != header.inode) {
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
            What::Other { .. } => {}
        }
    }

    /// What a process used last, by what it carried then.
    pub(super) fn used_by(&self, pid: u32) -> Vec<WireHeader> {
        let all = self.followed.values().map(|stream| stream.last);
        all.filter(|last| last.tgid == pid).collect()
    }

    /// Ends connections, as they are closed or nothing more of them is wanted.
    pub(super) fn leave(
        &mut self,
        sockets: &[WireHeader],
        ending: (Ending, u64),
        texts: &mut Texts,
        mut tell: impl FnMut(&Event, &Arc<Origin>, &Texts),
    ) {
        for header in sockets {
            let stream = self.followed.get(&header.socket);
            if stream.is_some_and(|stream| stream.last.inode == header.inode) {
                self.close(header.socket, ending, texts, &mut tell);
            }
        }
    }

    /// What connections are in the middle of by what was seen of them, with the inode number of each.
    pub(super) fn under_way(&self, now_ns: u64, texts: &mut Texts) -> Vec<(u64, UnderWay)> {
        let streams = self.followed.values();
        let told = streams.filter_map(|stream| match &stream.what {
            What::Postgres(conversation) => {
                Some((stream.last.inode, conversation.now(now_ns, texts)?))
            }
            _ => None,
        });
        told.collect()
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
    /// One that was recognised by what was heard of it.
    fn meet(
        (side, number): (Side, u32),
        header: &WireHeader,
        heard: &[Transfer],
        world: &mut impl World,
    ) -> Self {
        let is_clients =
            |transfer: &&Transfer| (transfer.header.direction == SENT) == (side == Side::Client);
        let first = heard.iter().find(is_clients);
        // Its client's first byte is that of a length.
        let is_begun = first.is_some_and(|first| first.head().first() == Some(&0));
        let met = world.meet(header, side, is_begun);
        let mut conversation = Self::new((side, number), Arc::new(met.origin));
        conversation.dialect.parameters = met.parameters;
        conversation.backend = met.backend;
        // Else an answer came before.
        let is_asked = heard.first().as_ref().is_some_and(is_clients) && heard.len() == 1;
        if is_asked && !is_begun {
            conversation
                .connection
                .begin_between(met.idle, met.since_ns);
        } else if let Some((id, begin_ns)) = met.ran {
            conversation.connection.begin_within(id, begin_ns);
        }
        conversation
    }

    fn new((side, number): (Side, u32), origin: Arc<Origin>) -> Self {
        Self {
            side,
            origin,
            connection: Connection::numbered(side, number),
            positions: [None; 2],
            passing: [None; 2],
            backend: None,
            is_unknown: false,
            last: None,
            learned: Vec::new(),
            dialect: Dialect::default(),
        }
    }

    /// A process may use what another one has opened.
    fn used_by(&mut self, pid: u32) {
        if self.origin.pid != pid {
            let mut origin = Origin::clone(&self.origin);
            origin.pid = pid;
            self.origin = Arc::new(origin);
        }
    }

    /// What it is in the middle of.
    fn now(&self, now_ns: u64, texts: &mut Texts) -> Option<UnderWay> {
        let (state, statement, since_ns) = match self.connection.now()? {
            Now::Working(statement, since_ns) => ("active", Some(statement), since_ns),
            Now::Open(since_ns) => ("idle in transaction", None, since_ns),
        };
        if let Some(id) = self.connection.under_way(now_ns) {
            texts.is_under_way(id);
        }
        let statement = statement.map(|statement| texts.canonical(statement));
        let (text, fingerprint) = match &statement {
            Some(statement) => text(Some(statement), texts),
            None => (String::new(), None),
        };
        Some(UnderWay {
            statement: text,
            fingerprint,
            state,
            age_ns: now_ns.saturating_sub(since_ns),
            is_at_least: false,
            transaction_ns: None,
            wait: None,
            backend: self.origin.backend,
            client: (self.side == Side::Client).then_some(self.origin.pid),
            origin: Arc::clone(&self.origin),
        })
    }

    /// Nothing more will come.
    fn end(
        &mut self,
        (ending, time_ns): (Ending, u64),
        texts: &mut Texts,
        events: &mut Vec<Event>,
    ) {
        self.look_back(time_ns, texts);
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
            why: passing::MESSAGE,
        })
    }

    /// Finds out which statement a call was whose text was sent before the recording.
    fn recognise(&mut self, call: &mut Call, texts: &mut Texts) {
        if !matches!(call.statement, Statement::Named(..)) {
            return;
        }
        let id = self
            .backend
            .and_then(|backend| texts.of_call(backend, call));
        if let Some(id) = id {
            self.learn(&call.statement, id, texts);
            call.statement = Statement::Known(id);
        } else {
            self.is_unknown = true;
            self.last = Some(call.clone());
        }
    }

    /// Finds out what the last call was, if the backend still says so: nothing was asked before that time, ns.
    fn look_back(&mut self, until_ns: u64, texts: &mut Texts) {
        let Some(call) = self.last.take() else {
            return;
        };
        let backend = self.backend;
        match backend.and_then(|backend| texts.of_last(backend, &call, until_ns)) {
            Some(id) => self.learn(&call.statement, id, texts),
            None => self.last = Some(call),
        }
    }

    fn learn(&mut self, named: &Statement, id: StatementId, texts: &Texts) {
        self.connection.learn(named, id);
        self.learned.push(Event::Learned {
            named: named.clone(),
            known: texts.canonical(Statement::Known(id)),
        });
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
        for event in self.learned.drain(..) {
            tell(&event, &self.origin, texts);
        }
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
        let mut conversation = Conversation::new((Side::Server, 1), Arc::new(origin()));
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
