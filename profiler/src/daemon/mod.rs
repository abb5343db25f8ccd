//! `profiler daemon`: runs for months, samples at a low rate and keeps windows of it, each a file.
//!
//! ```text
//! sampling (a thread: ring, targets)       ─┬► windows (a thread: names, files) ─► store
//! queries, tcp, syscalls (a thread each)   ─┘
//!           supervisor (the main thread: signals, reloads, budget, watchdog, restarts)
//! ```
//!
//! - [`config`] is what it is told, [`store`](crate::store) what it keeps, [`status`] how it fares.
//! - `supervisor` starts, watches and ends the capabilities, each in a `slot`, which by `retries` tries again what
//!   failed: `sampling`, and the `tables` of queries, connections and system calls. `writer` names and writes windows,
//!   `lost` counts those that it cannot.
//! - `follow` decides who is a target, `budget` what is cut when too much CPU time is used, `overhead` measures that:
//!   the first two are pure.
//! - `outlets` holds what leaves it: the page and the exports. `health` says which thread stands still, to the page and
//!   to systemd.
//! - `privileges`, `journal` and `manager` deal with the kernel's capabilities, the log and systemd.

mod budget;
mod check;
pub mod config;
mod follow;
pub(crate) mod health;
mod journal;
mod lost;
mod manager;
mod outlets;
mod overhead;
pub(crate) mod privileges;
mod retries;
mod sampling;
mod slot;
pub mod status;
mod supervisor;
pub(crate) mod tables;
mod writer;

pub use self::{check::check, supervisor::run};
