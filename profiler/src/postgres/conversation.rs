//! A connection with Postgres: the machine of its protocol, who it is, and what it is in the middle of. Pure.

use std::{mem, sync::Arc};

use profiler_common::wire::{SENT, WireHeader, family, passing, source};

use super::{
    dialect::{Dialect, Parameters, Speech},
    now::UnderWay,
    origin::Origin,
    protocol::{
        Call, Connection, Direction, Ending, Event, Now, Side, Statement, StatementId,
        TransactionState,
    },
    report::text,
    texts::Texts,
    transfer::Transfer,
};

/// Where nothing was said for so long since the recording began, nothing is under way, ns.
const SILENT_NS: u64 = 1_000_000_000;
/// Bytes to come of a message from which on they need not be copied: what is under way already comes all the same.
const PASSING_MIN: u64 = 256 << 10;

/// Whose statement has no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unknown {
    /// A call through the connection's socket.
    pub(super) header: WireHeader,
    pub(super) side: Side,
    /// The server's process, once it was told ([`Streams::set_backend`]).
    pub(super) backend: Option<u32>,
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

/// A connection with Postgres.
#[derive(Debug)]
pub(super) struct Conversation {
    side: Side,
    origin: Arc<Origin>,
    connection: Connection,
    /// Where the next byte sent and received is expected, extended to 64 bits.
    positions: [Option<u64>; 2],
    /// What the kernel side was told of long messages: where they end, of what is sent and received.
    passing: [Option<u64>; 2],
    /// The server's process, if it is known.
    pub(super) backend: Option<u32>,
    /// A call without a text was told.
    is_unknown: bool,
    /// The last call, if it had no text and nothing was asked since.
    pub(super) last: Option<Call>,
    /// Texts that became known, not emitted so far.
    learned: Vec<Event>,
    dialect: Dialect,
}

impl Conversation {
    /// One that was recognised by what was heard of it.
    pub(super) fn meet(
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
        // What passes through a TLS library is seen from some later time on.
        let silent_ns = first.map_or(0, |first| first.time_ns().saturating_sub(met.since_ns));
        let was_silent = header.source == source::SOCKET && silent_ns >= SILENT_NS;
        if is_asked && !is_begun && (met.idle.is_some() || was_silent) {
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
    pub(super) fn used_by(&mut self, pid: u32) {
        if self.origin.pid != pid {
            let mut origin = Origin::clone(&self.origin);
            origin.pid = pid;
            self.origin = Arc::new(origin);
        }
    }

    /// What it is in the middle of.
    pub(super) fn now(&self, now_ns: u64, texts: &mut Texts) -> Option<UnderWay> {
        let (state, statement, since_ns) = match self.connection.now()? {
            Now::Working(statement, since_ns) => ("active", Some(statement), since_ns),
            Now::Open(since_ns) => ("idle in transaction", None, since_ns),
        };
        if let Some(id) = self.connection.under_way(now_ns) {
            texts.is_under_way(id);
        }
        let statement = statement.map(Texts::canonical);
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
            kind: None,
            query_id: None,
            backend: self.origin.backend,
            client: (self.side == Side::Client).then_some(self.origin.pid),
            origin: Arc::clone(&self.origin),
        })
    }

    /// Nothing more will come.
    pub(super) fn end(
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

    pub(super) fn take(&mut self, transfer: &Transfer, texts: &mut Texts, events: &mut Vec<Event>) {
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
    pub(super) fn passing(&mut self, header: &WireHeader) -> Option<Passing> {
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
            self.learn(&call.statement, id);
            call.statement = Statement::Known(id);
        } else {
            self.is_unknown = true;
            self.last = Some(call.clone());
        }
    }

    /// Finds out what the last call was, if the backend still says so: nothing was asked before that time, ns.
    pub(super) fn look_back(&mut self, until_ns: u64, texts: &mut Texts) {
        let Some(call) = self.last.take() else {
            return;
        };
        let backend = self.backend;
        match backend.and_then(|backend| texts.of_last(backend, &call, until_ns)) {
            Some(id) => self.learn(&call.statement, id),
            None => self.last = Some(call),
        }
    }

    fn learn(&mut self, named: &Statement, id: StatementId) {
        self.connection.learn(named, id);
        self.learned.push(Event::Learned {
            named: named.clone(),
            known: Texts::canonical(Statement::Known(id)),
        });
    }

    pub(super) fn unknown(&mut self, header: &WireHeader) -> Option<Unknown> {
        let is_unknown = mem::take(&mut self.is_unknown) || self.connection.runs_unknown();
        is_unknown.then_some(Unknown {
            header: *header,
            side: self.side,
            backend: self.backend,
        })
    }

    pub(super) fn direction(&self, header: &WireHeader) -> Direction {
        match (self.side, header.direction == SENT) {
            (Side::Client, true) | (Side::Server, false) => Direction::Frontend,
            (Side::Client, false) | (Side::Server, true) => Direction::Backend,
        }
    }

    /// Tells what has happened, each statement by the number that all its texts have.
    pub(super) fn tell(
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
                    call.statement = Texts::canonical(call.statement.clone());
                }
                Event::Prepared(prepared) => {
                    prepared.statement = Texts::canonical(prepared.statement.clone());
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
