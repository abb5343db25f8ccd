//! `profiler tcp`: the connections of processes: which, how long, how much, how well, and how they ended.
//!
//! The kernel side tells of every connection begun, closed, reset or sent again while it is watched; `sockets` lists
//! those that are open at the beginning and at the end, in each network namespace of the targets, and whose they are.
//! `connections` puts both together, `peers` groups them; `table`, `json` and `csv` show them. These are pure;
//! `watcher` is the shell: it reads the kernel side, for `session`, which waits and writes, and for `keeper`, which makes
//! a `window` after the other for the daemon; `history` adds those up again, `shown` for a page.

mod account;
mod connections;
mod csv;
mod end;
#[cfg(test)]
mod example;
mod history;
mod json;
mod keeper;
mod peers;
mod session;
pub(crate) mod shown;
mod table;
mod times;
mod watcher;
pub(crate) mod window;

pub use history::{History, tell};
pub(crate) use keeper::Keeper;
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
