//! The table for people, what stands below it, and the line of a call. Pure.

use std::{fmt::Write, time::Duration};

use comfy_table::{CellAlignment, Table, presets::NOTHING};

use super::{
    figures::{Figures, Seen},
    origin::{Origin, side_text},
    protocol::{Call, Outcome},
    report::{Report, Row},
    statistics::By,
};

/// Longest text of a statement in the table, in characters: JSON and CSV have all of it.
const TEXT_MAX: usize = 200;

/// Columns of figures, after the share.
const FIGURES: [&str; 12] = [
    "calls",
    "total",
    "mean",
    "p50",
    "p95",
    "p99",
    "max",
    "first row",
    "rows",
    "in",
    "out",
    "errors",
];

/// Renders a report.
pub(super) fn render(report: &Report<'_>) -> String {
    let seconds = report.duration.as_secs_f64();
    let mut text = format!("Postgres queries of {} in {seconds:.2} s\n\n", report.title);
    let mut table = Table::new();
    table.load_style(NOTHING);
    let by = report.by.map(by_text);
    let header = std::iter::once("impact").chain(FIGURES);
    let labels = ["side", "via", "database", "user"].into_iter();
    table.set_header(header.chain(labels).chain(by).chain(["statement"]));
    for row in &report.rows {
        table.add_row(cells(row, report.by.is_some()));
    }
    for column in table.column_iter_mut().take(1 + FIGURES.len()) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for line in table.to_string().lines() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if report.more > 0 {
        let _ = writeln!(text, " ({} more: --limit)", report.more);
    }
    text.push('\n');
    for line in summary(report) {
        let _ = writeln!(text, "{line}");
    }
    if let Some(account) = report.account {
        text.push('\n');
        for line in account.lines() {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

fn by_text(by: By) -> &'static str {
    match by {
        By::Database => "by database",
        By::User => "by user",
        By::Peer => "by peer",
        By::Pid => "by pid",
    }
}

fn cells(row: &Row<'_>, has_by: bool) -> Vec<String> {
    let figures = row.figures;
    let shared = if figures.shared > 0 { "~" } else { "" };
    let mut cells = vec![
        format!("{}.{} %", row.share_permille / 10, row.share_permille % 10),
        format!("{shared}{}", figures.calls),
        time(Some(figures.total_ns)),
        time(figures.mean_ns()),
        time(figures.quantile_ns(50)),
        time(figures.quantile_ns(95)),
        time(figures.quantile_ns(99)),
        time(figures.longest_ns()),
        time(figures.mean_first_row_ns()),
        figures.rows.to_string(),
        bytes(figures.sent),
        bytes(figures.received),
        errors(figures),
        side_text(row.side).to_owned(),
        figures
            .seen
            .transports
            .iter()
            .copied()
            .collect::<Vec<_>>()
            .join(" "),
        one_of(&figures.seen, |seen| &seen.databases),
        one_of(&figures.seen, |seen| &seen.users),
    ];
    if has_by {
        cells.push(row.by.unwrap_or("?").to_owned());
    }
    cells.push(cut(&row.text));
    cells
}

/// `3 (23505 2, 57014 1)`
fn errors(figures: &Figures) -> String {
    if figures.errors.is_empty() {
        return "-".to_owned();
    }
    let codes: Vec<String> = figures
        .errors
        .iter()
        .map(|(code, count)| format!("{code} {count}"))
        .collect();
    format!("{} ({})", figures.failed(), codes.join(", "))
}

fn one_of(
    seen: &Seen,
    values: impl Fn(&Seen) -> &std::collections::BTreeSet<std::sync::Arc<str>>,
) -> String {
    let values = values(seen);
    match (values.first(), values.len()) {
        (None, _) => "?".to_owned(),
        (Some(value), 1) => value.to_string(),
        (Some(_), count) => format!("{count} or more"),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Transactions, connections and what else there is beside calls.
fn summary(report: &Report<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let statistics = report.statistics;
    let transactions = &statistics.transactions;
    if transactions.count() > 0 {
        let mean_ns = transactions.total_ns.checked_div(transactions.timed);
        lines.push(format!(
            "transactions of several round trips: {}, {} committed, {} rolled back, {} open at the end, {} on average; idle in \
             transaction {}",
            transactions.count(),
            transactions.committed,
            transactions.rolled_back,
            transactions.open,
            time(mean_ns),
            time(Some(transactions.idle_ns)),
        ));
        if let Some((ns, origin)) = &transactions.longest_idle {
            lines.push(format!(
                "longest idle in transaction: {}, {}",
                time(Some(*ns)),
                who(origin)
            ));
        }
    }
    let sum = |of: fn(&Figures) -> u64| statistics.groups.values().map(of).sum::<u64>();
    let prepares = sum(|figures| figures.prepares);
    if prepares > 0 {
        lines.push(format!(
            "prepared, described or closed apart from calls: {prepares} times, {}",
            time(Some(sum(|figures| figures.prepares_ns)))
        ));
    }
    let (copied_in, copied_out) = (
        sum(|figures| figures.copied_in),
        sum(|figures| figures.copied_out),
    );
    if copied_in + copied_out > 0 {
        lines.push(format!(
            "COPY: {} to the server, {} from it",
            bytes(copied_in),
            bytes(copied_out)
        ));
    }
    let sessions = &statistics.sessions;
    if sessions.opened > 0 {
        lines.push(format!(
            "connections opened: {}, authentication {} on average, {} at most",
            sessions.opened,
            time(sessions.total_ns.checked_div(sessions.opened)),
            time(Some(sessions.max_ns)),
        ));
    }
    for (code, count) in &sessions.refused {
        lines.push(format!("connections refused: {count} with {code}"));
    }
    if let Some(account) = report.account
        && account.sockets.postgres > 0
    {
        let tenths = statistics.calls * 10 / account.sockets.postgres;
        lines.push(format!(
            "calls per connection: {}.{}",
            tenths / 10,
            tenths % 10
        ));
    }
    for (code, count) in &statistics.terminated {
        lines.push(format!(
            "connections ended by the server: {count} with {code}"
        ));
    }
    if statistics.cancels > 0 {
        lines.push(format!("cancel requests: {}", statistics.cancels));
    }
    lines
}

fn who(origin: &Origin) -> String {
    let known = |value: &Option<std::sync::Arc<str>>| value.as_deref().unwrap_or("?").to_owned();
    format!(
        "pid {} ({}), user {}, database {}, peer {}",
        origin.pid,
        side_text(origin.side),
        known(&origin.user),
        known(&origin.database),
        known(&origin.peer),
    )
}

/// The line of a call: seconds since the beginning, who, how long, what.
pub(super) fn event(call: &Call, origin: &Origin, text: &str, start_ns: u64) -> String {
    let at = Duration::from_nanos(call.start_ns.saturating_sub(start_ns)).as_secs_f64();
    let shared = if call.sharing > 1 { "~" } else { "" };
    let how = match call.outcome {
        Outcome::Completed | Outcome::Suspended => format!("{} rows", call.rows.total()),
        Outcome::Failed(failure) => format!("error {}", failure.sqlstate),
        Outcome::Skipped => "skipped".to_owned(),
        Outcome::Aborted => "aborted".to_owned(),
        Outcome::Unfinished => "unfinished".to_owned(),
        Outcome::Unseen => "answer not seen".to_owned(),
    };
    format!(
        "{at:.6} {} pid {} {}@{}: {shared}{}, {how}: {text}\n",
        side_text(origin.side),
        origin.pid,
        origin.user.as_deref().unwrap_or("?"),
        origin.database.as_deref().unwrap_or("?"),
        time(call.latency_ns),
    )
}

pub(super) fn time(ns: Option<u64>) -> String {
    let Some(ns) = ns else {
        return "-".to_owned();
    };
    let seconds = Duration::from_nanos(ns).as_secs_f64();
    match ns {
        10_000_000_000.. => format!("{seconds:.1} s"),
        1_000_000_000.. => format!("{seconds:.2} s"),
        10_000_000.. => format!("{:.1} ms", seconds * 1e3),
        1_000_000.. => format!("{:.2} ms", seconds * 1e3),
        _ => format!("{:.0} µs", seconds * 1e6),
    }
}

pub(super) fn bytes(count: u64) -> String {
    match count {
        10_000_000_000.. => format!("{} GB", count / 1_000_000_000),
        10_000_000.. => format!("{} MB", count / 1_000_000),
        10_000.. => format!("{} kB", count / 1000),
        _ => format!("{count} B"),
    }
}
