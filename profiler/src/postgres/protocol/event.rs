//! What is told of a connection: values without text of statements, parameters, rows or errors.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A call came to its end, or will not.
    Call(Call),
    /// A statement was prepared, described or closed in a round trip without a call.
    Prepared(Prepared),
    /// A transaction ended.
    Transaction(Transaction),
    /// The connection was set up, or refused.
    Session(Box<Session>),
    /// A client asked to cancel what another connection does.
    Cancel {
        /// When, ns.
        time_ns: u64,
    },
    /// The server ends the connection.
    Terminated {
        /// Why.
        failure: Failure,
        /// When, ns.
        time_ns: u64,
    },
    /// What follows cannot be read or is not of interest: nothing more is told.
    Opaque(Opaque),
    /// A stretch was not understood.
    Lost(Lost),
    /// The text of a statement became known that was [`Statement::Named`] in earlier events.
    Learned {
        /// As it was emitted.
        named: Statement,
        /// What it is.
        known: Statement,
    },
}

/// Id of a statement's text, given by [`Statements`](super::Statements).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StatementId(pub u64);

/// What was executed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Statement {
    /// A statement whose text was seen.
    Known(StatementId),
    /// A prepared one of this name, of the connection with this number: it was prepared before the recording, with SQL's
    /// PREPARE, or too many others were since.
    Named(Arc<str>, u32),
    /// The function of this oid, by `FunctionCall`.
    Function(u32),
    /// A query without a statement.
    Empty,
    /// One that was not seen.
    Unknown,
}

/// One Execute of a portal, up to its last row; one statement of a simple Query; or one `FunctionCall`.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// What was executed.
    pub statement: Statement,
    /// Which of the statements of its Query it is, from 0.
    pub index: u32,
    /// Thread that sent or, at the server, read it.
    pub tid: u32,
    /// When it began, ns: client, the first byte of its messages; server, the last one.
    pub start_ns: u64,
    /// When the server was free for it, ns: the same, or the end of the call before.
    pub service_ns: u64,
    /// The first byte that answers it, ns.
    pub first_row_ns: Option<u64>,
    /// The last byte that answers it, ns; of one without an answer, when that was known. Nothing if unseen.
    pub end_ns: Option<u64>,
    /// `ReadyForQuery` behind it, ns, if no call came in between.
    pub ready_ns: Option<u64>,
    /// Time from `service_ns` to the end, ns: its part of it if the end is shared, and without the time between
    /// fetches. Nothing unless it was completed or failed in sight.
    pub latency_ns: Option<u64>,
    /// Calls whose ends came in the same chunk, itself included: with more than one, times of each are not known.
    pub sharing: u32,
    /// Executes that it took.
    pub fetches: u32,
    /// Rows.
    pub rows: Rows,
    /// Bytes of its messages to the server, without Sync.
    pub sent_bytes: u64,
    /// Bytes of its answer, without `ReadyForQuery`.
    pub received_bytes: u64,
    /// Data copied.
    pub copy: Option<Copied>,
    /// How it ended.
    pub outcome: Outcome,
    /// State of the transaction behind it, with `ready_ns`.
    pub transaction: Option<TransactionState>,
}

impl Call {
    /// Time in which the server was busy with earlier calls, ns.
    pub fn wait_ns(&self) -> u64 {
        self.service_ns.saturating_sub(self.start_ns)
    }
}

/// Rows of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Rows that came, or rows of COPY TO.
    pub returned: u64,
    /// Rows that the command's tag tells: of a portal that was suspended, those of the last fetch.
    pub tag: Option<u64>,
    /// What to believe.
    pub counted: Counted,
}

/// How rows were counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counted {
    /// Each was seen, if there were any.
    #[default]
    Messages,
    /// Some were not copied: the tag tells.
    Tag,
    /// Some were not copied, and the tag does not tell: there are at least as many as came.
    AtLeast,
}

impl Rows {
    /// Rows returned or affected, as `pg_stat_statements` counts them.
    pub fn total(&self) -> u64 {
        match (self.counted, self.tag) {
            (Counted::Messages | Counted::AtLeast, _) if self.returned > 0 => self.returned,
            (_, tag) => tag.unwrap_or(self.returned),
        }
    }
}

/// Data of COPY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Which way.
    pub direction: CopyDirection,
    /// Bytes of the data itself.
    pub bytes: u64,
}

/// Which way COPY goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyDirection {
    /// COPY FROM, to the server.
    In,
    /// COPY TO, from the server.
    Out,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// To its end.
    Completed,
    /// Its portal was given up while it may have had more rows.
    Suspended,
    /// With an error, or an error prevented it.
    Failed(Failure),
    /// Not begun, since one before it in its pipeline or Query failed.
    Skipped,
    /// The connection ended first.
    Aborted,
    /// The recording ended first.
    Unfinished,
    /// It was requested; its answer, or which answer is its, was not seen.
    Unseen,
}

/// An error, without its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How bad.
    pub severity: Severity,
    /// Which.
    pub sqlstate: SqlState,
}

/// Severity of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It ends the command.
    Error,
    /// It ends the connection.
    Fatal,
    /// It ends all connections.
    Panic,
}

/// Code of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", from = "String")]
pub struct SqlState([u8; 5]);

impl From<SqlState> for String {
    fn from(code: SqlState) -> Self {
        code.to_string()
    }
}

impl From<String> for SqlState {
    fn from(text: String) -> Self {
        Self::read(text.as_bytes())
    }
}

impl SqlState {
    /// One that could not be read.
    pub const UNKNOWN: Self = Self(*b"?????");

    /// The code that the bytes are.
    pub fn read(code: &[u8]) -> Self {
        let is_code = |code: &&[u8; 5]| {
            let of_code = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
            code.iter().all(of_code)
        };
        let code = <&[u8; 5]>::try_from(code).ok();
        code.filter(is_code)
            .map_or(Self::UNKNOWN, |code| Self(*code))
    }

    /// Its first two characters.
    pub(super) fn class(self) -> [u8; 2] {
        let [first, second, ..] = self.0;
        [first, second]
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

/// State of the transaction, as `ReadyForQuery` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionState {
    /// None is open.
    Idle,
    /// One is.
    Open,
    /// One is that has failed.
    Failed,
}

impl TransactionState {
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        match body {
            b"I" => Some(Self::Idle),
            b"T" => Some(Self::Open),
            b"E" => Some(Self::Failed),
            _ => None,
        }
    }
}

/// Parse, Describe or Close without a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// Of what.
    pub statement: Statement,
    /// What came first.
    pub step: Step,
    /// The first byte sent or, at the server, the last one read, ns.
    pub start_ns: u64,
    /// The last byte of the last answer, ns.
    pub end_ns: u64,
    /// Thread that sent or read it.
    pub tid: u32,
    /// It failed.
    pub failure: Option<Failure>,
}

/// What is done with a statement beside executing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is prepared, and perhaps described or bound.
    Parse,
    /// It is described.
    Describe,
    /// It is bound to a portal that is not executed.
    Bind,
    /// It is closed.
    Close,
}

/// A transaction that lasted longer than one pipeline or Query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Start of the call that began it, ns; nothing if it began before the recording or out of sight.
    pub begin_ns: Option<u64>,
    /// `ReadyForQuery` that tells its end, ns.
    pub end_ns: u64,
    /// Time in which the server waited for the client, ns.
    pub idle_ns: u64,
    /// How often it did.
    pub idle_spells: u64,
    /// The longest of these times, ns.
    pub longest_idle_ns: u64,
    /// How it ended.
    pub end: TransactionEnd,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionEnd {
    /// COMMIT.
    Committed,
    /// ROLLBACK, or COMMIT of one that had failed.
    RolledBack,
    /// In another way, such as PREPARE TRANSACTION.
    Other,
    /// The connection ended first, which undoes it.
    Disconnected,
    /// The recording ended first.
    Open,
}

/// What a start-up tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Role.
    pub user: String,
    /// Database; that of the user's name if none is given.
    pub database: String,
    /// What the client calls itself.
    pub application_name: String,
    /// It asked for replication.
    pub replication: Replication,
    /// Version of the protocol that is spoken, the minor one.
    pub minor_version: u16,
    /// Pid of the server's process.
    pub backend_pid: Option<u32>,
    /// How the client was asked to authenticate.
    pub authentication: Option<Authentication>,
    /// Start-up sent, ns.
    pub start_ns: u64,
    /// First `ReadyForQuery`, or the error, ns.
    pub end_ns: u64,
    /// It was refused.
    pub failure: Option<Failure>,
}

/// Whether a connection replicates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replication {
    /// No.
    #[default]
    None,
    /// Physically.
    Physical,
    /// Logically, from its database.
    Logical,
}

/// How a client is asked to authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// Not at all: trust, peer, ident or a certificate.
    None,
    /// Kerberos V5, which no supported version asks for.
    Kerberos,
    /// A password as it is.
    Password,
    /// A hash of the password.
    Md5,
    /// GSSAPI.
    Gss,
    /// SSPI.
    Sspi,
    /// SCRAM-SHA-256.
    Scram,
    /// OAUTHBEARER.
    OAuth,
    /// Another mechanism of SASL.
    Sasl,
    /// Another.
    Other(u32),
}

/// Why a stream cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opaque {
    /// TLS, after `SSLRequest`.
    Tls,
    /// TLS from the first byte on.
    DirectTls,
    /// Encrypted by GSSAPI.
    Gss,
    /// Replication.
    Replication,
}

impl Opaque {
    /// Whether it is TLS.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::DirectTls)
    }
}

/// A stretch that was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// What it began with.
    pub cause: Cause,
    /// When it began, ns.
    pub since_ns: u64,
    /// When the stream was understood again or ended, ns.
    pub until_ns: u64,
    /// Bytes that were missed, not copied or not understood, to the server and from it.
    pub bytes: u64,
    /// Calls that are told as [`Outcome::Unseen`] for it.
    pub unseen: u64,
}

/// Why a stream is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was already there.
    Attached,
    /// Bytes never came.
    Missing,
    /// Bytes were not copied.
    NotCopied,
    /// No message is like this.
    Malformed,
    /// An answer to nothing that was asked.
    Unexpected,
    /// More requests without an answer than are remembered.
    TooMany,
}

/// How a connection's story ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was closed.
    Closed,
    /// The recording ended.
    Recording,
}
