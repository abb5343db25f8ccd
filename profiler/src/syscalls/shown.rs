//! What the daemon has kept of system calls, as plain rows for a page.

use std::path::Path;

use super::{
    SortBy,
    history::{report, sum},
    report::Row,
};
use crate::{
    error::Error,
    store::{Span, Who},
};

/// Most rows of a page, and most errors.
const ROWS_MAX: usize = 200;

/// Calls of a span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// By time, the longest first.
    pub(crate) rows: Vec<ShownRow>,
    /// Calls that are not among them.
    pub(crate) more: usize,
    /// The call, the error, how often.
    pub(crate) errors: Vec<(String, String, u64)>,
    /// What became of everything, a fact a line.
    pub(crate) account: Vec<String>,
}

/// All calls of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShownRow {
    pub(crate) call: String,
    /// Those that returned.
    pub(crate) calls: u64,
    pub(crate) errors: u64,
    /// Those that did not.
    pub(crate) not_returned: u64,
    pub(crate) time_ns: u64,
    /// Mean, p50, p95, p99 and longest, where they are known.
    pub(crate) latencies_ns: [Option<u64>; 5],
}

/// Adds up the windows of a span, as long as the caller says to go on; `None` where that was not long enough.
pub(crate) fn of_span(
    state: &Path,
    span: Span,
    who: &Who,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Option<Shown>, Error> {
    let Some(sum) = sum(state, span, who, go_on)? else {
        return Ok(None);
    };
    let mut report = report(sum, SortBy::Time, Some(ROWS_MAX));
    report.errors.truncate(ROWS_MAX);
    Ok(Some(Shown {
        rows: report.rows.iter().map(row).collect(),
        more: report.more,
        errors: report.errors,
        account: report
            .account
            .map(|account| account.lines())
            .unwrap_or_default(),
    }))
}

fn row(row: &Row) -> ShownRow {
    let sum = &row.sum;
    ShownRow {
        call: row.call.clone(),
        calls: sum.returned(),
        errors: sum.cell.errors,
        not_returned: sum.not_returned(),
        time_ns: sum.time_ns(),
        latencies_ns: [
            sum.mean_ns(),
            sum.quantile_ns(50),
            sum.quantile_ns(95),
            sum.quantile_ns(99),
            (sum.cell.calls > 0).then_some(sum.cell.max_ns),
        ],
    }
}
