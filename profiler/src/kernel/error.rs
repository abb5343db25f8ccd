//! What can go wrong between us and the kernel, and what mends it.

use std::io;

use aya::{EbpfError, maps::MapError, programs::ProgramError};

use super::paranoid::{PARANOID_MIN, paranoid_remedy, perf_event_paranoid};

/// A refusal by the kernel, or a kernel that lacks something.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The object could not be loaded.
    #[error("cannot load the BPF object: {0}")]
    Object(#[source] Box<EbpfError>),
    /// A program was refused or could not be attached.
    #[error("cannot {action} the BPF program `{program}`: {source}")]
    Program {
        /// `load` or `attach`.
        action: &'static str,
        /// Its name.
        program: &'static str,
        /// The kernel's words.
        source: Box<ProgramError>,
    },
    /// The perf event was refused.
    #[error("cannot sample CPU {cpu} at {frequency_hz} Hz: {source}")]
    PerfEvent {
        /// The CPU.
        cpu: u32,
        /// The rate asked for.
        frequency_hz: u64,
        /// The kernel's words.
        source: Box<ProgramError>,
    },
    /// A map of the object failed.
    #[error("cannot use the BPF map `{map}`: {source}")]
    Map {
        /// Its name.
        map: &'static str,
        /// The kernel's words.
        source: Box<MapError>,
    },
    /// Memory could not be shared with the kernel side.
    #[error("cannot map the BPF map `{map}` into memory: {source}")]
    SharedMemory {
        /// Its name.
        map: &'static str,
        /// Why.
        source: io::Error,
    },
    /// More processes than the table of targets holds.
    #[error("more than {limit} target processes")]
    TooManyTargets {
        /// Its size.
        limit: usize,
    },
    /// Something the object must hold is not there: the object and the program do not match.
    #[error("the BPF object holds no `{0}`")]
    Missing(&'static str),
    /// The kernel's descriptions of its tracepoints cannot be read.
    #[error("cannot use the kernel's tracing file system: {0}")]
    NoTracefs(#[source] io::Error),
    /// The list of CPUs could not be read.
    #[error("cannot read {path}: {source}")]
    Cpus {
        /// The file.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl KernelError {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        self.hint_at(perf_event_paranoid())
    }

    /// Likewise, where `kernel.perf_event_paranoid` is this. Classic tracepoints are perf events too.
    fn hint_at(&self, paranoid: Option<i64>) -> Option<String> {
        let is_event = matches!(
            self,
            Self::Program {
                action: "attach",
                ..
            } | Self::PerfEvent { .. }
        );
        match paranoid {
            Some(level @ PARANOID_MIN..) if is_event && self.is_permission() => {
                Some(paranoid_remedy(level))
            }
            _ => self.other_hint().map(str::to_owned),
        }
    }

    fn other_hint(&self) -> Option<&'static str> {
        let hint = match self {
            Self::Object(_) | Self::Program { .. } | Self::PerfEvent { .. }
                if self.is_permission() =>
            {
                "run as root, or with CAP_BPF and CAP_PERFMON; `profiler doctor` shows what is missing"
            }
            Self::Object(_) | Self::Program { .. } | Self::PerfEvent { .. } => {
                "`profiler doctor` shows what this kernel allows"
            }
            Self::TooManyTargets { .. } => {
                "use --all with --comm, --cgroup or --unit instead of a list of PIDs"
            }
            Self::NoTracefs(_) => {
                "mount the tracing file system: mount -t tracefs tracefs /sys/kernel/tracing; the kernel needs CONFIG_FTRACE_SYSCALLS=y"
            }
            Self::Missing(_) => {
                "rebuild: the profiler and its BPF object come from different versions"
            }
            Self::SharedMemory { .. } => {
                "unwind tables need memory (`ulimit -v`) and a kernel of 5.5 or newer"
            }
            Self::Map { .. } | Self::Cpus { .. } => return None,
        };
        Some(hint)
    }

    /// Whether the kernel refused for want of privilege.
    fn is_permission(&self) -> bool {
        let mut source: Option<&(dyn std::error::Error + 'static)> =
            std::error::Error::source(self);
        while let Some(error) = source {
            if error
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
            {
                return true;
            }
            source = error.source();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use aya::{programs::ProgramError, sys::SyscallError};

    use super::KernelError;

    fn hint(paranoid: Option<i64>, errno: i32) -> String {
        let call = SyscallError {
            call: "perf_event_open",
            io_error: io::Error::from_raw_os_error(errno),
        };
        let error = KernelError::PerfEvent {
            cpu: 0,
            frequency_hz: 19,
            source: Box::new(ProgramError::SyscallError(call)),
        };
        error.hint_at(paranoid).unwrap_or_default()
    }

    /// Where the level is what refuses, more of the usual capabilities would not help: the level is named, and what
    /// lowers it; elsewhere it is not blamed.
    #[test]
    fn a_paranoid_level_is_blamed_where_it_refuses() {
        let by_level = hint(Some(3), libc::EACCES);
        assert!(
            by_level.contains("kernel.perf_event_paranoid is 3")
                && by_level.contains("sysctl kernel.perf_event_paranoid=2")
                && by_level.contains("CAP_SYS_ADMIN"),
            "{by_level}"
        );
        for (level, errno) in [
            (Some(2), libc::EACCES),
            (None, libc::EACCES),
            (Some(3), libc::EMFILE),
        ] {
            let other = hint(level, errno);
            assert!(
                other.contains("doctor") && !other.contains("paranoid"),
                "{level:?} {errno}: {other}"
            );
        }
    }
}
