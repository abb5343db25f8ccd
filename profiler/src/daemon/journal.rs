//! Where the daemon's records go: to the journal, where standard error is connected to it, else to standard error.

use std::{
    env,
    io::{self, Write},
    os::unix::fs::MetadataExt,
};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Layer, Registry, layer::SubscriberExt, registry, reload, util::SubscriberInitExt,
};

use super::config::{Format, Level, Log};
use crate::printable;

/// Changes the least that is logged.
pub(super) struct Handle(reload::Handle<LevelFilter, Registry>);

impl Handle {
    /// From now on.
    pub(super) fn set_level(&self, level: Level) {
        // The subscriber lives as long as the process.
        let _ = self.0.modify(|filter| *filter = filter_of(level));
    }
}

/// Begins to log. Once a process.
pub(super) fn begin(log: Log) -> Handle {
    let (filter, handle) = reload::Layer::new(filter_of(log.level));
    let subscriber = registry().with(filter);
    let is_journal = env::var("JOURNAL_STREAM").is_ok_and(|stream| names_stderr(&stream));
    let journal = is_journal
        .then(|| tracing_journald::Layer::new().ok())
        .flatten();
    let plain = tracing_subscriber::fmt::layer()
        .with_writer(move || Records(log.format))
        .with_target(false)
        .with_ansi(false);
    let lines = match (&journal, log.format) {
        (Some(_), _) => None,
        (None, Format::Text) => Some(plain.boxed()),
        (None, Format::Json) => Some(plain.json().flatten_event(true).boxed()),
    };
    // A second call would be in the same process: tests, which log nothing.
    let _ = subscriber.with(journal).with(lines).try_init();
    Handle(handle)
}

/// Standard error, a record a write, in which what is not printable is escaped.
struct Records(Format);

impl Write for Records {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(record);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let mut shown = match self.0 {
            Format::Text => printable::printable(line).into_owned(),
            Format::Json => printable::json(line.to_owned()),
        };
        shown.push('\n');
        io::stderr().write_all(shown.as_bytes())?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn filter_of(level: Level) -> LevelFilter {
    match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
    }
}

/// Whether `device:inode` is standard error: whoever started us may have redirected it.
fn names_stderr(stream: &str) -> bool {
    let Some((device, inode)) = stream.split_once(':') else {
        return false;
    };
    let Ok(metadata) = std::fs::metadata("/proc/self/fd/2") else {
        return false;
    };
    device.parse() == Ok(metadata.dev()) && inode.parse() == Ok(metadata.ino())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::names_stderr;

    /// Only what standard error really is counts.
    #[test]
    fn journal_is_what_stderr_is() {
        let stderr = std::fs::metadata("/proc/self/fd/2").unwrap();
        let (device, inode) = (stderr.dev(), stderr.ino());
        assert!(names_stderr(&format!("{device}:{inode}")));
        assert!(!names_stderr(&format!("{device}:{}", inode + 1)));
        assert!(!names_stderr("") && !names_stderr("1") && !names_stderr("a:b"));
    }
}
