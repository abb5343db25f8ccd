//! From what was recorded to a file: names, the profile, the account, the summary.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use profiler_common::outcome::Counter;
use rustix::time::{ClockId, clock_gettime};

use super::{
    aggregate::Aggregate,
    captured::Captured,
    places::PythonPlaces,
    session::{Recorded, Single},
};
use crate::{
    artifact::{Artifact, Destination},
    config::{self, Mode, default_path},
    error::Error,
    kernel::{Clock, ClockEvent},
    output::{self, account},
    printable::shown,
    process::{Place, Processes},
    profile::{Account, Cost, Event, Lost, Meta},
    symbolize::{Limits, Sources, Symbols},
    terminal::say,
};

/// What the kernel side counts that costs no sample.
pub(super) const NOTED: [Counter; 9] = [
    Counter::EventLost,
    Counter::TargetsFull,
    Counter::NoKernelStack,
    Counter::SpacesFull,
    Counter::ThreadsFull,
    Counter::NoSwitchStack,
    Counter::ArrivalUnseen,
    Counter::PythonsFull,
    Counter::NotRun,
];

/// Makes the profile, writes it and prints the summary.
pub(crate) fn write(recorded: Recorded) -> Result<(), Error> {
    if recorded.aggregate.total() == 0 && recorded.aggregate.times.is_empty() {
        return Err(no_samples(&recorded));
    }
    let (format, options) = (recorded.config.format, recorded.config.options);
    let (captured, artifact) = capture(recorded)?;
    let path = artifact.path().map(shown);
    let symbols = Symbols::spawn(Limits::VERB)?;
    let resolve = |places, sources| symbols.resolve(places, sources);
    let (mut profile, hints) = captured.profile(resolve)?;
    profile.account.cost.process = process_cpu_time();
    let bytes = output::render(&profile, format, &options)?;
    artifact.write(&bytes)?;
    for line in account::lines(&profile) {
        say(&line);
    }
    for hint in hints {
        say(&format!("hint: {hint}"));
    }
    if let Some(path) = path {
        say(&format!("wrote {path}"));
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
    Destination::Ours(path)
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
    let process = aggregate.processes.first();
    Some(Single {
        pid: process.map_or(0, |process| process.pid),
        comm: process.map_or_else(
            || {
                command
                    .first()
                    .map(|word| word.to_string_lossy().into_owned())
                    .unwrap_or_default()
            },
            |process| process.comm.clone(),
        ),
        command_line: config.targets.command_text().unwrap_or_default(),
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

/// Takes out what the profile is made of. Nothing of the kernel side is left afterwards.
fn capture(recorded: Recorded) -> Result<(Captured, Artifact), Error> {
    let pythons = recorded.stacks.known_pythons();
    let captured = Captured {
        meta: meta(&recorded),
        mode: recorded.config.mode,
        interpreter: recorded.config.interpreter,
        pythons: PythonPlaces::of(&recorded.aggregate.places, pythons),
        sources: Sources::of(&recorded.processes),
        account: account(&recorded)?,
        aggregate: recorded.aggregate,
    };
    Ok((captured, recorded.artifact))
}

fn meta(recorded: &Recorded) -> Meta {
    let (title, command_line) = match &recorded.single {
        Some(single) => (
            format!("{} (pid {})", single.comm, single.pid),
            single.command_line.clone(),
        ),
        None => (
            recorded.config.targets.description(),
            recorded.config.targets.command_lines.own(),
        ),
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
        (Mode::OnCpu, Some(clock)) => event_of(clock),
        (Mode::OnCpu, None) => Event::CpuClock,
    }
}

/// What a clock's ticks are called.
pub(super) fn event_of(clock: Clock) -> Event {
    match clock.event {
        ClockEvent::Cycles => Event::Cycles,
        ClockEvent::CpuClock => Event::CpuClock,
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
    for counter in NOTED {
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

/// The system's clock, microseconds since 1970.
pub(crate) fn now_us() -> i64 {
    let time = clock_gettime(ClockId::Realtime);
    time.tv_sec * 1_000_000 + time.tv_nsec / 1000
}

/// Both clocks at once.
pub(crate) fn now() -> (SystemTime, u64) {
    (SystemTime::now(), monotonic_ns())
}
