//! Errors of setting up and finishing: each names its cause and, where there is one, the next step.
//! A bad sample is never an error; it is counted in the [account](crate::profile::Account).

use std::{io, path::PathBuf, process::ExitCode, time::Duration};

use crate::{
    artifact::ArtifactError,
    cgroup::CgroupError,
    kernel::{BtfError, KernelError},
    output::OutputError,
    preflight::{PreflightError, SET_CAPABILITIES},
    printable::{printable, shown},
    report::ReadError,
};

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All done.
    Done,
    /// Failed with an error that was printed.
    Failed,
    /// The status of the command that was recorded.
    Command(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Failed => Self::FAILURE,
            Exit::Command(code) => Self::from(code),
        }
    }
}

/// Everything that can end a verb.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing says whom to record.
    #[error("no target given")]
    NoTarget,
    /// A name pattern that could never match.
    #[error(
        "`{}` can match no process: the kernel keeps 15 bytes of a name",
        printable(glob)
    )]
    CommTooLong {
        /// As typed.
        glob: String,
    },
    /// The suffix names no format.
    #[error("cannot tell the format from the name {}", shown(path))]
    UnknownSuffix {
        /// As typed.
        path: PathBuf,
    },
    /// No such process.
    #[error("no process has PID {pid}")]
    NoSuchProcess {
        /// As typed.
        pid: u32,
    },
    /// A thread's id where a process's is wanted.
    #[error("{tid} is a thread of process {pid}, not a process")]
    ThreadId {
        /// As typed.
        tid: u32,
        /// What was probably meant.
        pid: u32,
    },
    /// A kernel thread.
    #[error("PID {pid} ({}) is a kernel thread", printable(comm))]
    KernelThread {
        /// As typed.
        pid: u32,
        /// Its name.
        comm: String,
    },
    /// Nothing may be known of its threads.
    #[error("cannot dump process {pid}: what its threads do may not be read")]
    NotReadable {
        /// As typed.
        pid: u32,
    },
    /// The rate is out of range.
    #[error("cannot sample {frequency_hz} times a second: the kernel allows 1 to {max_hz}")]
    Frequency {
        /// As typed.
        frequency_hz: u64,
        /// `kernel.perf_event_max_sample_rate`.
        max_hz: u64,
    },
    /// Nothing was sampled.
    #[error("no samples of {} in {:.1} s{why}", printable(target), duration.as_secs_f64())]
    NoSamples {
        /// Whom.
        target: String,
        /// How long was recorded.
        duration: Duration,
        /// What is known of the cause, with a leading separator.
        why: String,
        /// What to try.
        hint: String,
    },
    /// The command to be recorded could not be started.
    #[error("cannot start `{}`: {source}", printable(command))]
    Command {
        /// Its name.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// An input file could not be read.
    #[error("cannot read {}: {source}", shown(path))]
    Input {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An input file is no recording.
    #[error("cannot use {}: {source}", shown(path))]
    Recording {
        /// Which.
        path: PathBuf,
        /// Why.
        source: ReadError,
    },
    /// Nothing was kept of that time.
    #[error("no window from {begin} to {end} in {}", shown(state))]
    NoWindows {
        /// The state directory.
        state: PathBuf,
        /// The beginning of the time, in UTC.
        begin: String,
        /// Its end.
        end: String,
        /// Where the newest window ends, if there is one.
        newest: Option<String>,
    },
    /// The daemon's configuration is wrong.
    #[error(transparent)]
    Config(#[from] crate::daemon::config::ConfigError),
    /// The daemon's store cannot be used.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// The page cannot be served.
    #[error(transparent)]
    Web(#[from] crate::web::WebError),
    /// The machine does not allow it.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// The kernel refused something.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The kernel's structures are not known.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// No such cgroup or unit.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The result cannot be written.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The result cannot be rendered.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// Names cannot be found.
    #[error(transparent)]
    Symbolize(#[from] crate::symbolize::SymbolizeError),
    /// The machine refused something basic.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoTarget => {
                "give -p PID, --all, --comm GLOB, --cgroup PATH, --unit NAME, or -- COMMAND"
            }
            Self::CommTooLong { .. } => "shorten it and end it with *",
            Self::UnknownSuffix { .. } => {
                "use .svg, .folded, .pb.gz, .json (speedscope) or .firefox.json, or say -f FORMAT"
            }
            Self::NoSuchProcess { .. } => "it may have ended; `pgrep -a NAME` lists processes",
            Self::ThreadId { pid, .. } => {
                return Some(format!("use -p {pid}; --threads tells its threads apart"));
            }
            Self::KernelThread { .. } => {
                "kernel threads have no program to show; --all records them with everything else"
            }
            Self::NotReadable { .. } => SET_CAPABILITIES,
            Self::Frequency { .. } => {
                "99 is enough for most; raise kernel.perf_event_max_sample_rate with sysctl if you need more"
            }
            Self::NoSamples { hint, .. } => hint,
            Self::Command { .. } => "check its path and that it is executable",
            Self::NoWindows {
                newest: Some(newest),
                ..
            } => {
                return Some(format!(
                    "the newest window ends at {newest}; --state DIR names another directory"
                ));
            }
            Self::NoWindows { newest: None, .. } => {
                "does `profiler daemon` run? --state DIR names another directory"
            }
            Self::Config(error) => return error.hint(),
            Self::Store(error) => return error.hint(),
            Self::Web(error) => return error.hint(),
            Self::Input { .. } | Self::System { .. } => return None,
            Self::Recording { source, .. } => return source.hint(),
            Self::Preflight(error) => return error.hint(),
            Self::Kernel(error) => return error.hint(),
            Self::Btf(error) => return error.hint(),
            Self::Cgroup(error) => return error.hint(),
            Self::Artifact(error) => return error.hint(),
            Self::Output(error) => return error.hint(),
            Self::Symbolize(error) => return error.hint(),
        };
        Some(hint.to_owned())
    }

    /// What went wrong and what the user can do about it, in one line.
    pub(crate) fn with_hint(&self) -> String {
        let hint = self.hint().map(|hint| format!("; {hint}"));
        format!("{self}{}", hint.unwrap_or_default())
    }

    /// The status to exit with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Command { source, .. } => {
                Exit::Command(crate::record::command::start_failure_code(source))
            }
            _ => Exit::Failed,
        }
    }
}
