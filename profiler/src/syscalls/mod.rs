//! `profiler syscalls`: which system calls processes make, how often, how long, with what errors.
//!
//! The kernel side adds calls up; `tally` merges its sums and knows quantiles, `names` gives names to numbers,
//! `descriptors` to descriptors; `table`, `json` and `csv` show them, `account` says what is not in them. These are
//! pure but for `descriptors`. `session` is the shell: it reads, waits and writes.

mod account;
mod csv;
mod descriptors;
mod json;
mod names;
mod report;
mod seed;
mod session;
mod stacks;
mod table;
mod tally;

pub use session::run;
pub use tally::SortBy;

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
