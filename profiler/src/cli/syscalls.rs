//! `profiler syscalls`, as typed.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use jiff::Timestamp;
use profiler_common::syscalls::wanted;

use super::{
    TargetArgs, compile_glob, destination, format_of, parse_duration,
    report::{parse_instant, span},
    table_destination,
};
use crate::{
    config,
    daemon::config::state_directory,
    error::Error,
    output::Format,
    store::Who,
    syscalls::{Form, History, SortBy},
};

const EXAMPLES: &str = "\
Examples:
  profiler syscalls -p 4711                      10 s, a table of its system calls
  profiler syscalls -p 4711 --by-thread --limit 20
  profiler syscalls -p 4711 --by-fd              which file, socket or pipe each call works on
  profiler syscalls -p 4711 --errors --sort errors
  profiler syscalls -p 4711 --interval 1s        what happens each second, until Ctrl-C with -d 1h
  profiler syscalls -p 4711 --stacks calls.svg   and where in the program, weighted by time
  profiler syscalls --json -o calls.json -- ./app its arguments
  profiler syscalls --since 1h                   what the daemon kept (--pid, --comm, --unit)

Counts, errors, sums and max are exact, quantiles right to a sixteenth. `no return` counts calls whose thread
is still in them at the end or ended in them; their time so far is in `time`. `wall %` is time by the time of the
recording: 100 is one thread in the call all along. What the daemon kept has a call, with all of its time, in the window
in which it returned.";

/// `profiler syscalls`
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct SyscallsArgs {
    /// Whom; of what was kept, -p, --comm and --unit
    #[command(flatten)]
    pub targets: TargetArgs,
    /// Instead of counting, what `profiler daemon` has kept since then: 1h, 90m, 2d, '2026-11-21 18:00', RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_instant,
          conflicts_with_all = ["all", "cgroup", "descendants", "command", "duration", "by_thread", "by_fd",
                                "errors", "stacks", "interval"])]
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
    /// A row for each thread and call
    #[arg(long)]
    pub by_thread: bool,
    /// A row for each descriptor and call, with what the descriptor is
    #[arg(long)]
    pub by_fd: bool,
    /// Count errors by their number too
    #[arg(long)]
    pub errors: bool,
    /// Also write the stacks that calls are made from, weighted by time: .svg .folded .pb.gz .json
    #[arg(long, value_name = "FILE")]
    pub stacks: Option<PathBuf>,
    /// Order of the rows
    #[arg(
        long,
        value_name = "BY",
        default_value = "time",
        hide_possible_values = false
    )]
    pub sort: SortBy,
    /// Most rows to show
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// For programs: one JSON object
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// For programs: comma-separated values
    #[arg(long)]
    pub csv: bool,
    /// Show what happened meanwhile that often, then the whole at the end
    #[arg(long, value_name = "TIME", value_parser = parse_duration, conflicts_with_all = ["json", "csv"])]
    pub interval: Option<Duration>,
    /// File to write the result to; only its owner may read a new one [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

impl SyscallsArgs {
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
            sort: self.sort,
            limit: self.limit(),
            form: self.form(),
            destination: table_destination(self.output.as_deref()),
        }))
    }

    fn limit(&self) -> Option<usize> {
        let limit = self.limit?;
        Some(usize::try_from(limit).unwrap_or(usize::MAX))
    }

    fn form(&self) -> Form {
        match (self.json, self.csv) {
            (true, _) => Form::Json,
            (_, true) => Form::Csv,
            _ => Form::Table,
        }
    }

    /// What is meant.
    pub fn resolve(self) -> Result<config::Syscalls, Error> {
        let targets = self.targets.resolve()?;
        let duration = match (self.duration, &targets.command) {
            (None, None) => Some(config::CALLS_DURATION),
            (duration, _) => duration,
        };
        let bits = [
            (self.by_thread, wanted::BY_THREAD),
            (self.by_fd, wanted::BY_DESCRIPTOR),
            (self.errors, wanted::ERRORS),
            (self.stacks.is_some(), wanted::STACKS),
        ];
        let wanted = bits.iter().filter(|(is, _)| *is).map(|(_, bit)| bit);
        let stacks = match &self.stacks {
            Some(path) => {
                let format = format_of(None, Some(path))?.unwrap_or(Format::Svg);
                Some((destination(path), format))
            }
            None => None,
        };
        Ok(config::Syscalls {
            targets,
            duration,
            wanted: wanted.fold(wanted::CALLS, |all, bit| all | bit),
            stacks,
            sort: self.sort,
            limit: self.limit(),
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
    use profiler_common::syscalls::wanted;

    use crate::{
        artifact::Destination,
        cli::{Cli, Verb},
        config,
        output::Format,
        syscalls::Form,
    };

    fn syscalls(arguments: &[&str]) -> config::Syscalls {
        let cli = Cli::try_parse_from([&["profiler", "syscalls"], arguments].concat()).unwrap();
        let Verb::Syscalls(args) = cli.verb else {
            panic!("not syscalls")
        };
        args.resolve().unwrap()
    }

    /// A running process is watched for 10 s, a command to its end; options become bits.
    #[test]
    fn options_are_understood() {
        let plain = syscalls(&["-p", "7"]);
        assert_eq!(plain.duration, Some(Duration::from_secs(10)));
        assert_eq!((plain.wanted, plain.form), (wanted::CALLS, Form::Table));
        assert!(matches!(plain.destination, Destination::Stdout));
        let more = syscalls(&["--by-fd", "--stacks", "x.folded", "--json", "--", "app"]);
        let bits = wanted::CALLS | wanted::BY_DESCRIPTOR | wanted::STACKS;
        assert_eq!((more.duration, more.wanted), (None, bits));
        assert_eq!(more.stacks.unwrap().1, Format::Folded);
    }
}
