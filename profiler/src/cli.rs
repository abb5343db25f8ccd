//! What can be typed. Turning it into what is meant is [`config`]'s business and
//! done here by conversions that are tested.

use std::{ffi::OsString, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args, Parser, Subcommand};
use profiler_common::comm::CommGlob;

use crate::{
    artifact::Destination,
    cgroup,
    config::{self, Descendants, Targets},
    error::Error,
    output::{self, Format, Threads},
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
  profiler report app.pb.gz --top 10          the ten most expensive functions of a recording
  profiler doctor                             what works on this machine, and what mends the rest";

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Record where processes spend their CPU time
    Record(RecordArgs),
    /// Convert, merge or summarize recordings; needs no privileges
    Report(ReportArgs),
    /// Show what this kernel and these privileges allow, and what mends the rest
    Doctor(DoctorArgs),
}

const RECORD_EXAMPLES: &str = "\
Examples:
  profiler record -p 4711                       30 s at 99 Hz, to profile-COMM-4711.svg
  profiler record -p 4711,4712 -d 10s -F 199    two processes
  profiler record -p 4711 --descendants         and the workers it forks meanwhile
  profiler record --unit nginx -d 1m            everything in a systemd unit
  profiler record --all --comm 'postgres*' -d 5 every process of that name
  profiler record -o app.speedscope.json -- python3 app.py
  profiler record -p 4711 -f folded -o -        folded stacks on standard output

Ctrl-C ends a recording early and still writes it. The format follows the suffix of -o:
.svg .folded .pb.gz (pprof) .json (speedscope) .firefox.json; -f overrides it.";

/// `profiler record`
#[derive(Debug, Args)]
#[command(after_help = RECORD_EXAMPLES)]
pub struct RecordArgs {
    /// Processes to record, all their threads
    #[arg(short, long = "pid", value_name = "PID", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=4_194_304))]
    pub pids: Vec<u32>,
    /// Record every process of the host
    #[arg(short, long, conflicts_with_all = ["pids", "command"])]
    pub all: bool,
    /// Only processes whose name (of the main thread) matches, e.g. 'postgres*'
    #[arg(long, value_name = "GLOB", conflicts_with = "command")]
    pub comm: Option<String>,
    /// Only processes in this cgroup (v2) or below it
    #[arg(long, value_name = "PATH", conflicts_with_all = ["unit", "command"])]
    pub cgroup: Option<PathBuf>,
    /// Only processes of this systemd unit
    #[arg(long, value_name = "NAME", conflicts_with = "command")]
    pub unit: Option<String>,
    /// Also processes that the targets create meanwhile [default with a COMMAND]
    #[arg(long)]
    pub descendants: bool,
    /// How long: 30, 30s, 500ms, 5m [default: 30s; with a COMMAND, to its end]
    #[arg(short, long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Samples per second and CPU
    #[arg(short = 'F', long, value_name = "HZ", default_value_t = config::FREQUENCY_HZ)]
    pub frequency: u64,
    /// File to write, `-` for standard output [default: profile-COMM-PID.svg]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Format, if not the one of FILE's suffix
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// Tell threads apart by a frame with their name
    #[arg(long)]
    pub threads: bool,
    /// Start this command, record it and its children, exit with its status
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "pids")]
    pub command: Vec<OsString>,
}

const REPORT_EXAMPLES: &str = "\
Examples:
  profiler report app.pb.gz -o app.svg            draw a recording
  profiler report a.folded b.folded -o both.svg   merge two
  profiler report app.pb.gz --top 20              functions by self and total time
  profiler report app.pb.gz -f folded -o -        folded stacks on standard output";

/// `profiler report`
#[derive(Debug, Args)]
#[command(after_help = REPORT_EXAMPLES)]
pub struct ReportArgs {
    /// Recordings: folded stacks or pprof; several are merged; `-` for standard input
    #[arg(value_name = "IN", required = true)]
    pub inputs: Vec<PathBuf>,
    /// File to write, `-` for standard output
    #[arg(short, long, value_name = "OUT", required_unless_present = "top")]
    pub output: Option<PathBuf>,
    /// Format, if not the one of OUT's suffix
    #[arg(short, long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// Print the N functions with most time of their own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub top: Option<u32>,
    /// Tell threads apart by a frame with their name
    #[arg(long)]
    pub threads: bool,
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
        let targets = self.targets()?;
        let recording_command = targets.command.is_some();
        let duration = self.duration.or(if recording_command {
            None
        } else {
            Some(config::DURATION)
        });
        let format = format_of(self.format, self.output.as_deref())?.unwrap_or(Format::Svg);
        let destination = self.output.as_deref().map(destination);
        let options = options(self.threads);
        Ok(config::Record {
            targets,
            duration,
            frequency_hz: self.frequency,
            destination,
            format,
            options,
        })
    }

    fn targets(&self) -> Result<Targets, Error> {
        let anyone =
            self.all || self.comm.is_some() || self.cgroup.is_some() || self.unit.is_some();
        if self.pids.is_empty() && self.command.is_empty() && !anyone {
            return Err(Error::NoTarget);
        }
        let comm = self
            .comm
            .as_ref()
            .map(|glob| match CommGlob::compile(glob.as_bytes()) {
                Ok(compiled) => Ok((glob.clone(), compiled)),
                Err(_) => Err(Error::CommTooLong { glob: glob.clone() }),
            });
        let command = (!self.command.is_empty()).then(|| self.command.clone());
        let follow = self.descendants || command.is_some();
        let mut pids = self.pids.clone();
        pids.sort_unstable();
        pids.dedup();
        Ok(Targets {
            pids,
            command,
            comm: comm.transpose()?,
            cgroup: self.cgroup()?,
            descendants: if follow {
                Descendants::Follow
            } else {
                Descendants::Ignore
            },
        })
    }

    fn cgroup(&self) -> Result<Option<(String, cgroup::Cgroup)>, Error> {
        if let Some(path) = &self.cgroup {
            return Ok(Some((path.display().to_string(), cgroup::resolve(path)?)));
        }
        if let Some(unit) = &self.unit {
            return Ok(Some((unit.clone(), cgroup::unit(unit)?)));
        }
        Ok(None)
    }
}

/// `profiler report`, as meant.
#[derive(Debug)]
pub struct Report {
    /// Files, `-` being standard input.
    pub inputs: Vec<PathBuf>,
    /// Where to and as what, if anything is to be written.
    pub output: Option<(Destination, Format)>,
    /// How many functions to print.
    pub top: Option<usize>,
    /// How it is drawn.
    pub options: output::Options,
}

impl ReportArgs {
    /// What is meant.
    pub fn resolve(self) -> Result<Report, Error> {
        let format = format_of(self.format, self.output.as_deref())?.unwrap_or(Format::Svg);
        let output = self
            .output
            .as_deref()
            .map(|path| (destination(path), format));
        let top = self
            .top
            .map(|top| usize::try_from(top).unwrap_or(usize::MAX));
        Ok(Report {
            inputs: self.inputs,
            output,
            top,
            options: options(self.threads),
        })
    }
}

fn options(threads: bool) -> output::Options {
    output::Options {
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
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_s = match &text[digits.len()..] {
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("unknown unit `{unit}`: use ms, s, m or h")),
    };
    let number = f64::from_str(digits)
        .map_err(|_| "expected a number with a unit, such as 30s".to_owned())?;
    let duration =
        Duration::try_from_secs_f64(number * unit_s).map_err(|error| error.to_string())?;
    if duration < Duration::from_millis(1) {
        Err("must be at least 1ms".to_owned())
    } else {
        Ok(duration)
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Cli, Descendants, Duration, Format, Verb, config, parse_duration};

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
