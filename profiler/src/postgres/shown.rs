//! What the daemon has kept of queries, as plain rows for a page.

use std::path::Path;

use super::{
    figures::Figures,
    history::sum,
    origin::side_text,
    report::{self, Selection, SortBy},
};
use crate::{error::Error, store::Span};

/// Most rows of a page.
const ROWS_MAX: usize = 200;

/// Statements of a span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// By time of all their calls, the longest first.
    pub(crate) rows: Vec<ShownRow>,
    /// Statements that are not among them.
    pub(crate) more: usize,
    /// What became of everything, a fact a line.
    pub(crate) account: Vec<String>,
}

/// A statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShownRow {
    /// Its normal form, or in angle brackets what it is instead.
    pub(crate) text: String,
    /// Where it was seen: at the client or at the server.
    pub(crate) side: &'static str,
    /// Of the time of all calls of its side, in tenths of a per cent.
    pub(crate) share_permille: u64,
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    /// Returned or affected.
    pub(crate) rows: u64,
    pub(crate) total_ns: u64,
    /// Mean, p50, p95, p99 and longest, where they are known.
    pub(crate) latencies_ns: [Option<u64>; 5],
}

/// Adds up the windows of a span, as long as the caller says to go on; `None` where that was not long enough.
pub(crate) fn of_span(
    state: &Path,
    span: Span,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Option<Shown>, Error> {
    let Some(sum) = sum(state, span, go_on)? else {
        return Ok(None);
    };
    let selection = Selection {
        sort: SortBy::Time,
        limit: ROWS_MAX,
        min_calls: 0,
        by: None,
    };
    let (rows, more) = report::rows(&sum.statistics, &sum.texts, selection);
    let rows = rows.into_iter().map(|row| ShownRow {
        side: side_text(row.side),
        share_permille: row.share_permille,
        calls: row.figures.all_calls(),
        errors: row.figures.all_errors().values().sum(),
        rows: row.figures.rows,
        total_ns: row.figures.total_ns,
        latencies_ns: latencies(row.figures),
        text: row.text,
    });
    Ok(Some(Shown {
        rows: rows.collect(),
        more,
        account: sum.account.lines(),
    }))
}

fn latencies(figures: &Figures) -> [Option<u64>; 5] {
    [
        figures.mean_ns(),
        figures.quantile_ns(50),
        figures.quantile_ns(95),
        figures.quantile_ns(99),
        figures.longest_ns(),
    ]
}
