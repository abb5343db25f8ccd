//! `profiler tcp`, as typed.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use jiff::Timestamp;

use super::{
    TargetArgs, compile_glob, parse_duration,
    report::{parse_instant, span},
    table_destination,
};
use crate::{
    config,
    daemon::config::state_directory,
    error::Error,
    store::Who,
    tcp::{Form, History, Rows},
};

const EXAMPLES: &str = "\
Examples:
  profiler tcp -p 4711                     10 s: connections open, begun and ended
  profiler tcp -p 4711 --by-peer           with whom, how often, how long; says where a pool is missing
  profiler tcp -p 4711 -d 1h --events      a line for each connect, close, reset and segment sent again
  profiler tcp -p 4711 --descendants       a server and its workers
  profiler tcp --unit nginx --by-peer      those of a systemd unit; --comm and --cgroup too
  profiler tcp --all --json -o tcp.json    every connection of the host
  profiler tcp --since 1h                  what the daemon kept, by peer (--pid, --comm, --unit)

Bytes are those of the data, each once, within the recording. `age` is `> TIME` of connections that were there before.
`connect` is the time from a client's first segment to the answer, `accept` the time that a server's waited
for its process. `requests` are those with an
answer at most: the lesser number of segments with data each way. `recv-q` and `send-q` are bytes that wait at the end.";

/// `profiler tcp`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct TcpArgs {
    /// Whose connections; of what was kept, -p, --comm and --unit
    #[command(flatten)]
    pub targets: TargetArgs,
    /// Instead of watching, what `profiler daemon` has kept since then, by peer: 1h, 90m, 2d, '2026-11-21 18:00',
    /// RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_instant,
          conflicts_with_all = ["all", "cgroup", "descendants", "command", "duration", "by_peer", "events"])]
    pub since: Option<Timestamp>,
    /// Only to then [default: now]
    #[arg(long, value_name = "TIME", requires = "since", value_parser = parse_instant)]
    pub until: Option<Timestamp>,
    /// The daemon's state directory [default: as configured, else /var/lib/profiler]
    #[arg(long, value_name = "DIR", requires = "since")]
    pub state: Option<PathBuf>,
    /// How long: 30, 30s, 500ms, 5m [default: 10s; with a COMMAND, to its end]
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// A row for each peer: how often, how long, how much
    #[arg(long)]
    pub by_peer: bool,
    /// Most rows to show
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// For programs: one JSON object, with all connections and peers
    #[arg(long, conflicts_with_all = ["csv", "events"])]
    pub json: bool,
    /// For programs: comma-separated values, all of them
    #[arg(long, conflicts_with = "events")]
    pub csv: bool,
    /// A line for each event as it happens
    #[arg(long, conflicts_with = "by_peer")]
    pub events: bool,
    /// File to write the result to; only its owner may read a new one [default: standard output]
    #[arg(short, long, value_name = "FILE", conflicts_with = "events")]
    pub output: Option<PathBuf>,
}

impl TcpArgs {
    /// What of the daemon's windows is meant, if it is them.
    pub fn history(&self) -> Result<Option<History>, Error> {
        let Some(since) = self.since else {
            return Ok(None);
        };
        let comm = self.targets.comm.as_deref().map(compile_glob);
        Ok(Some(History {
            state: self.state.clone().unwrap_or_else(state_directory),
            span: span(since, self.until),
            who: Who {
                pids: self.targets.pids.clone(),
                comm: comm.transpose()?,
                unit: self.targets.unit.clone(),
            },
            limit: usize::try_from(self.limit).unwrap_or(usize::MAX),
            form: self.form(),
            destination: table_destination(self.output.as_deref()),
        }))
    }

    fn form(&self) -> Form {
        match (self.json, self.csv, self.events) {
            (true, ..) => Form::Json,
            (_, true, _) => Form::Csv,
            (.., true) => Form::Events,
            _ => Form::Table,
        }
    }

    /// What is meant.
    pub fn resolve(self) -> Result<config::Tcp, Error> {
        let targets = self.targets.resolve()?;
        let (form, destination) = (self.form(), table_destination(self.output.as_deref()));
        let duration = match (self.duration, &targets.command) {
            (None, None) => Some(config::CALLS_DURATION),
            (duration, _) => duration,
        };
        Ok(config::Tcp {
            targets,
            duration,
            rows: if self.by_peer {
                Rows::Peers
            } else {
                Rows::Connections
            },
            limit: usize::try_from(self.limit).unwrap_or(usize::MAX),
            form,
            destination,
        })
    }
}
