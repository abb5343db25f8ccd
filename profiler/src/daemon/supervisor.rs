//! The main thread of the daemon: starts the capabilities, watches over them, obeys signals.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    budget::Budget,
    check,
    config::{self, Settings},
    journal, manager,
    overhead::Overhead,
    privileges,
    sampling::{Plan, Running},
    status::{State, Status},
    store::{Capability, Store},
    writer::Writer,
};
use crate::{
    error::{Error, Exit},
    kernel, preflight,
    record::{ending::runtime, targets::check_frequency},
};

/// How often the capabilities are looked after.
const LOOK: Duration = Duration::from_secs(1);
/// How often the daemon's own CPU time is read.
const READING: Duration = Duration::from_secs(5);
/// First pause before a capability that failed is started again; doubled each time.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest such pause. One that has run so long has recovered.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Runs until a signal ends it.
pub(super) fn run(path: &Path) -> Result<Exit, Error> {
    let settings = config::load(path)?;
    require(&settings)?;
    let log = journal::begin(settings.log);
    // Wants a capability that is dropped next. Without it only the BPF programs' own time is not known.
    let statistics = kernel::keep_statistics();
    let store = Store::open(&settings.state)?;
    let privileges = privileges::reduce()?;
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
    runtime()?.block_on(async {
        let signals = Signals::watch()?;
        let supervisor = Supervisor::start(path, settings, log, store)?;
        supervisor.watch(signals).await
    })
}

/// What would fail anyway is refused, with what mends it.
fn require(settings: &Settings) -> Result<(), Error> {
    if let Some(sampling) = &settings.sampling {
        preflight::require_record()?;
        check_frequency(sampling.frequency_hz)?;
    }
    Ok(())
}

struct Signals {
    hangup: Signal,
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// From now on they do not end the process.
    fn watch() -> Result<Self, Error> {
        let watch = |kind| {
            signal(kind).map_err(|source| Error::System {
                action: "watch for signals",
                source,
            })
        };
        Ok(Self {
            hangup: watch(SignalKind::hangup())?,
            interrupt: watch(SignalKind::interrupt())?,
            terminate: watch(SignalKind::terminate())?,
        })
    }
}

struct Supervisor {
    path: PathBuf,
    settings: Settings,
    log: journal::Handle,
    status: Arc<Status>,
    writer: Writer,
    sampling: Slot,
    budget: Budget<Capability>,
    overhead: Overhead,
    /// Time in BPF programs of capabilities that have ended.
    bpf_ended: Duration,
    /// Beats of the capabilities at the last look of the watchdog.
    beats: Option<u64>,
    told: String,
}

/// A capability.
enum Slot {
    Off,
    Runs {
        running: Running,
        since: Instant,
        failures: u32,
    },
    /// It failed so many times in a row.
    Waits {
        until: Instant,
        failures: u32,
    },
}

impl Supervisor {
    /// Starts everything; ready when this comes back.
    fn start(
        path: &Path,
        settings: Settings,
        log: journal::Handle,
        store: Store,
    ) -> Result<Self, Error> {
        let status = Arc::<Status>::default();
        let mut supervisor = Self {
            path: path.to_owned(),
            writer: Writer::start(store, settings.retention, Arc::clone(&status))?,
            status,
            sampling: Slot::Off,
            budget: budget(&settings),
            overhead: Overhead::begin(Duration::ZERO),
            bpf_ended: Duration::ZERO,
            beats: None,
            told: String::new(),
            settings,
            log,
        };
        if let Some(plan) = supervisor.plan() {
            let running = Running::start(plan, supervisor.writer.windows())?;
            supervisor.runs(running, 0);
        } else {
            supervisor.set_state(State::Off);
        }
        for line in check::lines(&supervisor.settings, None) {
            tracing::info!("{line}");
        }
        manager::ready(&supervisor.line());
        Ok(supervisor)
    }

    async fn watch(mut self, mut signals: Signals) -> Result<Exit, Error> {
        let mut look = ticks(LOOK);
        let mut reading = ticks(READING);
        // What starting has cost is not held against anybody.
        reading.reset();
        self.overhead = Overhead::begin(self.bpf_time());
        let mut watchdog = manager::watchdog().map(ticks);
        loop {
            tokio::select! {
                _ = signals.hangup.recv() => self.reload(),
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
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
        tracing::info!("ending: the open window is written");
        manager::stopping("ending");
        self.stop_sampling();
        let Self { writer, status, .. } = self;
        writer.finish();
        tracing::info!("ended: {}", status.snapshot().line());
        Ok(Exit::Done)
    }

    /// Time in BPF programs since the start.
    fn bpf_time(&self) -> Duration {
        match &self.sampling {
            Slot::Runs { running, .. } => self.bpf_ended + running.pulse().bpf_time(),
            Slot::Off | Slot::Waits { .. } => self.bpf_ended,
        }
    }

    /// What sampling is to do, as far as the budget allows.
    fn plan(&self) -> Option<Plan> {
        let sampling = self.settings.sampling.clone()?;
        let allowed = self.budget.allowed().frequency_hz;
        Some(Plan {
            frequency_hz: allowed.unwrap_or(sampling.frequency_hz),
            sampling,
            window: self.settings.window,
        })
    }

    fn look_after(&mut self) {
        let slot = std::mem::replace(&mut self.sampling, Slot::Off);
        match slot {
            Slot::Runs {
                running,
                since,
                failures,
            } if running.has_ended() => {
                self.bpf_ended += running.pulse().bpf_time();
                let failures = if since.elapsed() > PAUSE_MAX {
                    0
                } else {
                    failures
                };
                let error = running.end();
                self.failed(&error, failures + 1);
            }
            Slot::Waits { until, failures } if until <= Instant::now() => {
                self.start_sampling(failures);
            }
            slot => self.sampling = slot,
        }
        if matches!(self.sampling, Slot::Runs { .. }) {
            self.set_rate_state();
        }
        self.tell();
    }

    fn start_sampling(&mut self, failures: u32) {
        let Some(plan) = self.plan() else {
            self.sampling = Slot::Off;
            self.set_state(State::Off);
            return;
        };
        match Running::start(plan, self.writer.windows()) {
            Ok(running) => {
                tracing::info!("{}", check::sampling_line(&self.settings, None));
                self.runs(running, failures);
            }
            Err(error) => self.failed(&error, failures + 1),
        }
    }

    /// Brings sampling in line with the settings, without a pause where it goes on.
    fn change_sampling(&mut self) {
        match (self.plan(), &self.sampling) {
            (Some(plan), Slot::Runs { running, .. }) => {
                running.change(plan, self.writer.windows());
                self.set_rate_state();
            }
            (Some(_), Slot::Off | Slot::Waits { .. }) => self.start_sampling(0),
            (None, _) => {
                self.stop_sampling();
                self.set_state(State::Off);
            }
        }
    }

    fn runs(&mut self, running: Running, failures: u32) {
        self.sampling = Slot::Runs {
            running,
            since: Instant::now(),
            failures,
        };
        self.set_rate_state();
    }

    fn failed(&mut self, error: &Error, failures: u32) {
        let doublings = failures.saturating_sub(1).min(16);
        let pause = (PAUSE_MIN * 2_u32.pow(doublings)).min(PAUSE_MAX);
        let hint = error.hint().unwrap_or_default();
        let pause_s = pause.as_secs();
        tracing::error!(%error, hint, pause_s, failures, "sampling failed, it is started again");
        self.sampling = Slot::Waits {
            until: Instant::now() + pause,
            failures,
        };
        self.set_state(State::Failed(error.to_string()));
    }

    /// Ends it; the open window is handed on.
    fn stop_sampling(&mut self) {
        if let Slot::Runs { running, .. } = std::mem::replace(&mut self.sampling, Slot::Off) {
            let pulse = running.pulse().bpf_time();
            if let Err(error) = running.stop() {
                tracing::error!(%error, "sampling failed at its end");
            }
            self.bpf_ended += pulse;
        }
    }

    fn set_rate_state(&self) {
        if let Some(plan) = self.plan() {
            let mut whom = plan.sampling.description();
            if let Slot::Runs { running, .. } = &self.sampling
                && plan.sampling.targets.is_some()
            {
                whom = format!("{whom} ({} processes now)", running.pulse().followed());
            }
            self.set_state(State::On(format!("{whom} at {} Hz", plan.frequency_hz)));
        }
    }

    fn set_state(&self, state: State) {
        self.status.update(|now| {
            now.capabilities.insert(Capability::Sampling, state);
        });
    }

    /// Reads the configuration again. One that is wrong changes nothing.
    fn reload(&mut self) {
        tracing::info!("reading the configuration again");
        manager::reloading();
        let refused = match self.apply() {
            Ok(()) => None,
            Err(error) => {
                let hint = error.hint().unwrap_or_default();
                tracing::error!(%error, hint, "new configuration refused, the old one holds");
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
        let writer =
            store.map(|store| Writer::start(store, settings.retention, Arc::clone(&self.status)));
        let writer = writer.transpose()?;
        let before = std::mem::replace(&mut self.settings, settings);
        let settings = &self.settings;
        if settings.log.format != before.log.format {
            tracing::warn!("log.format changes with the next start");
        }
        self.log.set_level(settings.log.level);
        self.writer.set_retention(settings.retention);
        let resamples = settings.sampling != before.sampling || settings.window != before.window;
        if settings.sampling == before.sampling {
            self.budget.set_limit(settings.overhead_max_ppm);
        } else {
            self.budget = budget(settings);
        }
        let old = writer.map(|writer| std::mem::replace(&mut self.writer, writer));
        if resamples || old.is_some() {
            self.change_sampling();
        }
        if let Some(old) = old {
            // In the background: its queue is written while sampling goes on by the other one.
            std::thread::spawn(move || old.finish());
        }
        for line in check::lines(&self.settings, None) {
            tracing::info!("{line}");
        }
        Ok(())
    }

    fn read_overhead(&mut self) {
        let own_ppm = self.overhead.read(self.bpf_time());
        let allowed = self.budget.reading(own_ppm);
        let cut = self
            .budget
            .allowed()
            .frequency_hz
            .map(|hz| format!("sampling at {hz} Hz"));
        let cut = cut.filter(|_| !self.budget.is_whole());
        if allowed.is_some() {
            let limit_ppm = self.settings.overhead_max_ppm;
            if let Some(cut) = &cut {
                tracing::warn!(own_ppm, limit_ppm, "CPU budget: {cut}");
            } else {
                tracing::info!(own_ppm, limit_ppm, "CPU budget: nothing is cut any more");
            }
            self.change_sampling();
        }
        self.status.update(|now| {
            now.own_ppm = own_ppm;
            now.cut = cut;
        });
    }

    /// Only if the capabilities have done something since.
    fn feed_watchdog(&mut self) {
        let beats = match &self.sampling {
            Slot::Runs { running, .. } => Some(running.pulse().beats()),
            // What is known to have failed is being looked after.
            Slot::Off | Slot::Waits { .. } => None,
        };
        if beats.is_none() || beats != self.beats {
            manager::alive();
        } else {
            tracing::error!("sampling stands still; the service manager is not told that we live");
        }
        self.beats = beats;
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

fn budget(settings: &Settings) -> Budget<Capability> {
    let frequency_hz = settings
        .sampling
        .as_ref()
        .map(|sampling| sampling.frequency_hz);
    Budget::new(settings.overhead_max_ppm, frequency_hz, Vec::new())
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
