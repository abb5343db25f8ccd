//! The capabilities that keep tables of the kernel side's counts and events, queries, connections and system calls: a
//! thread each that follows the targets and hands windows on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use profiler_common::config::{FILTER_TARGETS, Settings};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    config::Targets,
    follow::{self, Change, Follower},
    slot::{self, Command, Life, Pulse},
    writer::{Content, Job, Windows},
};
use crate::{
    error::Error,
    kernel::kernel_offsets,
    process,
    record::{ending::at, ring_watch::RingWatch, targets::descendants},
    store::{Capability, Identity, Table, clock::Clock},
};

/// How often targets are looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(1);
/// Looks for what descends from targets that are none any more: only a chain of forks that outruns them is left then.
const LOOKS: u32 = 16;

/// Note: see [`LOOKS`].
const LEFT: &str = "forks of processes that are no targets any more may be watched on";
/// Note: see [`Session::begin_anew`].
const PAUSE: &str = "ms not watched, as the watch began anew";

/// What counts or lists, for months.
pub(crate) trait Keeper: Sized + 'static {
    /// Of which capability.
    const CAPABILITY: Capability;
    /// How often its ring is emptied.
    const POLL: Duration;
    /// What is settled when it begins.
    type How: Clone + Debug + PartialEq + Send;

    /// Loads and attaches; nobody is a target yet.
    fn begin(settings: &Settings, how: Self::How) -> Result<Self, Error>;

    /// For waiting for what is on the ring.
    fn watch_ring(&self) -> Result<RingWatch, Error>;

    /// Takes what is on the ring.
    fn drain(&mut self);

    /// To be called every [`POLL`](Self::POLL).
    fn poll(&mut self) {
        self.drain();
    }

    /// To be called every second.
    fn look(&mut self) {}

    /// Makes a process a target, and what it forks from now on.
    fn add_target(&mut self, pid: u32) -> Result<(), Error>;

    /// To be called when some were added: they may have something already.
    fn added(&mut self, _pids: &[u32]) {}

    /// It is no target any more.
    fn remove_target(&mut self, pid: u32);

    /// Every target, with those that were forked by one; `None` where it has to begin anew for others.
    fn targets(&self) -> Option<BTreeSet<u32>> {
        None
    }

    /// Whether it is time to begin anew, as there is no room for more.
    fn is_worn(&self) -> bool {
        false
    }

    /// Time inside our BPF programs so far, where it is measured.
    fn bpf_time(&self) -> Option<Duration>;

    /// Ends it; a last window can be taken.
    fn end(&mut self);

    /// What came since the last window: whose, and how long that is.
    fn take_window(&mut self, what: (String, Duration)) -> Result<Box<dyn Table>, Error>;
}

/// What it is to do.
#[derive(Debug)]
pub(crate) struct Plan<K: Keeper> {
    pub(crate) targets: Targets,
    pub(crate) window: Duration,
    pub(crate) how: K::How,
}

// A derived one would want keepers that can be cloned.
impl<K: Keeper> Clone for Plan<K> {
    fn clone(&self) -> Self {
        Self {
            targets: self.targets.clone(),
            window: self.window,
            how: self.how.clone(),
        }
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

struct Session<K: Keeper> {
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
            keeper: begin(&plan)?,
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
                    self.keeper.poll();
                    self.pulse.beat();
                }
                _ = housekeeping.tick() => {
                    self.follow()?;
                    self.keeper.look();
                    self.pulse.set_bpf_time(Some(self.bpf_time()));
                }
                () = at(Some(window_end)) => renewed = self.end_window()?,
                command = commands.recv() => match command {
                    Some(Command::Plan(plan, windows)) => {
                        renewed = self.change(*plan, windows)?;
                    }
                    Some(Command::Note(note)) => {
                        self.notes.insert(note.to_owned(), 1);
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
        let others = plan.targets != self.plan.targets;
        let renews = plan.how != self.plan.how || (others && self.keeper.targets().is_none());
        if renews {
            self.keeper.end();
        }
        self.offer()?;
        self.plan = plan;
        self.windows = windows;
        if renews {
            self.begin_anew()?;
        } else if others {
            self.exchange_targets()?;
        }
        Ok(renews)
    }

    /// Says whether it began anew.
    fn end_window(&mut self) -> Result<bool, Error> {
        let renews = self.keeper.is_worn();
        if renews {
            self.keeper.end();
        }
        self.offer()?;
        if renews {
            self.begin_anew()?;
        }
        Ok(renews)
    }

    /// Begins anew with empty tables, once the old watch has ended and is told. What happens meanwhile is not seen.
    fn begin_anew(&mut self) -> Result<(), Error> {
        tracing::info!("watching {} begins anew", K::CAPABILITY.name());
        self.bpf_ended = self.bpf_time();
        self.keeper = begin(&self.plan)?;
        self.follower = Follower::with_descendants(self.plan.targets.clone());
        self.follow()?;
        // The window began as the old one was told.
        let pause = self.began.1.elapsed().as_millis();
        let pause_ms = u64::try_from(pause).unwrap_or(u64::MAX);
        *self.notes.entry(PAUSE.to_owned()).or_default() += pause_ms.max(1);
        Ok(())
    }

    /// Goes on with other targets.
    fn exchange_targets(&mut self) -> Result<(), Error> {
        self.follower = Follower::with_descendants(self.plan.targets.clone());
        self.follow()?;
        for _ in 0..LOOKS {
            // Read first: who is forked by a target from now on is not in it.
            let before = self.keeper.targets().unwrap_or_default();
            let named: Vec<u32> = self.follower.pids().collect();
            let below = descendants(&named);
            let left = &(&before - &named.into_iter().collect()) - &below;
            if left.is_empty() {
                return Ok(());
            }
            for pid in left {
                self.keeper.remove_target(pid);
            }
        }
        self.notes.insert(LEFT.to_owned(), 1);
        Ok(())
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

/// Who a process is now.
pub(crate) fn identity(pid: u32) -> Identity {
    Identity {
        comm: process::comm(pid).unwrap_or_default(),
        cgroup: process::cgroup(pid).unwrap_or_default(),
    }
}

/// Who processes are now, or were when they were last looked at.
pub(crate) fn identities_of(
    pids: impl IntoIterator<Item = u32>,
    before: &BTreeMap<u32, Identity>,
) -> BTreeMap<u32, Identity> {
    let known = |pid| {
        let (now, before) = (identity(pid), before.get(&pid).cloned());
        let either = |now: String, before: String| if now.is_empty() { before } else { now };
        let before = before.unwrap_or_default();
        let known = Identity {
            comm: either(now.comm, before.comm),
            cgroup: either(now.cgroup, before.cgroup),
        };
        (pid, known)
    };
    pids.into_iter().map(known).collect()
}

fn begin<K: Keeper>(plan: &Plan<K>) -> Result<K, Error> {
    let settings = Settings {
        filters: FILTER_TARGETS,
        offsets: kernel_offsets()?,
        ..Settings::UNSET
    };
    K::begin(&settings, plan.how.clone())
}

/// The wall clock after the Unix epoch, and the monotonic one.
fn now() -> (Duration, Instant) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    (since.unwrap_or_default(), Instant::now())
}
