//! A count that goes on for months, in windows: what came since the last one is the difference of the kernel side's
//! sums, and those of processes that have ended make room.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::Duration,
};

use profiler_common::{
    config::{Settings, target},
    event::KIND_EXIT,
    outcome::Counter,
    syscalls::{Call, CellKey, ErrorKey, wanted},
};

use super::{
    account::Account,
    known::Known,
    tally::Tally,
    watcher::Watcher,
    window::{Came, Window},
};
use crate::{
    daemon::tables,
    error::Error,
    kernel::Record,
    process,
    record::{
        finish::{self, monotonic_ns},
        ring_watch::RingWatch,
    },
    store::{Capability, Link, Table},
};

/// Processes that have ended since their sums were last taken out; with more of them the kernel's table might not last
/// to the end of the window.
const EXITS_MAX: usize = 64;
/// Sums of a window from which on those of processes that have ended are not told apart.
const APART_MAX: usize = 2000;
/// Note: see [`APART_MAX`].
const ENDED: &str = "row of a process that has ended summed with those of others";

/// A count under way.
pub(crate) struct Keeper {
    watcher: Watcher,
    known: Known,
    /// Processes that were told to have ended since the kernel side's sums were last read.
    ended: BTreeSet<u32>,
    /// Those with sums that were not there any more then.
    gone: BTreeSet<u32>,
    /// The kernel side's sums when they were last read.
    read: Tally,
    errors_read: BTreeMap<ErrorKey, u64>,
    /// What came since the last window, up to then.
    came: Tally,
    errors: BTreeMap<ErrorKey, u64>,
    notes: BTreeMap<&'static str, u64>,
    before: Marks,
    /// Calls in all windows so far.
    counted: u64,
    link: Link,
    has_ended: bool,
}

/// What was when the last window ended.
#[derive(Clone, Default)]
struct Marks {
    counters: BTreeMap<Counter, u64>,
    begun: u64,
    open: u64,
    process: Duration,
    bpf: Option<Duration>,
}

impl tables::Keeper for Keeper {
    const CAPABILITY: Capability = Capability::Syscalls;
    const POLL: Duration = Duration::from_millis(100);
    type How = ();

    fn begin(settings: &Settings, (): ()) -> Result<Self, Error> {
        let (mut watcher, _) = Watcher::load(settings, wanted::CALLS | wanted::ERRORS)?;
        watcher.kernel.attach_lifecycle()?;
        watcher.kernel.attach_calls()?;
        Ok(Self {
            watcher,
            known: Known::default(),
            ended: BTreeSet::new(),
            gone: BTreeSet::new(),
            read: Tally::default(),
            errors_read: BTreeMap::new(),
            came: Tally::default(),
            errors: BTreeMap::new(),
            notes: BTreeMap::new(),
            before: Marks::default(),
            counted: 0,
            link: Link::begin(),
            has_ended: false,
        })
    }

    fn watch_ring(&self) -> Result<RingWatch, Error> {
        self.watcher.watch_ring()
    }

    fn drain(&mut self) {
        let Self {
            watcher,
            known,
            ended,
            ..
        } = self;
        watcher.drain(|record| {
            if let Record::Process(event) = record {
                known.learn(event);
                if event.kind == KIND_EXIT {
                    ended.insert(event.tgid);
                }
            }
        });
    }

    fn look(&mut self) {
        self.drain();
        if self.ended.len() >= EXITS_MAX {
            self.read_sums();
        }
    }

    fn add_target(&mut self, pid: u32) -> Result<(), Error> {
        self.watcher.kernel.add_target(pid, target::FOLLOW)?;
        // What its threads are in.
        self.watcher.seed([pid], monotonic_ns())
    }

    // The calls that it is in are counted yet.
    fn remove_target(&mut self, pid: u32) {
        self.watcher.kernel.remove_target(pid);
    }

    fn bpf_time(&self) -> Option<Duration> {
        self.watcher.bpf_time()
    }

    fn end(&mut self) {
        self.watcher.kernel.stop();
        self.drain();
        self.has_ended = true;
    }

    fn take_window(&mut self, what: (String, Duration)) -> Result<Box<dyn Table>, Error> {
        self.drain();
        let counters = self.watcher.kernel.counters()?;
        let open = self.read_sums();
        // Of whoever began meanwhile, and may have sums.
        self.drain();
        let now = Marks {
            counters,
            begun: self.watcher.begun().max(self.before.begun),
            open: open.total().open,
            process: finish::process_cpu_time(),
            bpf: self.watcher.bpf_time(),
        };
        let before = mem::replace(&mut self.before, now.clone());
        let mut tally = mem::take(&mut self.came);
        tally.add(&open);
        let total = tally.total();
        self.counted += total.returned() + total.cell.ended;
        let since = now.counters.iter().map(|(counter, count)| {
            let then = before.counters.get(counter).copied().unwrap_or(0);
            (*counter, count.saturating_sub(then))
        });
        let mut account = Account::of_window(&since.collect(), &total, now.begun - before.begun);
        if self.has_ended {
            let begun = self.watcher.begun();
            account.set_unexplained(&now.counters, self.counted + now.open, begun);
        }
        account.bpf = now
            .bpf
            .map(|bpf| bpf.saturating_sub(before.bpf.unwrap_or_default()));
        account.process = now.process.saturating_sub(before.process);
        for (note, count) in mem::take(&mut self.notes) {
            *account.notes.entry(note.to_owned()).or_default() += count;
        }
        let came = Came {
            errors: mem::take(&mut self.errors),
            known: self.known.of_window(pids(&tally)),
            carried: before.open,
            tally,
            account,
        };
        let link = self.link;
        self.link = link.next();
        Ok(Box::new(Window::new(what, link, came)))
    }
}

impl Keeper {
    /// Adds what came to the kernel side's sums since they were last read, and takes those of processes out that have
    /// ended. Gives the calls that threads are in.
    fn read_sums(&mut self) -> Tally {
        let ended = mem::take(&mut self.ended);
        let (mut now, callers) = self.watcher.tally(monotonic_ns());
        let open = now.take_open();
        self.came.add(&now.since(&self.read));
        let errors = self.watcher.kernel.call_errors();
        for (key, count) in &errors {
            let came = count.saturating_sub(self.errors_read.get(key).copied().unwrap_or(0));
            if came > 0 {
                *self.errors.entry(*key).or_default() += came;
            }
        }
        self.errors_read = errors;
        let gone = gone(&now, &callers);
        // Of one that ended only while they were read, not all was read.
        let is_final = |pid: &&u32| ended.contains(pid) || self.gone.contains(pid);
        let read_whole = gone.iter().filter(is_final).copied().collect();
        self.make_room(&read_whole, &mut now);
        (self.read, self.gone) = (now, gone);
        open
    }

    /// Takes out what is not written to any more and was read since.
    fn make_room(&mut self, gone: &BTreeSet<u32>, now: &mut Tally) {
        if gone.is_empty() {
            return;
        }
        let of_gone = now.keys().filter(|key| gone.contains(&key.tgid));
        let keys: Vec<CellKey> = of_gone.copied().collect();
        for key in keys {
            // One that stays is not to be counted again.
            if self.watcher.kernel.forget_cell(&key) {
                now.remove(&key);
            }
        }
        let kernel = &mut self.watcher.kernel;
        self.errors_read
            .retain(|key, _| !(gone.contains(&key.tgid) && kernel.forget_call_error(key)));
        if self.came.len() > APART_MAX {
            let summed = self.came.sum_up(gone);
            *self.notes.entry(ENDED).or_default() += summed;
            let errors = mem::take(&mut self.errors);
            for (mut key, count) in errors {
                if gone.contains(&key.tgid) {
                    key.tgid = 0;
                }
                *self.errors.entry(key).or_default() += count;
            }
        }
    }
}

/// Processes with sums that have no thread any more.
fn gone(tally: &Tally, callers: &BTreeMap<u32, Call>) -> BTreeSet<u32> {
    let with_threads: BTreeSet<u32> = callers.values().map(|call| call.tgid).collect();
    let without = &pids(tally) - &with_threads;
    without
        .into_iter()
        .filter(|pid| !process::is_alive(*pid))
        .collect()
}

/// Processes with sums.
fn pids(tally: &Tally) -> BTreeSet<u32> {
    tally.keys().map(|key| key.tgid).collect()
}
