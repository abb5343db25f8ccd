//! Names of windows' files: sortable by time, and telling all that a listing needs to know.
//!
//! `20261121T180000.123Z-20261121T180100.120Z.sampling.host.pb.gz`: begin and end by the wall clock in UTC, the
//! capability, the targets. A second window of the same times, after the clock was set back, has a `~2` behind the
//! targets.

use std::fmt;

use clap::ValueEnum;
use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::Deserialize;

use crate::config::Mode;

const TIME: &str = "%Y%m%dT%H%M%S%.3fZ";
/// Most bytes of a target's name in a file's.
const TARGET_MAX: usize = 60;

/// What is sampled.
#[derive(
    Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Sampled {
    /// Where threads run
    #[default]
    Cpu,
    /// Where they wait
    OffCpu,
    /// Both: all of their time
    Wall,
}

impl Sampled {
    /// All of them; the first that there are windows of is shown where nothing is asked for.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Wall, Self::OffCpu];

    /// Its name in the configuration and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::OffCpu => "off-cpu",
            Self::Wall => "wall",
        }
    }

    /// What its windows are called.
    pub fn capability(self) -> Capability {
        match self {
            Self::Cpu => Capability::Sampling,
            Self::OffCpu => Capability::OffCpu,
            Self::Wall => Capability::Wall,
        }
    }

    /// What is recorded.
    pub(crate) fn mode(self) -> Mode {
        match self {
            Self::Cpu => Mode::OnCpu,
            Self::OffCpu => Mode::OffCpu,
            Self::Wall => Mode::Wall,
        }
    }
}

/// What windows are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Capability {
    /// Stacks, sampled on the CPU.
    Sampling,
    /// Stacks of time off the CPU.
    OffCpu,
    /// Stacks of all time.
    Wall,
    /// Calls of Postgres, by statement.
    Queries,
    /// TCP connections, by peer.
    Tcp,
    /// System calls.
    Syscalls,
}

impl Capability {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Sampling,
        Self::OffCpu,
        Self::Wall,
        Self::Queries,
        Self::Tcp,
        Self::Syscalls,
    ];

    /// Its name in files, logs and the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sampling => "sampling",
            Self::OffCpu => "off-cpu",
            Self::Wall => "wall",
            Self::Queries => "queries",
            Self::Tcp => "tcp",
            Self::Syscalls => "syscalls",
        }
    }

    /// What its files end in.
    fn suffix(self) -> &'static str {
        match self {
            Self::Sampling | Self::OffCpu | Self::Wall => "pb.gz",
            Self::Queries | Self::Tcp | Self::Syscalls => "json.gz",
        }
    }
}

/// A window, by its file's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WindowName {
    /// Milliseconds after the Unix epoch.
    pub begin_ms: u64,
    /// Likewise.
    pub end_ms: u64,
    /// Of what.
    pub capability: Capability,
    /// Of whom, as far as a file's name can say.
    target: String,
    /// From 1.
    copy: u32,
}

impl WindowName {
    /// The first name for such a window.
    pub fn new(capability: Capability, (begin_ms, end_ms): (u64, u64), target: &str) -> Self {
        let safe = |c: char| {
            if c.is_ascii_alphanumeric() || "@_+-".contains(c) {
                c
            } else {
                '_'
            }
        };
        Self {
            begin_ms,
            end_ms,
            capability,
            target: target.chars().map(safe).take(TARGET_MAX).collect(),
            copy: 1,
        }
    }

    /// Another name for the same.
    #[must_use]
    pub fn next(self) -> Self {
        Self {
            copy: self.copy + 1,
            ..self
        }
    }

    /// Out of a file's name; `None` where it is not one of ours.
    pub fn parse(name: &str) -> Option<Self> {
        let (begin, rest) = name.split_once('-')?;
        let (end, rest) = rest.split_once("Z.")?;
        let (capability, rest) = rest.split_once('.')?;
        let (target, suffix) = rest.split_once('.')?;
        let capability = Capability::ALL
            .into_iter()
            .find(|known| known.name() == capability)
            .filter(|known| known.suffix() == suffix)?;
        let (target, copy) = match target.split_once('~') {
            Some((target, copy)) => (target, copy.parse().ok()?),
            None => (target, 1),
        };
        Some(Self {
            begin_ms: milliseconds(begin.strip_suffix('Z')?)?,
            end_ms: milliseconds(end)?,
            capability,
            target: target.to_owned(),
            copy,
        })
    }
}

impl fmt::Display for WindowName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            begin_ms,
            end_ms,
            capability,
            target,
            copy,
        } = self;
        let (begin, end) = (timestamp(*begin_ms), timestamp(*end_ms));
        let (begin, end) = (begin.strftime(TIME), end.strftime(TIME));
        write!(f, "{begin}-{end}.{}.{target}", capability.name())?;
        if *copy > 1 {
            write!(f, "~{copy}")?;
        }
        write!(f, ".{}", capability.suffix())
    }
}

/// As people read it: `2026-11-21T18:00:00Z`.
pub(crate) fn instant_text(ms: u64) -> String {
    timestamp(ms).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A time beyond what a calendar holds is the last one that it does.
fn timestamp(ms: u64) -> Timestamp {
    let ms = i64::try_from(ms).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(ms).unwrap_or(Timestamp::MAX)
}

fn milliseconds(text: &str) -> Option<u64> {
    let time = DateTime::strptime("%Y%m%dT%H%M%S%.3f", text).ok()?;
    let instant = time.to_zoned(TimeZone::UTC).ok()?.timestamp();
    u64::try_from(instant.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert_eq, proptest};

    use super::{Capability, WindowName};

    fn name(begin_ms: u64, target: &str) -> WindowName {
        WindowName::new(Capability::Sampling, (begin_ms, begin_ms + 60_000), target)
    }

    /// A name says when, what and whom, in words and figures that sort by time.
    #[test]
    fn names_tell_all() {
        let first = name(1_795_284_000_123, "host");
        assert_eq!(
            first.to_string(),
            "20261121T180000.123Z-20261121T180100.123Z.sampling.host.pb.gz"
        );
        assert!(first.to_string() < name(1_795_284_000_124, "a").to_string());
        assert!(
            first
                .clone()
                .next()
                .to_string()
                .ends_with(".sampling.host~2.pb.gz")
        );
    }

    /// Other files are none of ours.
    #[test]
    fn foreign_names_are_left_alone() {
        for foreign in [
            "",
            "README",
            ".profiler-x1",
            "20261121T180000.123Z-20261121T180100.123Z.sampling.host.svg",
            "20261121T180000.123Z-20261121T180100.123Z.dancing.host.pb.gz",
            "20261399T180000.123Z-20261121T180100.123Z.sampling.host.pb.gz",
        ] {
            assert_eq!(WindowName::parse(foreign), None, "{foreign}");
        }
    }

    proptest! {
        /// What was written is read, whatever the targets are called.
        #[test]
        fn names_come_back(begin_ms in 0_u64..4_000_000_000_000, target in ".*", copies in 0..3) {
            let mut window = name(begin_ms, &target);
            for _ in 0..copies {
                window = window.next();
            }
            let text = window.to_string();
            prop_assert_eq!(text.contains('/'), false);
            prop_assert_eq!(WindowName::parse(&text), Some(window));
        }
    }
}
