//! What a request asks for: which time, whose samples.

use jiff::{Timestamp, tz::TimeZone};
use profiler_common::comm::CommGlob;
use serde::Deserialize;

use crate::{
    cli::report::parse_at,
    report::Wanted,
    store::{Sampled, Span, Who},
};

/// Where nothing is said: five minutes.
const SINCE: &str = "5m";

/// As it stands behind the question mark. What else is there is left aside: the flamegraph keeps what it shows there.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(crate) struct Query {
    pub(super) since: String,
    pub(super) until: String,
    pub(super) comm: String,
    pub(super) pid: String,
    pub(super) unit: String,
    pub(super) mode: String,
}

/// What is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(super) span: Span,
    pub(super) wanted: Wanted,
    /// Unless whichever there is.
    pub(super) sampled: Option<Sampled>,
}

impl Asked {
    /// Whose rows of a table.
    pub(super) fn who(&self) -> Who {
        Who {
            pids: self.wanted.pids.clone(),
            comm: self.wanted.comm.as_ref().map(|(_, compiled)| *compiled),
            unit: self.wanted.unit.clone(),
        }
    }
}

impl Query {
    /// As typed, or the default.
    pub(super) fn since(&self) -> &str {
        match self.since.trim() {
            "" => SINCE,
            since => since,
        }
    }

    /// What is meant at this time, or why it means nothing, without a word of what was typed. Times
    /// of the calendar are UTC. Pure.
    pub(crate) fn resolve(&self, now: Timestamp) -> Result<Asked, &'static str> {
        let instant = |text: &str| -> Result<u64, &'static str> {
            let instant = parse_at(text, now, &TimeZone::UTC).map_err(|_| {
                "since and until are times: 1h, 90m, 2d, 2026-11-21 18:00 or 2026-11-21T18:00:00Z"
            })?;
            Ok(u64::try_from(instant.as_millisecond()).unwrap_or(0))
        };
        let begin_ms = instant(self.since())?;
        let end_ms = match self.until.trim() {
            "" => u64::try_from(now.as_millisecond()).unwrap_or(0),
            until => instant(until)?,
        };
        if begin_ms >= end_ms {
            return Err("since is not before until");
        }
        let pids = self
            .pid
            .split(',')
            .map(str::trim)
            .filter(|pid| !pid.is_empty());
        let pids = pids.map(|pid| pid.parse().map_err(|_| "pid is no process id"));
        let comm = given(&self.comm).map(|glob| {
            let compiled = CommGlob::compile(glob.as_bytes());
            let compiled =
                compiled.map_err(|_| "comm can match no process: the kernel keeps 15 bytes");
            compiled.map(|compiled| (glob, compiled))
        });
        let sampled = given(&self.mode).map(|mode| {
            let of_name = |sampled: &Sampled| sampled.name() == mode;
            let found = Sampled::ALL.into_iter().find(of_name);
            found.ok_or("mode is cpu, off-cpu or wall")
        });
        Ok(Asked {
            sampled: sampled.transpose()?,
            span: Span { begin_ms, end_ms },
            wanted: Wanted {
                pids: pids.collect::<Result<_, _>>()?,
                comm: comm.transpose()?,
                cgroup: None,
                unit: given(&self.unit),
            },
        })
    }
}

fn given(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Query, Span};

    fn query(since: &str, until: &str) -> Query {
        Query {
            since: since.to_owned(),
            until: until.to_owned(),
            ..Query::default()
        }
    }

    /// Nothing means the last five minutes of everybody.
    #[test]
    fn nothing_is_five_minutes() {
        let now = "1970-01-01T01:00:00Z".parse().unwrap();
        let asked = Query::default().resolve(now).unwrap();
        let span = Span {
            begin_ms: 3_300_000,
            end_ms: 3_600_000,
        };
        assert_eq!((asked.span, asked.wanted.pids.len()), (span, 0));
        let chosen = query("1970-01-01 00:10", "5m").resolve(now).unwrap();
        assert_eq!(chosen.span.begin_ms, 600_000);
        assert_eq!(chosen.span.end_ms, 3_300_000);
    }

    /// What means nothing is refused in words.
    #[test]
    fn nonsense_is_refused() {
        let now = "1970-01-01T01:00:00Z".parse().unwrap();
        assert!(query("yesterday", "").resolve(now).is_err());
        assert!(query("5m", "10m").resolve(now).is_err());
        let mode = |mode: &str| Query {
            mode: mode.to_owned(),
            ..Query::default()
        };
        assert!(mode("asleep").resolve(now).is_err());
        assert_eq!(
            mode("off-cpu").resolve(now).unwrap().sampled,
            Some(super::Sampled::OffCpu)
        );
        let pid = |pid: &str| Query {
            pid: pid.to_owned(),
            ..Query::default()
        };
        assert!(pid("x").resolve(now).is_err());
        assert_eq!(pid("1, 2").resolve(now).unwrap().wanted.pids, [1, 2]);
        let comm = Query {
            comm: "sixteen-bytes-xx".to_owned(),
            ..Query::default()
        };
        assert!(comm.resolve(now).is_err());
    }
}
