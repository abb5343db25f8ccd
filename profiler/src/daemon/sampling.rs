//! The sampling capability: a thread that reads the ring, follows the targets and hands windows on.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    config::Sampling,
    follow::{self, Change, Follower},
    slot::{self, Command, Life, Pulse},
    writer::{Content, Job, Windows},
};
use crate::{
    error::Error,
    record::{Captured, How, Sampler, Scope, ending::at},
    store::{Capability, Sampled, clock::Clock},
};

/// How often the ring is emptied: at most every CPU's samples of this time wait on it.
const POLL: Duration = Duration::from_millis(100);
/// How often CPUs are counted and targets looked for.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

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

impl slot::Plan for Plan {
    const CAPABILITY: Capability = Capability::Sampling;

    fn description(&self, followed: u64) -> String {
        let mut whom = self.sampling.description();
        if self.sampling.targets.is_some() && followed > 0 {
            whom = format!("{whom} ({followed} alive)");
        }
        let sampling = &self.sampling;
        let (hz, least) = (self.frequency_hz, sampling.min_block);
        match sampling.sampled {
            Sampled::Cpu => format!("{whom} at {hz} Hz"),
            Sampled::OffCpu => format!("{whom}, off the CPU, waits from {least:?} on"),
            Sampled::Wall => format!("{whom}, all time, at {hz} Hz and waits from {least:?} on"),
        }
    }

    fn work(self, windows: Windows, life: Life<Self>) -> Result<(), Error> {
        life.lead(|pulse| Session::attach(self, windows, pulse), Session::run)
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
    clock: Clock,
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
            clock: Clock::watch(),
            notes: BTreeMap::new(),
            plan,
            windows,
            pulse,
        };
        session.follow()?;
        session.note_rate();
        Ok(session)
    }

    async fn run(mut self, commands: UnboundedReceiver<Command<Plan>>) -> Result<(), Error> {
        let result = self.watch(commands).await;
        let Self {
            plan,
            sampler,
            windows,
            table,
            mut clock,
            mut notes,
            ..
        } = self;
        clock.note(&mut notes);
        match sampler.finish() {
            Ok(captured) => windows.offer_last(Job {
                content: Content::Sampling {
                    captured: Box::new(captured),
                    table,
                },
                notes,
            }),
            Err(error) => {
                let capability = plan.sampling.sampled.capability();
                windows.failed(capability, &error.to_string());
            }
        }
        result
    }

    async fn watch(&mut self, mut commands: UnboundedReceiver<Command<Plan>>) -> Result<(), Error> {
        let mut poll = interval(POLL);
        let mut housekeeping = interval(HOUSEKEEPING);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ring = self.sampler.watch_ring()?;
        loop {
            tokio::select! {
                ready = ring.readable() => {
                    ready?;
                    self.sampler.drain()?;
                }
                _ = poll.tick() => {
                    self.sampler.drain()?;
                    self.pulse.beat();
                }
                () = at(self.sampler.next_look().map(Instant::from_std)) => self.sampler.look_again()?,
                _ = housekeeping.tick() => self.keep_house()?,
                () = at(Some(self.window_end)) => {
                    self.end_window()?;
                    if self.sampler.is_worn() {
                        self.renew()?;
                        ring = self.sampler.watch_ring()?;
                    }
                }
                command = commands.recv() => match command {
                    Some(Command::Plan(plan, windows)) => {
                        if self.change(*plan, windows)? {
                            ring = self.sampler.watch_ring()?;
                        }
                    }
                    Some(Command::Note(note)) => {
                        self.notes.insert(note.to_owned(), 1);
                    }
                    Some(Command::Stop) | None => return Ok(()),
                },
            }
        }
    }

    fn keep_house(&mut self) -> Result<(), Error> {
        self.sampler.keep_house()?;
        self.follow()?;
        self.pulse.set_bpf_time(self.sampler.bpf_time());
        Ok(())
    }

    /// Brings the kernel side's table of targets up to date.
    fn follow(&mut self) -> Result<(), Error> {
        let Some(follower) = &mut self.follower else {
            return Ok(());
        };
        let Change { remove, add } = follower.tick(&follow::listing(), follow::look);
        self.pulse.set_followed(follower.followed());
        for pid in remove {
            self.sampler.remove_target(pid);
        }
        for (pid, bits) in add {
            follow::note_full(self.sampler.add_target(pid, bits), &mut self.notes)?;
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
        self.clock.note(&mut self.notes);
        let job = Job {
            content: Content::Sampling {
                captured: Box::new(captured),
                table: self.table,
            },
            notes: std::mem::take(&mut self.notes),
        };
        self.windows.offer(job);
    }

    /// Says whether sampling had to begin anew: whether everybody is sampled, and what of them, is settled when it begins.
    fn change(&mut self, plan: Plan, windows: Windows) -> Result<bool, Error> {
        let before = std::mem::replace(&mut self.plan, plan);
        let settled = |plan: &Plan| {
            let Sampling {
                targets,
                sampled,
                min_block,
                ..
            } = &plan.sampling;
            (targets.is_none(), *sampled, *min_block)
        };
        let renews = settled(&before) != settled(&self.plan);
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
        if rate < wanted && self.plan.sampling.sampled != Sampled::OffCpu {
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
    let how = How {
        mode: plan.sampling.sampled.mode(),
        frequency_hz: plan.frequency_hz,
        min_block: plan.sampling.min_block,
    };
    Sampler::start(scope, how, plan.sampling.description())
}
