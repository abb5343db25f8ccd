//! Shows a report: first what works, then what was looked at, then what mends the rest.

use std::fmt::Write;

use super::assess::{Report, Status, Verdict};
use crate::{
    output::{OutputError, columns::Columns},
    printable::{pretty_json, printable},
};

/// For people. Nothing is told by colour.
pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut commands = Columns::ruled(["command", "works", "because of"]);
    for command in &report.commands {
        let verdict = match command.verdict {
            Verdict::Works => "yes",
            Verdict::Limited => "with limits",
            Verdict::No => "NO",
        };
        commands.row([
            command.name.to_owned(),
            verdict.to_owned(),
            command.why.join(", "),
        ]);
    }
    let mut checks = Columns::ruled(["check", "status", "found"]);
    for check in &report.checks {
        let status = match check.status {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Refused => "REFUSED",
        };
        checks.row([check.name, status, check.found.as_str()]);
    }
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{commands}\n{checks}");
    for check in &report.checks {
        if let Some(remedy) = &check.remedy {
            let _ = writeln!(text, "{}: {}", check.name, printable(remedy));
        }
    }
    text
}

/// For programs: the report as it is.
pub(super) fn json(report: &Report) -> Result<String, OutputError> {
    Ok(pretty_json(report)?)
}
