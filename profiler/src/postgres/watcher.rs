//! A watch under way: from the kernel side's records to what connections tell, for as long as it is wanted. The shell
//! of the rooms that understand them; `session` and `keeper` say when it begins and ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use profiler_common::{
    config::{Settings, target},
    event::{KIND_EXEC, KIND_EXIT, KIND_FORK},
    outcome::Counter,
    wire::WireSettings,
};

use super::{
    Tls,
    account::{Account, Sockets, unexplained},
    backends::Backends,
    dialect::Parameters,
    order::{HOLD_BACK_NS, Order},
    origin::Origin,
    peers::Peers,
    protocol::{Ending, Event},
    report,
    statistics::{By, Statistics},
    streams::Streams,
    table,
    texts::Texts,
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
    tls::Libraries,
};

/// A watch under way.
pub(super) struct Watcher {
    kernel: Kernel,
    ring: Ring,
    /// Named targets, and followers, that live.
    pub(super) alive: BTreeSet<u32>,
    tls: Tls,
    libraries: Libraries,
    order: Order<Transfer>,
    streams: Streams,
    pub(super) texts: Texts,
    peers: Peers,
    backends: Backends,
    pub(super) told: Told,
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
    overflows: u64,
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
            alive: BTreeSet::new(),
            tls,
            libraries: Libraries::default(),
            order: Order::default(),
            streams: Streams::default(),
            texts: Texts::default(),
            peers: Peers::default(),
            backends: Backends::default(),
            told: Told {
                by: None,
                recent: Statistics::default(),
                lines: None,
                started_ns: monotonic_ns(),
            },
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
        self.told.started_ns = monotonic_ns();
        Ok(())
    }

    /// The ring wakes when a process begins or ends; traffic does not.
    pub(super) fn watch_ring(&self) -> Result<RingWatch, Error> {
        RingWatch::begin(&self.ring)
    }

    /// To be called every few ms.
    pub(super) fn tick(&mut self) {
        self.drain();
        let Self {
            backends, texts, ..
        } = self;
        backends.look(|reading| texts.read(&reading));
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
            ..
        } = self;
        let mut ended = Vec::new();
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
                ended.push((event.tgid, event.time_ns));
            }
            Record::Process(_) => {}
            _ => streams.malformed(),
        });
        self.tell(now_ns.saturating_sub(HOLD_BACK_NS));
        for (pid, time_ns) in ended {
            self.leave(pid, (Ending::Closed, time_ns));
            self.texts.forget(pid);
        }
    }

    /// Ends what a process has open, at a time; what it sent last is told first.
    fn leave(&mut self, pid: u32, ending: (Ending, u64)) {
        self.tell(ending.1 + 1);
        let Self {
            streams,
            texts,
            told,
            ..
        } = self;
        streams.leave(pid, ending, texts, |event, origin, texts| {
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
            ..
        } = self;
        while let Some(transfer) = order.next_before(time_ns.min(*end_ns)) {
            let result = streams.take(
                transfer,
                texts,
                |header, side, is_begun| {
                    let origin = peers.origin(header, side);
                    if is_begun {
                        return (origin, Parameters::default());
                    }
                    let backend = peers.backend(header, side);
                    let parameters = backend.and_then(|backend| backends.parameters(backend));
                    (origin, parameters.unwrap_or_default())
                },
                |event, origin, texts| told.take(event, origin, texts),
            );
            if let Some((socket, inode)) = result.ignore {
                kernel.ignore_socket(socket, inode);
            }
            if let Some(passing) = result.passing {
                kernel.pass_over(passing.socket, passing.until);
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
        self.leave(pid, (Ending::Recording, now_ns));
        self.alive.remove(&pid);
        self.libraries.process_ended(pid);
        self.backends.forget(pid);
        self.texts.forget(pid);
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
        self.texts.overflows() > 0
    }

    /// Ends the watch and tells the rest.
    pub(super) fn end(&mut self) {
        // While the hooks go, one after the other, requests are seen whose answers are not.
        self.end_ns = monotonic_ns();
        self.kernel.stop();
        self.drain();
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
            overflows: self.texts.overflows(),
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
        let overflows = now.overflows.saturating_sub(before.overflows);
        let mut account = Account::new(&counters, sockets, statistics, overflows);
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
