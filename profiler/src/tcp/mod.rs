//! `profiler tcp`: the connections of processes: which, how long, how much, how well, and how they ended.
//!
//! The kernel side tells of every connection begun, closed, reset or sent again while it is watched; `sockets` lists
//! those that are open at the beginning and at the end, in each network namespace of the targets, and whose they are.
//! `connections` puts both together, `peers` groups them; `table`, `json` and `csv` show them. These are pure;
//! `session` is the shell.

mod account;
mod connections;
mod csv;
#[cfg(test)]
mod example;
mod json;
mod peers;
mod session;
mod table;

pub use session::run;

/// How the result is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A table for people.
    Table,
    /// Documented in `profiler/src/tcp/json.rs`.
    Json,
    /// Comma-separated values.
    Csv,
    /// A line for each event as it happens, and the account at the end.
    Events,
}

/// What has a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Each connection.
    Connections,
    /// Each peer.
    Peers,
}
