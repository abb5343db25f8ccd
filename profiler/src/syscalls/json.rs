//! The report for programs. Pure.
//!
//! One object: `version` (1), `title`, `duration_ns`; `calls`, a list of objects in the order of the table, with
//! `call` (name), `number`, `pid`, `tid`, `thread`, `descriptor` and `file` (null where not told apart), and the
//! figures below; `more`, how many rows `--limit` left out; `total`, the figures of all rows; `errors`, a list of
//! `call`, `error`, `times`; `account`.
//!
//! Figures: `returned` = `whole` (seen from entry to return; `mean_ns`, the quantiles, `max_ns` and `histogram` are
//! of these) + `before` (under way when the recording began); `errors`; `ended` (the thread ended in it) and `open`
//! (still in it at the end); `time_ns` of all of them within the recording, and in parts. Quantiles are right to a
//! sixteenth; `max_ns` and the sums are exact. `histogram` lists pairs of a bucket's least time in ns and its count.

use std::time::Duration;

use profiler_common::syscalls::bucket_begin;
use serde_json::{Value, json};

use super::{
    account::Account,
    report::{Report, Row},
    tally::Sum,
};
use crate::{output::OutputError, printable::pretty_json};

/// Renders a report.
pub(super) fn render(report: &Report) -> Result<String, OutputError> {
    let value = json!({
        "version": 1,
        "title": report.title,
        "duration_ns": ns(report.duration),
        "calls": report.rows.iter().map(row).collect::<Vec<_>>(),
        "more": report.more,
        "total": figures(&report.total),
        "errors": report.errors.iter().map(|(call, error, times)| {
            json!({"call": call, "error": error, "times": times})
        }).collect::<Vec<_>>(),
        "account": report.account.as_ref().map(account),
    });
    Ok(pretty_json(&value)?)
}

fn row(row: &Row) -> Value {
    let mut value = json!({
        "call": row.call,
        "number": row.number,
        "pid": row.pid,
        "tid": row.thread.as_ref().map(|(tid, _)| tid),
        "thread": row.thread.as_ref().map(|(_, name)| name),
        "descriptor": row.descriptor.as_ref().map(|(number, _)| number),
        "file": row.descriptor.as_ref().map(|(_, text)| text),
    });
    if let (Value::Object(value), Value::Object(more)) = (&mut value, figures(&row.sum)) {
        value.extend(more);
    }
    value
}

fn figures(sum: &Sum) -> Value {
    let cell = &sum.cell;
    let buckets = cell.histogram.iter().enumerate();
    let histogram: Vec<(u64, u64)> = buckets
        .filter(|(_, count)| **count > 0)
        .map(|(index, count)| (bucket_begin(index), *count))
        .collect();
    json!({
        "returned": sum.returned(),
        "whole": cell.calls,
        "before": cell.before,
        "errors": cell.errors,
        "ended": cell.ended,
        "open": sum.open,
        "time_ns": sum.time_ns(),
        "whole_ns": cell.total_ns,
        "before_ns": cell.before_ns,
        "ended_ns": cell.ended_ns,
        "open_ns": sum.open_ns,
        "mean_ns": sum.mean_ns(),
        "p50_ns": sum.quantile_ns(50),
        "p95_ns": sum.quantile_ns(95),
        "p99_ns": sum.quantile_ns(99),
        "max_ns": (cell.calls > 0).then_some(cell.max_ns),
        "histogram": histogram,
    })
}

fn account(account: &Account) -> Value {
    json!({
        "entered": account.entered,
        "counted": account.counted,
        "lost": account.lost,
        "notes": account.notes,
        "cost": {
            "bpf_ns": account.bpf.map(ns),
            "process_ns": ns(account.process),
        },
    })
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use profiler_common::syscalls::wanted;
    use serde_json::{Value, json};

    use super::{super::report::tests::example, render};

    /// The figures add up and the names are those documented.
    #[test]
    fn figures_add_up() {
        let text = render(&example(wanted::CALLS | wanted::BY_THREAD)).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let read = &value["calls"][0];
        assert_eq!(
            (&read["call"], &read["thread"]),
            (&json!("read"), &json!("worker"))
        );
        assert_eq!(
            (&read["returned"], &read["open"], &read["time_ns"]),
            (&json!(3), &json!(1), &json!(503_003_000))
        );
        assert_eq!(read["histogram"].as_array().unwrap().len(), 3);
        assert_eq!(value["account"]["entered"], 1005);
        assert_eq!(value["errors"][0]["error"], "EAGAIN");
    }
}
