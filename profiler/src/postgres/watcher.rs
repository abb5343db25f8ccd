//! A watch under way: from the kernel side's records to what connections tell, for as long as it is wanted. The shell
//! of the rooms that understand them; `session` and `keeper` say when it begins and ends.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use profiler_common::{
    config::{Settings, target},
    event::{KIND_EXEC, KIND_EXIT, KIND_FORK},
    outcome::Counter,
    wire::{WireHeader, WireSettings},
};

use rustc_hash::FxHashMap;

use super::{
    Tls,
    account::{Account, Sockets, unexplained},
    around::Around,
    backends::Backends,
    idle::{Doing, Idle, Served, served},
    now::{Found, UnderWay},
    order::{HOLD_BACK_NS, Order},
    origin::Origin,
    peers::{self, Peers},
    protocol::{Ending, Event, StatementId, TransactionState},
    report,
    statistics::{By, Statistics},
    streams::Streams,
    table,
    texts::{Missing, Texts},
    transfer::Transfer,
    window::Window,
};
use crate::{
    error::Error,
    kernel::{Kernel, Record, Ring, Wanted, call_offsets, tcp_offsets, wire_offsets},
    record::{
        finish::{self, monotonic_ns},
        ring_watch::RingWatch,
    },
    sockets,
    tls::Libraries,
};

/// How long after the end of a process it has closed what it had, ns: the end is emitted before.
const SETTLE_NS: u64 = 50_000_000;
/// Targets whose namespaces are looked in for a socket.
const NAMESPACES_LOOK: usize = 16;

/// A watch under way.
pub(super) struct Watcher {
    kernel: Kernel,
    ring: Ring,
    /// Everybody is watched.
    is_all: bool,
    /// Named targets, and followers, that live.
    pub(super) alive: BTreeSet<u32>,
    tls: Tls,
    libraries: Libraries,
    order: Order<Transfer>,
    streams: Streams,
    pub(super) texts: Texts,
    peers: Peers,
    backends: Backends,
    idle: Idle,
    /// What ran when the recording began, and since when, ns, by the inode numbers of both ends.
    ran: FxHashMap<u64, (StatementId, u64)>,
    pub(super) told: Told,
    /// Processes that have ended, at which time, ns, and whose connections are not ended so far.
    leaving: VecDeque<(u32, u64)>,
    /// What processes used last that are gone, and others have open.
    inherited: Vec<WireHeader>,
    /// What is carried from then on is not told, ns.
    end_ns: u64,
    /// What was counted before the window under way.
    before: Marks,
}

/// What connections have told, as far as it is wanted.
pub(super) struct Told {
    by: Option<By>,
    /// Since the last view or window.
    pub(super) recent: Statistics,
    /// Lines of calls that are not written yet, where they are wanted.
    pub(super) lines: Option<String>,
    started_ns: u64,
}

/// Counts that only grow.
#[derive(Clone, Debug, Default)]
struct Marks {
    counters: BTreeMap<Counter, u64>,
    sockets: Sockets,
    missing: Missing,
    process: Duration,
    bpf: Option<Duration>,
}

impl Told {
    fn take(&mut self, event: &Event, origin: &Arc<Origin>, texts: &Texts) {
        self.recent.take(event, origin, self.by);
        if let (Some(lines), Event::Call(call)) = (&mut self.lines, event) {
            let (text, _) = report::text(Some(&call.statement), texts);
            lines.push_str(&table::event(call, origin, &text, self.started_ns));
        }
    }
}

impl Watcher {
    /// Loads the kernel side; nothing is watched yet.
    pub(super) fn load(settings: &Settings, tls: Tls) -> Result<Self, Error> {
        let wanted = Wanted {
            calls: call_offsets()?,
            tcp: tcp_offsets()?,
            wire: WireSettings {
                wanted: 1,
                tls: u32::from(tls != Tls::Off),
                ..wire_offsets()?
            },
        };
        let (kernel, ring, _) = Kernel::load_with(settings, &wanted)?;
        Ok(Self {
            kernel,
            ring,
            is_all: settings.filters == 0,
            alive: BTreeSet::new(),
            tls,
            libraries: Libraries::default(),
            order: Order::default(),
            streams: Streams::default(),
            texts: Texts::default(),
            peers: Peers::default(),
            backends: Backends::default(),
            idle: Idle::default(),
            ran: FxHashMap::default(),
            told: Told {
                by: None,
                recent: Statistics::default(),
                lines: None,
                started_ns: monotonic_ns(),
            },
            leaving: VecDeque::new(),
            inherited: Vec::new(),
            end_ns: u64::MAX,
            before: Marks::default(),
        })
    }

    /// By what statements are told apart, and whether a line is wanted for each call.
    pub(super) fn show(&mut self, by: Option<By>, lines: bool) {
        (self.told.by, self.told.lines) = (by, lines.then(String::new));
    }

    pub(super) fn kernel(&mut self) -> &mut Kernel {
        &mut self.kernel
    }

    /// Begins to watch. `name` adds targets, once their children are followed.
    pub(super) fn attach(
        &mut self,
        name: impl FnOnce(&mut Kernel, &mut BTreeSet<u32>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.kernel.attach_lifecycle()?;
        name(&mut self.kernel, &mut self.alive)?;
        self.alive.iter().for_each(|pid| self.libraries.meet(*pid));
        if self.tls == Tls::On {
            self.libraries.turn_on(&mut self.kernel);
        }
        self.kernel.attach_wire()?;
        // From here on all is seen: who waits now was not in the middle of anything.
        self.told.started_ns = monotonic_ns();
        let served = served();
        self.idle = Idle::of(&served);
        self.ran = self.runs(served);
        Ok(())
    }

    /// The ring wakes when a process begins or ends; traffic does not.
    pub(super) fn watch_ring(&self) -> Result<RingWatch, Error> {
        RingWatch::begin(&self.ring)
    }

    /// To be called every few ms.
    pub(super) fn tick(&mut self) {
        self.drain();
        self.settle(monotonic_ns().saturating_sub(SETTLE_NS));
        let Self {
            backends, texts, ..
        } = self;
        backends.look(|reading| {
            texts.read(&reading);
        });
        self.libraries.look(Instant::now(), &mut self.kernel);
    }

    /// Takes what is on the ring, and tells what has been held back for long enough.
    pub(super) fn drain(&mut self) {
        let now_ns = monotonic_ns();
        let Self {
            ring,
            order,
            alive,
            libraries,
            streams,
            backends,
            leaving,
            ..
        } = self;
        ring.drain(|record| match record {
            Record::Wire(wire) => {
                libraries.meet(wire.header.tgid);
                let transfer = Transfer::new(&wire);
                order.insert(transfer.time_ns(), transfer);
            }
            Record::Process(event) if event.kind == KIND_FORK => {
                alive.insert(event.tgid);
                libraries.meet(event.tgid);
            }
            Record::Process(event) if event.kind == KIND_EXEC => {
                libraries.program_began(event.tgid, Instant::now());
            }
            Record::Process(event) if event.kind == KIND_EXIT => {
                alive.remove(&event.tgid);
                libraries.process_ended(event.tgid);
                backends.forget(event.tgid);
                leaving.push_back((event.tgid, event.time_ns));
            }
            Record::Process(_) => {}
            _ => streams.malformed(),
        });
        self.tell(now_ns.saturating_sub(HOLD_BACK_NS));
    }

    /// Ends the connections of processes that had ended by then, unless others have them, too.
    fn settle(&mut self, until_ns: u64) {
        while let Some(&(pid, time_ns)) = self.leaving.front()
            && time_ns <= until_ns
        {
            self.leaving.pop_front();
            // What it sent last comes first.
            self.tell(time_ns + 1);
            let mut sockets = std::mem::take(&mut self.inherited);
            sockets.extend(self.streams.used_by(pid));
            if !sockets.is_empty() {
                let others = self.alive.iter().copied().take(NAMESPACES_LOOK);
                let namespaces = sockets::namespaces_of(others);
                let is_open = |last: &WireHeader| peers::is_open(last, &namespaces);
                let (open, closed): (Vec<_>, Vec<_>) = sockets.into_iter().partition(is_open);
                self.inherited = open;
                self.leave(&closed, (Ending::Closed, time_ns));
            }
            self.texts.forget(pid);
        }
    }

    /// Ends these connections, at a time.
    fn leave(&mut self, sockets: &[WireHeader], ending: (Ending, u64)) {
        let Self {
            streams,
            texts,
            told,
            ..
        } = self;
        streams.leave(sockets, ending, texts, |event, origin, texts| {
            told.take(event, origin, texts);
        });
    }

    /// Tells what was carried before that time.
    fn tell(&mut self, time_ns: u64) {
        let Self {
            order,
            streams,
            texts,
            peers,
            told,
            kernel,
            end_ns,
            libraries,
            tls,
            backends,
            idle,
            ran,
            ..
        } = self;
        while let Some(transfer) = order.next_before(time_ns.min(*end_ns)) {
            let mut around = Around {
                peers,
                backends,
                idle,
                ran,
            };
            let result = streams.take(transfer, texts, &mut around, |event, origin, texts| {
                told.take(event, origin, texts);
            });
            if let Some(ignore) = result.ignore {
                kernel.ignore_socket(ignore.socket, ignore.since_ns, ignore.quiet_ns);
            }
            if let Some(passing) = result.passing {
                let why = (passing.why, monotonic_ns());
                kernel.pass_over(passing.socket, passing.until, why);
            }
            if let Some(unknown) = result.unknown {
                let backend = unknown
                    .backend
                    .or_else(|| peers.backend(&unknown.header, unknown.side));
                if let Some(backend) = backend {
                    streams.set_backend(unknown.header.socket, backend);
                    backends.want(backend);
                }
            }
            if result.is_encrypted && *tls == Tls::Auto {
                libraries.turn_on(kernel);
            }
        }
    }

    /// Makes a process a target, and what it forks from now on.
    pub(super) fn add_target(&mut self, pid: u32) -> Result<(), Error> {
        self.kernel.add_target(pid, target::FOLLOW)?;
        self.libraries.meet(pid);
        Ok(())
    }

    /// It is no target any more: for it the watch is over.
    pub(super) fn remove_target(&mut self, pid: u32) {
        self.kernel.remove_target(pid);
        let now_ns = monotonic_ns();
        self.drain();
        self.tell(now_ns + 1);
        let sockets = self.streams.used_by(pid);
        self.leave(&sockets, (Ending::Recording, now_ns));
        self.alive.remove(&pid);
        self.libraries.process_ended(pid);
        self.backends.forget(pid);
        self.texts.forget(pid);
    }

    /// Those of a list whose server or client is a target, with the client where that is one.
    fn of_targets(&self, served: Vec<Served>) -> Vec<(Served, Option<u32>)> {
        let named = self.named();
        let owners = sockets::owners_of(named.iter().copied());
        let ours = served.into_iter().filter_map(|one| {
            let client = owners.get(&one.client).copied();
            let client = client.filter(|_| one.client != one.socket);
            let is_ours = self.is_all || named.contains(&one.pid) || client.is_some();
            is_ours.then_some((one, client))
        });
        ours.collect()
    }

    /// Processes that are watched.
    fn named(&self) -> BTreeSet<u32> {
        &self.kernel.targets() | &self.alive
    }

    /// What a backend is in the middle of; one that says it is idle is not read.
    fn find(&mut self, pid: u32, doing: Doing) -> Option<Found> {
        if doing == Doing::Waiting(TransactionState::Idle) {
            return None;
        }
        let (activity, reading) = self.backends.ask(pid);
        Some(Found {
            doing,
            activity,
            reading,
            now_us: finish::now_us(),
            watched_ns: monotonic_ns().saturating_sub(self.told.started_ns),
        })
    }

    /// What runs as the recording begins, by the inode numbers of both ends.
    fn runs(&mut self, served: Vec<Served>) -> FxHashMap<u64, (StatementId, u64)> {
        let mut all = FxHashMap::default();
        for (one, _) in self.of_targets(served) {
            let found = self.find(one.pid, one.doing());
            if let Some((id, age_ns)) = found.and_then(|found| found.runs(&mut self.texts)) {
                let begin_ns = monotonic_ns().saturating_sub(age_ns);
                let ends = [one.socket, one.client].map(u64::from);
                all.extend(ends.map(|inode| (inode, (id, begin_ns))));
            }
        }
        all
    }

    /// What connections of targets are in the middle of, the oldest first: by their servers, and where those are
    /// elsewhere by what was seen.
    pub(super) fn under_way(&mut self) -> Vec<UnderWay> {
        let mut all = Vec::new();
        let mut known = BTreeSet::new();
        let mut workers = peers::workers(self.named());
        for (one, client) in self.of_targets(served()) {
            known.extend([one.socket, one.client].map(u64::from));
            workers.remove(&one.pid);
            if let Some(found) = self.find(one.pid, one.doing()) {
                let (kind, origin) = peers::served_by(one.pid, &one.title);
                all.extend(found.told((one.pid, client), (kind, origin), &mut self.texts));
            }
        }
        for (pid, kind) in workers {
            let found = self.find(pid, Doing::Unknown).filter(Found::is_within);
            let (_, origin) = peers::served_by(pid, "");
            let told =
                found.and_then(|found| found.told((pid, None), (kind, origin), &mut self.texts));
            all.extend(told);
        }
        let seen = self.streams.under_way(monotonic_ns(), &mut self.texts);
        let elsewhere = seen.into_iter().filter(|(inode, _)| !known.contains(inode));
        all.extend(elsewhere.map(|(_, one)| one));
        all.sort_by_key(|one| std::cmp::Reverse(one.age_ns));
        all
    }

    /// Who is a target now, as the kernel side has it.
    pub(super) fn targets(&self) -> BTreeSet<u32> {
        self.kernel.targets()
    }

    /// Time inside our BPF programs so far, where it is measured.
    pub(super) fn bpf_time(&self) -> Option<Duration> {
        self.kernel.bpf_time()
    }

    /// What was told since the last window, as one.
    pub(super) fn take_window(
        &mut self,
        title: String,
        duration: Duration,
    ) -> Result<Window, Error> {
        let statistics = std::mem::take(&mut self.told.recent);
        let account = self.account(&statistics)?;
        let what = (title, duration);
        Ok(Window::new(what, &self.texts, statistics, account))
    }

    /// There is no room for further statements: it is time to begin anew.
    pub(super) fn is_worn(&self) -> bool {
        self.texts.missing().others > 0
    }

    /// Ends the watch and tells the rest.
    pub(super) fn end(&mut self) {
        // While the hooks go, one after the other, requests are seen whose answers are not.
        self.end_ns = monotonic_ns();
        self.kernel.stop();
        self.drain();
        self.settle(u64::MAX);
        self.tell(u64::MAX);
        self.streams.leave_out(self.order.len());
        let Self {
            streams,
            texts,
            told,
            end_ns,
            ..
        } = self;
        streams.finish(*end_ns, texts, |event, origin, texts| {
            told.take(event, origin, texts);
        });
    }

    /// What became of everything since the last account was taken. Only when the watch has ended is it certain that
    /// nothing is still on its way.
    pub(super) fn account(&mut self, statistics: &Statistics) -> Result<Account, Error> {
        let now = Marks {
            counters: self.kernel.counters()?,
            sockets: self.streams.sockets(),
            missing: self.texts.missing(),
            process: finish::process_cpu_time(),
            bpf: self.kernel.bpf_time(),
        };
        let before = std::mem::replace(&mut self.before, now.clone());
        let counted = |counter: &Counter| before.counters.get(counter).copied().unwrap_or(0);
        let counters = now
            .counters
            .iter()
            .map(|(counter, count)| (*counter, count.saturating_sub(counted(counter))))
            .collect();
        let sockets = now.sockets.since(before.sockets);
        let missing = now.missing.since(before.missing);
        let mut account = Account::new(&counters, sockets, statistics, missing);
        account.set_unexplained(if self.end_ns == u64::MAX {
            0
        } else {
            unexplained(&now.counters, now.sockets)
        });
        account.bpf = now
            .bpf
            .map(|bpf| bpf.saturating_sub(before.bpf.unwrap_or_default()));
        account.process = now.process.saturating_sub(before.process);
        account.tls = self.tls;
        account.notes.extend(self.libraries.notes().clone());
        Ok(account)
    }
}
