//! One connection: bytes in, events out. It knows where each direction is within its messages, and what to do where
//! that is not known: wait until the server is between requests.

use super::{
    anchor::Anchor,
    answer::Answered,
    chunk::{Chunk, Direction, Fresh, Side, Stamp, Stream},
    event::{
        Call, Cause, Ending, Event, Lost, Opaque, Outcome, Statement, StatementId, TransactionState,
    },
    exchange::{Context, Errors, Exchange},
    failure::Abandoned,
    framer::{Form, Framed, Framer},
    gap::unsee,
    message::Kind,
    startup::{Consent, Encryption, Startup, is_tls},
    statements::Statements,
};

/// A connection, as its bytes tell it.
#[derive(Debug)]
pub struct Connection {
    side: Side,
    pub(super) phase: Phase,
    pub(super) frontend: Half,
    pub(super) backend: Half,
    pub(super) exchange: Exchange,
    pub(super) anchor: Anchor,
    /// Chunks that came.
    chunks: u64,
    /// Bytes from the server since its last message that was seen whole.
    pub(super) blind_bytes: u64,
    /// A call that is right unless requests are missing, which their next position will tell.
    pub(super) unproved: Option<Box<Call>>,
    pub(super) lost: Option<Lost>,
    /// What ran when nothing had been seen, and since when, ns.
    pub(super) before: Option<(StatementId, u64)>,
}

/// What a connection is in the middle of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Now {
    /// The server works at this since a time, ns.
    Working(Statement, u64),
    /// A transaction is open, and the server has waited for its client since then, ns.
    Open(u64),
}

/// One direction.
#[derive(Debug)]
pub(super) struct Half {
    stream: Stream,
    pub(super) framer: Framer,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Anything: nothing was seen.
    New,
    /// A start-up packet.
    Starting,
    /// The answer to a request to encrypt.
    Encrypting(Encryption),
    /// Messages.
    Running,
    /// Answers to the requests that are known. Where further ones begin is not known.
    Draining,
    /// Requests. Where answers begin is not known.
    Blind,
    /// Where messages begin is not known.
    Seeking,
    /// Nothing of interest.
    Opaque,
}

/// Where bytes come from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) direction: Direction,
    pub(super) stamp: Stamp,
    /// Nothing follows them in their chunk.
    pub(super) is_end: bool,
}

/// What bytes amount to.
enum Step {
    Starved,
    Went(Answered),
    Startup(Startup),
    Broken(Cause),
}

impl Connection {
    /// A connection of which nothing has been seen.
    pub fn new(side: Side) -> Self {
        Self::numbered(side, 0)
    }

    /// The same with a number that keeps its statements apart from those of others with the same name.
    pub fn numbered(side: Side, number: u32) -> Self {
        let half = |direction| Half {
            stream: Stream::default(),
            framer: Framer::new(direction),
        };
        Self {
            side,
            phase: Phase::New,
            frontend: half(Direction::Frontend),
            backend: half(Direction::Backend),
            exchange: Exchange::new(side, number),
            anchor: Anchor::default(),
            chunks: 0,
            blind_bytes: 0,
            unproved: None,
            lost: None,
            before: None,
        }
    }

    /// Nothing was seen so far, and the server is busy with this since a time, ns.
    pub fn begin_within(&mut self, id: StatementId, begin_ns: u64) {
        self.before = Some((id, begin_ns));
    }

    /// What it is in the middle of, as far as that was seen.
    pub fn now(&self) -> Option<Now> {
        let is_known = matches!(self.phase, Phase::Running | Phase::Draining);
        self.exchange.now().filter(|_| is_known)
    }

    /// Nothing was seen so far, and the client's next byte begins a message. Where the server was seen to wait for it,
    /// `known` is the state of its transaction, and all that follows is certain; else nothing was seen since `since_ns`.
    pub fn begin_between(&mut self, known: Option<TransactionState>, since_ns: u64) {
        self.exchange.begin(known, since_ns);
        self.phase = Phase::Running;
        self.frontend.framer.restart(Form::Tagged);
        self.backend.framer.restart(Form::Tagged);
    }

    /// Takes what a system call carried. Chunks come in the order of the times that count (see [`Side`]).
    pub fn take<S: Statements>(
        &mut self,
        chunk: &Chunk<'_>,
        statements: &mut S,
        events: &mut Vec<Event>,
    ) {
        self.chunks += 1;
        let before = events.len();
        let direction = chunk.direction;
        let Fresh {
            missing,
            head,
            hole,
            tail,
        } = self.half(direction).stream.advance(chunk);
        if self.phase == Phase::Opaque {
            return;
        }
        if direction == Direction::Frontend
            && let Some(mut call) = self.unproved.take()
        {
            if missing > 0 {
                unsee(&mut call);
            }
            events.push(Event::Call(*call));
        }
        let mut source = Source {
            direction,
            stamp: chunk.stamp(self.side, self.chunks),
            is_end: hole == 0 && tail.is_empty(),
        };
        let mut context = Context { statements, events };
        self.skip(missing, Cause::Missing, source, &mut context);
        self.read(head, source, &mut context);
        self.skip(hole, Cause::NotCopied, source, &mut context);
        source.is_end = true;
        self.read(tail, source, &mut context);
        self.exchange.calls.settle(context.events);
        self.exchange.settle_names(before, &mut context);
    }

    /// Bytes to come of a direction that are within a message of which nothing more is looked at.
    pub fn passing_bytes(&self, direction: Direction) -> u64 {
        match (self.phase, direction) {
            (Phase::Running, Direction::Frontend) => self.frontend.framer.passing_bytes(),
            (Phase::Running, Direction::Backend) => self.backend.framer.passing_bytes(),
            _ => 0,
        }
    }

    /// Whether a statement is under way whose text was not seen.
    pub fn runs_unknown(&self) -> bool {
        self.phase == Phase::Running && self.exchange.runs_unknown()
    }

    /// The statement that the server is busy with, if it has been for a while.
    pub fn under_way(&self, now_ns: u64) -> Option<StatementId> {
        let is_known = matches!(self.phase, Phase::Running | Phase::Draining);
        self.exchange.under_way(now_ns).filter(|_| is_known)
    }

    /// The text of a statement that was known by its name only.
    pub fn learn(&mut self, named: &Statement, id: StatementId) {
        self.exchange.statements.learn(named, id);
    }

    /// Nothing more will come.
    pub fn end(&mut self, ending: Ending, now_ns: u64, events: &mut Vec<Event>) {
        events.extend(self.unproved.take().map(|call| Event::Call(*call)));
        self.exchange.calls.flush(events);
        let outcome = match (ending, self.phase, self.exchange.errors) {
            (_, Phase::Blind, _) => Outcome::Unseen,
            (_, _, Errors::UntilSync | Errors::Open(..)) => Outcome::Skipped,
            (Ending::Closed, ..) => Outcome::Aborted,
            (Ending::Recording, ..) => Outcome::Unfinished,
        };
        let abandoned = Abandoned {
            time_ns: (outcome != Outcome::Unseen).then_some(now_ns),
            ..Abandoned::all(outcome)
        };
        let told = self.exchange.abandon(abandoned, None, events);
        if self.phase == Phase::Blind {
            self.begin_loss(Cause::NotCopied, now_ns);
            self.miss(self.blind_bytes);
            self.lost.iter_mut().for_each(|lost| lost.unseen += told);
        }
        self.exchange.preparation_ends(events);
        self.exchange.portals.clear(events);
        self.exchange.transactions.end(now_ns, ending, events);
        self.found(now_ns, events);
        self.phase = Phase::Opaque;
    }

    /// Bytes that are allocated for what grows with the traffic; an estimate.
    pub fn memory(&self) -> usize {
        self.frontend.framer.memory() + self.backend.framer.memory() + self.exchange.memory()
    }

    fn half(&mut self, direction: Direction) -> &mut Half {
        match direction {
            Direction::Frontend => &mut self.frontend,
            Direction::Backend => &mut self.backend,
        }
    }

    fn read<S: Statements>(
        &mut self,
        mut bytes: &[u8],
        source: Source,
        context: &mut Context<'_, S>,
    ) {
        use Direction::{Backend, Frontend};
        while let Some(&first) = bytes.first() {
            match (self.phase, source.direction) {
                (Phase::Opaque, _) => return,
                (Phase::New, Frontend) if matches!(first, 0 | 0x16) => self.await_startup(),
                (Phase::New, _) | (Phase::Starting, Backend) => {
                    self.seek(Cause::Attached, source.stamp, context);
                }
                (Phase::Seeking, _) | (Phase::Draining, Frontend) => {
                    return self.pass(bytes, source, context);
                }
                (Phase::Blind, Backend) => return self.look(bytes, source, context),
                (Phase::Encrypting(encryption), Backend) => match encryption.answer(first) {
                    Some(Consent::Yes(opaque)) => self.close(opaque, context),
                    Some(Consent::No) => {
                        bytes = &bytes[1..];
                        self.await_startup();
                    }
                    Some(Consent::Error) => self.phase = Phase::Running,
                    None => self.seek(Cause::Unexpected, source.stamp, context),
                },
                (Phase::Encrypting(_), Frontend) => {
                    self.seek(Cause::Unexpected, source.stamp, context);
                }
                (Phase::Starting | Phase::Running | Phase::Draining | Phase::Blind, _) => {
                    let framer = match source.direction {
                        Frontend => &mut self.frontend.framer,
                        Backend => &mut self.backend.framer,
                    };
                    let framed = framer.next(&mut bytes, source.stamp);
                    let step = deliver(&framed, &mut self.exchange, source.direction, context);
                    if matches!(step, Step::Starved | Step::Went(Answered::Part)) {
                        continue;
                    }
                    let is_end = source.is_end && bytes.is_empty();
                    self.go(step, Source { is_end, ..source }, context);
                }
            }
        }
    }

    /// Passes over bytes that did not come or were not copied.
    fn skip<S: Statements>(
        &mut self,
        bytes: u64,
        cause: Cause,
        source: Source,
        context: &mut Context<'_, S>,
    ) {
        if bytes == 0 {
            return;
        }
        match (self.phase, source.direction) {
            (Phase::Opaque, _) => {}
            (Phase::Seeking, direction) | (Phase::Draining, direction @ Direction::Frontend) => {
                if direction == Direction::Backend {
                    self.anchor.interrupt();
                }
                self.miss(bytes);
            }
            (Phase::Blind, Direction::Backend) if cause == Cause::NotCopied => {
                self.anchor.interrupt();
                self.blind_bytes += bytes;
            }
            (Phase::Starting | Phase::Running | Phase::Draining | Phase::Blind, direction) => {
                let framer = match direction {
                    Direction::Frontend => &mut self.frontend.framer,
                    Direction::Backend => &mut self.backend.framer,
                };
                let pending_bytes = framer.pending_bytes();
                let framed = framer.hole(bytes, source.stamp);
                if matches!(framed, Framed::Broken) {
                    self.stumble(pending_bytes + bytes, cause, source, context);
                    return;
                }
                let step = deliver(&framed, &mut self.exchange, direction, context);
                let is_end = false;
                self.go(step, Source { is_end, ..source }, context);
            }
            (Phase::New | Phase::Encrypting(_), _) => {
                self.seek(cause, source.stamp, context);
                self.miss(bytes);
            }
        }
    }

    /// Does what a message means for the connection.
    fn go<S>(&mut self, step: Step, source: Source, context: &mut Context<'_, S>) {
        match step {
            Step::Starved | Step::Went(Answered::Part) => {}
            Step::Went(Answered::Replication) => self.close(Opaque::Replication, context),
            // The last request that is known is answered, and nothing more comes: further ones begin anew.
            Step::Went(Answered::Ready(state)) => {
                let is_idle = source.is_end && self.exchange.queue.len() == 0;
                if self.phase == Phase::Draining && is_idle {
                    self.unsee_all(context.events);
                    self.enter(state, source.stamp, context);
                }
            }
            Step::Startup(startup) => self.start(startup, source.stamp, context),
            Step::Broken(_) if self.phase == Phase::Starting => {
                if is_tls(self.frontend.framer.header()) {
                    self.close(Opaque::DirectTls, context);
                } else {
                    self.seek(Cause::Attached, source.stamp, context);
                }
            }
            Step::Broken(cause) => self.seek(cause, source.stamp, context),
        }
    }

    /// The client's next message has no tag.
    fn await_startup(&mut self) {
        self.phase = Phase::Starting;
        self.frontend.framer.restart(Form::Startup);
    }

    /// Takes the first message of the client.
    fn start<S>(&mut self, startup: Startup, stamp: Stamp, context: &mut Context<'_, S>) {
        let time_ns = stamp.time_ns;
        match startup {
            Startup::Encrypt(encryption) => self.phase = Phase::Encrypting(encryption),
            Startup::Cancel => {
                context.events.push(Event::Cancel { time_ns });
                self.phase = Phase::Opaque;
            }
            Startup::Session(request) => {
                self.phase = Phase::Running;
                // It is the first.
                if self.exchange.queue.push(*request).is_err() {
                    self.seek(Cause::TooMany, stamp, context);
                }
            }
        }
    }

    /// Nothing more is understood.
    fn close<S>(&mut self, opaque: Opaque, context: &mut Context<'_, S>) {
        let outcome = Outcome::Unfinished;
        self.exchange
            .abandon(Abandoned::all(outcome), None, context.events);
        context.events.push(Event::Opaque(opaque));
        self.phase = Phase::Opaque;
    }
}

/// Hands a message to the exchange.
fn deliver<S: Statements>(
    framed: &Framed<'_>,
    exchange: &mut Exchange,
    direction: Direction,
    context: &mut Context<'_, S>,
) -> Step {
    let message = match framed {
        Framed::Starved => return Step::Starved,
        Framed::Broken => return Step::Broken(Cause::Malformed),
        Framed::Message(message) => message,
    };
    if let Kind::Startup(code) = message.kind {
        let startup = Startup::read(code, message, exchange.side);
        return startup.map_or(Step::Broken(Cause::Attached), Step::Startup);
    }
    let went = match direction {
        Direction::Frontend => exchange.request(message, context).map(|()| Answered::Part),
        Direction::Backend => exchange.answer(message, context),
    };
    went.map_or_else(Step::Broken, Step::Went)
}
