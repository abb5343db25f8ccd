//! The tables of queries, of connections and of system calls in a span of time. Pure.

use askama::Template;

use super::query::Query;
use crate::{
    output::figures::{bytes, grouped},
    postgres,
    store::{Span, instant_text},
    syscalls, tcp,
};

/// A table, and what belongs to it.
#[derive(Template)]
#[template(path = "table.html")]
pub(super) struct Page<'a> {
    query: &'a Query,
    begin: String,
    end: String,
    /// Its address, what it is of, and its heading.
    path: &'static str,
    what: &'static str,
    heading: &'static str,
    /// In the place of rows where there are none, and what they are called.
    nothing: &'static str,
    rows_are: &'static str,
    /// Whether whose rows are shown can be chosen. The other's last column is a statement.
    has_processes: bool,
    /// The section of the configuration that it wants, and the command that has all of it.
    section: &'static str,
    /// Of the columns, the first of which order it.
    columns: &'static [&'static str],
    /// Of the columns behind them, which are text.
    labels: &'static [&'static str],
    rows: Vec<Row<'a>>,
    further: usize,
    /// Counts below it.
    counts: Vec<(String, String)>,
    findings: &'a [String],
    account: &'a [String],
}

struct Row<'a> {
    cells: Vec<Cell>,
    labels: Vec<&'a str>,
}

/// A number as it is sorted and as it is read.
struct Cell {
    value: u64,
    text: String,
}

/// Calls of Postgres by statement.
pub(super) fn statements<'a>(
    query: &'a Query,
    span: Span,
    shown: &'a postgres::shown::Shown,
) -> Page<'a> {
    Page {
        path: "/queries",
        what: "queries of Postgres",
        heading: "Statements",
        section: "queries",
        nothing: "No calls of this time were kept.",
        rows_are: "statements",
        has_processes: false,
        columns: &[
            "share", "calls", "total", "mean", "p50", "p95", "p99", "max", "rows", "errors",
        ],
        labels: &["seen at", "statement"],
        rows: shown.rows.iter().map(statement).collect(),
        further: shown.more,
        account: &shown.account,
        ..empty(query, span)
    }
}

/// Connections by peer.
pub(super) fn connections<'a>(
    query: &'a Query,
    span: Span,
    shown: &'a tcp::shown::Shown,
) -> Page<'a> {
    let ends = shown.ends.iter();
    Page {
        path: "/tcp",
        what: "TCP connections",
        heading: "TCP connections",
        section: "tcp",
        columns: &[
            "begun",
            "failed",
            "reset",
            "open",
            "life p50",
            "life p95",
            "connect p50",
            "connect p95",
            "sent",
            "received",
            "resent",
        ],
        labels: &["side", "peer"],
        rows: shown.rows.iter().map(connection).collect(),
        further: shown.more,
        counts: ends
            .map(|(end, count)| (end.clone(), grouped(*count)))
            .collect(),
        findings: &shown.findings,
        account: &shown.account,
        ..empty(query, span)
    }
}

/// System calls by name.
pub(super) fn calls<'a>(
    query: &'a Query,
    span: Span,
    shown: &'a syscalls::shown::Shown,
) -> Page<'a> {
    let errors = shown.errors.iter();
    Page {
        path: "/syscalls",
        what: "System calls",
        heading: "System calls",
        section: "syscalls",
        columns: &[
            "time",
            "calls",
            "errors",
            "no return",
            "mean",
            "p50",
            "p95",
            "p99",
            "max",
        ],
        labels: &["call"],
        rows: shown.rows.iter().map(call).collect(),
        further: shown.more,
        counts: errors
            .map(|(call, error, times)| (format!("{call}: {error}"), grouped(*times)))
            .collect(),
        account: &shown.account,
        ..empty(query, span)
    }
}

fn empty(query: &Query, span: Span) -> Page<'_> {
    Page {
        query,
        begin: instant_text(span.begin_ms),
        end: instant_text(span.end_ms),
        path: "",
        what: "",
        heading: "",
        nothing: "Nothing of this time was kept.",
        rows_are: "rows",
        has_processes: true,
        section: "",
        columns: &[],
        labels: &[],
        rows: Vec::new(),
        further: 0,
        counts: Vec::new(),
        findings: &[],
        account: &[],
    }
}

fn statement(row: &postgres::shown::ShownRow) -> Row<'_> {
    let share = format!("{}.{} %", row.share_permille / 10, row.share_permille % 10);
    let mut cells = vec![cell(row.total_ns, share), number(row.calls)];
    cells.push(cell(row.total_ns, time(row.total_ns)));
    cells.extend(row.latencies_ns.iter().map(|ns| known(*ns)));
    cells.extend([row.rows, row.errors].map(number));
    Row {
        cells,
        labels: vec![row.side, &row.text],
    }
}

fn connection(row: &tcp::shown::ShownRow) -> Row<'_> {
    let mut cells: Vec<Cell> = row.counts.iter().map(|count| number(*count)).collect();
    cells.extend(row.times_ns.iter().map(|ns| known(*ns)));
    cells.extend(row.bytes.iter().map(|count| cell(*count, bytes(*count))));
    cells.push(number(row.retransmits));
    Row {
        cells,
        labels: vec![row.role, &row.peer],
    }
}

fn call(row: &syscalls::shown::ShownRow) -> Row<'_> {
    let mut cells = vec![cell(row.time_ns, time(row.time_ns))];
    cells.extend([row.calls, row.errors, row.not_returned].map(number));
    cells.extend(row.latencies_ns.iter().map(|ns| known(*ns)));
    Row {
        cells,
        labels: vec![&row.call],
    }
}

fn number(count: u64) -> Cell {
    cell(count, grouped(count))
}

fn cell(value: u64, text: String) -> Cell {
    Cell { value, text }
}

/// In milliseconds, so that a column reads as one.
fn time(ns: u64) -> String {
    let us = ns / 1000;
    format!("{}.{:03} ms", grouped(us / 1000), us % 1000)
}

fn known(ns: Option<u64>) -> Cell {
    cell(ns.unwrap_or(0), ns.map_or_else(|| "?".to_owned(), time))
}

#[cfg(test)]
mod tests {
    use askama::Template;

    use super::{Query, Span, calls, connections, statements, time};
    use crate::{
        postgres::shown::{Shown as Statements, ShownRow as Statement},
        syscalls::shown::{Shown as Calls, ShownRow as Call},
        tcp::shown::{Shown as Connections, ShownRow as Connection},
    };

    const SPAN: Span = Span {
        begin_ms: 0,
        end_ms: 1,
    };

    /// Every row has a cell for each column, with the numbers by which it is sorted.
    #[test]
    fn rows_fit_their_columns() {
        let query = Query::default();
        let of_calls = Calls {
            rows: vec![Call {
                call: "read".to_owned(),
                calls: 1234,
                errors: 2,
                not_returned: 1,
                time_ns: 5_000_000,
                latencies_ns: [Some(1_234_567), None, None, None, None],
            }],
            errors: vec![("read".to_owned(), "EAGAIN".to_owned(), 2)],
            ..Calls::default()
        };
        let of_connections = Connections {
            rows: vec![Connection {
                peer: "<b>:5432".to_owned(),
                role: "client",
                counts: [1234, 1, 0, 7],
                times_ns: [None, None, Some(1_234_567), None],
                bytes: [10, 20],
                retransmits: 3,
            }],
            ..Connections::default()
        };
        let of_statements = Statements {
            rows: vec![Statement {
                text: "select '<b>'".to_owned(),
                side: "server",
                share_permille: 1000,
                calls: 1234,
                errors: 2,
                rows: 3,
                total_ns: 5_000_000,
                latencies_ns: [Some(1_234_567), None, None, None, Some(9)],
            }],
            ..Statements::default()
        };
        let pages = [
            statements(&query, SPAN, &of_statements),
            calls(&query, SPAN, &of_calls),
            connections(&query, SPAN, &of_connections),
        ];
        for page in pages {
            assert_eq!(page.rows[0].cells.len(), page.columns.len());
            assert_eq!(page.rows[0].labels.len(), page.labels.len());
            let text = page.render().unwrap();
            assert!(text.contains("data-value=\"1234\">1,234<"), "{text}");
            assert!(text.contains("data-value=\"1234567\">1.234 ms<"), "{text}");
            assert!(text.contains(">?<") && !text.contains("<b>"), "{text}");
            // Whose is asked where that is known; a statement has room.
            assert_eq!(text.contains("name=\"pid\""), page.has_processes);
            assert_eq!(text.contains("class=\"statement\""), !page.has_processes);
        }
    }

    /// Milliseconds with microseconds.
    #[test]
    fn times_are_milliseconds() {
        assert_eq!(time(1_234_567_890), "1,234.567 ms");
        assert_eq!(time(999), "0.000 ms");
    }

    /// Where nothing was kept the page says what turns it on.
    #[test]
    fn nothing_kept_says_what_to_do() {
        let query = Query::default();
        let text = connections(&query, SPAN, &Connections::default())
            .render()
            .unwrap();
        assert!(text.contains("[tcp] in the configuration"), "{text}");
    }
}
