//! The capabilities that keep tables of the kernel side's counts and events, connections and system calls: a thread
//! each that follows the targets and hands windows on.

use std::{
    collections::BTreeMap,
    marker::PhantomData,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use profiler_common::config::{FILTER_TARGETS, Settings};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    clock::Clock,
    config::Targets,
    follow::{self, Change, Follower},
    slot::{self, Command, Life, Pulse},
    store::{Capability, Table},
    writer::{Content, Job, Windows},
};
use crate::{
    error::Error,
    kernel::kernel_offsets,
    process,
    record::{ending::at, ring_watch::RingWatch, targets::descendants},
};

/// How often targets are looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// What counts or lists, for months.
pub(crate) trait Keeper: Sized + 'static {
    /// Of which capability.
    const CAPABILITY: Capability;
    /// How often its ring is emptied.
    const POLL: Duration;

    /// Loads and attaches; nobody is a target yet.
    fn begin(settings: &Settings) -> Result<Self, Error>;

    /// For waiting for what is on the ring.
    fn watch_ring(&self) -> Result<RingWatch, Error>;

    /// Takes what is on the ring.
    fn drain(&mut self);

    /// To be called every second.
    fn look(&mut self);

    /// Makes a process a target, and what it forks from now on.
    fn add_target(&mut self, pid: u32) -> Result<(), Error>;

    /// To be called when some were added: they may have something already.
    fn added(&mut self, pids: &[u32]);

    /// It is no target any more.
    fn remove_target(&mut self, pid: u32);

    /// Time inside our BPF programs so far, where it is measured.
    fn bpf_time(&self) -> Option<Duration>;

    /// Ends it; a last window can be taken.
    fn end(&mut self);

    /// What came since the last window: whose, and how long that is.
    fn take_window(&mut self, what: (String, Duration)) -> Result<Box<dyn Table>, Error>;
}

/// What it is to do.
#[derive(Debug)]
pub(crate) struct Plan<K> {
    targets: Targets,
    window: Duration,
    kind: PhantomData<fn() -> K>,
}

impl<K> Plan<K> {
    pub(crate) fn new(targets: Targets, window: Duration) -> Self {
        Self {
            targets,
            window,
            kind: PhantomData,
        }
    }
}

impl<K> Clone for Plan<K> {
    fn clone(&self) -> Self {
        Self::new(self.targets.clone(), self.window)
    }
}

impl<K: Keeper> slot::Plan for Plan<K> {
    const CAPABILITY: Capability = K::CAPABILITY;

    fn description(&self, followed: u64) -> String {
        format!("{} ({followed} alive)", self.targets.description())
    }

    fn work(self, windows: Windows, life: Life<Self>) -> Result<(), Error> {
        life.lead(|pulse| Session::attach(self, windows, pulse), Session::run)
    }
}

struct Session<K> {
    plan: Plan<K>,
    windows: Windows,
    pulse: Arc<Pulse>,
    keeper: K,
    /// Time in BPF programs of those before it.
    bpf_ended: Duration,
    follower: Follower,
    /// When the window began: by the wall clock after the Unix epoch, and by the monotonic one.
    began: (Duration, Instant),
    clock: Clock,
    /// What the next window says.
    notes: BTreeMap<String, u64>,
}

impl<K: Keeper> Session<K> {
    fn attach(plan: Plan<K>, windows: Windows, pulse: Arc<Pulse>) -> Result<Self, Error> {
        let mut session = Self {
            began: now(),
            keeper: begin()?,
            bpf_ended: Duration::ZERO,
            follower: Follower::with_descendants(plan.targets.clone()),
            clock: Clock::watch(),
            notes: BTreeMap::new(),
            plan,
            windows,
            pulse,
        };
        session.follow()?;
        Ok(session)
    }

    async fn run(mut self, commands: UnboundedReceiver<Command<Plan<K>>>) -> Result<(), Error> {
        let result = self.watch(commands).await;
        self.keeper.end();
        match self.take() {
            Ok(job) => self.windows.offer_last(job),
            Err(error) => self.windows.failed(K::CAPABILITY, &error.to_string()),
        }
        result
    }

    async fn watch(
        &mut self,
        mut commands: UnboundedReceiver<Command<Plan<K>>>,
    ) -> Result<(), Error> {
        let mut poll = interval(K::POLL);
        let mut housekeeping = interval(HOUSEKEEPING);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ring = self.keeper.watch_ring()?;
        loop {
            let window_end = self.began.1 + self.plan.window;
            let mut renewed = false;
            tokio::select! {
                ready = ring.readable() => {
                    ready?;
                    self.keeper.drain();
                }
                _ = poll.tick() => {
                    self.keeper.drain();
                    self.pulse.beat();
                }
                _ = housekeeping.tick() => {
                    self.follow()?;
                    self.keeper.look();
                    self.pulse.set_bpf_time(Some(self.bpf_time()));
                }
                () = at(Some(window_end)) => self.offer()?,
                command = commands.recv() => match command {
                    Some(Command::Plan(plan, windows)) => {
                        renewed = self.change(*plan, windows)?;
                    }
                    Some(Command::Stop) | None => return Ok(()),
                },
            }
            if renewed {
                ring = self.keeper.watch_ring()?;
            }
        }
    }

    fn bpf_time(&self) -> Duration {
        self.bpf_ended + self.keeper.bpf_time().unwrap_or_default()
    }

    /// Brings the kernel side's table of targets up to date.
    fn follow(&mut self) -> Result<(), Error> {
        let Change { remove, add } = self.follower.tick(&follow::listing(), follow::look);
        self.pulse.set_followed(self.follower.followed());
        for pid in remove {
            self.keeper.remove_target(pid);
        }
        let mut added: Vec<u32> = add.iter().map(|(pid, _)| *pid).collect();
        if added.is_empty() {
            return Ok(());
        }
        self.add_targets(&added)?;
        // Forks are followed by now.
        let below: Vec<u32> = descendants(&added).into_iter().collect();
        self.add_targets(&below)?;
        added.extend(below);
        self.keeper.added(&added);
        Ok(())
    }

    fn add_targets(&mut self, pids: &[u32]) -> Result<(), Error> {
        for &pid in pids {
            follow::note_full(self.keeper.add_target(pid), &mut self.notes)?;
        }
        Ok(())
    }

    /// Says whether it had to begin anew.
    fn change(&mut self, plan: Plan<K>, windows: Windows) -> Result<bool, Error> {
        // What those have forked who are targets no more is known to the kernel side only.
        let renews = plan.targets != self.plan.targets;
        if renews {
            self.keeper.end();
        }
        self.offer()?;
        self.plan = plan;
        self.windows = windows;
        if renews {
            self.bpf_ended = self.bpf_time();
            self.keeper = begin()?;
            self.follower = Follower::with_descendants(self.plan.targets.clone());
            self.follow()?;
        }
        Ok(renews)
    }

    /// Hands the window on and begins the next.
    fn offer(&mut self) -> Result<(), Error> {
        let job = self.take()?;
        self.windows.offer(job);
        Ok(())
    }

    fn take(&mut self) -> Result<Job, Error> {
        let (started, began) = std::mem::replace(&mut self.began, now());
        self.clock.note(&mut self.notes);
        let title = self.plan.targets.description();
        Ok(Job {
            content: Content::Table {
                capability: K::CAPABILITY,
                table: self.keeper.take_window((title, began.elapsed()))?,
                started,
            },
            notes: std::mem::take(&mut self.notes),
        })
    }
}

/// What processes are called now, or were when they were last looked at.
pub(crate) fn names_of(
    pids: impl IntoIterator<Item = u32>,
    before: &BTreeMap<u32, String>,
) -> BTreeMap<u32, String> {
    let named = |pid| {
        let known = || before.get(&pid).cloned();
        Some((pid, process::comm(pid).or_else(known)?))
    };
    pids.into_iter().filter_map(named).collect()
}

fn begin<K: Keeper>() -> Result<K, Error> {
    K::begin(&Settings {
        filters: FILTER_TARGETS,
        offsets: kernel_offsets()?,
        ..Settings::UNSET
    })
}

/// The wall clock after the Unix epoch, and the monotonic one.
pub(super) fn now() -> (Duration, Instant) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    (since.unwrap_or_default(), Instant::now())
}
