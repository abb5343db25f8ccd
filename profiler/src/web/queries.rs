//! The table of queries of Postgres in a span of time. Pure.

use askama::Template;

use super::query::Query;
use crate::{
    daemon::store::{Span, instant_text},
    output::figures::grouped,
    postgres::shown::{Shown, ShownRow},
};

/// What the page shows.
#[derive(Template)]
#[template(path = "queries.html")]
pub(super) struct Table<'a> {
    query: &'a Query,
    begin: String,
    end: String,
    rows: Vec<Row<'a>>,
    further: usize,
    account: &'a [String],
}

struct Row<'a> {
    text: &'a str,
    side: &'static str,
    cells: Vec<Cell>,
}

/// A number as it is sorted and as it is read.
pub(super) struct Cell {
    pub(super) value: u64,
    pub(super) text: String,
}

impl<'a> Table<'a> {
    pub(super) fn of(query: &'a Query, span: Span, shown: &'a Shown) -> Self {
        Self {
            query,
            begin: instant_text(span.begin_ms),
            end: instant_text(span.end_ms),
            rows: shown.rows.iter().map(row).collect(),
            further: shown.more,
            account: &shown.account,
        }
    }
}

fn row(row: &ShownRow) -> Row<'_> {
    let share = format!("{}.{} %", row.share_permille / 10, row.share_permille % 10);
    let count = |value| cell(value, grouped(value));
    let mut cells = vec![cell(row.total_ns, share), count(row.calls)];
    cells.push(cell(row.total_ns, time(row.total_ns)));
    let latencies = row.latencies_ns.iter();
    cells
        .extend(latencies.map(|ns| cell(ns.unwrap_or(0), ns.map_or_else(|| "?".to_owned(), time))));
    cells.extend([count(row.rows), count(row.errors)]);
    Row {
        text: &row.text,
        side: row.side,
        cells,
    }
}

pub(super) fn cell(value: u64, text: String) -> Cell {
    Cell { value, text }
}

/// In milliseconds, so that a column reads as one.
pub(super) fn time(ns: u64) -> String {
    let us = ns / 1000;
    format!("{}.{:03} ms", grouped(us / 1000), us % 1000)
}

#[cfg(test)]
mod tests {
    use askama::Template;

    use super::{Query, Shown, ShownRow, Span, Table, time};

    /// A statement is text, also where it looks like markup, with the numbers by which it is sorted.
    #[test]
    fn statements_are_text() {
        let row = ShownRow {
            text: "select '<script>'".to_owned(),
            side: "server",
            share_permille: 1000,
            calls: 1234,
            errors: 2,
            rows: 3,
            total_ns: 5_000_000,
            latencies_ns: [Some(1_234_567), None, None, None, Some(9)],
        };
        let shown = Shown {
            rows: vec![row],
            ..Shown::default()
        };
        let span = Span {
            begin_ms: 0,
            end_ms: 1,
        };
        let page = Table::of(&Query::default(), span, &shown).render().unwrap();
        assert!(!page.contains("'<script>'"), "{page}");
        assert!(page.contains("data-value=\"1234567\">1.234 ms<"), "{page}");
        assert!(page.contains("data-value=\"1234\">1,234<") && page.contains(">?<"));
    }

    /// Milliseconds with microseconds.
    #[test]
    fn times_are_milliseconds() {
        assert_eq!(time(1_234_567_890), "1,234.567 ms");
        assert_eq!(time(999), "0.000 ms");
    }
}
