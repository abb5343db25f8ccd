//! What can be typed. Turning it into what is meant is [`config`]'s business and
//! done here by conversions that are tested.

mod daemon;
mod queries;
pub(crate) mod report;
mod syscalls;
mod targets;
mod tcp;

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{ArgGroup, Args, Parser, Subcommand};
use profiler_common::comm::CommGlob;

pub use self::{
    daemon::DaemonArgs, queries::QueriesArgs, report::ReportArgs, syscalls::SyscallsArgs,
    targets::TargetArgs, tcp::TcpArgs,
};
use crate::{
    artifact::Destination,
    command_line::CommandLines,
    config::{self, Interpreter, Mode, PythonThreads},
    error::Error,
    output::{self, Format, Lines, Threads},
};

/// See where a running process spends its time, without touching its code
#[derive(Debug, Parser)]
#[command(name = "profiler", version, propagate_version = true, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  profiler record -p 4711                     a flamegraph of one process, 30 s
  profiler record -d 10 -o app.pb.gz -- ./app a command from its first instruction to its end
  profiler syscalls -p 4711                   its system calls: how often, how long, errors
  profiler tcp -p 4711 --by-peer              its connections: with whom, how often, how long
  profiler queries -p 4711                    its Postgres statements: how often, how long, rows, errors
  profiler report app.pb.gz --top 10          the ten most expensive functions of a recording
  profiler doctor                             what works on this machine, and what mends the rest";

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Record where processes spend their CPU time
    Record(RecordArgs),
    /// Count system calls: how often, how long, with what errors
    Syscalls(SyscallsArgs),
    /// List TCP connections: with whom, how long, how much, how they ended
    Tcp(TcpArgs),
    /// Time Postgres queries, from what goes through sockets, at a client or at the server
    Queries(QueriesArgs),
    /// Convert, merge or summarize recordings, or what the daemon kept; needs no privileges
    Report(ReportArgs),
    /// Run as a service: sample all the time and keep windows of it
    Daemon(DaemonArgs),
    /// Print the stack of every thread now, and what each waits for; stops nothing
    Dump(DumpArgs),
    /// Show what this kernel and these privileges allow, and what mends the rest
    Doctor(DoctorArgs),
}

const RECORD_EXAMPLES: &str = "\
Examples:
  profiler record -p 4711                       30 s at 99 Hz, to profile-COMM-4711.svg
  profiler record -p 4711,4712 -d 10s -F 199    two processes
  profiler record -p 4711 --descendants         and its workers, also those to come
  profiler record --unit nginx -d 1m            everything in a systemd unit
  profiler record -p 4711 --off-cpu             where it waits, and for what
  profiler record -p 4711 --wall --threads      all of its time, thread by thread
  profiler record -p 4711 --lines line          Python code line by line
  profiler record -p 4711 --gil                 only what held Python's lock
  profiler record --all --comm 'postgres*' -d 5 every process of that name
  profiler record -o app.speedscope.json -- python3 app.py
  profiler record -p 4711 -f folded -o -        folded stacks on standard output

Ctrl-C ends a recording early and still writes it; a second one ends it at once. The format follows the suffix of -o:
.svg .folded .pb.gz (pprof) .json (speedscope) .firefox.json; -f overrides it.";

/// `profiler record`
#[derive(Debug, Args)]
#[command(after_help = RECORD_EXAMPLES, group = ArgGroup::new("waits").args(["off_cpu", "wall"]))]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct RecordArgs {
    /// Whom
    #[command(flatten)]
    pub targets: TargetArgs,
    /// Record where threads wait instead of where they run
    #[arg(long, conflicts_with = "wall")]
    pub off_cpu: bool,
    /// Record both: running, runnable or blocked, and on what
    #[arg(long)]
    pub wall: bool,
    /// Only add up waits shorter than this: 1ms, 100us, 0 [default: 1ms]
    #[arg(long, value_name = "TIME", requires = "waits", value_parser = parse_span)]
    pub min_block: Option<Duration>,
    /// How long: 30, 30s, 500ms, 5m [default: 30s; with a COMMAND, to its end]
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Samples per second and CPU
    #[arg(short = 'F', long, value_name = "HZ", default_value_t = config::FREQUENCY_HZ)]
    pub frequency: u64,
    /// File to write, `-` for standard output; only its owner may read a new one [default:
    /// profile-COMM-PID.svg]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Format, if not the one of FILE's suffix
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// Tell threads apart by a frame with their name
    #[arg(long)]
    pub threads: bool,
    /// Python code by function or by line, in flamegraphs and folded stacks
    #[arg(long, value_name = "WHAT", default_value = "function")]
    pub lines: Lines,
    /// Show the Python interpreter's own C functions too
    #[arg(long)]
    pub native: bool,
    /// Only Python threads that hold their interpreter's lock (GIL) at the time
    #[arg(long)]
    pub gil: bool,
}

/// `profiler dump`
#[derive(Clone, Copy, Debug, Args)]
pub struct DumpArgs {
    /// Process
    #[arg(short, long, value_name = "PID", value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pub pid: u32,
    /// Machine-readable
    #[arg(long)]
    pub json: bool,
    /// Show the Python interpreter's own C functions too
    #[arg(long)]
    pub native: bool,

    /// Show the command line whole, passwords and all [default: names of programs and options]
    #[arg(long)]
    pub full_command: bool,
}

impl DumpArgs {
    /// What is meant.
    pub fn resolve(self) -> config::Dump {
        config::Dump {
            pid: self.pid,
            json: self.json,
            interpreter: interpreter(self.native),
            command_lines: CommandLines::of(self.full_command),
        }
    }
}

fn interpreter(native: bool) -> Interpreter {
    if native {
        Interpreter::Show
    } else {
        Interpreter::Fold
    }
}

/// `profiler doctor`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Machine-readable
    #[arg(long)]
    pub json: bool,
}

impl RecordArgs {
    /// What is meant. Looks up the cgroup, reads nothing else.
    pub fn resolve(self) -> Result<config::Record, Error> {
        let targets = self.targets.resolve()?;
        let recording_command = targets.command.is_some();
        let duration = self.duration.or(if recording_command {
            None
        } else {
            Some(config::DURATION)
        });
        let format = format_of(self.format, self.output.as_deref())?.unwrap_or(Format::Svg);
        let destination = self.output.as_deref().map(destination);
        let options = options(self.threads, self.lines);
        let mode = match (self.off_cpu, self.wall) {
            (true, _) => Mode::OffCpu,
            (_, true) => Mode::Wall,
            _ => Mode::OnCpu,
        };
        Ok(config::Record {
            targets,
            duration,
            mode,
            min_block: self.min_block.unwrap_or(config::MIN_BLOCK),
            frequency_hz: self.frequency,
            destination,
            format,
            options,
            interpreter: interpreter(self.native),
            python_threads: if self.gil {
                PythonThreads::HoldingGil
            } else {
                PythonThreads::All
            },
        })
    }
}

fn options(threads: bool, lines: Lines) -> output::Options {
    output::Options {
        lines,
        threads: if threads {
            Threads::Split
        } else {
            Threads::Merge
        },
        ..output::Options::default()
    }
}

fn destination(path: &std::path::Path) -> Destination {
    if path.as_os_str() == "-" {
        Destination::Stdout
    } else {
        Destination::File(path.to_owned())
    }
}

/// Where a table goes: standard output, unless a file is named.
fn table_destination(output: Option<&std::path::Path>) -> Destination {
    output.map_or(Destination::Stdout, destination)
}

/// The format asked for, else the one of the suffix, else (no file, or standard output) none.
fn format_of(
    format: Option<Format>,
    output: Option<&std::path::Path>,
) -> Result<Option<Format>, Error> {
    match (format, output) {
        (Some(format), _) => Ok(Some(format)),
        (None, Some(path)) if path.as_os_str() != "-" => Format::from_path(path)
            .map(Some)
            .ok_or_else(|| Error::UnknownSuffix {
                path: path.to_owned(),
            }),
        _ => Ok(None),
    }
}

/// `30`, `30s`, `500ms`, `5m`, `1h`; a decimal point is allowed.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = parse_span(text)?;
    if duration < Duration::from_millis(1) {
        Err("must be at least 1ms".to_owned())
    } else {
        Ok(duration)
    }
}

/// A pattern of names of processes.
fn compile_glob(glob: &str) -> Result<CommGlob, Error> {
    CommGlob::compile(glob.as_bytes()).map_err(|_| Error::CommTooLong {
        glob: glob.to_owned(),
    })
}

/// A time that may be short, or nothing.
fn parse_span(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_s = match &text[digits.len()..] {
        "us" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("unknown unit `{unit}`: use us, ms, s, m or h")),
    };
    let number = f64::from_str(digits)
        .map_err(|_| "expected a number with a unit, such as 30s".to_owned())?;
    Duration::try_from_secs_f64(number * unit_s).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Cli, Duration, Format, Verb, config, parse_duration};
    use crate::config::Descendants;

    fn record(arguments: &[&str]) -> config::Record {
        let cli = Cli::try_parse_from([&["profiler", "record"], arguments].concat()).unwrap();
        let Verb::Record(args) = cli.verb else {
            panic!("not record")
        };
        args.resolve().unwrap()
    }

    /// clap's own consistency checks.
    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    /// A running process: 30 s, no descendants. A command: to its end, with them.
    #[test]
    fn defaults_follow_the_kind_of_target() {
        let pid = record(&["-p", "7,3,7"]);
        assert_eq!(pid.targets.pids, [3, 7]);
        assert_eq!(
            (pid.duration, pid.targets.descendants),
            (Some(config::DURATION), Descendants::Ignore)
        );
        let command = record(&["-F", "199", "--", "app", "-p", "1"]);
        assert_eq!(
            (command.duration, command.targets.descendants),
            (None, Descendants::Follow)
        );
        assert_eq!(command.targets.command.unwrap(), ["app", "-p", "1"]);
    }

    /// The suffix decides the format unless one is given.
    #[test]
    fn format_follows_the_suffix() {
        assert_eq!(record(&["-p", "1", "-o", "x.pb.gz"]).format, Format::Pprof);
        assert_eq!(
            record(&["-p", "1", "-o", "x.pb.gz", "-f", "json"]).format,
            Format::Json
        );
        assert_eq!(record(&["-p", "1", "-o", "-"]).format, Format::Svg);
    }

    /// Durations as other tools take them.
    #[test]
    fn durations() {
        assert_eq!(parse_duration("30"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert!(
            parse_duration("5 parsecs").is_err()
                && parse_duration("0").is_err()
                && parse_duration("-1s").is_err()
        );
    }
}
