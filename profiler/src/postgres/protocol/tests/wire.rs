//! Writes messages, puts them into conversations and runs those.

use std::{fmt::Write, sync::Arc};

use super::super::{
    Chunk, Connection, Copied, CopyDirection, Deed, Direction, Ending, Event, Extent, Outcome,
    Part, Side, Statement, StatementId, Statements, Text,
};

/// A message with a tag.
pub(super) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag], &length.to_be_bytes()[..], body].concat()
}

fn strings(parts: &[&str]) -> Vec<u8> {
    parts
        .iter()
        .flat_map(|part| [part.as_bytes(), b"\0"].concat())
        .collect()
}

pub(super) fn query(text: &str) -> Vec<u8> {
    message(b'Q', &strings(&[text]))
}

pub(super) fn parse(name: &str, text: &str) -> Vec<u8> {
    message(
        b'P',
        &[strings(&[name, text]), vec![0, 1, 0, 0, 0, 23]].concat(),
    )
}

/// Binds one parameter.
pub(super) fn bind_value(portal: &str, statement: &str, value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap().to_be_bytes();
    let values = [&[0, 1, 0, 1, 0, 1], &length[..], value, &[0, 0]].concat();
    message(b'B', &[strings(&[portal, statement]), values].concat())
}

pub(super) fn bind(portal: &str, statement: &str) -> Vec<u8> {
    bind_value(portal, statement, b"value")
}

pub(super) fn describe(kind: u8, name: &str) -> Vec<u8> {
    message(b'D', &[vec![kind], strings(&[name])].concat())
}

pub(super) fn execute(portal: &str, rows: u32) -> Vec<u8> {
    message(
        b'E',
        &[strings(&[portal]), rows.to_be_bytes().to_vec()].concat(),
    )
}

pub(super) fn close(kind: u8, name: &str) -> Vec<u8> {
    message(b'C', &[vec![kind], strings(&[name])].concat())
}

pub(super) fn function(oid: u32) -> Vec<u8> {
    message(
        b'F',
        &[&oid.to_be_bytes()[..], &[0, 0, 0, 0, 0, 1]].concat(),
    )
}

/// A message without a body.
pub(super) fn bare(tag: u8) -> Vec<u8> {
    message(tag, b"")
}

pub(super) fn sync() -> Vec<u8> {
    bare(b'S')
}

pub(super) fn data(bytes: &[u8]) -> Vec<u8> {
    message(b'd', bytes)
}

/// Columns of a row.
pub(super) fn columns() -> Vec<u8> {
    let facts = [0; 18];
    message(b'T', &[&[0, 1], &b"column\0"[..], &facts].concat())
}

pub(super) fn row(value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap().to_be_bytes();
    message(b'D', &[&[0, 1], &length[..], value].concat())
}

pub(super) fn rows(count: usize) -> Vec<u8> {
    row(b"a value that nobody keeps").repeat(count)
}

pub(super) fn command(tag: &str) -> Vec<u8> {
    message(b'C', &strings(&[tag]))
}

pub(super) fn error_of(severity: &str, code: &str) -> Vec<u8> {
    let fields = [
        format!("S{severity}"),
        format!("V{severity}"),
        format!("C{code}"),
        "Ma text that nobody keeps".to_owned(),
        "Fpostgres.c".to_owned(),
        String::new(),
    ];
    message(b'E', &strings(&fields.each_ref().map(String::as_str)))
}

pub(super) fn error(code: &str) -> Vec<u8> {
    error_of("ERROR", code)
}

pub(super) fn notice() -> Vec<u8> {
    message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mtext\0\0")
}

pub(super) fn parameter() -> Vec<u8> {
    message(b'S', b"TimeZone\0UTC\0")
}

pub(super) fn notification() -> Vec<u8> {
    message(b'A', b"\0\0\0\x07channel\0payload\0")
}

pub(super) fn ready(state: u8) -> Vec<u8> {
    message(b'Z', &[state])
}

/// `CopyInResponse`, `CopyOutResponse` or `CopyBothResponse`.
pub(super) fn copy(tag: u8) -> Vec<u8> {
    message(tag, &[0, 0, 1, 0, 0])
}

pub(super) fn authentication(kind: u32, rest: &[u8]) -> Vec<u8> {
    message(b'R', &[&kind.to_be_bytes()[..], rest].concat())
}

pub(super) fn key(pid: u32, secret: &[u8]) -> Vec<u8> {
    message(b'K', &[&pid.to_be_bytes()[..], secret].concat())
}

/// The first message of a client.
pub(super) fn first(code: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 8).unwrap();
    [&length.to_be_bytes(), &code.to_be_bytes()[..], body].concat()
}

pub(super) fn startup(code: u32, parameters: &[&str]) -> Vec<u8> {
    first(code, &[strings(parameters), vec![0]].concat())
}

/// A thing said in one system call.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) direction: Direction,
    pub(super) bytes: Vec<u8>,
    pub(super) entry_ns: u64,
    /// Position in its stream.
    pub(super) position: u64,
}

/// A conversation.
#[derive(Clone, Debug, Default)]
pub(super) struct Talk {
    pub(super) said: Vec<Said>,
    paused_ns: u64,
}

impl Talk {
    /// One that has begun and waits for the client.
    pub(super) fn begun() -> Self {
        let authenticated = [
            authentication(0, b""),
            parameter(),
            key(4242, b"KEY!"),
            ready(b'I'),
        ];
        Self::default()
            .client(&[startup(196_608, &["user", "u", "database", "d"])])
            .server(&authenticated)
    }

    fn say(mut self, direction: Direction, messages: &[Vec<u8>]) -> Self {
        let before = self
            .said
            .iter()
            .rev()
            .find(|said| said.direction == direction);
        let position = before.map_or(1 << 32, |said| said.position + said.bytes.len() as u64);
        let entry_ns = self.said.len() as u64 * 100 + self.paused_ns;
        self.said.push(Said {
            direction,
            bytes: messages.concat(),
            entry_ns,
            position,
        });
        self
    }

    /// Nothing is said for two seconds.
    pub(super) fn pause(mut self) -> Self {
        self.paused_ns += 2_000_000_000;
        self
    }

    pub(super) fn client(self, messages: &[Vec<u8>]) -> Self {
        self.say(Direction::Frontend, messages)
    }

    pub(super) fn server(self, messages: &[Vec<u8>]) -> Self {
        self.say(Direction::Backend, messages)
    }

    /// Runs it up to the end of the recording.
    pub(super) fn run(&self, side: Side) -> Told {
        let mut listener = Listener::new(side);
        self.said.iter().for_each(|said| listener.hear(said));
        listener.end(Ending::Recording)
    }
}

impl Said {
    pub(super) fn chunk(&self) -> Chunk<'_> {
        Chunk {
            direction: self.direction,
            position: self.position,
            length: self.bytes.len() as u64,
            head: &self.bytes,
            tail: b"",
            entry_ns: self.entry_ns,
            exit_ns: self.entry_ns + 50,
            tid: 1,
        }
    }

    /// Its bytes in two calls.
    pub(super) fn split(&self, at: usize) -> [Self; 2] {
        let (first, second) = self.bytes.split_at(at);
        let part = |bytes: &[u8], position| Self {
            bytes: bytes.to_vec(),
            position,
            ..self.clone()
        };
        [
            part(first, self.position),
            part(second, self.position + at as u64),
        ]
    }
}

/// Texts by id; statements are what semicolons separate.
#[derive(Debug, Default)]
pub(super) struct Texts {
    pub(super) sent: Vec<String>,
    /// What the server took, and whether that is certain.
    pub(super) accepted: Vec<(StatementId, bool)>,
    /// Texts that were read by the parameters of the server.
    pub(super) settled: Vec<StatementId>,
    pub(super) parameters: Vec<String>,
    /// How often all was answered.
    pub(super) answered: usize,
}

impl Statements for Texts {
    fn simple(&mut self, text: Text<'_>, ids: &mut Vec<StatementId>) {
        let parts = text.bytes.split(|byte| *byte == b';');
        for part in parts.filter(|part| !part.trim_ascii().is_empty()) {
            ids.push(self.prepared(Text {
                bytes: part,
                ..text
            }));
        }
    }

    fn prepared(&mut self, sent: Text<'_>) -> StatementId {
        let mut text = String::from_utf8_lossy(sent.bytes.trim_ascii()).into_owned();
        if sent.extent == Extent::Cut {
            text.push_str("...");
        }
        let at = self.sent.iter().position(|known| *known == text);
        let at = at.unwrap_or_else(|| {
            self.sent.push(text);
            self.sent.len() - 1
        });
        let id = StatementId(u64::try_from(at).unwrap());
        if sent.is_settled {
            self.settled.push(id);
        }
        id
    }

    fn deed(&mut self, id: StatementId) -> Option<Arc<Deed>> {
        let text = self.sent[usize::try_from(id.0).unwrap()].clone();
        let (verb, rest) = text.split_once(' ')?;
        let word = |at| rest.split(' ').nth(at).unwrap_or("").as_bytes().into();
        Some(Arc::new(match verb {
            "PREPARE" => Deed::Prepares { name: word(0) },
            "EXECUTE" => Deed::Executes { name: word(0) },
            "DEALLOCATE" => Deed::Deallocates { name: word(0) },
            "DECLARE" => Deed::Declares {
                name: word(0),
                is_held: rest.contains("WITH HOLD"),
            },
            "FETCH" => Deed::Fetches { name: word(1) },
            "MOVE" => Deed::Moves { name: word(1) },
            "CLOSE" if rest == "ALL" => Deed::ClosesAll,
            "CLOSE" => Deed::Closes { name: word(0) },
            _ => return None,
        }))
    }

    fn part(&mut self, id: StatementId, part: Part) -> Option<StatementId> {
        let text = &self.sent[usize::try_from(id.0).unwrap()];
        let text = match part {
            Part::Body => text.split_once(": ")?.1.to_owned(),
            Part::Fetch => format!("fetch of {text}"),
            Part::Move => format!("move of {text}"),
        };
        Some(self.prepared(Text {
            bytes: text.as_bytes(),
            extent: Extent::Whole,
            is_settled: false,
        }))
    }

    fn parameter(&mut self, name: &[u8], value: &[u8]) {
        let [name, value] = [name, value].map(String::from_utf8_lossy);
        self.parameters.push(format!("{name}={value}"));
    }

    fn accepted(&mut self, id: StatementId, is_certain: bool) {
        self.accepted.push((id, is_certain));
    }

    fn answered(&mut self) {
        self.answered += 1;
    }
}

/// Hears conversations.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) connection: Connection,
    pub(super) texts: Texts,
    pub(super) events: Vec<Event>,
    now_ns: u64,
}

impl Listener {
    pub(super) fn new(side: Side) -> Self {
        Self {
            connection: Connection::new(side),
            texts: Texts::default(),
            events: Vec::new(),
            now_ns: 0,
        }
    }

    pub(super) fn hear(&mut self, said: &Said) {
        self.take(&said.chunk());
    }

    pub(super) fn take(&mut self, chunk: &Chunk<'_>) {
        self.now_ns = chunk.exit_ns;
        self.connection
            .take(chunk, &mut self.texts, &mut self.events);
    }

    pub(super) fn end(mut self, ending: Ending) -> Told {
        self.connection
            .end(ending, self.now_ns + 50, &mut self.events);
        Told {
            texts: self.texts,
            events: self.events,
        }
    }
}

/// What a listener was told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) texts: Texts,
    pub(super) events: Vec<Event>,
}

impl Told {
    pub(super) fn text(&self, statement: &Statement) -> String {
        match statement {
            Statement::Known(id) => self.texts.sent[usize::try_from(id.0).unwrap()].clone(),
            Statement::Named(name, _) => format!("<{name}>"),
            Statement::Function(oid) => format!("<function {oid}>"),
            Statement::Empty => "<empty>".to_owned(),
            Statement::Unknown => "<unknown>".to_owned(),
        }
    }

    pub(super) fn calls(&self) -> impl Iterator<Item = &super::super::Call> {
        self.events.iter().filter_map(|event| match event {
            Event::Call(call) => Some(call),
            _ => None,
        })
    }

    /// The one call that there is.
    pub(super) fn call(&self) -> &super::super::Call {
        let mut calls = self.calls();
        let call = calls.next().unwrap();
        assert_eq!(calls.next(), None);
        call
    }

    /// Calls and what was prepared in words, in order.
    pub(super) fn lines(&self) -> Vec<String> {
        self.events
            .iter()
            .filter_map(|event| self.line(event))
            .collect()
    }

    fn line(&self, event: &Event) -> Option<String> {
        let call = match event {
            Event::Call(call) => call,
            Event::Prepared(prepared) => {
                let text = self.text(&prepared.statement);
                let failed = prepared.failure.map(|failure| failure.sqlstate.to_string());
                let failed = failed.map_or_else(String::new, |code| format!(" {code}"));
                return Some(format!("{:?} {text}{failed}", prepared.step));
            }
            _ => return None,
        };
        let mut line = self.text(&call.statement);
        match call.outcome {
            Outcome::Completed => write!(line, ": {}", call.rows.total()).unwrap(),
            Outcome::Failed(failure) => write!(line, ": {}", failure.sqlstate).unwrap(),
            other => write!(line, ": {other:?}").unwrap(),
        }
        if call.fetches > 1 {
            write!(line, " in {}", call.fetches).unwrap();
        }
        match call.copy {
            Some(Copied {
                direction: CopyDirection::In,
                bytes,
            }) => write!(line, " in {bytes} B").unwrap(),
            Some(Copied { bytes, .. }) => write!(line, " out {bytes} B").unwrap(),
            None => {}
        }
        Some(line)
    }
}
