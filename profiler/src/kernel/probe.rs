//! Asks the kernel what it allows by trying it: loads a program of each type, makes a map of each
//! type, opens an event. What was made is gone again at once.

use aya::{
    maps::MapType,
    programs::ProgramType,
    sys::{is_map_supported, is_program_supported},
};
use profiler_common::{
    config::{FILTER_TARGETS, Settings},
    syscalls::wanted,
};

use super::{
    ClockEvent, Kernel, KernelError, Wanted, call_offsets, kernel_offsets, tcp_offsets,
    wire_offsets,
};

/// What came of trying something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    /// It works.
    Works,
    /// It does not, in the kernel's words.
    Refused(String),
}

impl Tried {
    fn of(result: Result<bool, impl std::error::Error>) -> Self {
        match result {
            Ok(true) => Self::Works,
            Ok(false) => Self::Refused("not supported by this kernel".to_owned()),
            Err(error) => Self::Refused(chain(&error)),
        }
    }

    /// Whether it works.
    pub fn works(&self) -> bool {
        *self == Self::Works
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    // The verifier's log is for developers.
    text.lines().next().unwrap_or_default().to_owned()
}

/// Loads one trivial program of each type that the profiler uses or will use.
pub fn program_types() -> Vec<(&'static str, Tried)> {
    let types = [
        ("perf event program", ProgramType::PerfEvent),
        ("raw tracepoint program", ProgramType::RawTracePoint),
        ("tracing program (fentry)", ProgramType::Tracing),
        ("tracepoint program", ProgramType::TracePoint),
        ("kprobe and uprobe program", ProgramType::KProbe),
    ];
    types
        .into_iter()
        .map(|(name, kind)| (name, Tried::of(is_program_supported(kind))))
        .collect()
}

/// Makes one map of each type that the profiler uses or will use.
pub fn map_types() -> Vec<(&'static str, Tried)> {
    let types = [
        ("hash map", MapType::Hash),
        ("per-CPU array map", MapType::PerCpuArray),
        ("ring buffer map", MapType::RingBuf),
        ("LPM trie map", MapType::LpmTrie),
        ("array of maps", MapType::ArrayOfMaps),
    ];
    types
        .into_iter()
        .map(|(name, kind)| (name, Tried::of(is_map_supported(kind))))
        .collect()
}

/// Loads our own programs, attaches their tracepoints and starts the clock, with no target: nothing
/// is sampled. Tells which event drives the clock.
pub fn recording() -> Result<ClockEvent, String> {
    let offsets = kernel_offsets().map_err(|error| chain(&error))?;
    let settings = Settings {
        filters: FILTER_TARGETS,
        off_cpu: 1,
        offsets,
        ..Settings::UNSET
    };
    let (mut kernel, _ring, _shared) = Kernel::load(&settings).map_err(|error| chain(&error))?;
    kernel.attach_lifecycle().map_err(|error| chain(&error))?;
    kernel.attach_switches().map_err(|error| chain(&error))?;
    let clock = kernel.start_clock(1).map_err(|error| chain(&error))?;
    Ok(clock.event)
}

/// Loads and attaches what counts system calls, with no target.
pub fn syscalls() -> Result<(), String> {
    let mut wanted = Wanted {
        calls: call_offsets().map_err(|error| chain(&error))?,
        ..Wanted::default()
    };
    wanted.calls.wanted = wanted::CALLS;
    attach(&wanted, Kernel::attach_calls)
}

/// Loads and attaches what follows TCP connections, with no target.
pub fn tcp() -> Result<(), String> {
    let mut wanted = Wanted {
        tcp: tcp_offsets().map_err(|error| chain(&error))?,
        ..Wanted::default()
    };
    wanted.tcp.wanted = 1;
    attach(&wanted, Kernel::attach_tcp)
}

/// Loads and attaches what takes traffic, with no target, and loads what follows TLS libraries.
pub fn wire() -> Result<(), String> {
    let mut wanted = Wanted {
        calls: call_offsets().map_err(|error| chain(&error))?,
        tcp: tcp_offsets().map_err(|error| chain(&error))?,
        wire: wire_offsets().map_err(|error| chain(&error))?,
    };
    (wanted.wire.wanted, wanted.wire.tls) = (1, 1);
    attach(&wanted, Kernel::attach_wire)
}

fn attach(
    wanted: &Wanted,
    attach: impl FnOnce(&mut Kernel) -> Result<(), KernelError>,
) -> Result<(), String> {
    let settings = Settings {
        filters: FILTER_TARGETS,
        offsets: kernel_offsets().map_err(|error| chain(&error))?,
        ..Settings::UNSET
    };
    let loaded = Kernel::load_with(&settings, wanted).map_err(|error| chain(&error));
    let (mut kernel, _ring, _shared) = loaded?;
    attach(&mut kernel).map_err(|error| chain(&error))
}

/// Opens a perf event, with nobody sampled: where `kernel.perf_event_paranoid` is above what Linux knows, only trying
/// tells whether this kernel minds.
pub fn perf_event() -> Result<(), KernelError> {
    let settings = Settings {
        filters: FILTER_TARGETS,
        ..Settings::UNSET
    };
    let (mut kernel, _ring, _shared) = Kernel::load(&settings)?;
    kernel.start_clock(1).map(drop)
}
