//! Windows sent to what users already run: an OpenTelemetry Collector, Pyroscope, Parca.
//!
//! ```text
//! stacks ─► services (whose?) ─► otlp | push (bytes) ─┬► queue (a folder each) ─► worker (a thread each) ─► HTTP
//! calls of Postgres ──────────► queries (bytes) ──────┘
//! ```
//!
//! A window is turned into the bytes of one request for each place and put into that place's queue on disk (one for
//! each signal, as a place may take one and not the other), by the thread that writes windows; a worker sends the oldest first, and waits longer after each failure. What is not
//! sent is dropped for a cause and counted: see [`Dropped`]. Nothing here is waited for by sampling.
//!
//! [`services`], [`otlp`], [`push`], `queries` and the decisions of `queue` and `worker` are pure.

pub mod otlp;
pub mod push;
mod queries;
mod queue;
mod send;
pub mod services;
mod worker;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Deserialize;

use self::{queue::Queue, worker::Worker};
use crate::{error::Error, postgres::Window, profile::Profile};

/// Folder of the queues in the state directory.
pub(crate) const FOLDER: &str = "export";

/// Where windows are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Export {
    /// Each place once.
    pub targets: Vec<Target>,
    /// What may wait for each of them.
    pub limits: Limits,
}

/// A place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What it understands.
    pub kind: Kind,
    /// Without a slash at its end.
    pub url: String,
    /// `Name: value`, a line each: read before each request, so that it can be changed.
    pub headers_file: Option<PathBuf>,
    /// What is sent there.
    pub signals: Vec<Signal>,
}

/// What is sent.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Signal {
    /// Stacks.
    #[default]
    Profiles,
    /// Figures of calls of Postgres.
    Metrics,
}

impl Signal {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Profiles => "profiles",
            Self::Metrics => "metrics",
        }
    }
}

/// What a place understands.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// OTLP over HTTP, profiles and metrics.
    Otlp,
    /// pprof by Pyroscope's `Push`.
    Pyroscope,
    /// pprof by Parca's `WriteRaw`.
    Parca,
}

impl Kind {
    /// Its name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Otlp => "otlp",
            Self::Pyroscope => "pyroscope",
            Self::Parca => "parca",
        }
    }

    /// What stands behind the url.
    pub fn path(self, signal: Signal) -> &'static str {
        match (self, signal) {
            (Self::Otlp, Signal::Profiles) => "/v1development/profiles",
            (Self::Otlp, Signal::Metrics) => "/v1/metrics",
            (Self::Pyroscope, _) => "/push.v1.PusherService/Push",
            (Self::Parca, _) => "/api/profiles/writeraw",
        }
    }

    /// What it takes.
    pub fn signals(self) -> &'static [Signal] {
        match self {
            Self::Otlp => &[Signal::Profiles, Signal::Metrics],
            Self::Pyroscope | Self::Parca => &[Signal::Profiles],
        }
    }
}

/// What may wait for one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all that waits; the oldest go first.
    pub bytes: u64,
    /// What waits for longer is dropped.
    pub age: Duration,
}

/// Why a window was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dropped {
    /// It waited for longer than the limit.
    TooOld,
    /// More waited than the limit.
    QueueFull,
    /// The other side does not want it.
    Refused,
    /// The queue could not be written to, or read.
    QueueFailed,
    /// Its bytes could not be made.
    NotEncoded,
}

impl Dropped {
    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Self::TooOld => "waited too long",
            Self::QueueFull => "queue full",
            Self::Refused => "refused by the other side",
            Self::QueueFailed => "queue could not be written",
            Self::NotEncoded => "could not be encoded",
        }
    }
}

/// How the sending to a place fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Of what.
    pub signal: Signal,
    /// Windows sent since the start.
    pub sent: u64,
    /// Requests that failed, and are made again.
    pub failures: u64,
    /// Windows dropped, by cause.
    pub dropped: BTreeMap<Dropped, u64>,
    /// Windows that wait.
    pub waiting: u64,
    /// Bytes of those.
    pub waiting_bytes: u64,
    /// Since when a request is under way, if one is.
    pub since: Option<Instant>,
    /// Why the last request failed, if it did.
    pub trouble: Option<String>,
}

/// All places. A clone is the same.
#[derive(Clone, Default)]
pub struct Exports(Arc<Mutex<Vec<Arc<Worker>>>>);

impl Exports {
    /// From now on to these places. What waits for a place that is no more is deleted, which is logged.
    pub fn configure(&self, state: &Path, export: &Export) -> Result<(), Error> {
        let folder = state.join(FOLDER);
        let mut workers = self.lock();
        // They end by themselves, and what waits for them stays.
        workers.clear();
        remove_others(&folder, &export.targets);
        for target in &export.targets {
            for signal in target.signals.iter().copied() {
                let queue = Queue::new(folder.join(folder_name(target, signal)), export.limits);
                workers.push(Arc::new(Worker::start(target.clone(), signal, queue)?));
            }
        }
        Ok(())
    }

    /// A window of stacks that has ended.
    pub fn offer(&self, profile: &Profile) {
        if !profile.samples.is_empty() {
            self.each(Signal::Profiles, |worker| worker.offer(profile));
        }
    }

    /// A window of calls of Postgres that began so long after the Unix epoch and has ended.
    pub fn offer_queries(&self, window: &Window, started: Duration) {
        self.each(Signal::Metrics, |worker| {
            worker.offer_queries(window, started);
        });
    }

    fn each(&self, signal: Signal, offer: impl Fn(&Worker)) {
        // Not while the list is held: a queue may hang, and others ask how it fares.
        let workers = self.lock().clone();
        let workers = workers.iter().map(Arc::as_ref);
        workers
            .filter(|worker| worker.signal() == signal)
            .for_each(offer);
    }

    /// How each place fares, by signal.
    pub fn health(&self) -> Vec<(Target, Health)> {
        let workers = self.lock();
        let one = |worker: &Arc<Worker>| (worker.target().clone(), worker.health());
        workers.iter().map(one).collect()
    }

    /// A panic of another part does not make the list less true.
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Worker>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A name for a file that no other place has: what it is and where, and a number that tells apart what reads alike.
fn folder_name(target: &Target, signal: Signal) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let url: String = target.url.chars().map(safe).take(60).collect();
    let mut hash = fnv::FnvHasher::default();
    std::hash::Hasher::write(&mut hash, target.url.as_bytes());
    let number = std::hash::Hasher::finish(&hash);
    let kind = target.kind.name();
    match signal {
        // Queues of before there were others have this name.
        Signal::Profiles => format!("{kind}-{url}-{number:016x}"),
        Signal::Metrics => format!("{kind}-metrics-{url}-{number:016x}"),
    }
}

fn remove_others(folder: &Path, targets: &[Target]) {
    let names = targets.iter().flat_map(|target| {
        let signals = target.signals.iter();
        signals.map(|signal| folder_name(target, *signal))
    });
    let names: Vec<String> = names.collect();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if names.contains(&name) {
            continue;
        }
        let waiting = fs::read_dir(entry.path()).into_iter().flatten().count();
        let removed = fs::remove_dir_all(entry.path()).is_ok();
        tracing::warn!(
            queue = name,
            waiting,
            removed,
            "export: queue of a place that is configured no more"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{Export, Exports, Kind, Limits, Signal, Target};

    fn folder_name(target: &Target) -> String {
        super::folder_name(target, Signal::Profiles)
    }

    fn target(url: &str) -> Target {
        Target {
            kind: Kind::Parca,
            url: url.to_owned(),
            headers_file: None,
            signals: vec![Signal::Profiles],
        }
    }

    /// Places whose addresses read alike have queues of their own.
    #[test]
    fn places_have_queues_of_their_own() {
        assert_ne!(
            folder_name(&target("http://a:1/b")),
            folder_name(&target("http://a/1_b"))
        );
        assert!(folder_name(&target("http://a/../..")).starts_with("parca-http___a"));
    }

    /// What waits for a place that is configured no more is deleted; the queues of the others stay.
    #[test]
    fn queues_of_former_places_go() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join("export");
        let kept = folder.join(folder_name(&target("http://127.0.0.1:9")));
        std::fs::create_dir_all(folder.join("otlp-gone")).unwrap();
        std::fs::create_dir_all(&kept).unwrap();
        let export = Export {
            targets: vec![target("http://127.0.0.1:9")],
            limits: Limits::default(),
        };
        Exports::default().configure(state.path(), &export).unwrap();
        assert!(kept.is_dir() && !folder.join("otlp-gone").exists());
    }
}
