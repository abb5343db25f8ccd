//! `profiler report`: recordings, or windows that the daemon kept.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use super::{compile_glob, destination, format_of, options};
use crate::{
    cgroup,
    daemon::config::{parse_span, state_directory},
    error::Error,
    output::{Format, Lines},
    report::{History, Report, Source, Wanted},
    store::{Sampled, Span},
};

const REPORT_EXAMPLES: &str = "\
Examples:
  profiler report app.pb.gz -o app.svg            draw a recording
  profiler report a.folded b.folded -o both.svg   merge two
  profiler report app.pb.gz --top 20              functions by self and total time
  profiler report app.pb.gz -f folded -o -        folded stacks on standard output
  profiler report --since 1h --unit nginx -o nginx.svg   what the daemon saw of a unit
  profiler report --since 1h --mode off-cpu -o waits.svg   where threads waited
  profiler report --since '2026-11-21 18:00' --until '2026-11-21 18:10' --top 20";

/// `profiler report`
#[derive(Debug, Args)]
#[command(after_help = REPORT_EXAMPLES, group = ArgGroup::new("source").args(["inputs", "since"]).required(true))]
pub struct ReportArgs {
    /// Recordings: folded stacks or pprof; several are merged; `-` for standard input
    #[arg(value_name = "IN")]
    pub inputs: Vec<PathBuf>,
    /// Instead of files, what `profiler daemon` has kept since then: 1h, 90m, 2d, '2026-11-21 18:00', RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_instant)]
    pub since: Option<Timestamp>,
    /// Only to then [default: now]
    #[arg(long, value_name = "TIME", conflicts_with = "inputs", value_parser = parse_instant)]
    pub until: Option<Timestamp>,
    /// Windows of this mode of the daemon's sampling [default: cpu, else whichever there are]
    #[arg(long, value_name = "MODE", requires = "since")]
    pub mode: Option<Sampled>,
    /// Only processes of this systemd unit
    #[arg(long, value_name = "NAME")]
    pub unit: Option<String>,
    /// Only processes in this cgroup (v2) or below it
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<String>,
    /// Only these processes
    #[arg(
        short,
        long = "pid",
        value_name = "PID",
        value_delimiter = ',',
        requires = "since"
    )]
    pub pids: Vec<u32>,
    /// Only processes whose name matches, e.g. 'postgres*'
    #[arg(long, value_name = "GLOB")]
    pub comm: Option<String>,
    /// The daemon's state directory [default: as configured, else /var/lib/profiler]
    #[arg(long, value_name = "DIR", conflicts_with = "inputs")]
    pub state: Option<PathBuf>,
    /// File to write, `-` for standard output; only its owner may read a new one
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
    /// Python code by function or by line, in flamegraphs and folded stacks
    #[arg(long, value_name = "WHAT", default_value = "function")]
    pub lines: Lines,
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
        let options = options(self.threads, self.lines);
        Ok(Report {
            source: self.source(),
            wanted: self.wanted()?,
            output,
            top,
            options,
        })
    }

    fn source(&self) -> Source {
        let Some(since) = self.since else {
            return Source::Files(self.inputs.clone());
        };
        Source::History(History {
            state: self.state.clone().unwrap_or_else(state_directory),
            span: span(since, self.until),
            sampled: self.mode,
        })
    }

    fn wanted(self) -> Result<Wanted, Error> {
        let comm = self
            .comm
            .map(|glob| compile_glob(&glob).map(|compiled| (glob, compiled)));
        Ok(Wanted {
            pids: self.pids,
            comm: comm.transpose()?,
            cgroup: self.cgroup.map(|path| cgroup::from_root(&path)),
            unit: self.unit,
        })
    }
}

/// From one time to another one, or to now.
pub(super) fn span(since: Timestamp, until: Option<Timestamp>) -> Span {
    let ms = |instant: Timestamp| u64::try_from(instant.as_millisecond()).unwrap_or(0);
    Span {
        begin_ms: ms(since),
        end_ms: ms(until.unwrap_or_else(Timestamp::now)),
    }
}

/// So long ago, or a time of the calendar: with its offset from UTC, else by the local clock.
pub(super) fn parse_instant(text: &str) -> Result<Timestamp, String> {
    parse_at(text, Timestamp::now(), &TimeZone::system())
}

pub(crate) fn parse_at(text: &str, now: Timestamp, local: &TimeZone) -> Result<Timestamp, String> {
    if let Ok(ago) = parse_span(text) {
        return now
            .checked_sub(ago)
            .map_err(|_| format!("`{text}` is too long ago"));
    }
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Ok(instant);
    }
    let wanted = || {
        format!("`{text}` is no time: use 1h, 90m, 2d, '2026-11-21 18:00' or 2026-11-21T18:00:00Z")
    };
    let time: DateTime = text.parse().map_err(|_| wanted())?;
    let zoned = time.to_zoned(local.clone());
    zoned.map(|zoned| zoned.timestamp()).map_err(|_| wanted())
}

#[cfg(test)]
mod tests {
    use jiff::{Timestamp, tz::TimeZone};

    use super::parse_at;

    /// Each way to name a time, in a zone of its own.
    #[test]
    fn times() {
        let now: Timestamp = "2026-11-21T18:00:00Z".parse().unwrap();
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let parse = |text: &str| parse_at(text, now, &zone).map(|time| time.to_string());
        for (text, time) in [
            ("1h", "2026-11-21T17:00:00Z"),
            ("90m", "2026-11-21T16:30:00Z"),
            ("2d", "2026-11-19T18:00:00Z"),
            ("2026-11-21T17:30:00Z", "2026-11-21T17:30:00Z"),
            ("2026-11-21T17:30:00+01:00", "2026-11-21T16:30:00Z"),
            ("2026-11-21 18:00", "2026-11-21T16:00:00Z"),
            ("2026-11-21 18:00:30", "2026-11-21T16:00:30Z"),
            ("2026-11-21", "2026-11-20T22:00:00Z"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(time), "{text}");
        }
        for text in ["", "yesterday", "60", "2026-13-01"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
