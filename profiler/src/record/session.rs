//! The loop of a recording: reads what the kernel side sends until the time is up, the targets are
//! gone, the command has ended or the user has had enough.
//!
//! The ring is polled, because samples do not wake us; it is also watched, because the first sample
//! and every event of a process do: its mappings must be read while it lives.

use std::time::{Duration, Instant, SystemTime};

use profiler_common::{config::Settings, off_cpu::ThreadTimes, sample::Sample};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    aggregate::{Aggregate, Timeline},
    carry::Carry,
    command::Held,
    ending::{End, Ending, at, event_loop},
    finish, off_cpu,
    progress::Progress,
    ring_watch::RingWatch,
    running::{Running, conclude},
    stacks::Stacks,
    state::State,
    targets,
    thread_names::Which,
};
use crate::{
    artifact::Artifact,
    config::{self, Mode},
    error::{Error, Exit},
    kernel::{Clock, Kernel, Ring},
    output::Format,
    preflight,
    process::{Place, Processes},
    symbolize::{self, Limits},
    wait::Waits,
};

/// How often the ring is emptied: often enough that it cannot fill between (see `RING_BYTES`).
const POLL: Duration = Duration::from_millis(50);
/// Priority of the thread that reads: mappings of processes that live for milliseconds must be read
/// while they live, on a host that is overloaded too. It works for about a hundredth of the time.
const READER_NICE: i32 = -10;
/// How often CPUs are counted and targets looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Records, writes the result, and says how to exit.
pub fn run(config: config::Record) -> Result<Exit, Error> {
    event_loop(record(config))
}

async fn record(config: config::Record) -> Result<Exit, Error> {
    preflight::require_record()?;
    targets::check(&config)?;
    symbolize::check(Limits::VERB)?;
    let mut session = Session::prepare(config)?;
    let command = session.start()?;
    let (end, command) = session.watch(command).await?;
    let result = session.stop().and_then(finish::write);
    conclude(command, end, result).await
}

/// A recording under way.
struct Session {
    config: config::Record,
    artifact: Artifact,
    kernel: Kernel,
    ring: Ring,
    state: State,
    held: Option<Held>,
    clock: Option<Clock>,
    /// Priority of this thread before the recording.
    nice_before: i32,
    started: Instant,
    started_at: (SystemTime, u64),
    cpu_before: Duration,
}

/// Everything that a finished recording leaves.
pub(crate) struct Recorded {
    pub(crate) config: config::Record,
    pub(crate) artifact: Artifact,
    pub(crate) kernel: Kernel,
    pub(crate) stacks: Stacks,
    pub(crate) processes: Processes,
    pub(crate) aggregate: Aggregate<Place>,
    pub(crate) malformed: u64,
    /// Unless only time off the CPU was recorded.
    pub(crate) clock: Option<Clock>,
    /// Wall clock, and `CLOCK_MONOTONIC` in ns.
    pub(crate) started_at: (SystemTime, u64),
    pub(crate) duration: Duration,
    /// CPU time that the named targets used meanwhile, as far as they still live.
    pub(crate) target_cpu: Option<Duration>,
    /// The process that the recording is named after, if it is one.
    pub(crate) single: Option<Single>,
    /// Spans off the CPU that the end of the recording ended.
    pub(crate) open_spans: u64,
}

/// One process as the subject of a recording.
#[derive(Clone, Debug)]
pub(crate) struct Single {
    pub(crate) pid: u32,
    pub(crate) comm: String,
    pub(crate) command_line: String,
}

impl Session {
    /// Everything that can fail, before anything is recorded.
    fn prepare(config: config::Record) -> Result<Self, Error> {
        let mut processes = Processes::keeping(config.targets.command_lines);
        for &pid in &config.targets.pids {
            processes.observe(pid);
        }
        let (mut kernel, ring, shared) = Kernel::load(&settings(&config)?)?;
        let pythons = kernel.pythons()?;
        let held = targets::hold_command(&config.targets)?;
        let alive = targets::name(&mut kernel, &config.targets, held.as_ref())?;
        let timeline = match config.format {
            Format::Firefox | Format::Json if config.mode == Mode::OnCpu => Timeline::Keep,
            Format::Firefox
            | Format::Json
            | Format::Svg
            | Format::Folded
            | Format::Pprof
            | Format::Speedscope => Timeline::Drop,
        };
        let (mode, threads) = (config.mode, config.python_threads);
        let artifact = Artifact::open(&finish::destination(
            &config,
            &processes,
            held.as_ref().map(Held::pid),
        ))?;
        Ok(Self {
            cpu_before: targets::cpu_time(config.targets.pids.iter().copied()),
            config,
            artifact,
            kernel,
            ring,
            state: State {
                stacks: Stacks::new(shared, pythons),
                waits: Waits::default(),
                mode,
                threads,
                processes,
                aggregate: Aggregate::new(timeline),
                alive,
                malformed: 0,
                named: 0,
                carry: Carry::default(),
            },
            held,
            clock: None,
            nice_before: 0,
            started: Instant::now(),
            started_at: finish::now(),
        })
    }

    /// Attaches, then lets the command go.
    fn start(&mut self) -> Result<Option<Running>, Error> {
        self.kernel.attach_lifecycle()?;
        self.add_descendants()?;
        self.nice_before = set_nice(READER_NICE);
        let State {
            stacks, processes, ..
        } = &mut self.state;
        stacks.update(processes)?;
        if self.config.mode != Mode::OnCpu {
            self.kernel.attach_switches()?;
            self.begin_now();
            let named = self.state.named();
            off_cpu::begin(&mut self.kernel, named, self.state.stacks.known_pythons())?;
        }
        if self.config.mode != Mode::OffCpu {
            self.clock = Some(self.kernel.start_clock(self.config.frequency_hz)?);
        }
        // Threads are followed from before the clocks started, and their times are the duration's.
        if self.config.mode == Mode::OnCpu {
            self.begin_now();
        }
        let Some(held) = self.held.take() else {
            return Ok(None);
        };
        targets::release(held, &self.config.targets).map(Some)
    }

    fn begin_now(&mut self) {
        self.started = Instant::now();
        self.started_at = finish::now();
    }

    /// Makes what descends from the targets already targets too. Forks are followed by now, so that
    /// looking until nothing is new finds all.
    fn add_descendants(&mut self) -> Result<(), Error> {
        let State {
            alive, processes, ..
        } = &mut self.state;
        let observe = |pid| processes.observe(pid);
        targets::add_descendants(&mut self.kernel, &self.config.targets, alive, observe)
    }

    /// Reads until the end.
    async fn watch(
        &mut self,
        mut command: Option<Running>,
    ) -> Result<(End, Option<Running>), Error> {
        let mut poll = interval(POLL);
        let mut housekeeping = interval(HOUSEKEEPING);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let ring = RingWatch::begin(&self.ring)?;
        let mut progress = Progress::start(self.config.duration);
        let mut ending = Ending::watch(self.config.duration.map(|time| self.started + time))?;
        let end = loop {
            // The end comes before records, however many there are.
            tokio::select! {
                biased;
                end = ending.reached(command.as_ref()) => break end,
                _ = housekeeping.tick() => self.keep_house()?,
                () = at(self.next_look()) => {
                    self.state.processes.look_again(Instant::now());
                    self.drain()?;
                }
                _ = poll.tick() => {
                    self.drain()?;
                    progress.show(self.started.elapsed(), self.state.aggregate.total());
                    if self.config.targets.names_processes() && command.is_none() && self.state.alive.is_empty() {
                        break End::TargetsGone;
                    }
                }
                ready = ring.readable() => {
                    ready?;
                    self.drain()?;
                }
            }
        };
        if end == End::Command
            && let Some(command) = &mut command
        {
            command.reap()?;
        }
        Ok((end, command))
    }

    /// Ends the spans that are still open; gives their number.
    fn close_spans(&mut self, end_ns: u64) -> u64 {
        let Self {
            kernel,
            config,
            state,
            ..
        } = self;
        let (mode, min_block) = (config.mode, config.min_block);
        if mode == Mode::OnCpu {
            return 0;
        }
        let mut accounts = Vec::new();
        let account = |times: &ThreadTimes| accounts.push(*times);
        let each = |sample: &Sample<'_>| state.span(sample);
        let open = off_cpu::close(kernel, end_ns, min_block, each, account);
        for times in &accounts {
            state.aggregate.add_times(times);
        }
        off_cpu::complete(&mut state.aggregate, mode, min_block);
        open
    }

    fn next_look(&self) -> Option<tokio::time::Instant> {
        self.state
            .processes
            .next_look()
            .map(tokio::time::Instant::from_std)
    }

    fn drain(&mut self) -> Result<(), Error> {
        self.state.drain(&mut self.ring)
    }

    fn keep_house(&mut self) -> Result<(), Error> {
        self.kernel.follow_cpus()?;
        self.state.stacks.keep_house();
        self.state.name_threads(Which::New);
        // The kernel side tells every exit; should the ring have been full, a look helps.
        targets::forget_ended(&mut self.state.alive);
        Ok(())
    }

    /// Ends the sampling and takes what is left on the ring.
    fn stop(mut self) -> Result<Recorded, Error> {
        let mut duration = self.started.elapsed();
        self.kernel.stop();
        let end_ns = finish::monotonic_ns();
        if self.config.mode != Mode::OnCpu {
            // Until now, threads were followed.
            duration = self.started.elapsed();
        }
        set_nice(self.nice_before);
        self.drain()?;
        let open_spans = self.close_spans(end_ns);
        self.state.name_threads(Which::All);
        let pids = &self.config.targets.pids;
        let target_cpu = (!pids.is_empty())
            .then(|| targets::cpu_time(pids.iter().copied()).saturating_sub(self.cpu_before));
        let single = finish::single(&self.config, &self.state.processes, &self.state.aggregate);
        Ok(Recorded {
            clock: self.clock,
            config: self.config,
            artifact: self.artifact,
            kernel: self.kernel,
            stacks: self.state.stacks,
            processes: self.state.processes,
            aggregate: self.state.aggregate,
            malformed: self.state.malformed,
            started_at: self.started_at,
            duration,
            target_cpu,
            single,
            open_spans,
        })
    }
}

/// Sets the priority of this thread and gives the old one. Where that is not allowed, the stacks of some
/// short-lived processes are cut.
fn set_nice(nice: i32) -> i32 {
    let before = rustix::process::getpriority_process(None).unwrap_or(0);
    let _ = rustix::process::setpriority_process(None, nice);
    before
}

fn settings(config: &config::Record) -> Result<Settings, Error> {
    let settings = targets::settings(&config.targets)?;
    off_cpu::settings(settings, config.mode, config.min_block)
}
