//! `profiler queries`: watches until the end, shows what happens meanwhile, writes the result.

use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};

use super::{
    Form, Tls,
    account::Account,
    csv, json,
    now::UnderWay,
    report::{self, Report},
    statistics::Statistics,
    table,
    watcher::Watcher,
};
use crate::{
    artifact::Artifact,
    config,
    error::{Error, Exit},
    preflight::{self, PreflightError},
    record::{
        command::Held,
        ending::{End, Ending, at, event_loop},
        running::{Running, conclude},
        targets,
    },
    terminal::{show, show_view},
};

/// How often the ring is emptied: at 100 MB/s of traffic half a MiB has come.
pub(super) const POLL: Duration = Duration::from_millis(5);
/// Every so many polls it is looked whether named processes still live.
const LOOK_EVERY: u32 = 20;

/// Watches, writes the result, and says how to exit.
pub fn run(config: config::Queries) -> Result<Exit, Error> {
    event_loop(watch(config))
}

/// Refuses what could not be watched, naming what is missing.
pub(crate) fn require(tls: Tls) -> Result<(), PreflightError> {
    preflight::require_record()?;
    if tls == Tls::On {
        preflight::require_tls()?;
    }
    Ok(())
}

async fn watch(config: config::Queries) -> Result<Exit, Error> {
    require(config.tls)?;
    targets::check_named(&config.targets)?;
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
    held: Option<Held>,
    watcher: Watcher,
    /// What was told before the last view.
    earlier: Statistics,
    started: Instant,
}

impl Session {
    /// Everything that can fail, before anything is watched.
    fn prepare(config: config::Queries) -> Result<Self, Error> {
        let settings = targets::settings(&config.targets)?;
        let mut watcher = Watcher::load(&settings, config.tls)?;
        watcher.show(config.selection.by, config.form == Form::Events);
        let artifact = Artifact::open(&config.destination)?;
        let held = targets::hold_command(&config.targets)?;
        watcher.alive = targets::name(watcher.kernel(), &config.targets, held.as_ref())?;
        Ok(Self {
            title: config.targets.title(),
            config,
            artifact,
            held,
            watcher,
            earlier: Statistics::default(),
            started: Instant::now(),
        })
    }

    /// Attaches, then lets the command go.
    fn start(&mut self) -> Result<Option<Running>, Error> {
        let targets = &self.config.targets;
        self.watcher.attach(|kernel, alive| {
            targets::add_descendants(kernel, targets, alive, |_| {})?;
            if targets.filters() != 0 && !targets.names_processes() {
                // Those that wait do nothing by which the kernel side would know them.
                alive.extend(targets::present(targets, alive));
            }
            Ok(())
        })?;
        self.started = Instant::now();
        match self.held.take() {
            Some(held) => targets::release(held, targets).map(Some),
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
        let mut polls = 0_u32;
        let mut view = (self.started, self.config.interval);
        let end = loop {
            let next_view = view
                .1
                .map(|every| tokio::time::Instant::from_std(view.0 + every));
            tokio::select! {
                end = ending.reached(command.as_ref()) => break end,
                ready = ring.readable() => {
                    ready?;
                    self.watcher.drain();
                }
                _ = poll.tick() => {
                    self.watcher.tick();
                    polls = polls.wrapping_add(1);
                    if !self.flush()? {
                        break End::Interrupted;
                    }
                    let looks = polls.is_multiple_of(LOOK_EVERY)
                        && self.config.targets.names_processes()
                        && command.is_none();
                    if looks && targets::all_gone(&mut self.watcher.alive) {
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

    /// Writes lines of events; not so where nobody reads them any more.
    fn flush(&mut self) -> Result<bool, Error> {
        match &mut self.watcher.told.lines {
            Some(lines) if !lines.is_empty() => show(std::mem::take(lines).as_bytes()),
            _ => Ok(true),
        }
    }

    /// Shows what came since the last time; not so where nobody reads it any more.
    fn view(&mut self, duration: Duration) -> Result<bool, Error> {
        let recent = std::mem::take(&mut self.watcher.told.recent);
        let under_way = self.watcher.under_way();
        let text = table::render(&self.report(&recent, duration, &under_way, None));
        self.earlier.merge(recent);
        show_view(text)
    }

    fn report<'a>(
        &'a self,
        statistics: &'a Statistics,
        duration: Duration,
        under_way: &'a [UnderWay],
        account: Option<&'a Account>,
    ) -> Report<'a> {
        let (rows, more) = report::rows(statistics, &self.watcher.texts, self.config.selection);
        Report {
            title: &self.title,
            duration,
            by: self.config.selection.by,
            rows,
            more,
            statistics,
            under_way,
            account,
        }
    }

    /// Ends the watch and writes it.
    fn finish(mut self) -> Result<(), Error> {
        let duration = self.started.elapsed();
        let under_way = self.watcher.under_way();
        self.watcher.end();
        self.flush()?;
        let mut statistics = std::mem::take(&mut self.earlier);
        statistics.merge(std::mem::take(&mut self.watcher.told.recent));
        let account = self.watcher.account(&statistics)?;
        let report = self.report(&statistics, duration, &under_way, Some(&account));
        let text = match self.config.form {
            Form::Events => account
                .lines()
                .into_iter()
                .fold(String::new(), |text, line| text + "# " + &line + "\n"),
            Form::Table => table::render(&report),
            Form::Json => json::render(&report)?,
            Form::Csv => csv::render(&report),
        };
        Ok(self.artifact.write(text.as_bytes())?)
    }
}
