//! From what was recorded to a file: names, the profile, the account, the summary.

#![expect(
    clippy::print_stderr,
    reason = "the summary of a recording is talk, and goes to standard error"
)]

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use profiler_common::{
    off_cpu::ThreadTimes,
    outcome::{Counter, StopReason},
};
use rustix::time::{ClockId, clock_gettime};

use super::{
    aggregate::{Aggregate, RUNNING},
    places::{self, Locations},
    session::{Recorded, Single},
};
use crate::{
    artifact::Destination,
    config::{self, Mode, default_path},
    error::Error,
    kernel::ClockEvent,
    output::{self, account},
    process::{Place, Processes},
    profile::{
        Account, Cost, Event, Frame, FrameKind, Location, LocationId, Lost, Meta, Module, ModuleId,
        Profile, Stack, ThreadId, ThreadTime, Times,
    },
    symbolize::Named,
};

/// The scheduler's frames lie within these, at the leaf end of a stack taken at a switch.
const SCHEDULER_FRAMES_MAX: usize = 12;

/// Makes the profile, writes it and prints the summary.
pub(crate) fn write(recorded: Recorded) -> Result<(), Error> {
    if recorded.aggregate.total() == 0 && recorded.aggregate.times.is_empty() {
        return Err(no_samples(&recorded));
    }
    let Recorded {
        config, artifact, ..
    } = &recorded;
    let (format, options) = (config.format, config.options);
    let path = artifact.path().map(|path| path.display().to_string());
    let (mut profile, hints) = make_profile(&recorded)?;
    profile.account.cost.process = process_cpu_time();
    let bytes = output::render(&profile, format, &options)?;
    recorded.artifact.write(&bytes)?;
    for line in account::lines(&profile) {
        eprintln!("{line}");
    }
    for hint in hints {
        eprintln!("hint: {hint}");
    }
    if let Some(path) = path {
        eprintln!("wrote {path}");
    }
    Ok(())
}

/// Where the result goes: where the user said, else a file named after the target.
pub(super) fn destination(
    config: &config::Record,
    processes: &Processes,
    command_pid: Option<u32>,
) -> Destination {
    if let Some(destination) = &config.destination {
        return destination.clone();
    }
    let path = match (single_pid(config), &config.targets.command) {
        (Some(pid), _) => default_path(
            &processes.comm(pid).unwrap_or_default(),
            Some(pid),
            config.format,
        ),
        (None, Some(command)) => {
            let program = command
                .first()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            let name = program.rsplit('/').next().unwrap_or_default();
            default_path(name, command_pid, config.format)
        }
        (None, None) => default_path(&config.targets.description(), None, config.format),
    };
    Destination::File(path)
}

fn single_pid(config: &config::Record) -> Option<u32> {
    match config.targets.pids.as_slice() {
        &[pid] => Some(pid),
        _ => None,
    }
}

/// The process that a recording is of, if it is one: the only PID named, or the command.
pub(crate) fn single(
    config: &config::Record,
    processes: &Processes,
    aggregate: &Aggregate<Place>,
) -> Option<Single> {
    if let Some(pid) = single_pid(config) {
        let comm = processes
            .comm(pid)
            .or_else(|| comm_of(aggregate, pid))
            .unwrap_or_default();
        return Some(Single {
            pid,
            comm,
            command_line: processes.command_line(pid).unwrap_or_default(),
        });
    }
    let command = config.targets.command.as_ref()?;
    let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
    let process = aggregate.processes.first();
    Some(Single {
        pid: process.map_or(0, |process| process.pid),
        comm: process.map_or_else(
            || words.first().map(ToString::to_string).unwrap_or_default(),
            |process| process.comm.clone(),
        ),
        command_line: words.join(" "),
    })
}

fn comm_of(aggregate: &Aggregate<Place>, pid: u32) -> Option<String> {
    aggregate
        .processes
        .iter()
        .find(|process| process.pid == pid)
        .map(|process| process.comm.clone())
}

fn no_samples(recorded: &Recorded) -> Error {
    let target = recorded.single.as_ref().map_or_else(
        || recorded.config.targets.description(),
        |single| format!("{} (pid {})", single.comm, single.pid),
    );
    let (why, hint) = match recorded.target_cpu {
        Some(used) => (
            format!(": it used {:.2} s of CPU", used.as_secs_f64()),
            "an idle process has no CPU samples: record while it is busy, or longer with -d; \
             what it waits for is shown by --off-cpu",
        ),
        None if recorded.config.targets.command.is_some() => (
            String::new(),
            "the command ended before the clock ticked on it: sample faster with -F 9999, or give it more to do",
        ),
        None => (
            String::new(),
            "nothing that matches ran: check the name, cgroup or unit, or record longer with -d",
        ),
    };
    Error::NoSamples {
        target,
        duration: recorded.duration,
        why,
        hint: hint.to_owned(),
    }
}

fn make_profile(recorded: &Recorded) -> Result<(Profile, Vec<String>), Error> {
    let mode = recorded.config.mode;
    let aggregate = &recorded.aggregate;
    let mut modules = Modules::default();
    let Locations {
        list: mut locations,
        notes,
        hints,
    } = places::locations(
        &aggregate.places,
        &recorded.processes,
        recorded.stacks.known_pythons(),
        &mut modules,
    )?;
    let pythons = recorded.stacks.known_pythons();
    let interpreter = recorded.config.interpreter;
    let mut markers = HashMap::new();
    let mut leaves = HashMap::new();
    let stacks = aggregate
        .stacks
        .iter()
        .map(|key| {
            let mut stack = places::shown(&key.places, &aggregate.places, pythons, interpreter);
            if let Some(leaf) = key.leaf {
                let leaf = &aggregate.leaves[leaf as usize];
                if leaf != RUNNING {
                    drop_scheduler(&mut stack, &locations);
                }
                stack.insert(
                    0,
                    *leaves
                        .entry(leaf)
                        .or_insert_with(|| push_text(&mut locations, leaf.clone())),
                );
            }
            if !key.stop.is_complete() {
                stack.push(
                    *markers
                        .entry(key.stop)
                        .or_insert_with(|| push_marker(&mut locations, key.stop)),
                );
            }
            Stack { locations: stack }
        })
        .collect();
    let mut account = account(recorded)?;
    account
        .notes
        .extend(notes.into_iter().map(|(note, count)| (note.into(), count)));
    let times: Vec<Times> = aggregate.times.iter().map(times).collect();
    if mode != Mode::OnCpu {
        let sum = |part| times.iter().map(|times| times.of(part)).sum();
        account.threads = ThreadTime::ALL.map(|part| (part, sum(part))).into();
    }
    let profile = Profile {
        meta: meta(recorded),
        processes: aggregate.processes.clone(),
        threads: aggregate.threads.clone(),
        modules: modules.list,
        locations,
        stacks,
        samples: aggregate.samples(|weight| match mode {
            Mode::OnCpu => weight.count,
            Mode::OffCpu | Mode::Wall | Mode::Syscalls => (weight.time_ns + 500) / 1000,
        }),
        times,
        timeline: aggregate.ticks.clone(),
        account,
    };
    Ok((profile, hints))
}

#[derive(Default)]
pub(crate) struct Modules {
    list: Vec<Module>,
    ids: HashMap<(String, Vec<u8>), ModuleId>,
}

impl Modules {
    fn id(&mut self, module: Module) -> ModuleId {
        let Self { list, ids } = self;
        *ids.entry((module.path.clone(), module.build_id.clone()))
            .or_insert_with(|| {
                list.push(module);
                ModuleId(u32::try_from(list.len() - 1).unwrap_or(u32::MAX))
            })
    }
}

pub(super) fn location(named: Named, address: u64, modules: &mut Modules) -> Location {
    Location {
        kind: named.kind,
        module: named.module.map(|module| modules.id(module)),
        address,
        frames: named.frames,
    }
}

/// Takes the scheduler's own frames, and those of our program in it, off a stack that was taken at a switch.
fn drop_scheduler(stack: &mut Vec<LocationId>, locations: &[Location]) {
    let scheduler = stack.iter().take(SCHEDULER_FRAMES_MAX).rposition(|id| {
        let location = &locations[id.index()];
        location.kind == FrameKind::Kernel
            && location
                .frames
                .last()
                .is_some_and(|frame| frame.name == "__schedule")
    });
    if let Some(last) = scheduler {
        stack.drain(..=last);
    }
}

/// A frame that says at the root of a stack why the rest is missing.
fn push_marker(locations: &mut Vec<Location>, stop: StopReason) -> LocationId {
    push_text(locations, format!("[cut: {}]", stop.text()))
}

/// A frame that is no code.
fn push_text(locations: &mut Vec<Location>, name: String) -> LocationId {
    let frame = Frame {
        name,
        ..Frame::default()
    };
    locations.push(Location {
        kind: FrameKind::Marker,
        module: None,
        address: 0,
        frames: vec![frame],
    });
    LocationId(u32::try_from(locations.len() - 1).unwrap_or(u32::MAX))
}

fn meta(recorded: &Recorded) -> Meta {
    let own_command_line = || std::env::args().collect::<Vec<_>>().join(" ");
    let (title, command_line) = match &recorded.single {
        Some(single) => (
            format!("{} (pid {})", single.comm, single.pid),
            single.command_line.clone(),
        ),
        None => (recorded.config.targets.description(), own_command_line()),
    };
    let (wall, monotonic_ns) = recorded.started_at;
    Meta {
        title,
        command_line,
        event: event(recorded),
        frequency_hz: match recorded.config.mode {
            Mode::OnCpu => recorded.config.frequency_hz,
            // A count stands for a microsecond.
            Mode::OffCpu | Mode::Wall | Mode::Syscalls => 1_000_000,
        },
        started: wall.duration_since(UNIX_EPOCH).unwrap_or_default(),
        started_mono_ns: monotonic_ns,
        duration: recorded.duration,
    }
}

fn event(recorded: &Recorded) -> Event {
    match (recorded.config.mode, recorded.clock) {
        (Mode::OffCpu, _) => Event::OffCpu,
        (Mode::Wall, _) => Event::Wall,
        (Mode::Syscalls, _) => Event::Syscalls,
        (Mode::OnCpu, Some(clock)) if clock.event == ClockEvent::Cycles => Event::Cycles,
        (Mode::OnCpu, _) => Event::CpuClock,
    }
}

fn times((thread, times): (&ThreadId, &ThreadTimes)) -> Times {
    Times {
        thread: *thread,
        followed_ns: times.in_state_ns.iter().sum(),
        in_state_ns: times.in_state_ns,
        below_threshold_ns: times.below_threshold_ns,
    }
}

fn account(recorded: &Recorded) -> Result<Account, Error> {
    let counters = recorded.kernel.counters()?;
    let counted = |counter: Counter| counters.get(&counter).copied().unwrap_or(0);
    let aggregate = &recorded.aggregate;
    let shown = aggregate.total();
    let taken = counted(Counter::Taken)
        + counted(Counter::SpansTaken)
        + counted(Counter::CallStacks)
        + recorded.open_spans;
    let mut lost = BTreeMap::from([
        (Lost::RingFull, counted(Counter::RingFull)),
        (Lost::Malformed, recorded.malformed),
        (Lost::TableFull, aggregate.overflowed),
        (Lost::WithoutGil, aggregate.without_gil),
    ]);
    let explained = shown + lost.values().sum::<u64>();
    lost.insert(Lost::Unexplained, taken.abs_diff(explained));
    let mut notes = BTreeMap::new();
    for counter in [
        Counter::EventLost,
        Counter::TargetsFull,
        Counter::NoKernelStack,
        Counter::SpacesFull,
        Counter::ThreadsFull,
        Counter::NoSwitchStack,
        Counter::PythonsFull,
    ] {
        notes.insert(counter.text().into(), counted(counter));
    }
    notes.insert(
        "sample without its time, time line full".into(),
        aggregate.ticks_lost,
    );
    notes.extend(
        recorded
            .processes
            .notes()
            .into_iter()
            .map(|(note, count)| (note.into(), count)),
    );
    notes.extend(
        recorded
            .stacks
            .notes()
            .into_iter()
            .map(|(note, count)| (note.into(), count)),
    );
    notes.retain(|_, count| *count > 0);
    lost.retain(|_, count| *count > 0);
    let cost = Cost {
        bpf: recorded.kernel.bpf_time().unwrap_or_default(),
        process: Duration::ZERO,
    };
    Ok(Account {
        taken,
        shown,
        lost,
        stacks: aggregate.by_stop.clone(),
        notes,
        threads: BTreeMap::new(),
        cost,
    })
}

/// CPU time of this process so far, user and system, set-up included.
pub(crate) fn process_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, nanoseconds) = (
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    );
    Duration::new(seconds, nanoseconds)
}

/// `CLOCK_MONOTONIC`, ns: the clock of every record.
pub(crate) fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000
        + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Both clocks at once.
pub(crate) fn now() -> (SystemTime, u64) {
    (SystemTime::now(), monotonic_ns())
}
