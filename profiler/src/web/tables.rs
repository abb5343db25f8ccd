//! The tables of connections and of system calls in a span of time. Pure.

use askama::Template;

use super::{
    queries::{Cell, cell, time},
    query::Query,
};
use crate::{
    daemon::store::{Span, instant_text},
    output::figures::{bytes, grouped},
    syscalls, tcp,
};

/// A table, and what belongs to it.
#[derive(Template)]
#[template(path = "table.html")]
pub(super) struct Page<'a> {
    query: &'a Query,
    begin: String,
    end: String,
    /// Its address and its heading.
    path: &'static str,
    heading: &'static str,
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

/// Connections by peer.
pub(super) fn connections<'a>(
    query: &'a Query,
    span: Span,
    shown: &'a tcp::shown::Shown,
) -> Page<'a> {
    let ends = shown.ends.iter();
    Page {
        path: "/tcp",
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
        heading: "",
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

fn known(ns: Option<u64>) -> Cell {
    cell(ns.unwrap_or(0), ns.map_or_else(|| "?".to_owned(), time))
}

#[cfg(test)]
mod tests {
    use askama::Template;

    use super::{Query, Span, calls, connections};
    use crate::{
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
        let pages = [
            calls(&query, SPAN, &of_calls),
            connections(&query, SPAN, &of_connections),
        ];
        for page in pages {
            assert_eq!(page.rows[0].cells.len(), page.columns.len());
            assert_eq!(page.rows[0].labels.len(), page.labels.len());
            let text = page.render().unwrap();
            assert!(text.contains("data-value=\"1234\">1,234<"), "{text}");
            assert!(text.contains("data-value=\"1234567\">1.234 ms<"), "{text}");
            assert!(!text.contains("<b>"), "{text}");
        }
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
