//! The shell: attaches, takes what goes through sockets until the end, writes.

use std::{
    collections::BTreeSet,
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use profiler_common::{
    event::{KIND_EXEC, KIND_EXIT, KIND_FORK},
    wire::WireSettings,
};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    Form, Tls,
    account::Account,
    backends::Backends,
    csv, json,
    order::{HOLD_BACK_NS, Order},
    origin::Origin,
    peers::Peers,
    protocol::Event,
    report::{self, Report},
    statistics::{By, Statistics},
    streams::{Streams, Transfer},
    table,
    texts::Texts,
};
use crate::{
    artifact::Artifact,
    config,
    error::{Error, Exit},
    kernel::{
        Kernel, Record, Ring, Wanted, call_offsets, result_offset, tcp_offsets, wire_offsets,
    },
    preflight,
    record::{
        command::Held,
        ending::{End, Ending, at, event_loop},
        finish,
        running::{Running, conclude, watch_readable},
        showing::{show, show_view},
        targets,
    },
    tls::Libraries,
};

/// How often the ring is emptied: at 100 MB/s of traffic half a MiB has come.
const POLL: Duration = Duration::from_millis(5);
/// Every so many polls it is looked whether named processes still live.
const LOOK_EVERY: u32 = 20;

/// Watches, writes the result, and says how to exit.
pub fn run(config: config::Queries) -> Result<Exit, Error> {
    event_loop(watch(config))
}

async fn watch(config: config::Queries) -> Result<Exit, Error> {
    preflight::require_record()?;
    if config.tls == Tls::On {
        preflight::require_tls()?;
    }
    targets::check_pids(&config.targets.pids)?;
    let mut session = Session::prepare(config)?;
    let command = session.start()?;
    let (end, command) = session.watch(command).await?;
    let result = session.finish();
    conclude(command, end, result).await
}

/// A watch under way.
struct Session {
    config: config::Queries,
    title: String,
    artifact: Artifact,
    kernel: Kernel,
    ring: Ring,
    held: Option<Held>,
    /// Named targets, and followers, that live.
    alive: BTreeSet<u32>,
    libraries: Libraries,
    order: Order<Transfer>,
    streams: Streams,
    texts: Texts,
    peers: Peers,
    backends: Backends,
    told: Told,
    /// What is carried from then on is not told, ns.
    end_ns: u64,
    /// What was told before the last view.
    earlier: Statistics,
    started: Instant,
}

/// What connections have told, as far as it is wanted.
struct Told {
    by: Option<By>,
    /// Since the last view.
    recent: Statistics,
    /// Lines of calls that are not written yet, where they are wanted.
    lines: Option<String>,
    started_ns: u64,
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

impl Session {
    /// Everything that can fail, before anything is watched.
    fn prepare(config: config::Queries) -> Result<Self, Error> {
        let settings = targets::settings(&config.targets)?;
        let wanted = Wanted {
            calls: call_offsets()?,
            tcp: tcp_offsets()?,
            wire: WireSettings {
                wanted: 1,
                result: result_offset()?,
                tls: u32::from(config.tls != Tls::Off),
                ..wire_offsets()?
            },
        };
        let (mut kernel, ring, _) = Kernel::load_with(&settings, &wanted)?;
        let artifact = Artifact::open(&config.destination)?;
        let held = targets::hold_command(&config.targets)?;
        let alive = targets::name(&mut kernel, &config.targets, held.as_ref())?;
        let told = Told {
            by: config.selection.by,
            recent: Statistics::default(),
            lines: (config.form == Form::Events).then(String::new),
            started_ns: finish::monotonic_ns(),
        };
        Ok(Self {
            title: config.targets.title(),
            config,
            artifact,
            kernel,
            ring,
            held,
            alive,
            libraries: Libraries::default(),
            order: Order::default(),
            streams: Streams::default(),
            texts: Texts::default(),
            peers: Peers::default(),
            backends: Backends::default(),
            told,
            end_ns: u64::MAX,
            earlier: Statistics::default(),
            started: Instant::now(),
        })
    }

    /// Attaches, then lets the command go.
    fn start(&mut self) -> Result<Option<Running>, Error> {
        self.kernel.attach_lifecycle()?;
        targets::add_descendants(
            &mut self.kernel,
            &self.config.targets,
            &mut self.alive,
            |_| {},
        )?;
        self.alive.iter().for_each(|pid| self.libraries.meet(*pid));
        if self.config.tls == Tls::On {
            self.libraries.turn_on(&mut self.kernel);
        }
        self.kernel.attach_wire()?;
        self.started = Instant::now();
        self.told.started_ns = finish::monotonic_ns();
        match self.held.take() {
            Some(held) => targets::release(held, &self.config.targets).map(Some),
            None => Ok(None),
        }
    }

    /// Waits for the end.
    async fn watch(
        &mut self,
        mut command: Option<Running>,
    ) -> Result<(End, Option<Running>), Error> {
        let system = |source| Error::System {
            action: "watch the ring buffer",
            source,
        };
        let readable = self.ring.as_fd().try_clone_to_owned().map_err(system)?;
        let readable = watch_readable(readable).map_err(system)?;
        let mut ending = Ending::watch(self.config.duration.map(|time| self.started + time))?;
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut polls = 0_u32;
        let mut view = (self.started, self.config.interval);
        let end = loop {
            let next_view = view
                .1
                .map(|every| tokio::time::Instant::from_std(view.0 + every));
            tokio::select! {
                end = ending.reached(command.as_ref()) => break end,
                guard = readable.readable() => {
                    guard.map_err(system)?.clear_ready();
                    self.drain();
                }
                _ = poll.tick() => {
                    self.drain();
                    let Self { backends, texts, .. } = &mut *self;
                    backends.look(|reading| texts.read(&reading));
                    self.libraries.look(Instant::now(), &mut self.kernel);
                    polls = polls.wrapping_add(1);
                    if !self.flush()? {
                        break End::Interrupted;
                    }
                    let looks = polls.is_multiple_of(LOOK_EVERY)
                        && self.config.targets.names_processes()
                        && command.is_none();
                    if looks && targets::all_gone(&mut self.alive) {
                        break End::TargetsGone;
                    }
                }
                () = at(next_view) => {
                    let now = Instant::now();
                    if !self.view(now - view.0)? {
                        break End::Interrupted;
                    }
                    view.0 = now;
                }
            }
        };
        if end == End::Command
            && let Some(command) = &mut command
        {
            command.reap()?;
        }
        Ok((end, command))
    }

    /// Takes what is on the ring, and tells what has been held back for long enough.
    fn drain(&mut self) {
        let now_ns = finish::monotonic_ns();
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
            // What it sent last is told first.
            self.tell(time_ns + 1);
            let Self {
                streams,
                texts,
                told,
                ..
            } = self;
            streams.process_ended(pid, time_ns, texts, |event, origin, texts| {
                told.take(event, origin, texts);
            });
        }
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
            config,
            backends,
            ..
        } = self;
        while let Some(transfer) = order.next_before(time_ns.min(*end_ns)) {
            let result = streams.take(
                transfer,
                texts,
                |header, side| peers.origin(header, side),
                |event, origin, texts| told.take(event, origin, texts),
            );
            if let Some((socket, inode)) = result.ignore {
                kernel.ignore_socket(socket, inode);
            }
            if let Some(passing) = result.passing {
                kernel.pass_over(passing.socket, passing.until);
            }
            if let Some(unknown) = result.unknown {
                let backend = unknown.backend.or_else(|| peers.backend(&unknown));
                if let Some(backend) = backend {
                    streams.set_backend(unknown.header.socket, backend);
                    backends.want(backend);
                }
            }
            if result.is_encrypted && config.tls == Tls::Auto {
                libraries.turn_on(kernel);
            }
        }
    }

    /// Writes lines of events; not so where nobody reads them any more.
    fn flush(&mut self) -> Result<bool, Error> {
        match &mut self.told.lines {
            Some(lines) if !lines.is_empty() => show(std::mem::take(lines).as_bytes()),
            _ => Ok(true),
        }
    }

    /// Shows what came since the last time; not so where nobody reads it any more.
    fn view(&mut self, duration: Duration) -> Result<bool, Error> {
        let recent = std::mem::take(&mut self.told.recent);
        let text = table::render(&self.report(&recent, duration, None));
        self.earlier.merge(recent);
        show_view(text)
    }

    fn report<'a>(
        &'a self,
        statistics: &'a Statistics,
        duration: Duration,
        account: Option<&'a Account>,
    ) -> Report<'a> {
        let (rows, more) = report::rows(statistics, &self.texts, self.config.selection);
        Report {
            title: &self.title,
            duration,
            by: self.config.selection.by,
            rows,
            more,
            statistics,
            account,
        }
    }

    /// Ends the watch and writes it.
    fn finish(mut self) -> Result<(), Error> {
        let duration = self.started.elapsed();
        // While the hooks go, one after the other, requests are seen whose answers are not.
        self.end_ns = finish::monotonic_ns();
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
        } = &mut self;
        streams.finish(*end_ns, texts, |event, origin, texts| {
            told.take(event, origin, texts);
        });
        self.flush()?;
        let mut statistics = std::mem::take(&mut self.earlier);
        statistics.merge(std::mem::take(&mut self.told.recent));
        let mut account = Account::new(
            &self.kernel.counters()?,
            self.streams.sockets(),
            &statistics,
            self.texts.overflows(),
        );
        account.bpf = self.kernel.bpf_time();
        account.process = finish::process_cpu_time();
        account.tls = self.config.tls;
        let notes = self.libraries.notes().clone();
        account.notes.extend(notes);
        let report = self.report(&statistics, duration, Some(&account));
        let text = match self.config.form {
            Form::Table => table::render(&report),
            Form::Json => json::render(&report)?,
            Form::Csv => csv::render(&report),
            Form::Events => account
                .lines()
                .into_iter()
                .fold(String::new(), |text, line| text + "# " + &line + "\n"),
        };
        Ok(self.artifact.write(text.as_bytes())?)
    }
}
