//! `profiler queries`: the statements that clients ask Postgres for, from what goes through their sockets.
//!
//! The kernel side copies what targets send and receive, in a `transfer` for each call. `order` puts it in order, `streams` tells Postgres from other
//! traffic and has a machine of `protocol` for each connection, which hands texts to `sql` through `dialect` (how they are
//! read: `encoding`) and `texts` and tells what happened in events. What passes through TLS libraries are streams of their own; `encrypted` tells which encrypted
//! connections are read so. `backends` reads what a server runs from its memory where a text was sent before the recording,
//! and `readings` finds the call that it is of. `statistics` adds those up in `figures`, with the `origin` of each connection; `report`,
//! `table`, `json` and `csv` show them. All of these are pure. `watcher`
//! is the shell, for `session`, which waits and writes, and for `keeper`, which makes a `window` after the other for the
//! daemon; `history` shows what was kept. `measured`
//! hands it on to metrics, `latencies` being their buckets and `totals` all windows since the start.

use serde::{Deserialize, Serialize};

mod account;
mod around;
mod backends;
mod code;
mod conversation;
mod csv;
mod deeds;
mod dialect;
mod encoding;
mod encrypted;
#[cfg(test)]
pub(crate) mod example;
mod figures;
mod history;
mod idle;
mod json;
mod keeper;
mod kinds;
pub(crate) mod latencies;
pub(crate) mod measured;
mod now;
mod order;
mod origin;
mod peers;
pub mod protocol;
mod readings;
mod report;
#[cfg(test)]
mod secrets;
mod session;
pub(crate) mod shown;
pub mod sql;
mod statistics;
mod status;
mod streams;
mod table;
mod texts;
pub(crate) mod totals;
mod transfer;
mod undecided;
mod watcher;
pub(crate) mod window;

pub use self::{
    history::{History, tell},
    report::{Selection, SortBy},
    session::run,
    statistics::By,
    window::Window,
};
pub(crate) use self::{keeper::Keeper, session::require};

/// Whether what is encrypted is read where it passes through a TLS library.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Tls {
    /// No: encrypted connections are only counted.
    #[default]
    Off,
    /// From the first encrypted connection on.
    Auto,
    /// From the beginning.
    On,
}

/// How the result is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A table for people.
    Table,
    /// Documented in `profiler/src/postgres/json.rs`.
    Json,
    /// Comma-separated values.
    Csv,
    /// A line for each call as it ends, and the account at the end.
    Events,
}
