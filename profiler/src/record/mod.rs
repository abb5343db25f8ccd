//! `profiler record`: from targets to a written profile.
//!
//! `session` is the loop that reads what the kernel side sends; `aggregate` counts it;
//! `finish` gives names and makes the profile; `command` starts a command to be recorded.

pub mod aggregate;
pub mod command;
mod finish;
mod progress;
mod session;
mod targets;

pub use session::run;
