//! One file of the configuration as it is written: every key optional, so that files can be laid one over the
//! other key by key. What a key means is said in `packaging/profiler.toml`.

use std::path::PathBuf;

use serde::Deserialize;

use super::value::{Bytes, Glob, Hertz, Length, Share, Span};
use crate::export::{Kind, Signal};
use crate::postgres::Tls;
use crate::store::Sampled;

macro_rules! tables {
    ($($(#[$meta:meta])* $name:ident { $($key:ident: $kind:ty,)+ })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
        #[serde(deny_unknown_fields)]
        pub(super) struct $name {
            $(pub(super) $key: Option<$kind>,)+
        }

        impl Over for $name {
            fn over(self, below: Self) -> Self {
                Self { $($key: self.$key.over(below.$key),)+ }
            }
        }
    )+};
}

/// Laid over another of its kind: what it has counts, the rest is the other's.
pub(super) trait Over {
    /// See the trait.
    fn over(self, below: Self) -> Self;
}

macro_rules! values {
    ($($kind:ty),+) => {$(
        impl Over for Option<$kind> {
            fn over(self, below: Self) -> Self {
                self.or(below)
            }
        }
    )+};
}

macro_rules! nested {
    ($($kind:ty),+) => {$(
        impl Over for Option<$kind> {
            fn over(self, below: Self) -> Self {
                match (self, below) {
                    (Some(table), Some(below)) => Some(table.over(below)),
                    (table, below) => table.or(below),
                }
            }
        }
    )+};
}

values!(
    bool,
    PathBuf,
    Span,
    Length,
    Bytes,
    Share,
    Hertz,
    Sampled,
    Level,
    Format,
    Tls,
    Vec<String>,
    Vec<Glob>,
    u32,
    Vec<u32>,
    String,
    Kind,
    Vec<Signal>,
    Vec<Destination>
);
nested!(
    State,
    Windows,
    Retention,
    Overhead,
    Log,
    Sampling,
    Queries,
    Watched,
    Targets,
    Web,
    ExportQueue
);

tables! {
    /// A whole file.
    File {
        state: State,
        windows: Windows,
        retention: Retention,
        overhead: Overhead,
        log: Log,
        sampling: Sampling,
        queries: Queries,
        tcp: Watched,
        syscalls: Watched,
        web: Web,
        export: Vec<Destination>,
        export_queue: ExportQueue,
    }
    State {
        directory: PathBuf,
    }
    Windows {
        length: Length,
    }
    Retention {
        age: Span,
        size: Bytes,
    }
    Overhead {
        max: Share,
    }
    Log {
        level: Level,
        format: Format,
    }
    Sampling {
        enabled: bool,
        mode: Sampled,
        frequency: Hertz,
        min_block: Span,
        host_wide: bool,
        targets: Targets,
    }
    Queries {
        enabled: bool,
        tls: Tls,
        targets: Targets,
    }
    /// `[tcp]` and `[syscalls]`.
    Watched {
        enabled: bool,
        targets: Targets,
    }
    Targets {
        units: Vec<String>,
        cgroups: Vec<String>,
        commands: Vec<Glob>,
        pids: Vec<u32>,
    }
    Web {
        listen: String,
        public: bool,
        token_file: PathBuf,
        top_queries: u32,
    }
    ExportQueue {
        size: Bytes,
        age: Span,
    }
    /// One `[[export]]`. A later file replaces all of them.
    Destination {
        kind: Kind,
        url: String,
        headers_file: PathBuf,
        signals: Vec<Signal>,
    }
}

/// The least that is logged.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Only what fails.
    Error,
    /// And what is lost.
    Warn,
    /// And what begins and ends.
    #[default]
    Info,
    /// And every window.
    Debug,
}

/// As what standard error is written to, where it is not the journal.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A line a record.
    #[default]
    Text,
    /// An object a line.
    Json,
}

#[cfg(test)]
mod tests {
    use super::{File, Over};

    fn file(text: &str) -> File {
        toml::from_str(text).unwrap()
    }

    /// Of two files the later one counts, key by key, in tables of tables too.
    #[test]
    fn later_files_win_key_by_key() {
        let below = file(
            "[sampling]\nfrequency = 19\ntargets = { units = ['nginx'], pids = [1] }\n[windows]\nlength = '60s'",
        );
        let above = file("[sampling]\nenabled = false\ntargets = { units = ['a', 'b'] }");
        let together = file(
            "[sampling]\nenabled = false\nfrequency = 19\ntargets = { units = ['a', 'b'], pids = [1] }\n\
             [windows]\nlength = '60s'",
        );
        assert_eq!(above.over(below), together);
    }
}
