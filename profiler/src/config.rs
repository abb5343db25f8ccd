//! What is meant, as against what was typed ([`cli`](crate::cli)): validated settings, and the one
//! place of every default.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use profiler_common::{
    comm::CommGlob,
    config::{FILTER_CGROUP, FILTER_COMM, FILTER_TARGETS},
};

use crate::{
    artifact::Destination,
    cgroup::Cgroup,
    command_line::CommandLines,
    output, postgres,
    syscalls::{Form, SortBy},
    tcp::{self, Rows},
};

/// Samples per second and CPU: an odd number, so as not to beat with timers at round rates.
pub const FREQUENCY_HZ: u64 = 99;

/// Shortest span off the CPU that is shown with its stack.
pub const MIN_BLOCK: Duration = Duration::from_millis(1);

/// How long a running process is recorded; a command is recorded to its end.
pub const DURATION: Duration = Duration::from_secs(30);

/// How long system calls of a running process are counted.
pub const CALLS_DURATION: Duration = Duration::from_secs(10);

/// `profiler record`
#[derive(Clone, Debug)]
pub struct Record {
    /// Whom.
    pub targets: Targets,
    /// How long; `None` to the end of the command or until interrupted.
    pub duration: Option<Duration>,
    /// What is recorded.
    pub mode: Mode,
    /// Spans off the CPU shorter than this are only added up.
    pub min_block: Duration,
    /// How often, per CPU.
    pub frequency_hz: u64,
    /// Where to; `None` for a file named after the target.
    pub destination: Option<Destination>,
    /// As what.
    pub format: output::Format,
    /// How it is drawn.
    pub options: output::Options,
    /// What becomes of a Python interpreter's own frames.
    pub interpreter: Interpreter,
    /// Which threads' samples are kept.
    pub python_threads: PythonThreads,
}

/// Which threads' samples are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PythonThreads {
    /// All.
    #[default]
    All,
    /// Those that held their Python interpreter's lock (GIL) at the time.
    HoldingGil,
}

/// Whether C functions of a Python interpreter are shown among Python frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interpreter {
    /// Only those that the innermost Python function called.
    #[default]
    Fold,
    /// All.
    Show,
}

/// `profiler dump`
#[derive(Clone, Copy, Debug)]
pub struct Dump {
    /// Of which process.
    pub pid: u32,
    /// Machine-readable.
    pub json: bool,
    /// What becomes of a Python interpreter's own frames.
    pub interpreter: Interpreter,
    /// How much of its command line is shown.
    pub command_lines: CommandLines,
}

/// `profiler syscalls`
#[derive(Clone, Debug)]
pub struct Syscalls {
    /// Whom.
    pub targets: Targets,
    /// How long; `None` to the end of the command or until interrupted.
    pub duration: Option<Duration>,
    /// What is told apart or taken beside the calls: bits of [`profiler_common::syscalls::wanted`].
    pub wanted: u32,
    /// Where stacks go and as what, if they are wanted.
    pub stacks: Option<(Destination, output::Format)>,
    /// Order of the rows.
    pub sort: SortBy,
    /// Most rows.
    pub limit: Option<usize>,
    /// As what the result is shown.
    pub form: Form,
    /// Where to.
    pub destination: Destination,
    /// How often what came meanwhile is shown too.
    pub interval: Option<Duration>,
}

/// `profiler tcp`
#[derive(Clone, Debug)]
pub struct Tcp {
    /// Whom: processes, a command, or, naming none, everybody.
    pub targets: Targets,
    /// How long; `None` to the end of the command or until interrupted.
    pub duration: Option<Duration>,
    /// What has a row.
    pub rows: Rows,
    /// Most rows of a table.
    pub limit: usize,
    /// As what the result is shown.
    pub form: tcp::Form,
    /// Where to.
    pub destination: Destination,
}

/// `profiler queries`
#[derive(Clone, Debug)]
pub struct Queries {
    /// Whom.
    pub targets: Targets,
    /// How long; `None` to the end of the command or until interrupted.
    pub duration: Option<Duration>,
    /// Which rows.
    pub selection: postgres::Selection,
    /// What is read of encrypted connections.
    pub tls: postgres::Tls,
    /// As what the result is shown.
    pub form: postgres::Form,
    /// Where to.
    pub destination: Destination,
    /// How often what came meanwhile is shown too.
    pub interval: Option<Duration>,
}

/// What is recorded of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Where it runs.
    #[default]
    OnCpu,
    /// Where it waits.
    OffCpu,
    /// Both.
    Wall,
    /// Which system calls it makes.
    Syscalls,
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
    /// How much of command lines is kept.
    pub command_lines: CommandLines,
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

    /// What to call a table of these targets.
    pub fn title(&self) -> String {
        self.command_text().unwrap_or_else(|| self.description())
    }

    /// The command to be started, as it is shown.
    pub fn command_text(&self) -> Option<String> {
        let command = self.command.as_ref()?;
        let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
        Some(self.command_lines.text(&words))
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
