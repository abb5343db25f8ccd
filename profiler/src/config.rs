//! What is meant, as against what was typed ([`cli`](crate::cli)): validated settings, and the one
//! place of every default.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use profiler_common::{
    comm::CommGlob,
    config::{FILTER_CGROUP, FILTER_COMM, FILTER_TARGETS},
};

use crate::{artifact::Destination, cgroup::Cgroup, output};

/// Samples per second and CPU: an odd number, so as not to beat with timers at round rates.
pub const FREQUENCY_HZ: u64 = 99;

/// How long a running process is recorded; a command is recorded to its end.
pub const DURATION: Duration = Duration::from_secs(30);

/// `profiler record`
#[derive(Clone, Debug)]
pub struct Record {
    /// Whom.
    pub targets: Targets,
    /// How long; `None` to the end of the command or until interrupted.
    pub duration: Option<Duration>,
    /// How often, per CPU.
    pub frequency_hz: u64,
    /// Where to; `None` for a file named after the target.
    pub destination: Option<Destination>,
    /// As what.
    pub format: output::Format,
    /// How it is drawn.
    pub options: output::Options,
}

/// Whom to record: every given condition must hold.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// These processes.
    pub pids: Vec<u32>,
    /// Started by us, with its arguments.
    pub command: Option<Vec<OsString>>,
    /// Processes whose name matches: the glob as typed and compiled.
    pub comm: Option<(String, CommGlob)>,
    /// Processes in this cgroup or below it: its name as typed and its identity.
    pub cgroup: Option<(String, Cgroup)>,
    /// What becomes of the children of `pids` and of the command.
    pub descendants: Descendants,
}

/// Whether processes created later by a target become targets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Descendants {
    /// Only the named processes, with all their threads.
    #[default]
    Ignore,
    /// And what they create while they are recorded.
    Follow,
}

impl Targets {
    /// The kernel side's filter bits.
    pub fn filters(&self) -> u32 {
        let mut filters = 0;
        if self.names_processes() {
            filters |= FILTER_TARGETS;
        }
        if self.cgroup.is_some() {
            filters |= FILTER_CGROUP;
        }
        if self.comm.is_some() {
            filters |= FILTER_COMM;
        }
        filters
    }

    /// Whether there is a list of processes, so that the recording ends when they have.
    pub fn names_processes(&self) -> bool {
        !self.pids.is_empty() || self.command.is_some()
    }

    /// What to call a recording of these targets where it is not a single process.
    pub fn description(&self) -> String {
        let mut parts = Vec::new();
        if !self.pids.is_empty() {
            let pids: Vec<String> = self.pids.iter().map(u32::to_string).collect();
            parts.push(format!("pid {}", pids.join(",")));
        }
        if let Some((glob, _)) = &self.comm {
            parts.push(format!("processes named {glob}"));
        }
        if let Some((name, _)) = &self.cgroup {
            parts.push(format!("cgroup {name}"));
        }
        if parts.is_empty() {
            "host".to_owned()
        } else {
            parts.join(", ")
        }
    }
}

/// The default file: `profile-NAME[-PID].SUFFIX`, with a name that is safe as a file's.
pub fn default_path(name: &str, pid: Option<u32>, format: output::Format) -> PathBuf {
    let safe = |c: char| {
        if c.is_ascii_alphanumeric() || "._+-".contains(c) {
            c
        } else {
            '_'
        }
    };
    let name: String = name.chars().map(safe).take(100).collect();
    let name = name.trim_matches('_');
    let suffix = format.suffix();
    match pid {
        Some(pid) => format!("profile-{name}-{pid}{suffix}").into(),
        None => format!("profile-{name}{suffix}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::default_path;
    use crate::output::Format;

    /// No name of a process can lead out of the folder.
    #[test]
    fn default_path_is_a_plain_file_name() {
        let path = default_path("../etc; x", Some(7), Format::Svg);
        assert_eq!(path.to_str(), Some("profile-.._etc__x-7.svg"));
        assert_eq!(
            default_path("host", None, Format::Svg).to_str(),
            Some("profile-host.svg")
        );
    }
}
