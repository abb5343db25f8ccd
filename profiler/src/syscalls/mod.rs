//! `profiler syscalls`: which system calls processes make, how often, how long, with what errors.
//!
//! The kernel side adds calls up; `tally` merges its sums and knows quantiles, `names` gives names to numbers,
//! `descriptors` to descriptors; `table`, `json` and `csv` show them, `account` says what is not in them. These are
//! pure but for `descriptors`. `watcher` is the shell: it reads the kernel side, for `session`, which waits and writes,
//! and for `keeper`, which makes a `window` after the other for the daemon; `history` adds those up again, `shown` for a
//! page.

mod account;
mod csv;
mod descriptors;
mod history;
mod json;
mod keeper;
mod known;
mod names;
mod report;
mod seed;
mod session;
pub(crate) mod shown;
mod stacks;
mod table;
mod tally;
mod watcher;
pub(crate) mod window;

pub use history::{History, tell};
pub(crate) use keeper::Keeper;
pub use session::run;
pub use tally::SortBy;

/// In the place of a call's number: of all that are not told apart.
const OTHER_CALLS: u32 = u32::MAX;

/// How the result is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A table for people.
    Table,
    /// Documented in `profiler/src/syscalls/json.rs`.
    Json,
    /// Comma-separated values, all times in ns.
    Csv,
}
