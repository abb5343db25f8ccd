//! Postgres's wire protocol, versions 3.0 to 3.2: bytes of two directions in, calls out. Pure.
//!
//! `chunk` puts in order what system calls carried, `framer` cuts it into messages (`message` says which there are and
//! how much of each is copied), `fields` reads those. `request` puts what the client asks into a `queue`; `answer`,
//! `prepare` and `failure` take what the server sends as answers to its head; `completion`, `calls` and `transaction`
//! make events of that. `connection` holds these together, `startup` is its beginning; `boundary`, `gap`, `anchor` and
//! `trust` are for streams that are entered in their middle or have holes. `recognise` tells who speaks Postgres.
//!
//! Nothing secret is kept: neither passwords nor keys, parameters, rows, data of COPY or texts of errors. Texts of
//! statements are given away for an id ([`Statements`]), and later it is told which of them the server took (`accept`).
//! Everything is bounded.

mod accept;
mod anchor;
mod answer;
mod boundary;
mod calls;
mod chunk;
mod completion;
mod connection;
mod cursors;
mod event;
mod exchange;
mod failure;
mod fields;
mod framer;
mod gap;
mod group;
mod message;
mod portal;
mod prepare;
mod queue;
mod recognise;
mod request;
mod startup;
mod statements;
mod transaction;
mod trust;

#[cfg(test)]
mod tests;

pub use chunk::{Chunk, Direction, Side};
pub use connection::{Connection, Now};
pub use event::{
    Authentication, Call, Cause, Copied, CopyDirection, Counted, Ending, Event, Failure, Lost,
    Opaque, Outcome, Prepared, Replication, Rows, Session, Severity, SqlState, Statement,
    StatementId, Step, Transaction, TransactionEnd, TransactionState,
};
pub use recognise::{Flow, Recognition, recognise};
pub use statements::{Deed, Extent, Part, Statements, Text};
