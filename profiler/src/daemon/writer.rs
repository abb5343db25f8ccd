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
    profile::Profile,
    record::Captured,
    symbolize::Cache,
};

/// Windows that may wait for the thread.
const QUEUE: usize = 2;

/// A window to be written.
pub(crate) struct Job {
    /// What was taken out.
    pub(crate) captured: Captured,
    /// Tells apart the tables of files that its places refer to.
    pub(crate) table: u64,
    /// What the daemon has to say of it, with how often.
    pub(crate) notes: BTreeMap<String, u64>,
}

/// The way to the thread. The thread ends when every clone of this is gone.
#[derive(Clone)]
pub(crate) struct Windows {
    queue: SyncSender<Box<Job>>,
    lost: Arc<Lost>,
}

/// Windows lost since the last one that was written: how many, and samples in them.
struct Lost {
    pending: Mutex<BTreeMap<LostWindow, (u64, u64)>>,
    status: Arc<Status>,
}

impl Lost {
    fn add(&self, cause: LostWindow, samples: u64, detail: &str) {
        tracing::warn!(cause = cause.text(), samples, detail, "window lost");
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let (windows, sum) = pending.entry(cause).or_default();
        *windows += 1;
        *sum += samples;
        self.status.update(|now| {
            *now.windows.lost.entry(cause).or_default() += 1;
            now.samples_lost += samples;
        });
    }

    fn take(&self) -> BTreeMap<LostWindow, (u64, u64)> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        mem::take(&mut *pending)
    }

    /// What could not be told after all is told by the next one.
    fn give_back(&self, taken: BTreeMap<LostWindow, (u64, u64)>) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        for (cause, (windows, samples)) in taken {
            let sum = pending.entry(cause).or_default();
            sum.0 += windows;
            sum.1 += samples;
        }
    }
}

impl Windows {
    /// Hands a window on, or counts it as lost where too many wait.
    pub(crate) fn offer(&self, job: Job) {
        match self.queue.try_send(Box::new(job)) {
            Ok(()) => {}
            Err(TrySendError::Full(job)) => {
                self.lost_window(LostWindow::WriterBusy, job.captured.account.shown, "");
            }
            Err(TrySendError::Disconnected(job)) => {
                let samples = job.captured.account.shown;
                self.lost_window(LostWindow::Failed, samples, "the writer has ended");
            }
        }
    }

    /// Hands a last window on, waiting for its place.
    pub(crate) fn offer_last(&self, job: Job) {
        if let Err(error) = self.queue.send(Box::new(job)) {
            let samples = error.0.captured.account.shown;
            self.lost_window(LostWindow::Failed, samples, "the writer has ended");
        }
    }

    /// A window that could not even be taken out.
    pub(crate) fn lost_window(&self, cause: LostWindow, samples: u64, detail: &str) {
        self.lost.add(cause, samples, detail);
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
        let Job {
            captured,
            table,
            notes,
        } = job;
        let meta = &captured.meta;
        let begin_ms = milliseconds(meta.started);
        let times = (begin_ms, begin_ms + milliseconds(meta.duration));
        let name = WindowName::new(Capability::Sampling, times, &meta.title);
        let samples = captured.account.shown;
        let named = captured
            .profile(|places, sources| self.names.resolve(table, &places, sources))
            .map_err(Error::from);
        let (mut profile, _hints) = match named {
            Ok(named) => named,
            Err(error) => {
                return self
                    .lost
                    .add(LostWindow::Failed, samples, &error.to_string());
            }
        };
        let told = self.lost.take();
        let note = |(note, count): (String, u64)| (note.into(), count);
        profile.account.notes.extend(notes.into_iter().map(note));
        profile.account.notes.extend(lost_notes(&told).map(note));
        match self.render_and_write(name, &profile) {
            Ok(name) => self.written(&name, &profile),
            Err((cause, detail)) => {
                self.lost.give_back(told);
                self.lost.add(cause, samples, &detail);
            }
        }
    }

    fn render_and_write(
        &self,
        name: WindowName,
        profile: &Profile,
    ) -> Result<WindowName, (LostWindow, String)> {
        let bytes = output::render(profile, Format::Pprof, &Options::default())
            .map_err(|error| (LostWindow::Failed, error.to_string()))?;
        self.store
            .write(name, &bytes)
            .map_err(|(cause, error)| (cause, error.to_string()))
    }

    fn written(&self, name: &WindowName, profile: &Profile) {
        let lost = profile.account.lost_total();
        tracing::debug!(%name, samples = profile.account.shown, lost, "window written");
        self.lost.status.update(|now| {
            now.windows.written += 1;
            now.windows.newest_ms = now.windows.newest_ms.max(Some(name.end_ms));
            now.samples += profile.account.shown;
            now.samples_lost += lost;
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
    lost: &BTreeMap<LostWindow, (u64, u64)>,
) -> impl Iterator<Item = (String, u64)> + use<'_> {
    lost.iter().flat_map(|(cause, (windows, samples))| {
        let text = cause.text();
        [
            (format!("window before this one lost, {text}"), *windows),
            (
                format!("sample in a window that was lost, {text}"),
                *samples,
            ),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
    })
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
