//! The aggregated profile: the plain values at which every source and every output meet.
//!
//! A recording produces one, reading a folded or pprof file produces one, and every output format
//! is a function of one. Nothing here does I/O, knows how stacks were taken or how they are drawn.
//! Lists refer to each other by index newtypes, so that a profile is small and cheap to merge.

use std::{borrow::Cow, collections::BTreeMap, time::Duration};

use profiler_common::{
    off_cpu::State,
    outcome::StopReason,
    sample::{GIL_FREE, GIL_HELD},
};

macro_rules! index {
    ($($(#[$meta:meta])* $name:ident),+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl $name {
            /// The position in its list.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        }
    )+};
}

index!(
    /// Position in [`Profile::processes`].
    ProcessId,
    /// Position in [`Profile::threads`].
    ThreadId,
    /// Position in [`Profile::modules`].
    ModuleId,
    /// Position in [`Profile::locations`].
    LocationId,
    /// Position in [`Profile::stacks`].
    StackId
);

/// Samples of one recording, aggregated by thread and stack, with names.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// What was recorded, how and for how long.
    pub meta: Meta,
    /// Every process with a sample.
    pub processes: Vec<Process>,
    /// Every thread with a sample.
    pub threads: Vec<Thread>,
    /// Every file (or kernel, or vDSO) that a location lies in.
    pub modules: Vec<Module>,
    /// Every distinct code location.
    pub locations: Vec<Location>,
    /// Every distinct stack.
    pub stacks: Vec<Stack>,
    /// The samples, at most one entry for each thread and stack.
    pub samples: Vec<Sample>,
    /// Exact times of threads, where time was measured.
    pub times: Vec<Times>,
    /// Each sample with its time, in order, for outputs with a time axis; empty unless asked for.
    pub timeline: Vec<Tick>,
    /// Where every sample went.
    pub account: Account,
}

/// What was recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// One line that names the recording, e.g. `postgres (pid 4711)`.
    pub title: String,
    /// Command line of the target, or of the profiler where there is no single target.
    pub command_line: String,
    /// What drove the sampling.
    pub event: Event,
    /// Samples per second and CPU; 0 where a file did not say; of an event that is time, one million,
    /// as each count stands for a microsecond.
    pub frequency_hz: u64,
    /// Wall-clock time of the start, since the Unix epoch; zero where a file did not say.
    pub started: Duration,
    /// `CLOCK_MONOTONIC` of the start, ns.
    pub started_mono_ns: u64,
    /// How long was recorded; zero where a file did not say.
    pub duration: Duration,
}

impl Meta {
    /// Time that one sample stands for, ns; 0 where the frequency is not known.
    pub fn period_ns(&self) -> u64 {
        1_000_000_000_u64
            .checked_div(self.frequency_hz)
            .unwrap_or(0)
    }
}

/// What drove the sampling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Event {
    /// The kernel's software CPU clock, a high-resolution timer.
    #[default]
    CpuClock,
    /// The processor's cycle counter.
    Cycles,
    /// Switches between threads: time off the CPU.
    OffCpu,
    /// Both: all time of the threads.
    Wall,
    /// Time in system calls.
    Syscalls,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::CpuClock,
        Self::Cycles,
        Self::OffCpu,
        Self::Wall,
        Self::Syscalls,
    ];

    /// Whether samples are counted in microseconds, as time was measured, not sampled.
    pub fn is_time(self) -> bool {
        matches!(self, Self::OffCpu | Self::Wall | Self::Syscalls)
    }

    /// The kernel's own name of the event, or ours.
    pub fn name(self) -> &'static str {
        match self {
            Self::CpuClock => "cpu-clock",
            Self::Cycles => "cycles",
            Self::OffCpu => "off-cpu",
            Self::Wall => "wall",
            Self::Syscalls => "syscalls",
        }
    }
}

/// A process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Id in the initial pid namespace; 0 where a file did not say.
    pub pid: u32,
    /// Name of its main thread.
    pub comm: String,
    /// Its cgroup (v2) when it was first seen, such as `/system.slice/nginx.service`; empty where it is not known.
    pub cgroup: String,
}

/// A thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// Its process.
    pub process: ProcessId,
    /// Id in the initial pid namespace; 0 where a file did not say.
    pub tid: u32,
    /// Its name when first sampled.
    pub name: String,
}

/// A file that code was mapped from, or a stand-in for one such as `[kernel.kallsyms]`, `[vdso]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Module {
    /// Path as the target saw it.
    pub path: String,
    /// GNU build id, empty where there is none.
    pub build_id: Vec<u8>,
    /// Lowest address it was mapped at, in the first process that had it; 0 where not known.
    pub start: u64,
    /// End of its highest executable mapping there.
    pub end: u64,
    /// File offset of `start`.
    pub file_offset: u64,
}

impl Module {
    /// The last component of the path.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

/// One code address, with the functions that were compiled into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// What kind of code it is.
    pub kind: FrameKind,
    /// The file it lies in.
    pub module: Option<ModuleId>,
    /// Address in the first process that had it (a call's own address, not its return address); 0 where not known.
    pub address: u64,
    /// The function and the functions inlined into it at this address, innermost first; never empty.
    pub frames: Vec<Frame>,
}

/// What kind of code a frame belongs to; told apart by colour and by suffix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameKind {
    /// Kernel code.
    Kernel,
    /// Compiled code mapped from a file.
    Native,
    /// Compiled code that a runtime made.
    Jit,
    /// A function of Python.
    Python,
    /// Not code: says where a stack was cut and why.
    Marker,
}

/// One function at a location.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Demangled name.
    pub name: String,
    /// Name as the linker saw it, where it differs.
    pub system_name: Option<String>,
    /// Source file.
    pub file: Option<String>,
    /// Line in it.
    pub line: Option<u32>,
    /// Where the function begins, if that is known.
    pub first_line: Option<u32>,
}

/// Locations of one stack, leaf first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Leaf first; kernel, then user, then a marker where the stack was cut.
    pub locations: Vec<LocationId>,
}

/// Samples of one thread with one stack, or microseconds: see [`Event::is_time`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Whose.
    pub thread: ThreadId,
    /// Where.
    pub stack: StackId,
    /// Whether the thread held its Python interpreter's lock.
    pub gil: Gil,
    /// How many.
    pub count: u64,
}

/// Whether a thread held its Python interpreter's lock (GIL).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gil {
    /// It has nothing to do with one, or it is not known.
    #[default]
    Unknown,
    /// It did not.
    Free,
    /// It did.
    Held,
}

impl Gil {
    /// By its word in a record.
    pub fn from_id(id: u8) -> Self {
        match id {
            GIL_FREE => Self::Free,
            GIL_HELD => Self::Held,
            _ => Self::Unknown,
        }
    }

    /// Its word in files; nothing where it is not known.
    pub fn word(self) -> Option<&'static str> {
        match self {
            Self::Unknown => None,
            Self::Free => Some("free"),
            Self::Held => Some("held"),
        }
    }

    /// What the word means.
    pub fn from_word(word: &str) -> Self {
        let all = [Self::Free, Self::Held];
        all.into_iter()
            .find(|gil| gil.word() == Some(word))
            .unwrap_or_default()
    }
}

/// The exact account of one thread's time while it was followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Whose; threads without a sample have none.
    pub thread: ThreadId,
    /// How long it was followed, ns.
    pub followed_ns: u64,
    /// Time in each [`State`], ns: together `followed_ns`.
    pub in_state_ns: [u64; 4],
    /// Of that, in spans off the CPU shorter than the threshold, by state, ns.
    pub below_threshold_ns: [u64; 4],
}

/// One sample with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// `CLOCK_MONOTONIC`, ns.
    pub time_ns: u64,
    /// CPU it ran on.
    pub cpu: u32,
    /// Whose.
    pub thread: ThreadId,
    /// Where.
    pub stack: StackId,
}

/// Where every sample went: `taken` = shown + everything in `lost`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Samples that the kernel side began to take.
    pub taken: u64,
    /// Samples in the profile.
    pub shown: u64,
    /// Samples that did not arrive, by cause.
    pub lost: BTreeMap<Lost, u64>,
    /// Samples in the profile, by how their user stack ended.
    pub stacks: BTreeMap<StopReason, u64>,
    /// Things that went wrong without costing a sample, in words, with how often.
    pub notes: BTreeMap<Cow<'static, str>, u64>,
    /// Exact time of all threads together, where time was measured.
    pub threads: BTreeMap<ThreadTime, Duration>,
    /// What the recording itself cost.
    pub cost: Cost,
}

/// A part of the time of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ThreadTime {
    /// All of it: since each thread was first seen.
    Followed,
    /// Of that, in a state.
    In(State),
    /// Of that, off the CPU in spans shorter than the threshold.
    BelowThreshold,
}

impl ThreadTime {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Followed,
        Self::In(State::Running),
        Self::In(State::Runnable),
        Self::In(State::Blocked),
        Self::In(State::Uninterruptible),
        Self::BelowThreshold,
    ];

    /// What it means, in words for a report.
    pub fn text(self) -> &'static str {
        match self {
            Self::Followed => "followed",
            Self::In(state) => state.text(),
            Self::BelowThreshold => "below the threshold",
        }
    }
}

impl Times {
    /// One part of them.
    pub fn of(&self, part: ThreadTime) -> Duration {
        Duration::from_nanos(match part {
            ThreadTime::Followed => self.followed_ns,
            ThreadTime::In(state) => self.in_state_ns[state as usize],
            ThreadTime::BelowThreshold => self.below_threshold_ns.iter().sum(),
        })
    }
}

/// Why a sample is not in the profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lost {
    /// The ring buffer was full: the reader did not keep up.
    RingFull,
    /// Its record contradicted itself.
    Malformed,
    /// The table of distinct stacks was full.
    TableFull,
    /// Left out as asked for: only threads that hold their interpreter's lock are wanted.
    WithoutGil,
    /// Left out as asked for: only some processes are wanted.
    OtherProcess,
    /// Taken, neither sent nor counted as lost: must stay zero, shown if it does not.
    Unexplained,
}

impl Lost {
    /// What it means, in words for a report.
    pub fn text(self) -> &'static str {
        match self {
            Self::RingFull => "ring buffer full",
            Self::Malformed => "malformed record",
            Self::TableFull => "too many distinct stacks",
            Self::WithoutGil => "not holding the GIL, left out",
            Self::OtherProcess => "of other processes, left out",
            Self::Unexplained => "unexplained",
        }
    }
}

impl Account {
    /// Samples that are not in the profile.
    pub fn lost_total(&self) -> u64 {
        self.lost.values().sum()
    }

    /// Samples whose stack reached its outermost frame.
    pub fn complete(&self) -> u64 {
        self.stacks
            .iter()
            .filter(|(reason, _)| reason.is_complete())
            .map(|(_, count)| count)
            .sum()
    }

    /// Whether this recording knows its account at all: a profile read from a file does not.
    pub fn is_known(&self) -> bool {
        self.taken > 0
    }
}

/// CPU time that the recording itself took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Time inside our BPF programs, all CPUs.
    pub bpf: Duration,
    /// CPU time of the profiler process, user and system.
    pub process: Duration,
}

impl Profile {
    /// All samples together.
    pub fn total(&self) -> u64 {
        self.samples.iter().map(|sample| sample.count).sum()
    }

    /// The location behind an id.
    pub fn location(&self, id: LocationId) -> &Location {
        &self.locations[id.index()]
    }

    /// The thread behind an id.
    pub fn thread(&self, id: ThreadId) -> &Thread {
        &self.threads[id.index()]
    }

    /// The process of a thread.
    pub fn process_of(&self, id: ThreadId) -> &Process {
        &self.processes[self.thread(id).process.index()]
    }
}
