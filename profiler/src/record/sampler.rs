//! Sampling that goes on for months: windows are taken out of it while the programs stay attached and
//! tables and mappings stay known. What grows is bounded: processes that ended and files that nobody maps any
//! more are forgotten between windows, and a sampler that has seen more than it can forget says that it is
//! [worn](Sampler::is_worn).

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use profiler_common::{
    config::{FILTER_TARGETS, Settings},
    outcome::Counter,
};

use super::{
    aggregate::{Aggregate, Timeline},
    captured::Captured,
    carry::{Boundary, Carry},
    finish::{NOTED, event_of, now, process_cpu_time},
    ledger::{Closed, Ledger, Sampling},
    off_cpu,
    places::PythonPlaces,
    ring_watch::RingWatch,
    stacks::Stacks,
    state::State,
    targets,
    thread_names::Which,
};
use crate::{
    command_line::CommandLines,
    config::{Interpreter, Mode, PythonThreads},
    error::Error,
    kernel::{Clock, Kernel, Ring, kernel_offsets},
    process::Processes,
    profile::{Account, Cost, Event, Lost, Meta},
    symbolize::Sources,
    wait::Waits,
};

/// Least time between two looks at what can be forgotten.
const SWEEP_PAUSE: Duration = Duration::from_secs(5);
/// Files that may have been seen: each leaves 8 bytes.
const FILES_WORN: usize = 1_000_000;
/// Python functions that may have been seen; they are kept as long as the sampler is.
const FUNCTIONS_WORN: usize = 200_000;

/// Whom to sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Every process.
    Host,
    /// Those that are added.
    Added,
}

/// What to record, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct How {
    /// Where threads run, where they wait, or both.
    pub(crate) mode: Mode,
    /// Samples per second and CPU.
    pub(crate) frequency_hz: u64,
    /// Spans off the CPU shorter than this are only added up.
    pub(crate) min_block: Duration,
}

/// See the file.
pub(crate) struct Sampler {
    kernel: Kernel,
    ring: Ring,
    state: State,
    /// Unless only time off the CPU is recorded.
    clock: Option<Clock>,
    min_block: Duration,
    /// Spans that were open at the end of a window, and shown in it.
    opened: u64,
    /// Processes that are targets no more, and whose threads may still have accounts.
    gone: BTreeSet<u32>,
    title: String,
    ledger: Ledger,
    /// What had been counted when this window began.
    before: Sums,
    /// Both clocks at one moment.
    started_at: (SystemTime, u64),
    swept: Instant,
}

/// Counts that only grow.
#[derive(Debug, Default)]
struct Sums {
    ring_full: u64,
    notes: BTreeMap<&'static str, u64>,
    cost: Cost,
}

impl Sampler {
    /// Loads, attaches and begins the first window.
    pub(crate) fn start(scope: Scope, how: How, title: String) -> Result<Self, Error> {
        targets::check_frequency(how.frequency_hz)?;
        let settings = Settings {
            filters: match scope {
                Scope::Host => 0,
                Scope::Added => FILTER_TARGETS,
            },
            offsets: kernel_offsets()?,
            ..Settings::UNSET
        };
        let settings = off_cpu::settings(settings, how.mode, how.min_block)?;
        let processes = Processes::new();
        let (mut kernel, ring, shared) = Kernel::load(&settings)?;
        let pythons = kernel.pythons()?;
        kernel.attach_lifecycle()?;
        if how.mode != Mode::OnCpu {
            kernel.attach_switches()?;
        }
        let clock = match how.mode {
            Mode::OffCpu => None,
            Mode::OnCpu | Mode::Wall | Mode::Syscalls => {
                Some(kernel.start_clock(how.frequency_hz)?)
            }
        };
        Ok(Self {
            before: Sums {
                cost: cost(&kernel),
                ..Sums::default()
            },
            kernel,
            ring,
            state: State {
                stacks: Stacks::new(shared, pythons),
                waits: Waits::default(),
                mode: how.mode,
                threads: PythonThreads::All,
                processes,
                aggregate: Aggregate::new(Timeline::Drop),
                alive: BTreeSet::new(),
                malformed: 0,
                named: 0,
                carry: Carry::default(),
            },
            clock,
            min_block: how.min_block,
            opened: 0,
            gone: BTreeSet::new(),
            title,
            ledger: Ledger::default(),
            started_at: now(),
            swept: Instant::now(),
        })
    }

    /// The ring wakes when a process begins, ends or is sampled for the first time.
    pub(crate) fn watch_ring(&self) -> Result<RingWatch, Error> {
        RingWatch::begin(&self.ring)
    }

    /// Makes a process a target, with the bits of [`target`](profiler_common::config::target), so that its
    /// first sample has a whole stack.
    pub(crate) fn add_target(&mut self, pid: u32, bits: u32) -> Result<(), Error> {
        self.kernel.add_target(pid, bits)?;
        self.state.processes.observe(pid);
        if self.waits() {
            self.gone.remove(&pid);
            let pythons = self.state.stacks.known_pythons();
            off_cpu::begin(&mut self.kernel, [pid], pythons)?;
        }
        Ok(())
    }

    /// It is no target any more.
    pub(crate) fn remove_target(&mut self, pid: u32) {
        self.kernel.remove_target(pid);
        if self.waits() {
            self.gone.insert(pid);
        }
    }

    /// Whether time off the CPU is recorded.
    fn waits(&self) -> bool {
        self.state.mode != Mode::OnCpu
    }

    /// What the next window is called.
    pub(crate) fn set_title(&mut self, title: String) {
        self.title = title;
    }

    /// Samples at another rate from now on. A window should end before.
    pub(crate) fn set_frequency(&mut self, frequency_hz: u64) -> Result<(), Error> {
        if let Some(clock) = &mut self.clock
            && clock.frequency_hz != frequency_hz
        {
            *clock = self.kernel.start_clock(frequency_hz)?;
        }
        Ok(())
    }

    /// Takes in what the kernel side has sent.
    pub(crate) fn drain(&mut self) -> Result<(), Error> {
        self.state.drain(&mut self.ring)
    }

    /// When [`look_again`](Self::look_again) wants to be called.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        self.state.processes.next_look()
    }

    /// Reads the mappings of processes that have just begun.
    pub(crate) fn look_again(&mut self) -> Result<(), Error> {
        self.state.processes.look_again(Instant::now());
        self.drain()
    }

    /// Call once a second.
    pub(crate) fn keep_house(&mut self) -> Result<(), Error> {
        self.kernel.follow_cpus()?;
        self.state.stacks.keep_house();
        self.state.name_threads(Which::New);
        if !self.gone.is_empty() {
            let gone = mem::take(&mut self.gone);
            for times in self.kernel.forget_threads(&gone) {
                self.state.thread_ended(&times);
            }
        }
        Ok(())
    }

    /// Time inside our programs so far; `None` where the kernel does not tell.
    pub(crate) fn bpf_time(&self) -> Option<Duration> {
        self.kernel.bpf_time()
    }

    /// Whether it should be begun anew after this window.
    pub(crate) fn is_worn(&self) -> bool {
        let pythons = self.state.stacks.known_pythons();
        self.state.processes.files().len() > FILES_WORN
            || pythons.functions() > FUNCTIONS_WORN
            || pythons.is_full()
    }

    /// Ends the window, takes it out and begins the next one.
    pub(crate) fn take_window(&mut self) -> Result<Captured, Error> {
        self.close(Sampling::GoesOn)
    }

    /// Ends the sampling and takes out the last window.
    pub(crate) fn finish(mut self) -> Result<Captured, Error> {
        self.kernel.stop();
        self.close(Sampling::Ended)
    }

    fn close(&mut self, sampling: Sampling) -> Result<Captured, Error> {
        let counters = self.kernel.counters()?;
        self.drain()?;
        // The window that ends and the one that begins meet in one moment, however long this takes.
        let ended_at = now();
        let duration = Duration::from_nanos(ended_at.1.saturating_sub(self.started_at.1));
        self.close_spans(ended_at.1, sampling)?;
        self.state.name_threads(Which::All);
        self.state.named = 0;
        let aggregate = mem::replace(&mut self.state.aggregate, Aggregate::new(Timeline::Drop));
        let account = self.account(&counters, &aggregate, sampling);
        let captured = Captured {
            meta: self.meta(duration),
            mode: self.state.mode,
            interpreter: Interpreter::Fold,
            pythons: PythonPlaces::of(&aggregate.places, self.state.stacks.known_pythons()),
            sources: Sources::of(&self.state.processes),
            account,
            aggregate,
        };
        self.started_at = ended_at;
        self.sweep();
        Ok(captured)
    }

    /// Makes the window's samples stand for all of its time.
    fn close_spans(&mut self, end_ns: u64, sampling: Sampling) -> Result<(), Error> {
        if !self.waits() {
            return Ok(());
        }
        let boundary = Boundary {
            end_ns,
            min_block_ns: off_cpu::nanoseconds(self.min_block),
            sampling,
        };
        let Self { kernel, state, .. } = self;
        self.opened += off_cpu::close_window(kernel, state, boundary);
        // A span that was over just before its thread was looked at is on the ring only.
        self.drain()?;
        let aggregate = &mut self.state.aggregate;
        off_cpu::complete(aggregate, self.state.mode, self.min_block);
        Ok(())
    }

    fn meta(&self, duration: Duration) -> Meta {
        let (event, frequency_hz) = match (self.state.mode, self.clock) {
            // A count stands for a microsecond.
            (Mode::OffCpu, _) => (Event::OffCpu, 1_000_000),
            (Mode::Wall, _) => (Event::Wall, 1_000_000),
            (_, Some(clock)) => (event_of(clock), clock.frequency_hz),
            (_, None) => (Event::CpuClock, 0),
        };
        let (wall, monotonic_ns) = self.started_at;
        Meta {
            title: self.title.clone(),
            command_line: CommandLines::Names.own(),
            event,
            frequency_hz,
            started: wall.duration_since(UNIX_EPOCH).unwrap_or_default(),
            started_mono_ns: monotonic_ns,
            duration,
        }
    }

    fn account(
        &mut self,
        counters: &BTreeMap<Counter, u64>,
        aggregate: &Aggregate<crate::process::Place>,
        sampling: Sampling,
    ) -> Account {
        let sums = self.sums(counters);
        let shown = aggregate.total();
        let mut lost = BTreeMap::from([
            (Lost::RingFull, sums.ring_full - self.before.ring_full),
            (Lost::Malformed, mem::take(&mut self.state.malformed)),
            (Lost::TableFull, aggregate.overflowed),
        ]);
        let explained = shown + lost.values().sum::<u64>();
        let counted = |counter: Counter| counters.get(&counter).copied().unwrap_or(0);
        let begun = counted(Counter::Taken) + counted(Counter::SpansTaken) + self.opened;
        let Closed { taken, unexplained } = self.ledger.close(begun, explained, sampling);
        lost.insert(Lost::Unexplained, unexplained);
        lost.retain(|_, count| *count > 0);
        let before = mem::replace(&mut self.before, sums);
        let sums = &self.before;
        let notes = sums.notes.iter().map(|(note, count)| {
            let before = before.notes.get(note).copied().unwrap_or(0);
            ((*note).into(), count.saturating_sub(before))
        });
        Account {
            taken,
            shown,
            lost,
            stacks: aggregate.by_stop.clone(),
            notes: notes.filter(|(_, count)| *count > 0).collect(),
            threads: BTreeMap::new(),
            cost: Cost {
                bpf: sums.cost.bpf.saturating_sub(before.cost.bpf),
                process: sums.cost.process.saturating_sub(before.cost.process),
            },
        }
    }

    fn sums(&self, counters: &BTreeMap<Counter, u64>) -> Sums {
        let counted = |counter: Counter| counters.get(&counter).copied().unwrap_or(0);
        let mut notes: BTreeMap<_, _> = NOTED
            .into_iter()
            .map(|counter| (counter.text(), counted(counter)))
            .collect();
        notes.extend(self.state.processes.notes());
        notes.extend(self.state.stacks.notes());
        Sums {
            ring_full: counted(Counter::RingFull),
            notes,
            cost: cost(&self.kernel),
        }
    }

    /// Forgets what is over. The window that had it is out already.
    fn sweep(&mut self) {
        if self.swept.elapsed() < SWEEP_PAUSE {
            return;
        }
        self.swept = Instant::now();
        let State {
            processes,
            stacks,
            alive,
            waits,
            ..
        } = &mut self.state;
        // Numbers of sockets are used again.
        *waits = Waits::default();
        let swept = processes.sweep();
        stacks.sweep(&swept);
        // Some counts begin anew with that.
        self.before.notes.extend(stacks.notes());
        targets::forget_ended(alive);
    }
}

fn cost(kernel: &Kernel) -> Cost {
    Cost {
        bpf: kernel.bpf_time().unwrap_or_default(),
        process: process_cpu_time(),
    }
}
