//! The loop of a recording: reads what the kernel side sends until the time is up, the targets are
//! gone, the command has ended or the user has had enough.
//!
//! The ring is polled, because samples do not wake us; it is also watched, because the first sample
//! and every event of a process do: its mappings must be read while it lives.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    process::{Child, ExitStatus},
    time::{Duration, Instant, SystemTime},
};

use profiler_common::{
    config::{Settings, target},
    event::{KIND_EXEC, KIND_EXIT, KIND_FORK, ProcessEvent},
    sample::Sample,
};
use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use super::{
    aggregate::{Aggregate, Space, Timeline, comm_text},
    command::{self, Held},
    finish,
    progress::Progress,
    targets,
};
use crate::{
    artifact::Artifact,
    config::{self, Descendants},
    error::{Error, Exit},
    kernel::{Clock, Kernel, Record, Ring, kernel_offsets},
    output::Format,
    preflight,
    process::{Place, Processes},
};

/// How often the ring is emptied: often enough that it cannot fill between (see `RING_BYTES`).
const POLL: Duration = Duration::from_millis(50);
/// How often CPUs are counted and targets looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Records, writes the result, and says how to exit.
pub fn run(config: config::Record) -> Result<Exit, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::System {
            action: "start the event loop",
            source,
        })?;
    runtime.block_on(record(config))
}

async fn record(config: config::Record) -> Result<Exit, Error> {
    preflight::require_record()?;
    targets::check(&config)?;
    let mut session = Session::prepare(config)?;
    let command = session.start()?;
    let (end, command) = session.watch(command).await?;
    let recorded = session.stop();
    let result = finish::write(recorded);
    match command {
        Some(command) => {
            let exit = command.conclude(end).await?;
            result.map(|()| exit)
        }
        None => result.map(|()| Exit::Done),
    }
}

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The time was up.
    Duration,
    /// Every named process is gone.
    TargetsGone,
    /// The command has ended.
    Command,
    /// SIGINT: from a terminal, the command has had it too.
    Interrupted,
    /// SIGTERM or SIGHUP.
    Terminated,
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
    started: Instant,
    started_at: (SystemTime, u64),
    cpu_before: Duration,
}

/// What records change.
struct State {
    processes: Processes,
    aggregate: Aggregate<Place>,
    /// Named targets, and followers, that live.
    alive: BTreeSet<u32>,
    malformed: u64,
}

/// Everything that a finished recording leaves.
pub(super) struct Recorded {
    pub(super) config: config::Record,
    pub(super) artifact: Artifact,
    pub(super) kernel: Kernel,
    pub(super) processes: Processes,
    pub(super) aggregate: Aggregate<Place>,
    pub(super) malformed: u64,
    pub(super) clock: Clock,
    /// Wall clock, and `CLOCK_MONOTONIC` in ns.
    pub(super) started_at: (SystemTime, u64),
    pub(super) duration: Duration,
    /// CPU time that the named targets used meanwhile, as far as they still live.
    pub(super) target_cpu: Option<Duration>,
    /// The process that the recording is named after, if it is one.
    pub(super) single: Option<Single>,
}

/// One process as the subject of a recording.
#[derive(Clone, Debug)]
pub(super) struct Single {
    pub(super) pid: u32,
    pub(super) comm: String,
    pub(super) command_line: String,
}

impl Session {
    /// Everything that can fail, before anything is recorded.
    fn prepare(config: config::Record) -> Result<Self, Error> {
        let mut processes = Processes::new();
        for &pid in &config.targets.pids {
            processes.observe(pid);
        }
        let (mut kernel, ring) = Kernel::load(&settings(&config)?)?;
        let follow = if config.targets.descendants == Descendants::Follow {
            target::FOLLOW
        } else {
            0
        };
        for &pid in &config.targets.pids {
            kernel.add_target(pid, follow)?;
        }
        let held = hold_command(&config)?;
        if let Some(held) = &held {
            kernel.add_target(held.pid(), follow | target::AWAIT_EXEC)?;
        }
        let timeline = match config.format {
            Format::Firefox | Format::Json => Timeline::Keep,
            Format::Svg | Format::Folded | Format::Pprof | Format::Speedscope => Timeline::Drop,
        };
        let alive = config
            .targets
            .pids
            .iter()
            .copied()
            .chain(held.as_ref().map(Held::pid))
            .collect();
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
                processes,
                aggregate: Aggregate::new(timeline),
                alive,
                malformed: 0,
            },
            held,
            clock: None,
            started: Instant::now(),
            started_at: finish::now(),
        })
    }

    /// Attaches, then lets the command go.
    fn start(&mut self) -> Result<Option<Running>, Error> {
        self.kernel.attach_lifecycle()?;
        self.clock = Some(self.kernel.start_clock(self.config.frequency_hz)?);
        self.started = Instant::now();
        self.started_at = finish::now();
        let Some(held) = self.held.take() else {
            return Ok(None);
        };
        let name = self.config.targets.command.iter().flatten().next();
        let command = name
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let child = held
            .release()
            .map_err(|source| Error::Command { command, source })?;
        Running::new(child).map(Some)
    }

    /// Reads until the end.
    async fn watch(
        &mut self,
        mut command: Option<Running>,
    ) -> Result<(End, Option<Running>), Error> {
        let system = |action| move |source| Error::System { action, source };
        let mut poll = interval(POLL);
        let mut housekeeping = interval(HOUSEKEEPING);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut interrupt = signal(SignalKind::interrupt()).map_err(system("watch for Ctrl-C"))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(system("watch for SIGTERM"))?;
        let mut hangup = signal(SignalKind::hangup()).map_err(system("watch for SIGHUP"))?;
        let readable = self
            .ring
            .as_fd()
            .try_clone_to_owned()
            .map_err(system("watch the ring buffer"))?;
        let readable = watch_readable(readable).map_err(system("watch the ring buffer"))?;
        let mut progress = Progress::start(self.config.duration);
        let deadline = self
            .config
            .duration
            .map(|duration| tokio::time::Instant::from_std(self.started + duration));
        let end = loop {
            tokio::select! {
                guard = readable.readable() => {
                    guard.map_err(system("watch the ring buffer"))?.clear_ready();
                    self.drain();
                }
                _ = poll.tick() => {
                    self.drain();
                    progress.show(self.started.elapsed(), self.state.aggregate.total());
                    if self.config.targets.names_processes() && command.is_none() && self.state.alive.is_empty() {
                        break End::TargetsGone;
                    }
                }
                _ = housekeeping.tick() => self.keep_house()?,
                () = at(deadline) => break End::Duration,
                _ = interrupt.recv() => break End::Interrupted,
                _ = terminate.recv() => break End::Terminated,
                _ = hangup.recv() => break End::Terminated,
                () = ended(command.as_ref()) => break End::Command,
            }
        };
        if end == End::Command
            && let Some(command) = &mut command
        {
            command.reap()?;
        }
        Ok((end, command))
    }

    fn drain(&mut self) {
        let Self { ring, state, .. } = self;
        ring.drain(|record| state.take(record));
    }

    fn keep_house(&mut self) -> Result<(), Error> {
        self.kernel.follow_cpus()?;
        // The kernel side tells every exit; should the ring have been full, a look helps.
        self.state
            .alive
            .retain(|pid| fs::exists(format!("/proc/{pid}")).unwrap_or(true));
        Ok(())
    }

    /// Ends the sampling and takes what is left on the ring.
    fn stop(mut self) -> Recorded {
        let duration = self.started.elapsed();
        self.kernel.stop();
        self.drain();
        let pids = &self.config.targets.pids;
        let target_cpu = (!pids.is_empty())
            .then(|| targets::cpu_time(pids.iter().copied()).saturating_sub(self.cpu_before));
        let single = finish::single(&self.config, &self.state.processes, &self.state.aggregate);
        Recorded {
            clock: self.clock.unwrap_or(Clock {
                event: crate::profile::Event::CpuClock,
                frequency_hz: self.config.frequency_hz,
            }),
            config: self.config,
            artifact: self.artifact,
            kernel: self.kernel,
            processes: self.state.processes,
            aggregate: self.state.aggregate,
            malformed: self.state.malformed,
            started_at: self.started_at,
            duration,
            target_cpu,
            single,
        }
    }
}

impl State {
    fn take(&mut self, record: Record<'_>) {
        match record {
            Record::Sample(sample) => self.sample(&sample),
            Record::Process(event) => self.process(event),
            Record::Malformed => self.malformed += 1,
        }
    }

    fn sample(&mut self, sample: &Sample<'_>) {
        let Self {
            processes,
            aggregate,
            ..
        } = self;
        let pid = sample.header.tgid;
        processes.observe(pid);
        let comm = processes.comm(pid);
        let place = |space, address| match space {
            Space::Kernel => Place::Kernel(address),
            Space::User => processes.locate(pid, address),
        };
        aggregate.add(sample, place, |_| comm);
    }

    fn process(&mut self, event: &ProcessEvent) {
        let comm = comm_text(&event.comm);
        match event.kind {
            KIND_FORK => {
                self.alive.insert(event.tgid);
                self.processes.forked(event.parent, event.tgid, &comm);
                self.aggregate.forget_process(event.tgid);
            }
            KIND_EXEC => {
                self.processes.execed(event.tgid, &comm);
                self.aggregate.forget_process(event.tgid);
            }
            KIND_EXIT => {
                self.alive.remove(&event.tgid);
                self.processes.exited(event.tgid);
                self.aggregate.forget_process(event.tgid);
            }
            _ => self.malformed += 1,
        }
    }
}

/// The command while it runs.
struct Running {
    child: Child,
    ended: AsyncFd<OwnedFd>,
    status: Option<ExitStatus>,
}

impl Running {
    fn new(child: Child) -> Result<Self, Error> {
        let system = |source: io::Error| Error::System {
            action: "watch the command",
            source,
        };
        let pidfd = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
            .map_err(|error| system(error.into()))?;
        Ok(Self {
            child,
            ended: watch_readable(pidfd).map_err(system)?,
            status: None,
        })
    }

    fn reap(&mut self) -> Result<ExitStatus, Error> {
        let status = self.child.wait().map_err(|source| Error::System {
            action: "wait for the command",
            source,
        })?;
        self.status = Some(status);
        Ok(status)
    }

    /// Waits for the command, which outlives its recording after `-d` or Ctrl-C; SIGTERM is passed
    /// on to it, Ctrl-C it has had from the terminal.
    async fn conclude(mut self, end: End) -> Result<Exit, Error> {
        if let Some(status) = self.status {
            return Ok(Exit::Command(command::exit_code(status)));
        }
        if end == End::Terminated {
            // Gone already is as good.
            let _ = rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
        ended(Some(&self)).await;
        self.reap()
            .map(|status| Exit::Command(command::exit_code(status)))
    }
}

fn watch_readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor is open, and the same one, as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}

/// Ends when the command does; never without one.
async fn ended(command: Option<&Running>) {
    match command {
        Some(command) => {
            // An error of the descriptor would mean that it is not one; then waiting ends.
            let _ = command.ended.readable().await;
        }
        None => std::future::pending().await,
    }
}

async fn at(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn settings(config: &config::Record) -> Result<Settings, Error> {
    let mut settings = Settings {
        filters: config.targets.filters(),
        offsets: kernel_offsets()?,
        ..Settings::UNSET
    };
    if let Some((_, cgroup)) = &config.targets.cgroup {
        settings.cgroup_id = cgroup.id;
        settings.cgroup_level = cgroup.level;
    }
    if let Some((_, glob)) = config.targets.comm {
        settings.comm = glob;
    }
    Ok(settings)
}

fn hold_command(config: &config::Record) -> Result<Option<Held>, Error> {
    let Some(command) = &config.targets.command else {
        return Ok(None);
    };
    let name = command
        .first()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    Held::start(command)
        .map(Some)
        .map_err(|source| Error::Command {
            command: name,
            source,
        })
}
