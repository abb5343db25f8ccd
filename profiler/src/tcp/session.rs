//! `profiler tcp`: attaches, lists what is open, takes events until the end, lists again, writes.

use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::{
    Form,
    account::{Account, UNFOLLOWED, UNLISTED},
    csv, json,
    table::{self, Report},
    watcher::Watcher,
};
use crate::{
    artifact::Artifact,
    config,
    error::{Error, Exit},
    preflight,
    record::{
        command::Held,
        ending::{End, Ending, event_loop},
        finish,
        running::{Running, conclude},
        targets,
    },
    terminal::show,
};

/// How often the ring is emptied: a connection's life takes half a KiB of it.
const POLL: Duration = Duration::from_millis(20);

/// Watches, writes the result, and says how to exit.
pub fn run(config: config::Tcp) -> Result<Exit, Error> {
    event_loop(watch(config))
}

async fn watch(config: config::Tcp) -> Result<Exit, Error> {
    preflight::require_record()?;
    targets::check_named(&config.targets)?;
    let mut session = Session::prepare(config)?;
    let command = session.start()?;
    let (end, command) = session.watch(command).await?;
    let result = session.finish();
    conclude(command, end, result).await
}

/// A watch under way.
struct Session {
    config: config::Tcp,
    artifact: Artifact,
    held: Option<Held>,
    watcher: Watcher,
    started: Instant,
    started_ns: u64,
}

impl Session {
    /// Everything that can fail, before anything is watched.
    fn prepare(config: config::Tcp) -> Result<Self, Error> {
        let settings = targets::settings(&config.targets)?;
        let mut watcher = Watcher::load(&settings, settings.filters == 0)?;
        let artifact = Artifact::open(&config.destination)?;
        let held = targets::hold_command(&config.targets)?;
        watcher.alive = targets::name(&mut watcher.kernel, &config.targets, held.as_ref())?;
        Ok(Self {
            config,
            artifact,
            held,
            watcher,
            started: Instant::now(),
            started_ns: finish::monotonic_ns(),
        })
    }

    /// Attaches, lists what is there, then lets the command go.
    fn start(&mut self) -> Result<Option<Running>, Error> {
        let Watcher { kernel, alive, .. } = &mut self.watcher;
        kernel.attach_lifecycle()?;
        targets::add_descendants(kernel, &self.config.targets, alive, |_| {})?;
        self.started = Instant::now();
        self.started_ns = finish::monotonic_ns();
        kernel.attach_tcp()?;
        let pids = targets::present(&self.config.targets, &self.watcher.alive);
        self.watcher.list_open(&pids);
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
        let mut poll = interval(POLL);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = loop {
            tokio::select! {
                end = ending.reached(command.as_ref()) => break end,
                ready = ring.readable() => {
                    ready?;
                    self.drain()?;
                }
                _ = poll.tick() => {
                    if !self.drain()? {
                        break End::Interrupted;
                    }
                    if self.config.targets.names_processes() && command.is_none() && targets::all_gone(&mut self.watcher.alive) {
                        break End::TargetsGone;
                    }
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

    /// Takes what is on the ring; not so where nobody reads the events any more.
    fn drain(&mut self) -> Result<bool, Error> {
        let wants_lines = self.config.form == Form::Events;
        let started_ns = self.started_ns;
        let mut lines = String::new();
        self.watcher.drain(|event, connection| {
            if wants_lines {
                lines.push_str(&table::event(event, connection, started_ns));
            }
        });
        if lines.is_empty() {
            return Ok(true);
        }
        show(lines.as_bytes())
    }

    /// Ends the watch and writes it.
    fn finish(mut self) -> Result<(), Error> {
        let (duration, end_ns) = (self.started.elapsed(), finish::monotonic_ns());
        self.watcher.kernel.stop();
        self.drain()?;
        let pids = targets::present(&self.config.targets, &self.watcher.alive);
        self.watcher.list_again(&pids);
        let watcher = &mut self.watcher;
        watcher.connections.close(end_ns);
        watcher.connections.forget_others();
        let mut account = Account::new(&watcher.kernel.counters()?, &watcher.connections);
        account.lose(UNFOLLOWED, watcher.unfollowed);
        account.note(UNLISTED, watcher.unlisted);
        account.bpf = watcher.bpf_time();
        account.process = finish::process_cpu_time();
        let title = self.config.targets.title();
        let report = Report {
            title: &title,
            duration,
            end_ns,
            rows: self.config.rows,
            limit: self.config.limit,
            connections: &self.watcher.connections,
            account: &account,
        };
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
