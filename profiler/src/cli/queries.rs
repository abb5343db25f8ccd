//! `profiler queries`, as typed.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use jiff::Timestamp;

use super::{
    TargetArgs, parse_duration,
    report::{parse_instant, span},
    table_destination,
};
use crate::{
    config::{self, Descendants},
    daemon::config::state_directory,
    error::Error,
    postgres::{By, Form, History, Selection, SortBy, Tls},
};

const EXAMPLES: &str = "\
Examples:
  profiler queries -p 4711                     30 s, the statements of an application, its workers too
  profiler queries -p $(head -1 /var/lib/postgresql/15/main/postmaster.pid)
                                               those of a Postgres server, all its backends
  profiler queries --all --by database --sort p99
  profiler queries -p 4711 --interval 2s       what happens meanwhile, until Ctrl-C with -d 1h
  profiler queries -p 4711 --events            a line for each call as it ends, without its values
  profiler queries -p 4711 --tls auto          what is encrypted too
  profiler queries --json -o queries.json -- python3 report.py
  profiler queries --since 1h                  what the daemon kept

A call is one execution of one statement, as pg_stat_statements counts them; errors are counted apart. Its latency goes
from the moment in which the client begins to send it (of a server: has received it) to its last byte of answer; `first
row` is the mean time to the first. `impact` is its share of the time of all calls. `~` marks statements some of whose
calls ended together with others, whose own times are not known: they are in `total`, not in p50 to max.

Literals are replaced by $n as soon as they are read; values, passwords, rows and texts of errors are never kept. Of a
statement that the server refused or did not answer only keywords are shown, as <withheld FINGERPRINT: SELECT … FROM …>:
a word in it may have been meant as a value. The encoding is that of each connection.

Encrypted connections are counted, not read, unless `--tls` is `on`, or `auto`, which begins with the first of them. Then
what a target gives to OpenSSL and takes from it is read, before and after encryption, in whatever library or program
OpenSSL is: at a server this covers all its clients. It is dear: each call of OpenSSL traps into the kernel twice, in
every process that uses the same file. `pgbench -S` in a virtual machine did half of its transactions meanwhile, and a
third where client and server used the same file.";

/// `profiler queries`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct QueriesArgs {
    /// Whom; what descends from them is always followed
    #[command(flatten)]
    pub targets: TargetArgs,
    /// Instead of watching, what `profiler daemon` has kept since then: 1h, 90m, 2d, '2026-11-21 18:00', RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_instant,
          conflicts_with_all = ["TargetArgs", "duration", "by", "tls", "events", "interval"])]
    pub since: Option<Timestamp>,
    /// Only to then [default: now]
    #[arg(long, value_name = "TIME", requires = "since", value_parser = parse_instant)]
    pub until: Option<Timestamp>,
    /// The daemon's state directory [default: as configured, else /var/lib/profiler]
    #[arg(long, value_name = "DIR", requires = "since")]
    pub state: Option<PathBuf>,
    /// How long: 30, 30s, 500ms, 5m [default: 30s; with a COMMAND, to its end]
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// A row for each statement and database, user, other end, application or process
    #[arg(long, value_name = "WHAT")]
    pub by: Option<By>,
    /// Read what is encrypted where it passes through OpenSSL (see below)
    #[arg(long, value_name = "WHEN", default_value = "off")]
    pub tls: Tls,
    /// Order of the rows
    #[arg(long, value_name = "BY", default_value = "time")]
    pub sort: SortBy,
    /// Most rows to show
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Leave out statements with fewer calls
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub min_calls: u64,
    /// For programs: one JSON object
    #[arg(long, conflicts_with_all = ["csv", "events"])]
    pub json: bool,
    /// For programs: comma-separated values
    #[arg(long, conflicts_with = "events")]
    pub csv: bool,
    /// A line for each call as it ends
    #[arg(long)]
    pub events: bool,
    /// Show what happened meanwhile that often, then the whole at the end
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with_all = ["json", "csv", "events"])]
    pub interval: Option<Duration>,
    /// File to write the result to; only its owner may read a new one [default: standard output]
    #[arg(short, long, value_name = "FILE", conflicts_with = "events")]
    pub output: Option<PathBuf>,
}

impl QueriesArgs {
    /// What of the daemon's windows is meant, if it is them.
    pub fn history(&self) -> Option<History> {
        let since = self.since?;
        Some(History {
            state: self.state.clone().unwrap_or_else(state_directory),
            span: span(since, self.until),
            selection: self.selection(),
            form: self.form(),
            destination: table_destination(self.output.as_deref()),
        })
    }

    fn selection(&self) -> Selection {
        let limit = if self.json || self.csv {
            usize::MAX
        } else {
            usize::try_from(self.limit).unwrap_or(usize::MAX)
        };
        Selection {
            sort: self.sort,
            limit,
            min_calls: self.min_calls,
            by: self.by,
        }
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
    pub fn resolve(self) -> Result<config::Queries, Error> {
        let mut targets = self.targets.resolve()?;
        targets.descendants = Descendants::Follow;
        let duration = match (self.duration, &targets.command) {
            (None, None) => Some(config::DURATION),
            (duration, _) => duration,
        };
        Ok(config::Queries {
            targets,
            duration,
            selection: self.selection(),
            tls: self.tls,
            form: self.form(),
            destination: table_destination(self.output.as_deref()),
            interval: self.interval,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use crate::{
        cli::{Cli, Verb},
        config::{self, Descendants},
        postgres::{By, Form, Tls},
    };

    fn queries(arguments: &[&str]) -> config::Queries {
        let cli = Cli::try_parse_from([&["profiler", "queries"], arguments].concat()).unwrap();
        let Verb::Queries(args) = cli.verb else {
            panic!("not queries")
        };
        args.resolve().unwrap()
    }

    /// A running process is watched for 30 s with all its children; for programs no row is left out.
    #[test]
    fn options_are_understood() {
        let plain = queries(&["-p", "7"]);
        assert_eq!(plain.duration, Some(Duration::from_secs(30)));
        assert_eq!(plain.targets.descendants, Descendants::Follow);
        assert_eq!((plain.form, plain.selection.limit), (Form::Table, 50));
        assert_eq!(plain.tls, Tls::Off);
        let more = queries(&["--by", "user", "--tls", "auto", "--json", "--", "app"]);
        assert_eq!(more.tls, Tls::Auto);
        assert_eq!((more.duration, more.form), (None, Form::Json));
        assert_eq!(more.selection.by, Some(By::User));
        assert_eq!(more.selection.limit, usize::MAX);
    }
}
