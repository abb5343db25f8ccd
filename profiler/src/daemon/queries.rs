//! The queries capability: a thread that watches what its targets send and receive, and hands windows of the calls on.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use profiler_common::config::{FILTER_TARGETS, Settings};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    clock::Clock,
    config::Queries,
    follow::{self, Change, Follower},
    slot::{self, Command, Life, Pulse},
    store::Capability,
    tables::now,
    writer::{Content, Job, Windows},
};
use crate::{
    error::Error,
    kernel::kernel_offsets,
    postgres::{POLL, Watcher, Window},
    record::{ending::at, targets::descendants},
};

/// How often targets are looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// What it is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) queries: Queries,
    pub(crate) window: Duration,
}

impl slot::Plan for Plan {
    const CAPABILITY: Capability = Capability::Queries;

    fn description(&self, followed: u64) -> String {
        format!("{} ({followed} alive)", self.queries.targets.description())
    }

    fn work(self, windows: Windows, life: Life<Self>) -> Result<(), Error> {
        life.lead(|pulse| Session::attach(self, windows, pulse), Session::run)
    }
}

struct Session {
    plan: Plan,
    windows: Windows,
    pulse: Arc<Pulse>,
    watcher: Watcher,
    follower: Follower,
    /// When the window began: by the wall clock after the Unix epoch, and by the monotonic one.
    began: (Duration, Instant),
    clock: Clock,
    /// What the next window says.
    notes: BTreeMap<String, u64>,
}

impl Session {
    fn attach(plan: Plan, windows: Windows, pulse: Arc<Pulse>) -> Result<Self, Error> {
        let mut session = Self {
            watcher: begin(&plan)?,
            follower: Follower::with_descendants(plan.queries.targets.clone()),
            began: now(),
            clock: Clock::watch(),
            notes: BTreeMap::new(),
            plan,
            windows,
            pulse,
        };
        session.follow()?;
        Ok(session)
    }

    async fn run(mut self, commands: UnboundedReceiver<Command<Plan>>) -> Result<(), Error> {
        let result = self.watch(commands).await;
        self.watcher.end();
        match self.take() {
            Ok(job) => self.windows.offer_last(job),
            Err(error) => self.windows.failed(Capability::Queries, &error.to_string()),
        }
        result
    }

    async fn watch(&mut self, mut commands: UnboundedReceiver<Command<Plan>>) -> Result<(), Error> {
        let mut poll = interval(POLL);
        let mut housekeeping = interval(HOUSEKEEPING);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ring = self.watcher.watch_ring()?;
        loop {
            let window_end = self.began.1 + self.plan.window;
            let mut renewed = false;
            tokio::select! {
                ready = ring.readable() => {
                    ready?;
                    self.watcher.drain();
                }
                _ = poll.tick() => {
                    self.watcher.tick();
                    self.pulse.beat();
                }
                _ = housekeeping.tick() => {
                    self.follow()?;
                    self.pulse.set_bpf_time(self.watcher.bpf_time());
                }
                () = at(Some(window_end)) => {
                    self.offer()?;
                    if self.watcher.is_worn() {
                        self.renew()?;
                        renewed = true;
                    }
                }
                command = commands.recv() => match command {
                    Some(Command::Plan(plan, windows)) => {
                        renewed = self.change(*plan, windows)?;
                    }
                    Some(Command::Stop) | None => return Ok(()),
                },
            }
            if renewed {
                ring = self.watcher.watch_ring()?;
            }
        }
    }

    /// Brings the kernel side's table of targets up to date.
    fn follow(&mut self) -> Result<(), Error> {
        let Change { remove, add } = self.follower.tick(&follow::listing(), follow::look);
        self.pulse.set_followed(self.follower.followed());
        for pid in remove {
            self.watcher.remove_target(pid);
        }
        let named: Vec<u32> = add.iter().map(|(pid, _)| *pid).collect();
        self.add_targets(named.iter().copied())?;
        if !named.is_empty() {
            // Forks are followed by now.
            self.add_targets(descendants(&named))?;
        }
        Ok(())
    }

    fn add_targets(&mut self, pids: impl IntoIterator<Item = u32>) -> Result<(), Error> {
        for pid in pids {
            follow::note_full(self.watcher.add_target(pid), &mut self.notes)?;
        }
        Ok(())
    }

    /// Says whether it had to begin anew.
    fn change(&mut self, plan: Plan, windows: Windows) -> Result<bool, Error> {
        let renews = plan.queries.tls != self.plan.queries.tls;
        if renews {
            self.plan = plan;
            self.renew()?;
        } else {
            self.offer()?;
            let before = std::mem::replace(&mut self.plan, plan);
            if before.queries.targets != self.plan.queries.targets {
                // It finds those who are targets no more, too.
                self.follower = Follower::with_descendants(self.plan.queries.targets.clone());
                self.follow()?;
            }
        }
        self.windows = windows;
        Ok(renews)
    }

    /// Begins anew with empty tables, once the old ones are told.
    fn renew(&mut self) -> Result<(), Error> {
        tracing::info!("watching queries begins anew");
        self.watcher.end();
        self.offer()?;
        self.watcher = begin(&self.plan)?;
        self.follower = Follower::with_descendants(self.plan.queries.targets.clone());
        self.follow()
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
        let title = self.plan.queries.targets.description();
        let window: Window = self.watcher.take_window(title, began.elapsed())?;
        Ok(Job {
            content: Content::Table {
                capability: Capability::Queries,
                table: Box::new(window),
                started,
            },
            notes: std::mem::take(&mut self.notes),
        })
    }
}

fn begin(plan: &Plan) -> Result<Watcher, Error> {
    let settings = Settings {
        filters: FILTER_TARGETS,
        offsets: kernel_offsets()?,
        ..Settings::UNSET
    };
    let mut watcher = Watcher::load(&settings, plan.queries.tls)?;
    watcher.attach(|_, _| Ok(()))?;
    Ok(watcher)
}
