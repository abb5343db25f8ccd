//! The table for people, what stands below it, and the line of a call. Pure.

use std::{collections::BTreeSet, fmt::Write, sync::Arc, time::Duration};

use super::{
    figures::{Figures, Seen},
    now::UnderWay,
    origin::{Origin, side_text},
    protocol::{Call, Outcome, Side},
    report::{Report, Row},
    statistics::By,
};
use crate::{
    output::{columns::Columns, figures::bytes},
    printable::{printable, shortened},
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
    let mut text = format!(
        "Postgres queries of {} in {seconds:.2} s\n\n",
        printable(report.title)
    );
    let by = report.by.map(by_text);
    let header = std::iter::once("impact").chain(FIGURES);
    let labels = ["side", "via", "database", "user"].into_iter();
    let mut table = Columns::new(header.chain(labels).chain(by).chain(["statement"]));
    for row in &report.rows {
        table.row(cells(row, report.by.is_some()));
    }
    table.right(0..1 + FIGURES.len());
    // Writing to a string cannot fail.
    let _ = write!(text, "{table}");
    if report.more > 0 {
        let _ = writeln!(text, " ({} more: --limit)", report.more);
    }
    text.push('\n');
    if !report.under_way.is_empty() {
        let _ = writeln!(
            text,
            "under way at the end:\n{}",
            under_way(report.under_way)
        );
    }
    for line in summary(report) {
        let _ = writeln!(text, "{}", printable(&line));
    }
    if let Some(account) = report.account {
        text.push('\n');
        for line in account.lines() {
            let _ = writeln!(text, "{}", printable(&line));
        }
    }
    text
}

/// What connections are in the middle of.
fn under_way(all: &[UnderWay]) -> Columns {
    let header = [
        "state",
        "for",
        "transaction",
        "wait",
        "backend",
        "type",
        "client",
        "database",
        "user",
        "statement",
    ];
    let mut table = Columns::new(header);
    for one in all {
        let least = if one.is_at_least { "> " } else { "" };
        let number = |pid: Option<u32>| pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
        let name = |name: &Option<Arc<str>>| name.as_deref().unwrap_or("?").to_owned();
        table.row([
            one.state.to_owned(),
            format!("{least}{}", time(Some(one.age_ns))),
            time(one.transaction_ns),
            one.wait.unwrap_or("-").to_owned(),
            number(one.backend),
            one.kind.unwrap_or("?").to_owned(),
            number(one.client),
            name(&one.origin.database),
            name(&one.origin.user),
            shortened(&one.statement, TEXT_MAX).into_owned(),
        ]);
    }
    table
}

fn by_text(by: By) -> &'static str {
    match by {
        By::Database => "by database",
        By::User => "by user",
        By::Peer => "by peer",
        By::Application => "by application",
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
            .map(|transport| transport.text())
            .collect::<Vec<_>>()
            .join(" "),
        one_of(&figures.seen, |seen| &seen.databases),
        one_of(&figures.seen, |seen| &seen.users),
    ];
    if has_by {
        cells.push(row.by.unwrap_or("?").to_owned());
    }
    cells.push(shortened(&row.text, TEXT_MAX).into_owned());
    cells
}

/// `3 (23505 2, 57014 1)`
fn errors(figures: &Figures) -> String {
    let errors = figures.all_errors();
    if errors.is_empty() {
        return "-".to_owned();
    }
    let codes: Vec<String> = errors
        .iter()
        .map(|(code, count)| format!("{code} {count}"))
        .collect();
    format!("{} ({})", errors.values().sum::<u64>(), codes.join(", "))
}

fn one_of(seen: &Seen, values: impl Fn(&Seen) -> &BTreeSet<Arc<str>>) -> String {
    let values = values(seen);
    match (values.first(), values.len()) {
        (None, _) => "?".to_owned(),
        (Some(value), 1) => value.to_string(),
        (Some(_), count) => format!("{count} or more"),
    }
}

/// Transactions, connections and what else there is beside calls.
fn summary(report: &Report<'_>) -> Vec<String> {
    let mut lines = transactions(report);
    let statistics = report.statistics;
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
    if report.rows.iter().any(|row| row.side == Side::Client) {
        lines.push(
            "times at a client include its own, until it reads the answer, and the network's: the server's are seen at the \
             server"
                .to_owned(),
        );
    }
    lines.extend(connections(report));
    if statistics.cancels > 0 {
        lines.push(format!("cancel requests: {}", statistics.cancels));
    }
    lines
}

fn transactions(report: &Report<'_>) -> Vec<String> {
    let all = &report.statistics.transactions;
    if all.count() == 0 {
        return Vec::new();
    }
    let mut lines = vec![format!(
        "transactions of several round trips: {}, {} committed, {} rolled back, {} ended by disconnecting, {} open at \
         the end, {} on average; idle in transaction {}",
        all.count(),
        all.committed,
        all.rolled_back,
        all.disconnected,
        all.open,
        time(all.total_ns.checked_div(all.timed)),
        time(Some(all.idle_ns)),
    )];
    if let Some((ns, origin)) = &all.longest_idle {
        lines.push(format!(
            "longest idle in transaction: {}, {}",
            time(Some(*ns)),
            who(origin)
        ));
    }
    lines
}

fn connections(report: &Report<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let sessions = &report.statistics.sessions;
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
        && account.sockets.connections() > 0
    {
        let calls = report.statistics.calls;
        let tenths = calls * 10 / account.sockets.connections();
        lines.push(format!(
            "calls per connection: {}.{}",
            tenths / 10,
            tenths % 10
        ));
        lines.extend(churn(sessions.opened, calls, report.duration));
    }
    for (code, count) in &report.statistics.terminated {
        lines.push(format!(
            "connections ended by the server: {count} with {code}"
        ));
    }
    lines
}

/// What connections that are opened for a few calls each mean, in words.
fn churn(opened: u64, calls: u64, duration: Duration) -> Option<String> {
    /// Connections a second, and calls of each, from which on it is worth a word.
    const MANY_PER_SECOND: f64 = 2.0;
    const FEW_CALLS: u64 = 10;
    const ENOUGH: u64 = 10;
    let per_second = f64::from(u32::try_from(opened).ok()?) / duration.as_secs_f64().max(1e-9);
    let each = calls.checked_div(opened)?;
    (opened >= ENOUGH && per_second >= MANY_PER_SECOND && each < FEW_CALLS).then(|| {
        format!(
            "finding: {per_second:.1} connections/s are opened for {each} calls each: use a pool"
        )
    })
}

fn who(origin: &Origin) -> String {
    let known = |value: &Option<Arc<str>>| value.as_deref().unwrap_or("?").to_owned();
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
    let line = format!(
        "{at:.6} {} pid {} {}@{}: {shared}{}, {how}: {text}",
        side_text(origin.side),
        origin.pid,
        origin.user.as_deref().unwrap_or("?"),
        origin.database.as_deref().unwrap_or("?"),
        time(call.latency_ns),
    );
    format!("{}\n", printable(&line))
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

#[cfg(test)]
mod tests {
    use super::{bytes, event, render, time};
    use crate::postgres::{
        example::{call, with_report},
        origin::tests::origin,
        protocol::Statement,
    };

    /// The statement that took most comes first, what is left out is counted, and the account is below.
    #[test]
    fn report_reads_well() {
        let text = with_report(1, render);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "Postgres queries of app (pid 7) in 2.00 s");
        let words: Vec<&str> = lines[3].split_whitespace().collect();
        assert_eq!(&words[..2], ["98.3", "%"], "{text}");
        assert!(
            lines[3].ends_with("shop      bench  SELECT a, \"b\" FROM t"),
            "{text}"
        );
        for expected in [
            " (1 more: --limit)",
            "longest idle in transaction: 1.00 s, pid 7 (server), user bench, database shop, peer 10.0.0.7",
            "connections opened: 1, authentication 3.00 ms on average, 3.00 ms at most",
            "calls per connection: 5.0",
            "cancel requests: 1",
            "calls seen: 5",
            "without a latency, under way at the end: 1 calls",
            "lost: nothing",
        ] {
            assert!(lines.contains(&expected), "no `{expected}` in\n{text}");
        }
    }

    /// A line tells when, who, how long, what came of it and the statement.
    #[test]
    fn calls_have_a_line() {
        let line = event(&call(Statement::Empty, 12), &origin(), "SELECT $1", 0);
        assert_eq!(
            line,
            "1.000000 server pid 7 ?@?: 12.0 ms, 3 rows: SELECT $1\n"
        );
    }

    /// Figures have three digits or so.
    #[test]
    fn figures_are_short() {
        let times = [
            None,
            Some(999),
            Some(1_500_000),
            Some(15_000_000),
            Some(2_000_000_000),
        ];
        let texts = times.map(time);
        assert_eq!(texts, ["-", "1 µs", "1.50 ms", "15.0 ms", "2.00 s"]);
        assert_eq!(bytes(9_999), "9999 B");
        assert_eq!(bytes(10_000), "10 kB");
    }
}
