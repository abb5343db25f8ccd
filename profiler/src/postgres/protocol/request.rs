//! What the client sends: each message becomes a request that waits for its answer.

use super::{
    event::{Cause, Ending, Statement},
    exchange::{Context, Exchange},
    fields::{Name, name, number, string},
    message::{Kind, Message},
    queue::{CopyIn, Request, Subject, What},
    statements::{Extent, Statements, Text},
};

/// Most statements of a Query that are told apart.
const QUERY_STATEMENTS_MAX: usize = 16_384;
/// Bytes of tag and length.
const HEADER_BYTES: u64 = 5;

impl Exchange {
    /// Takes a message to the server.
    pub(super) fn request<S: Statements>(
        &mut self,
        message: &Message<'_>,
        context: &mut Context<'_, S>,
    ) -> Result<(), Cause> {
        let Kind::Tagged(tag) = message.kind else {
            return Err(Cause::Malformed);
        };
        let begin_ns = message.begin.time_ns;
        self.transactions.resumed(begin_ns);
        if self.queue.len() == 0 {
            self.trust.ask(begin_ns);
        }
        match tag {
            b'Q' => self.query(message, context),
            b'P' => self.parse(message, context),
            b'B' => self.bind(message),
            b'D' => self.describe(message),
            b'E' => self.execute(message),
            b'C' => {
                let subject = subject(message.body)?;
                self.ask(What::Close(subject), message)
            }
            b'F' => {
                let oid = number(message.body).unwrap_or_default();
                self.groups.clear();
                self.is_settled = false;
                self.ask(What::Function(oid), message)
            }
            // While the server takes COPY data, it ignores Sync.
            b'S' if self.copy_in == CopyIn::Active => Ok(()),
            b'S' => {
                self.groups.clear();
                self.ask(What::Sync, message)?;
                self.synced(context.events);
                Ok(())
            }
            b'd' => {
                self.copied_in += message.bytes - HEADER_BYTES;
                Ok(())
            }
            b'c' | b'f' if self.copy_in == CopyIn::Active => {
                self.copy_in = CopyIn::None;
                Ok(())
            }
            b'c' | b'f' if self.queue.len() > 0 => self.ask(What::CopyDone, message),
            // The server ends the connection when it reads this, and undoes what is open.
            b'X' if self.queue.len() == 0 => {
                self.transactions
                    .end(begin_ns, Ending::Closed, context.events);
                Ok(())
            }
            // Left over after a COPY that failed; or of no interest: Flush, Terminate, passwords.
            _ => Ok(()),
        }
    }

    fn ask(&mut self, what: What, message: &Message<'_>) -> Result<(), Cause> {
        self.queue.push(Request {
            what,
            begin: message.begin,
            end: message.end,
            bytes: message.bytes,
        })
    }

    fn query<S: Statements>(
        &mut self,
        message: &Message<'_>,
        context: &mut Context<'_, S>,
    ) -> Result<(), Cause> {
        let mut body = message.body;
        let text = self.text(&mut body, message)?;
        let length = text.bytes.len() as u64 + 1 + message.left_out;
        if text.extent == Extent::Whole && length != message.bytes - HEADER_BYTES {
            return Err(Cause::Malformed);
        }
        self.ids.clear();
        context.statements.simple(text, &mut self.ids);
        self.is_settled = false;
        self.ids.truncate(QUERY_STATEMENTS_MAX);
        self.groups.clear();
        self.ask(What::Simple(self.ids.as_slice().into()), message)
    }

    fn parse<S: Statements>(
        &mut self,
        message: &Message<'_>,
        context: &mut Context<'_, S>,
    ) -> Result<(), Cause> {
        let mut body = message.body;
        let name = name(&mut body).ok_or(Cause::Malformed)?;
        let text = self.text(&mut body, message)?;
        let statement = Statement::Known(context.statements.prepared(text));
        self.groups.parse(&name, self.queue.number(), message);
        self.ask(What::Parse { name, statement }, message)
    }

    fn bind(&mut self, message: &Message<'_>) -> Result<(), Cause> {
        let mut body = message.body;
        let portal = name(&mut body).ok_or(Cause::Malformed)?;
        let statement = name(&mut body).ok_or(Cause::Malformed)?;
        let answered = self.queue.answered();
        let parse = self.groups.bind(&portal, &statement, answered, message);
        let what = What::Bind {
            portal,
            statement,
            parse,
        };
        self.ask(what, message)
    }

    fn describe(&mut self, message: &Message<'_>) -> Result<(), Cause> {
        let subject = subject(message.body)?;
        match &subject {
            Subject::Statement(name) => self.groups.describe_statement(name, message),
            Subject::Portal(name) => self.groups.describe_portal(name, message),
        }
        self.ask(What::Describe(subject), message)
    }

    fn execute(&mut self, message: &Message<'_>) -> Result<(), Cause> {
        let mut body = message.body;
        let portal = name(&mut body).ok_or(Cause::Malformed)?;
        let group = self.groups.execute(&portal, message);
        self.is_settled = false;
        self.queue.push(Request {
            what: What::Execute(portal),
            begin: group.begin,
            end: message.end,
            bytes: group.bytes,
        })
    }

    /// Takes a statement's text.
    fn text<'a>(&self, body: &mut &'a [u8], message: &Message<'_>) -> Result<Text<'a>, Cause> {
        let (bytes, extent) = match string(body) {
            Some(text) => (text, Extent::Whole),
            None if message.is_whole => return Err(Cause::Malformed),
            None => (*body, Extent::Cut),
        };
        Ok(Text {
            bytes,
            extent,
            is_settled: self.is_settled && !self.is_doubtful,
        })
    }
}

/// What Describe and Close are about.
fn subject(body: &[u8]) -> Result<Subject, Cause> {
    let (kind, mut rest) = body.split_first().ok_or(Cause::Malformed)?;
    let name: Name = name(&mut rest).ok_or(Cause::Malformed)?;
    match kind {
        b'S' => Ok(Subject::Statement(name)),
        b'P' => Ok(Subject::Portal(name)),
        _ => Err(Cause::Malformed),
    }
}
