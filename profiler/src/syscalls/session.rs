//! `profiler syscalls`: attaches, waits, reads the sums at the end (and in between, where asked for), writes.

use std::time::{Duration, Instant};

use profiler_common::syscalls::wanted;
use tokio::time::{MissedTickBehavior, interval_at};

use super::{
    Form,
    account::Account,
    csv, json,
    report::{self, Report, Selection},
    stacks, table,
    tally::Tally,
    watcher::Watcher,
};
use crate::{
    artifact::Artifact,
    config::{self, Mode, PythonThreads},
    error::{Error, Exit},
    kernel::Record,
    preflight,
    process::Processes,
    record::{
        aggregate::{Aggregate, Timeline},
        carry::Carry,
        command::Held,
        ending::{End, Ending, at, event_loop},
        finish,
        running::{Running, conclude},
        stacks::Stacks,
        state::State,
        targets,
    },
    terminal::show_view,
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
    targets::check_named(&config.targets)?;
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
    watcher: Watcher,
    state: State,
    held: Option<Held>,
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
        let settings = targets::settings(&config.targets)?;
        let (mut watcher, shared) = Watcher::load(&settings, config.wanted)?;
        let pythons = watcher.kernel.pythons()?;
        let artifact = Artifact::open(&config.destination)?;
        let stacks_artifact = config.stacks.as_ref().map(|(to, _)| Artifact::open(to));
        let stacks_artifact = stacks_artifact.transpose()?;
        let held = targets::hold_command(&config.targets)?;
        let alive = targets::name(&mut watcher.kernel, &config.targets, held.as_ref())?;
        let title = title(&config, &processes, held.as_ref());
        Ok(Self {
            config,
            artifact,
            stacks_artifact,
            watcher,
            state: State {
                stacks: Stacks::new(shared, pythons),
                waits: Waits::default(),
                mode: Mode::Syscalls,
                processes,
                aggregate: Aggregate::new(Timeline::Drop),
                alive,
                threads: PythonThreads::All,
                malformed: 0,
                named: 0,
                carry: Carry::default(),
            },
            held,
            title,
            started: Instant::now(),
            started_at: finish::now(),
        })
    }

    /// Attaches, then lets the command go.
    fn start(&mut self) -> Result<Option<Running>, Error> {
        let kernel = &mut self.watcher.kernel;
        kernel.attach_lifecycle()?;
        let State {
            alive, processes, ..
        } = &mut self.state;
        let observe = |pid| processes.observe(pid);
        targets::add_descendants(kernel, &self.config.targets, alive, observe)?;
        if self.watcher.wants(wanted::STACKS) {
            self.state.stacks.update(&mut self.state.processes)?;
        }
        self.watcher.kernel.attach_calls()?;
        self.started = Instant::now();
        self.started_at = finish::now();
        let held = self.held.as_ref().map(Held::pid);
        let named = self.state.named().into_iter();
        let there = named.filter(|pid| Some(*pid) != held);
        self.watcher.seed(there, self.started_at.1)?;
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
        let ring = self.watcher.watch_ring()?;
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
        let Self { watcher, state, .. } = self;
        let mut result = Ok(());
        watcher.drain(|record| match record {
            Record::Sample(sample) => {
                let leaf = stacks::leaf(sample.header.syscall);
                let State {
                    stacks, processes, ..
                } = state;
                let caught_up = stacks.catch_up(sample.header.time_ns, processes);
                if result.is_ok() {
                    result = caught_up;
                }
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
        if watcher.wants(wanted::STACKS) {
            state.stacks.update(&mut state.processes)?;
        }
        Ok(())
    }

    /// Shows what came since the last time; not so where nobody reads it any more.
    fn view(&mut self, shown: &mut (Instant, Tally)) -> Result<bool, Error> {
        let (tally, _) = self.watcher.tally(finish::monotonic_ns());
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
        let (rows, more) = report::rows(tally, selection, &self.watcher.named());
        Report {
            title: self.title.clone(),
            duration: self.started.elapsed(),
            wanted: self.config.wanted,
            rows,
            more,
            total: report::total(tally),
            errors: report::errors(&self.watcher.kernel.call_errors()),
            account: None,
        }
    }

    /// Ends the count and writes it.
    fn finish(mut self) -> Result<(), Error> {
        let (duration, end_ns) = (self.started.elapsed(), finish::monotonic_ns());
        self.watcher.kernel.stop();
        self.drain()?;
        let (tally, _) = self.watcher.tally(end_ns);
        let mut report = self.report(&tally);
        report.duration = duration;
        let counters = self.watcher.kernel.counters()?;
        let mut account = Account::new(&counters, &report.total, self.watcher.begun());
        account.bpf = self.watcher.bpf_time();
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
        stacks::add_rest(&mut self.state.aggregate, &self.watcher.kernel, end_ns);
        stacks::write(stacks::Recording {
            targets: self.config.targets,
            format: stacks.1,
            artifact,
            kernel: self.watcher.kernel,
            state: self.state,
            started_at: self.started_at,
            duration,
        })
    }
}

/// Whom, in words.
fn title(config: &config::Syscalls, processes: &Processes, held: Option<&Held>) -> String {
    let targets = &config.targets;
    match (targets.pids.as_slice(), targets.command_text(), held) {
        (&[pid], ..) => {
            let comm = processes.comm(pid).unwrap_or_default();
            format!("{comm} (pid {pid})")
        }
        (_, Some(command), Some(held)) => format!("{command} (pid {})", held.pid()),
        _ => targets.description(),
    }
}
