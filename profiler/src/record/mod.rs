//! `profiler record`: from targets to a written profile.
//!
//! `session` is the loop that reads what the kernel side sends; `aggregate` counts it; `finish`
//! gives names and makes the profile; `command` starts a command to be recorded, `targets` knows
//! whom and `ending` what ends it, of which `signals` hears. `sampler` goes on for months; `ledger`
//! and `carry` divide what it counts and times among windows. The other capabilities' sessions use
//! these too.

pub mod aggregate;
mod captured;
pub(crate) mod carry;
pub mod command;
pub(crate) mod ending;
pub(crate) mod finish;
pub(crate) mod ledger;
mod off_cpu;
mod places;
mod progress;
pub(crate) mod ring_watch;
pub(crate) mod running;
mod sampler;
mod session;
pub(crate) mod signals;
pub(crate) mod stacks;
pub(crate) mod state;
pub(crate) mod targets;
mod thread_names;

pub(crate) use captured::Captured;
pub(crate) use sampler::{How, Sampler, Scope};
pub use session::run;
pub(crate) use session::{Recorded, Single};
pub(crate) use targets::check_pid;

/// What a look at single threads shares with a recording.
pub(crate) mod threads {
    pub(crate) use super::{
        captured::Modules,
        off_cpu::header_of,
        places::{PythonPlaces, locations, shown},
    };
}
