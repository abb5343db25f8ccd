//! Shows a report: first what works, then what was looked at, then what mends the rest.

use std::fmt::Write;

use comfy_table::Table;

use super::assess::{Report, Status, Verdict};
use crate::output::OutputError;

/// For people. Nothing is told by colour.
pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    let mut commands = Table::new();
    commands.set_header(["command", "works", "because of"]);
    for command in &report.commands {
        let verdict = match command.verdict {
            Verdict::Works => "yes",
            Verdict::Limited => "with limits",
            Verdict::No => "NO",
        };
        commands.add_row([
            command.name.to_owned(),
            verdict.to_owned(),
            command.why.join(", "),
        ]);
    }
    let mut checks = Table::new();
    checks.set_header(["check", "status", "found"]);
    for check in &report.checks {
        let status = match check.status {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Refused => "REFUSED",
        };
        checks.add_row([check.name, status, check.found.as_str()]);
    }
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{commands}\n\n{checks}");
    for check in &report.checks {
        if let Some(remedy) = &check.remedy {
            let _ = writeln!(text, "{}: {remedy}", check.name);
        }
    }
    text
}

/// For programs: the report as it is.
pub(super) fn json(report: &Report) -> Result<String, OutputError> {
    let mut text = serde_json::to_string_pretty(report)?;
    text.push('\n');
    Ok(text)
}
