//! What is found on this machine. No judgement here.

use std::{collections::BTreeMap, env, fs, path::Path};

use procfs::process::Process;

use crate::{
    cgroup,
    kernel::{
        ClockEvent, kernel_offsets,
        probe::{self, Tried},
    },
};

/// The inode number of the initial pid namespace (`PROC_PID_INIT_INO` of `include/linux/proc_ns.h`).
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Capabilities that matter, with their numbers (include/uapi/linux/capability.h).
pub(super) const CAPABILITIES: [(&str, u32); 7] = [
    ("CAP_BPF", 39),
    ("CAP_PERFMON", 38),
    ("CAP_SYS_ADMIN", 21),
    ("CAP_SYS_PTRACE", 19),
    ("CAP_DAC_READ_SEARCH", 2),
    ("CAP_SYSLOG", 34),
    ("CAP_CHECKPOINT_RESTORE", 40),
];

/// Settings of the kernel that matter, below /proc/sys/kernel.
pub(super) const SETTINGS: [&str; 5] = [
    "perf_event_paranoid",
    "perf_event_max_sample_rate",
    "perf_event_max_stack",
    "unprivileged_bpf_disabled",
    "kptr_restrict",
];

/// Everything that was found.
#[derive(Clone, Debug, Default)]
pub(super) struct Facts {
    /// `uname -r`.
    pub(super) release: String,
    /// `uname -m`.
    pub(super) machine: String,
    /// Error of reading the kernel's type information, if there was one.
    pub(super) btf_error: Option<String>,
    /// Bit mask of effective capabilities.
    pub(super) capabilities: u64,
    /// Whether process ids mean the same to us and to the kernel.
    pub(super) initial_pid_namespace: bool,
    /// Values of [`SETTINGS`] that could be read.
    pub(super) settings: BTreeMap<&'static str, i64>,
    /// What only trying tells; `None` in the quick check.
    pub(super) tried: Option<TriedFacts>,
}

/// What only trying tells.
#[derive(Clone, Debug)]
pub(super) struct TriedFacts {
    pub(super) programs: Vec<(&'static str, Tried)>,
    pub(super) maps: Vec<(&'static str, Tried)>,
    /// Our own programs, loaded and attached.
    pub(super) recording: Result<ClockEvent, String>,
    /// Likewise, what counts system calls, what follows TCP connections and what takes traffic.
    pub(super) syscalls: Result<(), String>,
    pub(super) tcp: Result<(), String>,
    pub(super) wire: Result<(), String>,
    /// Whether /proc/kallsyms shows addresses.
    pub(super) kernel_symbols: bool,
    /// The chosen word of /sys/kernel/security/lockdown, if there is one.
    pub(super) lockdown: Option<String>,
    /// Soft limit of locked memory, bytes; `None` without a limit.
    pub(super) memlock: Option<u64>,
    pub(super) tracefs: bool,
    /// Where cgroup v2 is mounted.
    pub(super) cgroup2: Option<String>,
    /// Whether separate debug information is installed.
    pub(super) debug_info: bool,
    pub(super) debuginfod: Option<String>,
    pub(super) cpus: usize,
}

/// Only what can be read at once.
pub(super) fn quick() -> Facts {
    let uname = rustix::system::uname();
    let settings = SETTINGS.into_iter().filter_map(|name| {
        let text = fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?;
        Some((name, text.trim().parse().ok()?))
    });
    Facts {
        release: uname.release().to_string_lossy().into_owned(),
        machine: uname.machine().to_string_lossy().into_owned(),
        btf_error: kernel_offsets().err().map(|error| error.to_string()),
        capabilities: Process::myself()
            .and_then(|process| process.status())
            .map_or(0, |status| status.capeff),
        initial_pid_namespace: inode("/proc/self/ns/pid")
            .is_none_or(|inode| inode == INITIAL_PID_NAMESPACE),
        settings: settings.collect(),
        tried: None,
    }
}

/// Everything.
pub(super) fn gather() -> Facts {
    let tried = TriedFacts {
        programs: probe::program_types(),
        maps: probe::map_types(),
        recording: probe::recording(),
        syscalls: probe::syscalls(),
        tcp: probe::tcp(),
        wire: probe::wire(),
        kernel_symbols: kernel_symbols(),
        lockdown: lockdown(),
        memlock: rustix::process::getrlimit(rustix::process::Resource::Memlock).current,
        tracefs: [
            "/sys/kernel/tracing/events",
            "/sys/kernel/debug/tracing/events",
        ]
        .iter()
        .any(|path| Path::new(path).exists()),
        cgroup2: cgroup::mount_point()
            .ok()
            .map(|path| path.display().to_string()),
        debug_info: Path::new("/usr/lib/debug/.build-id").is_dir(),
        debuginfod: env::var("DEBUGINFOD_URLS")
            .ok()
            .filter(|urls| !urls.is_empty()),
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
    };
    Facts {
        tried: Some(tried),
        ..quick()
    }
}

fn inode(path: &str) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    Some(fs::metadata(path).ok()?.ino())
}

/// Addresses are shown as zeros where the kernel hides them.
fn kernel_symbols() -> bool {
    let text = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    text.lines().take(100).any(|line| {
        line.split(' ')
            .next()
            .is_some_and(|address| address.bytes().any(|digit| digit != b'0'))
    })
}

/// The word in brackets.
fn lockdown() -> Option<String> {
    let text = fs::read_to_string("/sys/kernel/security/lockdown").ok()?;
    let chosen = text.split('[').nth(1)?.split(']').next()?;
    Some(chosen.to_owned())
}
