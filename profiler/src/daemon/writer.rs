//! Windows on their way to the store: threads of their own give them names and write them, so that rings are read
//! meanwhile; those of tables do not wait until those of stacks have their names. What cannot be written is counted
//! under its cause, and the next window that can be written says so in its account.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::{
    lost::{Lost, LostOne},
    status::Status,
};
use crate::{
    config::Mode,
    error::Error,
    export::Exports,
    output::{self, Format, Options},
    record::Captured,
    store::{
        Capability, Figure, LostWindow, Store, Table, WindowName, clock::Clock, milliseconds,
        retention::Retention,
    },
    symbolize::Cache,
};

/// Windows of stacks that may wait for their thread.
const QUEUE: usize = 2;
/// Windows of tables that may: as many of each of the three capabilities, whose windows may all end at once.
const TABLES: usize = 3 * QUEUE;

/// Note: of tables, where what is lost is not of the kind that a window counts.
const LOST_WITHIN: &str = "loss that a window that was lost would have told";

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
    /// Queries, connections or system calls.
    Table {
        capability: Capability,
        table: Box<dyn Table>,
        /// When it began, by the wall clock after the Unix epoch.
        started: Duration,
    },
}

impl Content {
    fn capability(&self) -> Capability {
        match self {
            Self::Sampling { captured, .. } => match captured.mode {
                Mode::OffCpu => Capability::OffCpu,
                Mode::Wall => Capability::Wall,
                Mode::OnCpu | Mode::Syscalls => Capability::Sampling,
            },
            Self::Table { capability, .. } => *capability,
        }
    }

    /// Samples, calls or connections, and samples that it would have told as lost.
    fn all_events(&self) -> u64 {
        match self {
            Self::Sampling { captured, .. } => {
                captured.account.shown + captured.account.lost_total()
            }
            Self::Table { table, .. } => table.events(),
        }
    }
}

impl Job {
    /// What is counted, and told by the next window, if this one is lost.
    fn as_lost(&self, cause: LostWindow) -> LostOne {
        let mut notes = self.notes.clone();
        if let Content::Table { table, .. } = &self.content
            && table.lost() > 0
        {
            *notes.entry(LOST_WITHIN.to_owned()).or_default() += table.lost();
        }
        LostOne {
            capability: self.content.capability(),
            cause,
            events: self.content.all_events(),
            notes,
        }
    }
}

/// A window as it is to be in the store.
struct Made {
    name: WindowName,
    bytes: Vec<u8>,
    /// Samples, calls or connections in it, and those that were lost meanwhile.
    events: u64,
    lost: u64,
    /// Samples lost, by cause.
    lost_by: BTreeMap<&'static str, u64>,
    /// Samples whose stack was cut.
    cut_stacks: u64,
    /// What is added up of tables.
    sums: Vec<(Figure, u64)>,
}

/// The way to the threads, which end when every clone of this is gone.
#[derive(Clone)]
pub(crate) struct Windows {
    stacks: SyncSender<Box<Job>>,
    tables: SyncSender<Box<Job>>,
    lost: Arc<Lost>,
}

impl Windows {
    /// Hands a window on, or counts it as lost where too many wait.
    pub(crate) fn offer(&self, job: Job) {
        match self.queue(&job).try_send(Box::new(job)) {
            Ok(()) => {}
            Err(TrySendError::Full(job)) => self.lose(&job, LostWindow::WriterBusy, ""),
            Err(TrySendError::Disconnected(job)) => {
                self.lose(&job, LostWindow::Failed, "the writer has ended");
            }
        }
    }

    /// Hands a last window on, waiting for its place.
    pub(crate) fn offer_last(&self, job: Job) {
        if let Err(error) = self.queue(&job).send(Box::new(job)) {
            self.lose(&error.0, LostWindow::Failed, "the writer has ended");
        }
    }

    fn queue(&self, job: &Job) -> &SyncSender<Box<Job>> {
        match job.content {
            Content::Sampling { .. } => &self.stacks,
            Content::Table { .. } => &self.tables,
        }
    }

    /// A window that could not even be taken out.
    pub(crate) fn failed(&self, capability: Capability, detail: &str) {
        let lost = LostOne {
            capability,
            cause: LostWindow::Failed,
            events: 0,
            notes: BTreeMap::new(),
        };
        self.lost.add(lost, detail);
    }

    fn lose(&self, job: &Job, cause: LostWindow, detail: &str) {
        self.lost.add(job.as_lost(cause), detail);
    }
}

/// The threads.
pub(crate) struct Writer {
    windows: Windows,
    shelf: Arc<Shelf>,
    threads: [JoinHandle<()>; 2],
}

impl Writer {
    /// Starts them.
    pub(crate) fn start(
        store: Store,
        retention: Retention,
        status: Arc<Status>,
        exports: &Exports,
    ) -> Result<Self, Error> {
        let (stacks, stack_jobs) = sync_channel(QUEUE);
        let (tables, table_jobs) = sync_channel(TABLES);
        let lost = Arc::new(Lost::new(status));
        let shelf = Arc::new(Shelf {
            store,
            kept: Mutex::new((retention, Clock::watch())),
        });
        let start = |name: &'static str, jobs: Receiver<Box<Job>>| {
            let work = Work {
                name,
                shelf: Arc::clone(&shelf),
                lost: Arc::clone(&lost),
                names: Cache::new(),
                exports: exports.clone(),
            };
            let thread = std::thread::Builder::new().name(name.to_owned());
            let thread = thread.spawn(move || work.run(&jobs));
            thread.map_err(|source| Error::System {
                action: "start a thread that writes windows",
                source,
            })
        };
        Ok(Self {
            threads: [start("windows", stack_jobs)?, start("tables", table_jobs)?],
            windows: Windows {
                stacks,
                tables,
                lost,
            },
            shelf,
        })
    }

    /// The way to them.
    pub(crate) fn windows(&self) -> Windows {
        self.windows.clone()
    }

    /// Whether one of them has, which should not before everything is over.
    pub(crate) fn has_ended(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// From the next window on.
    pub(crate) fn set_retention(&self, retention: Retention) {
        let kept = self.shelf.kept.lock();
        kept.unwrap_or_else(PoisonError::into_inner).0 = retention;
    }

    /// Waits until everything is written. Other clones of its way must be gone by now.
    pub(crate) fn finish(self) {
        let Self {
            windows, threads, ..
        } = self;
        drop(windows);
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread that writes windows has failed");
            }
        }
    }
}

/// The store, and what is kept in it, by which clock.
struct Shelf {
    store: Store,
    kept: Mutex<(Retention, Clock)>,
}

/// What a thread has.
struct Work {
    name: &'static str,
    shelf: Arc<Shelf>,
    lost: Arc<Lost>,
    names: Cache,
    exports: Exports,
}

impl Work {
    fn run(mut self, jobs: &Receiver<Box<Job>>) {
        self.retain();
        self.lost.status.set_at(self.name, None);
        for job in jobs {
            self.write(*job);
            self.retain();
            give_back_memory();
            self.lost.status.set_at(self.name, None);
        }
    }

    /// Shows what this thread is at, so that a standstill is seen.
    fn is_at(&self, what: &'static str) {
        self.lost.status.set_at(self.name, Some(what));
    }

    fn write(&mut self, job: Job) {
        let capability = job.content.capability();
        // Its cause is not known yet, if it comes to that.
        let as_lost = job.as_lost(LostWindow::Failed);
        let Job { content, mut notes } = job;
        self.is_at("giving names");
        let told = self.lost.take(capability);
        told.tell(capability, &mut notes);
        let made = self.make(content, notes);
        let made = made.map_err(|error| (LostWindow::Failed, error.to_string()));
        self.is_at("writing its file");
        let written = made.and_then(|made| {
            let name = self.shelf.store.write(made.name.clone(), &made.bytes);
            let name = name.map_err(|(cause, error)| (cause, error.to_string()))?;
            Ok((name, made))
        });
        match written {
            Ok((name, made)) => self.written(&name, capability, &made),
            Err((cause, detail)) => {
                self.lost.give_back(capability, told);
                self.lost.add(LostOne { cause, ..as_lost }, &detail);
            }
        }
    }

    fn make(&mut self, content: Content, notes: BTreeMap<String, u64>) -> Result<Made, Error> {
        let capability = content.capability();
        match content {
            Content::Sampling { captured, table } => {
                let meta = &captured.meta;
                let begin_ms = milliseconds(meta.started);
                let times = (begin_ms, begin_ms + milliseconds(meta.duration));
                let name = WindowName::new(capability, times, &meta.title);
                let (mut profile, _hints) = captured
                    .profile(|places, sources| self.names.resolve(table, &places, sources))?;
                // Before the windows that were lost are told: they have no part in this one.
                self.is_at("queueing for exports");
                self.exports.offer(&profile);
                self.is_at("packing");
                let account = &mut profile.account;
                let note = |(note, count): (String, u64)| (note.into(), count);
                account.notes.extend(notes.into_iter().map(note));
                let known: u64 = account.stacks.values().sum();
                let lost = account.lost.iter();
                Ok(Made {
                    name,
                    events: account.shown,
                    lost: account.lost_total(),
                    lost_by: lost.map(|(cause, count)| (cause.text(), *count)).collect(),
                    cut_stacks: known.saturating_sub(account.complete()),
                    bytes: output::render(&profile, Format::Pprof, &Options::default())?,
                    sums: Vec::new(),
                })
            }
            Content::Table {
                capability,
                mut table,
                started,
            } => {
                let begin_ms = milliseconds(started);
                let times = (begin_ms, begin_ms + milliseconds(table.duration()));
                let name = WindowName::new(capability, times, table.title());
                if let Some(window) = table.queries() {
                    // What happened, whether it can be written or not.
                    self.lost.status.queries().add(window);
                    self.exports.offer_queries(window, started);
                }
                for (note, count) in notes {
                    table.note(note, count);
                }
                Ok(Made {
                    name,
                    bytes: table.to_bytes()?,
                    events: table.events(),
                    lost: table.lost(),
                    lost_by: BTreeMap::new(),
                    cut_stacks: 0,
                    sums: table.sums(),
                })
            }
        }
    }

    fn written(&self, name: &WindowName, capability: Capability, made: &Made) {
        let Made { events, lost, .. } = *made;
        tracing::debug!(%name, events, lost, "window written");
        self.lost.status.update(|now| {
            now.windows.written += 1;
            now.lost_in_a_row.remove(&capability);
            now.windows.newest_ms = now.windows.newest_ms.max(Some(name.end_ms));
            let counts = now.counts(capability);
            counts.shown += events;
            counts.lost += lost;
            for (cause, count) in &made.lost_by {
                *now.lost_by.entry((*cause).to_owned()).or_default() += count;
            }
            now.cut_stacks += made.cut_stacks;
            for (figure, sum) in &made.sums {
                *now.sums.entry(*figure).or_default() += sum;
            }
        });
    }

    fn retain(&self) {
        self.is_at("deleting old windows");
        // As long as it is held nobody else deletes.
        let mut kept = self
            .shelf
            .kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (retention, clock) = &mut *kept;
        if let Some(step) = clock.look() {
            tracing::warn!("{}", step.text());
        }
        match self.shelf.store.retain(*retention, clock) {
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

/// Naming a window takes many times the memory that is kept, and the allocator would keep all of it.
#[cfg(target_env = "gnu")]
fn give_back_memory() {
    // SAFETY: always callable, from any thread.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators give it back by themselves.
#[cfg(not(target_env = "gnu"))]
fn give_back_memory() {}

fn warn_unlisted(error: &io::Error) {
    tracing::warn!(%error, "cannot list the store, so nothing is deleted");
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

    use super::{
        Captured, Content, Exports, Job, Lost, LostWindow, Retention, Status, Store, Windows,
        Writer, sync_channel,
    };
    use crate::{
        postgres::example::stored,
        profile::{self, Account, Meta, Profile},
        report, store,
    };

    fn job(begin_s: u64, shown: u64) -> Job {
        let meta = Meta {
            title: "test".to_owned(),
            frequency_hz: 19,
            started: Duration::from_secs(begin_s),
            duration: Duration::from_secs(1),
            ..Meta::default()
        };
        // One more was lost.
        let account = Account {
            taken: shown + 1,
            shown,
            lost: BTreeMap::from([(profile::Lost::RingFull, 1)]),
            ..Account::default()
        };
        Job {
            content: Content::Sampling {
                captured: Box::new(Captured::empty(meta, account)),
                table: 1,
            },
            notes: BTreeMap::from([("said by the daemon".to_owned(), begin_s)]),
        }
    }

    impl Writer {
        /// One that deletes nothing and exports nothing.
        pub(in crate::daemon) fn keeping_all(state: &Path, status: &Arc<Status>) -> Self {
            let retention = Retention {
                age: Duration::from_secs(u64::from(u32::MAX)),
                bytes: u64::MAX,
            };
            let store = Store::open(state).unwrap();
            Self::start(store, retention, Arc::clone(status), &Exports::default()).unwrap()
        }
    }

    fn windows_in(state: &Path) -> Vec<Profile> {
        let entries = store::list(state).unwrap();
        let read = |entry: &store::Entry| report::read(&store::open(state, &entry.name).unwrap());
        entries.iter().map(|entry| read(entry).unwrap()).collect()
    }

    /// A window that cannot be written is lost under its cause, and the next one that can be says so once.
    #[test]
    fn next_window_tells_of_lost_ones() {
        let state = tempfile::tempdir().unwrap();
        let status = Arc::<Status>::default();
        let writer = Writer::keeping_all(state.path(), &status);
        let (folder, away) = (state.path().join("windows"), state.path().join("away"));
        let windows = writer.windows();
        let offer_and_wait = |begin_s, shown| {
            let count = |status: &Status| {
                let now = status.snapshot().windows;
                now.written + now.lost.values().sum::<u64>()
            };
            let before = count(&status);
            windows.offer(job(begin_s, shown));
            while count(&status) == before {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        offer_and_wait(10, 1);
        fs::rename(&folder, &away).unwrap();
        offer_and_wait(20, 2);
        offer_and_wait(30, 3);
        fs::rename(&away, &folder).unwrap();
        offer_and_wait(40, 4);
        offer_and_wait(50, 5);
        drop(windows);
        writer.finish();
        let read = windows_in(state.path());
        let note = |at: usize, note: &str| read[at].account.notes.get(note).copied();
        assert_eq!(read.len(), 3);
        let (lost, samples) = (
            "window before this one lost, could not be written",
            "sample in a window that was lost, could not be written",
        );
        assert_eq!((note(0, lost), note(2, lost)), (None, None));
        assert_eq!((note(1, lost), note(1, samples)), (Some(2), Some(7)));
        // With what those before it would have said.
        assert_eq!(note(1, "said by the daemon"), Some(20 + 30 + 40));
        let now = status.snapshot();
        assert_eq!((now.windows.written, now.windows.kept), (3, 3));
        assert_eq!(now.windows.lost[&LostWindow::Failed], 2);
    }

    /// A window that finds too many before it is lost, and sampling does not wait; those of tables have a way of their
    /// own.
    #[test]
    fn full_queue_loses_windows() {
        let (stacks, _stack_jobs) = sync_channel(1);
        let (tables, _table_jobs) = sync_channel(1);
        let status = Arc::<Status>::default();
        let windows = Windows {
            stacks,
            tables,
            lost: Arc::new(Lost::new(Arc::clone(&status))),
        };
        for begin_s in 0..3 {
            windows.offer(job(begin_s, 7));
        }
        windows.offer(Job {
            content: Content::Table {
                capability: store::Capability::Queries,
                table: Box::new(stored(Duration::from_secs(1))),
                started: Duration::ZERO,
            },
            notes: BTreeMap::new(),
        });
        let now = status.snapshot();
        assert_eq!(now.windows.lost[&LostWindow::WriterBusy], 2);
        assert_eq!(now.samples.lost, 16);
    }
}
