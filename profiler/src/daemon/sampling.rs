//! The sampling capability: a thread that reads the ring, follows the targets and hands windows on.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::DirEntryExt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    config::Sampling,
    follow::{Change, Follower, Seen},
    store::LostWindow,
    writer::{Job, Windows},
};
use crate::{
    error::Error,
    kernel::KernelError,
    process,
    record::{
        Captured, Sampler, Scope,
        ending::{at, runtime},
        running::watch_readable,
    },
};

/// How often the ring is emptied: at most every CPU's samples of this time wait on it.
const POLL: Duration = Duration::from_millis(100);
/// How often CPUs are counted and targets looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Note: see [`TARGETS_MAX`](profiler_common::limits::TARGETS_MAX).
const TARGETS_FULL: &str = "process not sampled, table of targets full";

/// Tells tables of files apart.
static TABLES: AtomicU64 = AtomicU64::new(1);

/// What it is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) sampling: Sampling,
    pub(crate) window: Duration,
    /// The rate that the budget allows.
    pub(crate) frequency_hz: u64,
}

/// Signs of life.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    beats: AtomicU64,
    /// Time inside its BPF programs so far, ns; 0 where the kernel does not tell.
    bpf_ns: AtomicU64,
    /// Processes that are targets; 0 where everybody is.
    followed: AtomicU64,
}

impl Pulse {
    pub(crate) fn beats(&self) -> u64 {
        self.beats.load(Ordering::Relaxed)
    }

    pub(crate) fn followed(&self) -> u64 {
        self.followed.load(Ordering::Relaxed)
    }

    pub(crate) fn bpf_time(&self) -> Duration {
        Duration::from_nanos(self.bpf_ns.load(Ordering::Relaxed))
    }
}

enum Command {
    /// End this window and go on by another plan.
    Plan(Box<Plan>, Windows),
    /// End this window and the sampling.
    Stop,
}

/// The thread while it runs.
pub(crate) struct Running {
    commands: UnboundedSender<Command>,
    pulse: Arc<Pulse>,
    thread: JoinHandle<Result<(), Error>>,
}

impl Running {
    /// Starts it and waits until its programs are attached, or could not be.
    pub(crate) fn start(plan: Plan, windows: Windows) -> Result<Self, Error> {
        let (commands, receiver) = unbounded_channel();
        let (attached, result) = sync_channel(1);
        let pulse = Arc::<Pulse>::default();
        let beating = Arc::clone(&pulse);
        let work = move || {
            let session = async {
                match Session::attach(plan, windows, beating) {
                    Ok(session) => session.run(receiver, &attached).await,
                    Err(error) => {
                        // The caller waits for it.
                        let _ = attached.send(Err(error));
                        Ok(())
                    }
                }
            };
            runtime()?.block_on(session)
        };
        let thread = std::thread::Builder::new()
            .name("sampling".to_owned())
            .spawn(work)
            .map_err(|source| Error::System {
                action: "start the sampling thread",
                source,
            })?;
        let running = Self {
            commands,
            pulse,
            thread,
        };
        match result.recv() {
            Ok(Ok(())) => Ok(running),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(running.end()),
        }
    }

    pub(crate) fn pulse(&self) -> &Pulse {
        &self.pulse
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the open window and goes on by another plan, without a pause. A thread that has ended takes no
    /// commands, and is noticed by that.
    pub(crate) fn change(&self, plan: Plan, windows: Windows) {
        let _ = self.commands.send(Command::Plan(Box::new(plan), windows));
    }

    /// Ends it; its last window is handed on.
    pub(crate) fn stop(self) -> Result<(), Error> {
        let _ = self.commands.send(Command::Stop);
        self.thread.join().unwrap_or_else(|_| Err(failed()))
    }

    /// Why it has ended by itself.
    pub(crate) fn end(self) -> Error {
        match self.thread.join() {
            Ok(Err(error)) => error,
            Ok(Ok(())) | Err(_) => failed(),
        }
    }
}

fn failed() -> Error {
    Error::System {
        action: "go on sampling",
        source: std::io::Error::other("the sampling thread has failed"),
    }
}

struct Session {
    plan: Plan,
    windows: Windows,
    pulse: Arc<Pulse>,
    sampler: Sampler,
    table: u64,
    follower: Option<Follower>,
    window_end: Instant,
    /// What the next window says.
    notes: BTreeMap<String, u64>,
}

impl Session {
    fn attach(plan: Plan, windows: Windows, pulse: Arc<Pulse>) -> Result<Self, Error> {
        let targets = plan.sampling.targets.clone();
        let mut session = Self {
            sampler: begin(&plan)?,
            table: TABLES.fetch_add(1, Ordering::Relaxed),
            follower: targets.map(Follower::new),
            window_end: Instant::now() + plan.window,
            notes: BTreeMap::new(),
            plan,
            windows,
            pulse,
        };
        session.follow()?;
        session.note_rate();
        Ok(session)
    }

    async fn run(
        mut self,
        commands: UnboundedReceiver<Command>,
        attached: &SyncSender<Result<(), Error>>,
    ) -> Result<(), Error> {
        // The caller waits for it.
        let _ = attached.send(Ok(()));
        let result = self.watch(commands).await;
        let Self {
            sampler,
            windows,
            table,
            notes,
            ..
        } = self;
        match sampler.finish() {
            Ok(captured) => windows.offer_last(Job {
                captured,
                table,
                notes,
            }),
            Err(error) => windows.lost_window(LostWindow::Failed, 0, &error.to_string()),
        }
        result
    }

    async fn watch(&mut self, mut commands: UnboundedReceiver<Command>) -> Result<(), Error> {
        let system = |source| Error::System {
            action: "watch the ring buffer",
            source,
        };
        let mut poll = interval(POLL);
        let mut housekeeping = interval(HOUSEKEEPING);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut readable =
            watch_readable(self.sampler.descriptor().map_err(system)?).map_err(system)?;
        loop {
            tokio::select! {
                guard = readable.readable() => {
                    guard.map_err(system)?.clear_ready();
                    self.sampler.drain()?;
                }
                _ = poll.tick() => {
                    self.sampler.drain()?;
                    self.pulse.beats.fetch_add(1, Ordering::Relaxed);
                }
                () = at(self.sampler.next_look().map(Instant::from_std)) => self.sampler.look_again()?,
                _ = housekeeping.tick() => self.keep_house()?,
                () = at(Some(self.window_end)) => {
                    self.end_window()?;
                    if self.sampler.is_worn() {
                        self.renew()?;
                        readable = watch_readable(self.sampler.descriptor().map_err(system)?).map_err(system)?;
                    }
                }
                command = commands.recv() => match command {
                    Some(Command::Plan(plan, windows)) => {
                        if self.change(*plan, windows)? {
                            readable = watch_readable(self.sampler.descriptor().map_err(system)?).map_err(system)?;
                        }
                    }
                    Some(Command::Stop) | None => return Ok(()),
                },
            }
        }
    }

    fn keep_house(&mut self) -> Result<(), Error> {
        self.sampler.keep_house()?;
        self.follow()?;
        let bpf = self.sampler.bpf_time().unwrap_or_default();
        let bpf_ns = u64::try_from(bpf.as_nanos()).unwrap_or(u64::MAX);
        self.pulse.bpf_ns.store(bpf_ns, Ordering::Relaxed);
        Ok(())
    }

    /// Brings the kernel side's table of targets up to date.
    fn follow(&mut self) -> Result<(), Error> {
        let Some(follower) = &mut self.follower else {
            return Ok(());
        };
        let look = |pid| {
            Some(Seen {
                comm: process::comm(pid)?,
                cgroup: process::cgroup(pid).unwrap_or_default(),
            })
        };
        let Change { remove, add } = follower.tick(&listing(), look);
        let followed = follower.followed() as u64;
        self.pulse.followed.store(followed, Ordering::Relaxed);
        for pid in remove {
            self.sampler.remove_target(pid);
        }
        for (pid, bits) in add {
            match self.sampler.add_target(pid, bits) {
                Err(Error::Kernel(KernelError::TooManyTargets { .. })) => {
                    *self.notes.entry(TARGETS_FULL.to_owned()).or_default() += 1;
                }
                added => added?,
            }
        }
        // The mappings of new targets are handed on before their first samples come.
        self.sampler.drain()
    }

    /// Hands the window on and begins the next.
    fn end_window(&mut self) -> Result<(), Error> {
        let captured = self.sampler.take_window()?;
        self.offer(captured);
        // After a standstill windows do not come faster.
        self.window_end = (self.window_end + self.plan.window).max(Instant::now());
        self.note_rate();
        Ok(())
    }

    fn offer(&mut self, captured: Captured) {
        let job = Job {
            captured,
            table: self.table,
            notes: std::mem::take(&mut self.notes),
        };
        self.windows.offer(job);
    }

    /// Says whether sampling had to begin anew: whether everybody is sampled is settled when it begins.
    fn change(&mut self, plan: Plan, windows: Windows) -> Result<bool, Error> {
        let before = std::mem::replace(&mut self.plan, plan);
        let is_host = |plan: &Plan| plan.sampling.targets.is_none();
        let renews = is_host(&before) != is_host(&self.plan);
        if renews {
            self.renew()?;
        } else {
            let captured = self.sampler.take_window()?;
            self.offer(captured);
            self.sampler.set_title(self.plan.sampling.description());
            self.sampler.set_frequency(self.plan.frequency_hz)?;
        }
        self.windows = windows;
        self.window_end = Instant::now() + self.plan.window;
        if !renews && before.sampling.targets != self.plan.sampling.targets {
            // It finds those who are targets no more, too.
            self.follower = self.plan.sampling.targets.clone().map(Follower::new);
            self.follow()?;
        }
        self.note_rate();
        Ok(renews)
    }

    /// A window at a rate that the budget has cut says so.
    fn note_rate(&mut self) {
        let (rate, wanted) = (self.plan.frequency_hz, self.plan.sampling.frequency_hz);
        if rate < wanted {
            let note =
                format!("window sampled at {rate} in place of {wanted} Hz, over the CPU budget");
            self.notes.insert(note, 1);
        }
    }

    /// Begins anew with empty tables, before the old ones are taken out.
    fn renew(&mut self) -> Result<(), Error> {
        tracing::info!("sampling begins anew");
        let sampler = std::mem::replace(&mut self.sampler, begin(&self.plan)?);
        let captured = sampler.finish()?;
        self.offer(captured);
        self.table = TABLES.fetch_add(1, Ordering::Relaxed);
        self.follower = self.plan.sampling.targets.clone().map(Follower::new);
        self.follow()
    }
}

fn begin(plan: &Plan) -> Result<Sampler, Error> {
    let scope = if plan.sampling.targets.is_some() {
        Scope::Added
    } else {
        Scope::Host
    };
    Sampler::start(scope, plan.frequency_hz, plan.sampling.description())
}

/// Every process, with the inode number of its folder below `/proc`, which another process of its id does not have.
fn listing() -> Vec<(u32, u64)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, entry.ino()))
        })
        .collect()
}
