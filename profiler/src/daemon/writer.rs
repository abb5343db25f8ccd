//! Windows on their way to the store: a thread of its own gives them names and writes them, so that the ring is
//! read meanwhile. What cannot be written is counted under its cause, and the next window that can be written
//! says so in its account.

use std::{
    collections::BTreeMap,
    io, mem,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::{
    config::Retention,
    status::Status,
    store::{Capability, LostWindow, Store, WindowName},
};
use crate::{
    error::Error,
    output::{self, Format, Options},
    postgres::Window,
    record::Captured,
    symbolize::Cache,
};

/// Windows that may wait for the thread.
const QUEUE: usize = 2;

/// A window to be written.
pub(crate) struct Job {
    pub(crate) content: Content,
    /// What the daemon has to say of it, with how often.
    pub(crate) notes: BTreeMap<String, u64>,
}

/// What a window has.
pub(crate) enum Content {
    /// Stacks.
    Sampling {
        /// What was taken out.
        captured: Box<Captured>,
        /// Tells apart the tables of files that its places refer to.
        table: u64,
    },
    /// Calls of Postgres.
    Queries {
        window: Window,
        /// When it began, by the wall clock after the Unix epoch.
        started: Duration,
    },
}

impl Content {
    fn capability(&self) -> Capability {
        match self {
            Self::Sampling { .. } => Capability::Sampling,
            Self::Queries { .. } => Capability::Queries,
        }
    }

    /// Samples or calls in it.
    fn events(&self) -> u64 {
        match self {
            Self::Sampling { captured, .. } => captured.account.shown,
            Self::Queries { window, .. } => window.calls(),
        }
    }
}

/// A window as it is to be in the store.
struct Made {
    name: WindowName,
    bytes: Vec<u8>,
    /// Samples or calls in it, and those that were lost meanwhile.
    events: u64,
    lost: u64,
}

/// The way to the thread. The thread ends when every clone of this is gone.
#[derive(Clone)]
pub(crate) struct Windows {
    queue: SyncSender<Box<Job>>,
    lost: Arc<Lost>,
}

/// Windows lost since the last one that was written, by capability: how many, and samples or calls in them.
struct Lost {
    pending: Mutex<BTreeMap<(Capability, LostWindow), (u64, u64)>>,
    status: Arc<Status>,
}

/// Of one capability, by cause.
type Told = BTreeMap<LostWindow, (u64, u64)>;

impl Lost {
    fn add(&self, capability: Capability, cause: LostWindow, events: u64, detail: &str) {
        let name = capability.name();
        tracing::warn!(
            cause = cause.text(),
            events,
            detail,
            "window of {name} lost"
        );
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let (windows, sum) = pending.entry((capability, cause)).or_default();
        *windows += 1;
        *sum += events;
        self.status.update(|now| {
            *now.windows.lost.entry(cause).or_default() += 1;
            now.counts(capability).lost += events;
        });
    }

    fn take(&self, capability: Capability) -> Told {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let all = mem::take(&mut *pending);
        let (taken, left) = all.into_iter().partition(|((of, _), _)| *of == capability);
        *pending = left;
        let taken: BTreeMap<(Capability, LostWindow), (u64, u64)> = taken;
        taken
            .into_iter()
            .map(|((_, cause), sums)| (cause, sums))
            .collect()
    }

    /// What could not be told after all is told by the next one.
    fn give_back(&self, capability: Capability, taken: Told) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        for (cause, (windows, events)) in taken {
            let sum = pending.entry((capability, cause)).or_default();
            sum.0 += windows;
            sum.1 += events;
        }
    }
}

impl Windows {
    /// Hands a window on, or counts it as lost where too many wait.
    pub(crate) fn offer(&self, job: Job) {
        match self.queue.try_send(Box::new(job)) {
            Ok(()) => {}
            Err(TrySendError::Full(job)) => self.lose(&job, LostWindow::WriterBusy, ""),
            Err(TrySendError::Disconnected(job)) => {
                self.lose(&job, LostWindow::Failed, "the writer has ended");
            }
        }
    }

    /// Hands a last window on, waiting for its place.
    pub(crate) fn offer_last(&self, job: Job) {
        if let Err(error) = self.queue.send(Box::new(job)) {
            self.lose(&error.0, LostWindow::Failed, "the writer has ended");
        }
    }

    /// A window that could not even be taken out.
    pub(crate) fn failed(&self, capability: Capability, detail: &str) {
        self.lost.add(capability, LostWindow::Failed, 0, detail);
    }

    fn lose(&self, job: &Job, cause: LostWindow, detail: &str) {
        let content = &job.content;
        self.lost
            .add(content.capability(), cause, content.events(), detail);
    }
}

/// The thread.
pub(crate) struct Writer {
    windows: Windows,
    retention: Arc<Mutex<Retention>>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Starts it.
    pub(crate) fn start(
        store: Store,
        retention: Retention,
        status: Arc<Status>,
    ) -> Result<Self, Error> {
        let (queue, jobs) = sync_channel(QUEUE);
        let lost = Arc::new(Lost {
            pending: Mutex::default(),
            status,
        });
        let retention = Arc::new(Mutex::new(retention));
        let work = Work {
            store,
            retention: Arc::clone(&retention),
            lost: Arc::clone(&lost),
            names: Cache::new(),
        };
        let thread = std::thread::Builder::new()
            .name("windows".to_owned())
            .spawn(move || work.run(&jobs))
            .map_err(|source| Error::System {
                action: "start the thread that writes windows",
                source,
            })?;
        Ok(Self {
            windows: Windows { queue, lost },
            retention,
            thread,
        })
    }

    /// The way to it.
    pub(crate) fn windows(&self) -> Windows {
        self.windows.clone()
    }

    /// It should not, before everything is over.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// From the next window on.
    pub(crate) fn set_retention(&self, retention: Retention) {
        *self
            .retention
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = retention;
    }

    /// Waits until everything is written. Other clones of its way must be gone by now.
    pub(crate) fn finish(self) {
        let Self {
            windows, thread, ..
        } = self;
        drop(windows);
        if thread.join().is_err() {
            tracing::error!("the thread that writes windows has failed");
        }
    }
}

struct Work {
    store: Store,
    retention: Arc<Mutex<Retention>>,
    lost: Arc<Lost>,
    names: Cache,
}

impl Work {
    fn run(mut self, jobs: &Receiver<Box<Job>>) {
        self.retain();
        for job in jobs {
            self.write(*job);
            self.retain();
        }
    }

    fn write(&mut self, job: Job) {
        let Job { content, mut notes } = job;
        let (capability, events) = (content.capability(), content.events());
        let told = self.lost.take(capability);
        notes.extend(lost_notes(capability, &told));
        let made = self.make(content, notes);
        let made = made.map_err(|error| (LostWindow::Failed, error.to_string()));
        let written = made.and_then(|made| {
            let name = self.store.write(made.name.clone(), &made.bytes);
            let name = name.map_err(|(cause, error)| (cause, error.to_string()))?;
            Ok((name, made))
        });
        match written {
            Ok((name, made)) => self.written(&name, capability, &made),
            Err((cause, detail)) => {
                self.lost.give_back(capability, told);
                self.lost.add(capability, cause, events, &detail);
            }
        }
    }

    fn make(&mut self, content: Content, notes: BTreeMap<String, u64>) -> Result<Made, Error> {
        match content {
            Content::Sampling { captured, table } => {
                let meta = &captured.meta;
                let begin_ms = milliseconds(meta.started);
                let times = (begin_ms, begin_ms + milliseconds(meta.duration));
                let name = WindowName::new(Capability::Sampling, times, &meta.title);
                let (mut profile, _hints) = captured
                    .profile(|places, sources| self.names.resolve(table, &places, sources))?;
                let note = |(note, count): (String, u64)| (note.into(), count);
                profile.account.notes.extend(notes.into_iter().map(note));
                Ok(Made {
                    name,
                    bytes: output::render(&profile, Format::Pprof, &Options::default())?,
                    events: profile.account.shown,
                    lost: profile.account.lost_total(),
                })
            }
            Content::Queries {
                mut window,
                started,
            } => {
                let begin_ms = milliseconds(started);
                let times = (begin_ms, begin_ms + milliseconds(window.duration));
                let name = WindowName::new(Capability::Queries, times, &window.title);
                for (note, count) in notes {
                    window.note(note, count);
                }
                let bytes = window.to_bytes().map_err(|source| Error::System {
                    action: "compress a window",
                    source,
                })?;
                Ok(Made {
                    name,
                    bytes,
                    events: window.calls(),
                    lost: window.lost(),
                })
            }
        }
    }

    fn written(&self, name: &WindowName, capability: Capability, made: &Made) {
        let Made { events, lost, .. } = *made;
        tracing::debug!(%name, events, lost, "window written");
        self.lost.status.update(|now| {
            now.windows.written += 1;
            now.windows.newest_ms = now.windows.newest_ms.max(Some(name.end_ms));
            let counts = now.counts(capability);
            counts.shown += events;
            counts.lost += lost;
        });
    }

    fn retain(&self) {
        let retention = *self
            .retention
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match self.store.retain(retention) {
            Ok((deleted, left)) => {
                if deleted.windows > 0 {
                    tracing::debug!(
                        windows = deleted.windows,
                        bytes = deleted.bytes,
                        "old windows deleted"
                    );
                }
                self.lost.status.update(|now| {
                    now.windows.deleted += deleted.windows;
                    now.windows.undeleted = deleted.failed;
                    now.windows.kept = left.len() as u64;
                    now.windows.kept_bytes = left.iter().map(|entry| entry.bytes).sum();
                });
            }
            Err(error) => warn_unlisted(&error),
        }
    }
}

fn warn_unlisted(error: &io::Error) {
    tracing::warn!(%error, "cannot list the store, so nothing is deleted");
}

fn lost_notes(
    capability: Capability,
    lost: &Told,
) -> impl Iterator<Item = (String, u64)> + use<'_> {
    let event = match capability {
        Capability::Sampling => "sample",
        Capability::Queries => "call",
    };
    lost.iter().flat_map(move |(cause, (windows, events))| {
        let text = cause.text();
        [
            (format!("window before this one lost, {text}"), *windows),
            (
                format!("{event} in a window that was lost, {text}"),
                *events,
            ),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
    })
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
