//! The shell: attaches, waits, reads the sums at the end (and in between, where asked for), writes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use profiler_common::syscalls::{CallSettings, CallerEvent, CellKey, KIND_CALLER_END, wanted};
use tokio::time::{MissedTickBehavior, interval_at};

use super::{
    Form,
    account::Account,
    csv,
    descriptors::Files,
    json, names,
    report::{self, Named, Report, Selection},
    seed, stacks, table,
    tally::Tally,
};
use crate::{
    artifact::Artifact,
    config::{self, Mode, PythonThreads},
    error::{Error, Exit},
    kernel::{Kernel, Record, Ring, Wanted, call_offsets},
    preflight,
    process::Processes,
    record::{
        aggregate::{Aggregate, Timeline, comm_text},
        carry::Carry,
        command::Held,
        ending::{End, Ending, at, event_loop},
        finish,
        ring_watch::RingWatch,
        running::{Running, conclude},
        showing::show_view,
        stacks::Stacks,
        state::State,
        targets,
    },
    wait::Waits,
};

/// How often the ring is emptied.
const POLL: Duration = Duration::from_millis(50);

/// Counts, writes the result, and says how to exit.
pub fn run(config: config::Syscalls) -> Result<Exit, Error> {
    event_loop(count(config))
}

async fn count(config: config::Syscalls) -> Result<Exit, Error> {
    preflight::require_record()?;
    targets::check_pids(&config.targets.pids)?;
    let mut session = Session::prepare(config)?;
    let command = session.start()?;
    let (end, command) = session.watch(command).await?;
    let result = session.finish();
    conclude(command, end, result).await
}

/// A count under way.
struct Session {
    config: config::Syscalls,
    artifact: Artifact,
    stacks_artifact: Option<Artifact>,
    kernel: Kernel,
    ring: Ring,
    state: State,
    files: Files,
    /// Names of threads that ended.
    threads: BTreeMap<u32, String>,
    held: Option<Held>,
    /// Calls noted as under way at the beginning.
    begun: u64,
    /// Threads whose call of those was over by the time that it was noted, and that made none since.
    returned_unseen: BTreeSet<u32>,
    title: String,
    started: Instant,
    started_at: (std::time::SystemTime, u64),
}

impl Session {
    /// Everything that can fail, before anything is counted.
    fn prepare(config: config::Syscalls) -> Result<Self, Error> {
        let mut processes = Processes::new();
        for &pid in &config.targets.pids {
            processes.observe(pid);
        }
        let mut call_settings = CallSettings {
            wanted: config.wanted,
            ..call_offsets()?
        };
        names::mark_descriptor_calls(&mut call_settings);
        let settings = targets::settings(&config.targets)?;
        let (mut kernel, ring, shared) = Kernel::load_with(
            &settings,
            &Wanted {
                calls: call_settings,
                ..Wanted::default()
            },
        )?;
        let pythons = kernel.pythons()?;
        let artifact = Artifact::open(&config.destination)?;
        let stacks_artifact = config.stacks.as_ref().map(|(to, _)| Artifact::open(to));
        let stacks_artifact = stacks_artifact.transpose()?;
        let held = targets::hold_command(&config.targets)?;
        let alive = targets::name(&mut kernel, &config.targets, held.as_ref())?;
        let title = title(&config, &processes, held.as_ref());
        Ok(Self {
            config,
            artifact,
            stacks_artifact,
            kernel,
            ring,
            state: State {
                stacks: Stacks::new(shared, pythons),
                waits: Waits::default(),
                mode: Mode::Syscalls,
                processes,
                aggregate: Aggregate::new(Timeline::Drop),
                alive,
                threads: PythonThreads::All,
                malformed: 0,
                carry: Carry::default(),
            },
            files: Files::default(),
            threads: BTreeMap::new(),
            held,
            begun: 0,
            returned_unseen: BTreeSet::new(),
            title,
            started: Instant::now(),
            started_at: finish::now(),
        })
    }

    /// Attaches, then lets the command go.
    fn start(&mut self) -> Result<Option<Running>, Error> {
        self.kernel.attach_lifecycle()?;
        let State {
            alive, processes, ..
        } = &mut self.state;
        let observe = |pid| processes.observe(pid);
        targets::add_descendants(&mut self.kernel, &self.config.targets, alive, observe)?;
        if self.wants(wanted::STACKS) {
            self.state.stacks.update(&mut self.state.processes)?;
        }
        self.kernel.attach_calls()?;
        self.started = Instant::now();
        self.started_at = finish::now();
        self.seed()?;
        match self.held.take() {
            Some(held) => targets::release(held, &self.config.targets).map(Some),
            None => Ok(None),
        }
    }

    fn wants(&self, bit: u32) -> bool {
        self.config.wanted & bit != 0
    }

    /// Notes the calls that threads of named processes are in already.
    fn seed(&mut self) -> Result<(), Error> {
        let now_ns = self.started_at.1;
        let held = self.held.as_ref().map(Held::pid);
        for pid in self.state.named() {
            if Some(pid) == held {
                continue;
            }
            for tid in seed::threads(pid) {
                if let Some(call) = seed::call(pid, tid, now_ns)
                    && self.kernel.begin_caller(tid, call)?
                {
                    self.begun += 1;
                }
            }
        }
        Ok(())
    }

    /// Waits for the end.
    async fn watch(
        &mut self,
        mut command: Option<Running>,
    ) -> Result<(End, Option<Running>), Error> {
        let ring = RingWatch::begin(&self.ring)?;
        let mut ending = Ending::watch(self.config.duration.map(|time| self.started + time))?;
        let mut poll = interval_at(tokio::time::Instant::now() + POLL, POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut shown = (self.started, Tally::default());
        let mut next_view = self.config.interval.map(|every| self.started + every);
        let end = loop {
            tokio::select! {
                end = ending.reached(command.as_ref()) => break end,
                ready = ring.readable() => {
                    ready?;
                    self.drain()?;
                }
                _ = poll.tick() => {
                    self.drain()?;
                    let named = self.config.targets.names_processes();
                    if named && command.is_none() && targets::all_gone(&mut self.state.alive) {
                        break End::TargetsGone;
                    }
                }
                () = at(next_view.map(tokio::time::Instant::from_std)) => {
                    if !self.view(&mut shown)? {
                        break End::Interrupted;
                    }
                    next_view = next_view.zip(self.config.interval).map(|(at, every)| at + every);
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

    fn drain(&mut self) -> Result<(), Error> {
        let Self {
            ring,
            state,
            files,
            threads,
            ..
        } = self;
        let mut result = Ok(());
        ring.drain(|record| match record {
            Record::Caller(event) => learn(event, files, threads),
            Record::Sample(sample) => {
                let leaf = stacks::leaf(sample.header.syscall);
                state.timed(&sample, &leaf);
            }
            record => {
                let taken = state.take(record);
                if result.is_ok() {
                    result = taken;
                }
            }
        });
        result?;
        if self.config.wanted & wanted::STACKS != 0 {
            state.stacks.update(&mut state.processes)?;
        }
        Ok(())
    }

    /// The sums so far, with the calls that threads are in, up to now.
    fn tally(&mut self, now_ns: u64) -> Tally {
        let mut tally = Tally::default();
        self.returned_unseen.clear();
        self.kernel.cells(|key, cell| tally.sum(*key).add(cell));
        let by_thread = self.wants(wanted::BY_THREAD);
        for (tid, call) in self.kernel.callers() {
            if by_thread && let Some(name) = seed::thread_name(call.tgid, tid) {
                self.threads.insert(tid, name);
            }
            if !stacks::is_inside(&call) {
                continue;
            }
            if seed::has_returned(tid, &call) {
                self.returned_unseen.insert(tid);
                continue;
            }
            let key = CellKey {
                tgid: call.tgid,
                number: call.number,
                tid: if by_thread { tid } else { 0 },
                descriptor: call.descriptor,
                inode: call.inode,
            };
            if call.descriptor >= 0 {
                self.files.learn(&stacks::descriptor_of(tid, &call));
            }
            let sum = tally.sum(key);
            sum.open += 1;
            sum.open_ns += now_ns.saturating_sub(call.since_ns);
        }
        tally
    }

    /// Shows what came since the last time; not so where nobody reads it any more.
    fn view(&mut self, shown: &mut (Instant, Tally)) -> Result<bool, Error> {
        let tally = self.tally(finish::monotonic_ns());
        let now = Instant::now();
        let report = Report {
            title: self.title.clone(),
            duration: now - shown.0,
            total: report::total(&tally.since(&shown.1)),
            errors: Vec::new(),
            account: None,
            ..self.report(&tally.since(&shown.1))
        };
        *shown = (now, tally);
        show_view(table::render(&report))
    }

    fn report(&self, tally: &Tally) -> Report {
        let selection = Selection {
            wanted: self.config.wanted,
            sort: self.config.sort,
            limit: self.config.limit,
        };
        let named = Named {
            threads: &self.threads,
            files: &self.files,
        };
        let (rows, more) = report::rows(tally, selection, &named);
        Report {
            title: self.title.clone(),
            duration: self.started.elapsed(),
            wanted: self.config.wanted,
            rows,
            more,
            total: report::total(tally),
            errors: report::errors(&self.kernel.call_errors()),
            account: None,
        }
    }

    /// Ends the count and writes it.
    fn finish(mut self) -> Result<(), Error> {
        let (duration, end_ns) = (self.started.elapsed(), finish::monotonic_ns());
        self.kernel.stop();
        self.drain()?;
        let tally = self.tally(end_ns);
        let mut report = self.report(&tally);
        report.duration = duration;
        let begun = self.begun - self.returned_unseen.len() as u64;
        let mut account = Account::new(&self.kernel.counters()?, &report.total, begun);
        account.bpf = self.kernel.bpf_time();
        account.process = finish::process_cpu_time();
        report.account = Some(account);
        let text = match self.config.form {
            Form::Table => table::render(&report),
            Form::Json => json::render(&report)?,
            Form::Csv => csv::render(&report),
        };
        self.artifact.write(text.as_bytes())?;
        let Some((artifact, stacks)) = self.stacks_artifact.zip(self.config.stacks) else {
            return Ok(());
        };
        stacks::add_rest(&mut self.state.aggregate, &self.kernel, end_ns);
        stacks::write(stacks::Recording {
            targets: self.config.targets,
            format: stacks.1,
            artifact,
            kernel: self.kernel,
            state: self.state,
            started_at: self.started_at,
            duration,
        })
    }
}

fn learn(event: &CallerEvent, files: &mut Files, threads: &mut BTreeMap<u32, String>) {
    if event.kind == KIND_CALLER_END {
        threads.insert(event.tid, comm_text(&event.comm));
    } else {
        files.learn(event);
    }
}

/// Whom, in words.
fn title(config: &config::Syscalls, processes: &Processes, held: Option<&Held>) -> String {
    let targets = &config.targets;
    match (targets.pids.as_slice(), &targets.command, held) {
        (&[pid], ..) => {
            let comm = processes.comm(pid).unwrap_or_default();
            format!("{comm} (pid {pid})")
        }
        (_, Some(command), Some(held)) => {
            let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
            format!("{} (pid {})", words.join(" "), held.pid())
        }
        _ => targets.description(),
    }
}
