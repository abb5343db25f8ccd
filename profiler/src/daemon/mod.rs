//! `profiler daemon`: runs for months, samples at a low rate and keeps windows of it, each a file.
//!
//! ```text
//! sampling (a thread: ring, targets)       ─┬► windows (a thread: names, files) ─► store
//! queries, tcp, syscalls (a thread each)   ─┘
//!           supervisor (the main thread: signals, reloads, budget, watchdog, restarts)
//! ```
//!
//! - [`config`] is what it is told, [`store`] what it keeps and how that is read back, [`status`] how it fares.
//! - `supervisor` starts, watches and ends the capabilities, each in a `slot`, which by `retries` tries again what
//!   failed: `sampling`, and the `tables` of queries, connections and system calls. `writer` names and writes windows,
//!   `lost` counts those that it cannot.
//! - `follow` decides who is a target, `budget` what is cut when too much CPU time is used, `overhead` measures that:
//!   the first two are pure.
//! - `clock` tells when the wall clock was set.
//! - `outlets` holds what leaves it: the page and the exports.
//! - `privileges`, `journal` and `manager` deal with the kernel's capabilities, the log and systemd.

mod budget;
mod check;
mod clock;
pub mod config;
mod follow;
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
pub mod store;
mod supervisor;
pub(crate) mod tables;
mod writer;

use crate::{
    cli::DaemonArgs,
    error::{Error, Exit},
};

/// Runs the verb.
pub fn run(args: &DaemonArgs) -> Result<Exit, Error> {
    if args.check {
        check::run(&args.config, args.listen_publicly)
    } else {
        supervisor::run(&args.config, args.listen_publicly)
    }
}
