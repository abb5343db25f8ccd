//! What every artifact says of its recording: title, command line, event, time, then the account.
//!
//! The lines go into the comments of folded stacks and pprof files and into the notes of a
//! flamegraph. `report` restores the recording's description from them, so the keys are named here
//! and used on both sides. Free text is quoted, so that no line ends in a digit.

use super::{account, figures::exact_seconds};
use crate::{printable::printable, profile::Profile};

/// Key of the title.
pub(crate) const TITLE: &str = "title";
/// Key of the command line.
pub(crate) const COMMAND_LINE: &str = "command line";
/// Key of the event's name.
pub(crate) const EVENT: &str = "event";
/// Key of what counts count, where it is not samples.
pub(crate) const UNIT: &str = "unit";
/// Key of the samples per second and CPU.
pub(crate) const FREQUENCY: &str = "rate";
/// Key of the start, seconds since the Unix epoch.
pub(crate) const STARTED: &str = "started";
/// Key of the duration.
pub(crate) const DURATION: &str = "duration";

/// Description and account of the recording, one fact a line.
pub(crate) fn lines(profile: &Profile) -> Vec<String> {
    let meta = &profile.meta;
    let mut lines = Vec::new();
    if !meta.title.is_empty() {
        lines.push(format!("{TITLE}: \"{}\"", printable(&meta.title)));
    }
    if !meta.command_line.is_empty() {
        lines.push(format!(
            "{COMMAND_LINE}: \"{}\"",
            printable(&meta.command_line)
        ));
    }
    if meta.event.is_time() {
        lines.push(format!("{EVENT}: {}", meta.event.name()));
        lines.push(format!("{UNIT}: µs"));
    } else if meta.frequency_hz > 0 {
        lines.push(format!("{EVENT}: {}", meta.event.name()));
        lines.push(format!("{FREQUENCY}: {} Hz", meta.frequency_hz));
    }
    if !meta.started.is_zero() {
        lines.push(format!(
            "{STARTED}: {} after the Unix epoch",
            exact_seconds(meta.started)
        ));
    }
    if !meta.duration.is_zero() {
        lines.push(format!("{DURATION}: {}", exact_seconds(meta.duration)));
    }
    lines.extend(account::lines(profile));
    lines
}
