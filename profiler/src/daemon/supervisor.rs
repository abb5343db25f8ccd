//! The main thread of the daemon: starts the capabilities, watches over them, obeys signals.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{
    budget::{Allowed, Budget},
    check::{self, Refusals},
    config::{self, Sampling, Settings},
    health, journal, manager,
    outlets::Outlets,
    overhead::Overhead,
    privileges::{self, Reasons},
    sampling,
    slot::{self, Slot, Wanted},
    status::Status,
    tables,
    writer::Writer,
};
use crate::{
    error::{Error, Exit},
    kernel, postgres,
    record::{
        ending::runtime,
        signals::{self, Patience, Signals},
    },
    store::{Capability, Sampled, Store},
    symbolize::{self, Limits},
    syscalls, tcp, web,
};

/// How long names are waited for at the end, which may take five seconds in all.
const NAMING: Duration = Duration::from_millis(2500);
/// How often the capabilities are looked after.
const LOOK: Duration = Duration::from_secs(1);
/// How often the daemon's own CPU time is read.
const READING: Duration = Duration::from_secs(5);

/// Runs until a signal ends it.
pub fn run(path: &Path, listen_publicly: bool) -> Result<Exit, Error> {
    let settings = config::load(path)?;
    require(&settings)?;
    web::check(settings.web.as_ref(), listen_publicly)?;
    let log = journal::begin(settings.log);
    // Wants a capability that is dropped next. Without it only the BPF programs' own time is not known.
    let statistics = kernel::keep_statistics();
    let store = Store::open(&settings.state)?;
    let privileges = privileges::reduce(Reasons::of(&settings))?;
    symbolize::check(Limits::SERVICE)?;
    tracing::info!(
        kept = privileges.kept.join(" "),
        dropped = privileges.dropped,
        "capabilities of this process"
    );
    if statistics.is_none() {
        tracing::info!(
            "the CPU time of BPF programs is not known unless kernel.bpf_stats_enabled is 1"
        );
    }
    signals::begin(Patience::DAEMON)?;
    let signals = Signals::subscribe()?;
    runtime()?.block_on(async {
        let supervisor = Supervisor::start((path, listen_publicly), settings, log, store)?;
        supervisor.watch(signals).await
    })
}

/// What would fail anyway is refused, with what mends it.
fn require(settings: &Settings) -> Result<(), Error> {
    check::require_sampling(settings)?;
    check::require_queries(settings)?;
    check::require_table(settings.tcp.as_ref())?;
    check::require_table(settings.syscalls.as_ref())
}

struct Supervisor {
    path: PathBuf,
    settings: Settings,
    log: journal::Handle,
    status: Arc<Status>,
    writer: Writer,
    sampling: Slot<sampling::Plan>,
    queries: Slot<tables::Plan<postgres::Keeper>>,
    tcp: Slot<tables::Plan<tcp::Keeper>>,
    syscalls: Slot<tables::Plan<syscalls::Keeper>>,
    budget: Budget<Capability>,
    overhead: Overhead,
    told: String,
    /// What stands still, without its figures.
    trouble: String,
    outlets: Outlets,
}

impl Supervisor {
    /// Starts everything; ready when this comes back.
    fn start(
        (path, listen_publicly): (&Path, bool),
        settings: Settings,
        log: journal::Handle,
        store: Store,
    ) -> Result<Self, Error> {
        let status = Arc::<Status>::default();
        status.update(|now| now.window = settings.window);
        let outlets = Outlets::start(&settings, listen_publicly, Arc::clone(&status))?;
        let mut supervisor = Self {
            path: path.to_owned(),
            writer: Writer::start(
                store,
                settings.retention,
                Arc::clone(&status),
                &outlets.exports,
            )?,
            sampling: Slot::new(Arc::clone(&status)),
            queries: Slot::new(Arc::clone(&status)),
            tcp: Slot::new(Arc::clone(&status)),
            syscalls: Slot::new(Arc::clone(&status)),
            status,
            budget: budget(&settings),
            overhead: Overhead::begin(Duration::ZERO),
            told: String::new(),
            trouble: String::new(),
            outlets,
            settings,
            log,
        };
        let windows = supervisor.writer.windows();
        let plans = supervisor.plans();
        supervisor.sampling.begin(plans.sampling, windows.clone())?;
        supervisor.queries.begin(plans.queries, windows.clone())?;
        supervisor.tcp.begin(plans.tcp, windows.clone())?;
        supervisor.syscalls.begin(plans.syscalls, windows)?;
        for line in check::lines(&supervisor.settings, &Refusals::default()) {
            tracing::info!("{line}");
        }
        manager::ready(&supervisor.line());
        Ok(supervisor)
    }

    async fn watch(mut self, signals: Signals) -> Result<Exit, Error> {
        let mut look = ticks(LOOK);
        let mut reading = ticks(READING);
        // What starting has cost is not held against anybody.
        reading.reset();
        self.overhead = Overhead::begin(self.bpf_time());
        let mut watchdog = manager::watchdog().map(ticks);
        loop {
            tokio::select! {
                _ = signals.end() => break,
                () = signals.reload() => self.reload(),
                _ = look.tick() => {
                    self.look_after();
                    if self.writer.has_ended() {
                        // Started anew by the service manager, which is told.
                        return Err(Error::System {
                            action: "go on writing windows",
                            source: std::io::Error::other("the thread that does has failed"),
                        });
                    }
                }
                _ = reading.tick() => self.read_overhead(),
                () = next(&mut watchdog) => self.feed_watchdog(),
            }
        }
        // Before anything else, as the log may block: each writes what it has while others may
        // hang.
        self.sampling.ask_to_stop();
        self.queries.ask_to_stop();
        self.tcp.ask_to_stop();
        self.syscalls.ask_to_stop();
        symbolize::give_up_after(NAMING);
        tracing::info!("ending: the open windows are written");
        manager::stopping("ending");
        self.sampling.stop();
        self.queries.stop();
        self.tcp.stop();
        self.syscalls.stop();
        let Self { writer, status, .. } = self;
        writer.finish();
        tracing::info!("ended: {}", status.snapshot().line());
        Ok(Exit::Done)
    }

    /// Time in BPF programs since the start.
    fn bpf_time(&self) -> Duration {
        self.sampling.bpf_time()
            + self.queries.bpf_time()
            + self.tcp.bpf_time()
            + self.syscalls.bpf_time()
    }

    /// What the capabilities are to do, as far as the budget allows.
    fn plans(&self) -> Plans {
        let (settings, allowed) = (&self.settings, self.budget.allowed());
        let window = settings.window;
        let sampling = settings.sampling.clone().map(|sampling| sampling::Plan {
            frequency_hz: allowed.frequency_hz.unwrap_or(sampling.frequency_hz),
            sampling,
            window,
        });
        let queries = settings.queries.clone().map(|queries| tables::Plan {
            targets: queries.targets,
            window,
            how: queries.tls,
        });
        let tcp = settings.tcp.clone().map(|targets| tables::Plan {
            targets,
            window,
            how: (),
        });
        let syscalls = settings.syscalls.clone().map(|targets| tables::Plan {
            targets,
            window,
            how: (),
        });
        let shed = &allowed.shed;
        Plans {
            sampling: wanted(sampling, shed),
            queries: wanted(queries, shed),
            tcp: wanted(tcp, shed),
            syscalls: wanted(syscalls, shed),
        }
    }

    fn look_after(&mut self) {
        let (plans, windows) = (self.plans(), self.writer.windows());
        self.sampling.look_after(plans.sampling, windows.clone());
        self.queries.look_after(plans.queries, windows.clone());
        self.tcp.look_after(plans.tcp, windows.clone());
        self.syscalls.look_after(plans.syscalls, windows);
        self.tell();
    }

    /// Brings the capabilities in line with the settings, without a pause where they go on.
    fn change(&mut self, what: Changes) {
        let (plans, windows) = (self.plans(), self.writer.windows());
        if what.sampling {
            self.sampling.change(plans.sampling, windows.clone());
        }
        if what.queries {
            self.queries.change(plans.queries, windows.clone());
        }
        if what.tcp {
            self.tcp.change(plans.tcp, windows.clone());
        }
        if what.syscalls {
            self.syscalls.change(plans.syscalls, windows);
        }
    }

    /// Reads the configuration again. One that is wrong changes nothing.
    fn reload(&mut self) {
        tracing::info!("reading the configuration again");
        manager::reloading();
        let refused = match self.apply() {
            Ok(()) => None,
            Err(error) => {
                let why = error.with_hint();
                tracing::error!("new configuration refused, the old one holds: {why}");
                Some(error.to_string())
            }
        };
        self.status.update(|now| now.refused = refused);
        manager::ready(&self.line());
    }

    /// Everything that can fail comes first.
    fn apply(&mut self) -> Result<(), Error> {
        let settings = config::load(&self.path)?;
        require(&settings)?;
        let moved = settings.state != self.settings.state;
        let store = moved.then(|| Store::open(&settings.state)).transpose()?;
        let writer = store.map(|store| {
            let (status, exports) = (Arc::clone(&self.status), &self.outlets.exports);
            Writer::start(store, settings.retention, status, exports)
        });
        let writer = writer.transpose()?;
        self.outlets.apply(&settings, &self.settings)?;
        let before = std::mem::replace(&mut self.settings, settings);
        let settings = &self.settings;
        self.status.update(|now| now.window = settings.window);
        if settings.log.format != before.log.format {
            tracing::warn!("log.format changes with the next start");
        }
        self.log.set_level(settings.log.level);
        self.writer.set_retention(settings.retention);
        let is_same = |changed: bool| !changed && settings.window == before.window;
        let mut changes = Changes {
            sampling: !is_same(settings.sampling != before.sampling),
            queries: !is_same(settings.queries != before.queries),
            tcp: !is_same(settings.tcp != before.tcp),
            syscalls: !is_same(settings.syscalls != before.syscalls),
        };
        if settings.sampling == before.sampling && optional(settings) == optional(&before) {
            self.budget.set_limit(settings.overhead_max_ppm);
        } else {
            self.budget = budget(settings);
        }
        let old = writer.map(|writer| std::mem::replace(&mut self.writer, writer));
        if old.is_some() {
            changes = Changes::ALL;
        }
        self.change(changes);
        if let Some(old) = old {
            // In the background: its queue is written while sampling goes on by the other one.
            std::thread::spawn(move || old.finish());
        }
        let refusals = Refusals::of_budget(&self.budget.allowed().shed);
        for line in check::lines(&self.settings, &refusals) {
            tracing::info!("{line}");
        }
        Ok(())
    }

    fn read_overhead(&mut self) {
        let bpf_total = self.bpf_time();
        let own_ppm = self.overhead.read(bpf_total);
        let allowed = self.budget.reading(own_ppm);
        let cut = (!self.budget.is_whole()).then(|| cut_text(&self.budget.allowed()));
        if allowed.is_some() {
            let limit_ppm = self.settings.overhead_max_ppm;
            if let Some(cut) = &cut {
                tracing::warn!(own_ppm, limit_ppm, "CPU budget: {cut}");
            } else {
                tracing::info!(own_ppm, limit_ppm, "CPU budget: nothing is cut any more");
            }
            self.change(Changes::ALL);
        }
        self.status.update(|now| {
            now.own_ppm = own_ppm;
            now.bpf = bpf_total;
            now.cut = cut;
        });
    }

    /// Only if everything goes on: the capabilities have done something since, no thread stands
    /// still, and windows are written.
    fn feed_watchdog(&mut self) {
        // All are looked at each time.
        let alive = [
            self.sampling.is_alive(),
            self.queries.is_alive(),
            self.tcp.is_alive(),
            self.syscalls.is_alive(),
        ];
        let (snapshot, exports) = (self.status.snapshot(), self.outlets.exports.health());
        let still = health::standstill(&snapshot, &exports, Instant::now());
        let trouble = still.join("; ");
        // Once a kind: for how long it lasts is no other one.
        let kind = trouble.chars().filter(|char| !char.is_ascii_digit());
        let kind: String = kind.collect();
        if alive == [true; 4] && still.is_empty() {
            manager::alive();
            if !self.trouble.is_empty() {
                tracing::info!("nothing stands still any more");
            }
        } else if kind != self.trouble {
            tracing::error!(
                trouble,
                "something stands still: the watchdog of the service manager gets no answer"
            );
        }
        self.trouble = kind;
    }

    fn line(&self) -> String {
        self.status.snapshot().line()
    }

    /// Tells the service manager what has changed.
    fn tell(&mut self) {
        let line = self.line();
        if line != self.told {
            manager::status(&line);
            self.told = line;
        }
    }
}

/// What each capability is to do, if anything.
struct Plans {
    sampling: Wanted<sampling::Plan>,
    queries: Wanted<tables::Plan<postgres::Keeper>>,
    tcp: Wanted<tables::Plan<tcp::Keeper>>,
    syscalls: Wanted<tables::Plan<syscalls::Keeper>>,
}

/// What is configured, unless it is among those that are shed.
fn wanted<P: slot::Plan>(plan: Option<P>, shed: &[Capability]) -> Wanted<P> {
    match plan {
        None => Wanted::Off,
        Some(_) if shed.contains(&P::CAPABILITY) => Wanted::Shed,
        Some(plan) => Wanted::On(plan),
    }
}

/// Which capabilities have something else to do.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "one for each capability")]
struct Changes {
    sampling: bool,
    queries: bool,
    tcp: bool,
    syscalls: bool,
}

impl Changes {
    const ALL: Self = Self {
        sampling: true,
        queries: true,
        tcp: true,
        syscalls: true,
    };
}

/// What is cut, in words.
fn cut_text(allowed: &Allowed<Capability>) -> String {
    let rate = allowed
        .frequency_hz
        .map(|hz| format!("sampling at {hz} Hz"));
    let shed = allowed.shed.iter();
    let shed = shed.map(|capability| format!("{} off", capability.name()));
    rate.into_iter().chain(shed).collect::<Vec<_>>().join(", ")
}

fn budget(settings: &Settings) -> Budget<Capability> {
    let sampling = settings.sampling.as_ref();
    let is_sampled = |sampling: &&Sampling| sampling.sampled != Sampled::OffCpu;
    let frequency_hz = sampling
        .filter(is_sampled)
        .map(|sampling| sampling.frequency_hz);
    Budget::new(settings.overhead_max_ppm, frequency_hz, optional(settings))
}

/// What can be shed, in that order.
fn optional(settings: &Settings) -> Vec<Capability> {
    // What following switches costs does not depend on a rate: it can only be stopped.
    let waits = settings.sampling.as_ref();
    let waits = waits.is_some_and(|sampling| sampling.sampled != Sampled::Cpu);
    let all = [
        (Capability::Syscalls, settings.syscalls.is_some()),
        (Capability::Tcp, settings.tcp.is_some()),
        (Capability::Queries, settings.queries.is_some()),
        (Capability::Sampling, waits),
    ];
    let on = all.into_iter().filter(|(_, is_on)| *is_on);
    on.map(|(capability, _)| capability).collect()
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// The next tick, never where there are none.
async fn next(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => {
            ticks.tick().await;
        }
        None => std::future::pending().await,
    }
}
