//! The table for people, and the account below it. Pure.

use std::{fmt::Write, time::Duration};

use profiler_common::syscalls::wanted;

use super::{
    report::{Report, Row},
    tally::Sum,
};
use crate::{output::columns::Columns, printable::printable};

/// Columns of figures.
const FIGURES: [&str; 10] = [
    "calls",
    "errors",
    "no return",
    "time",
    "wall %",
    "mean",
    "p50",
    "p95",
    "p99",
    "max",
];

/// Renders a report.
pub(super) fn render(report: &Report) -> String {
    let mut text = String::new();
    let seconds = report.duration.as_secs_f64();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "System calls of {} in {seconds:.2} s\n",
        printable(&report.title)
    );
    let labels = labels(report.wanted);
    let mut table = Columns::new(labels.iter().chain(&FIGURES).copied());
    for row in &report.rows {
        let cells = label_cells(row, report.wanted);
        table.row(cells.into_iter().chain(figures(&row.sum, report.duration)));
    }
    if report.more > 0 {
        table.row([format!("({} more)", report.more)]);
    }
    let mut last = vec!["total".to_owned()];
    last.resize(labels.len(), String::new());
    let total = figures(&report.total, report.duration);
    table.row(last.into_iter().chain(total));
    table.right(labels.len()..usize::MAX);
    let _ = write!(text, "{table}");
    if !report.errors.is_empty() {
        let mut errors = Columns::new(["call", "error", "times"]);
        for (call, error, times) in &report.errors {
            errors.row([call.clone(), error.clone(), times.to_string()]);
        }
        errors.right(2..3);
        let _ = write!(text, "\n{errors}");
    }
    if let Some(account) = &report.account {
        text.push('\n');
        for line in account.lines() {
            let _ = writeln!(text, "{}", printable(&line));
        }
    }
    text
}

fn labels(bits: u32) -> Vec<&'static str> {
    let mut labels = Vec::new();
    if bits & wanted::BY_THREAD != 0 {
        labels.push("thread");
    }
    labels.push("call");
    if bits & wanted::BY_DESCRIPTOR != 0 {
        labels.push("descriptor");
    }
    labels
}

fn label_cells(row: &Row, bits: u32) -> Vec<String> {
    let mut cells = Vec::new();
    if let Some((tid, name)) = &row.thread {
        cells.push(match tid {
            0 => name.clone(),
            _ => format!("{name} ({tid})"),
        });
    }
    cells.push(row.call.clone());
    if bits & wanted::BY_DESCRIPTOR != 0 {
        cells.push(match (&row.descriptor, row.pid) {
            (Some((number, text)), Some(pid)) => format!("{number} {text} (pid {pid})"),
            _ => String::new(),
        });
    }
    cells
}

fn figures(sum: &Sum, duration: Duration) -> Vec<String> {
    let known = |ns: Option<u64>| ns.map_or("-".to_owned(), time);
    let longest = (sum.cell.calls > 0).then_some(sum.cell.max_ns);
    vec![
        sum.returned().to_string(),
        or_dash(sum.cell.errors),
        or_dash(sum.not_returned()),
        time(sum.time_ns()),
        percent(sum.time_ns(), duration),
        known(sum.mean_ns()),
        known(sum.quantile_ns(50)),
        known(sum.quantile_ns(95)),
        known(sum.quantile_ns(99)),
        known(longest),
    ]
}

fn or_dash(count: u64) -> String {
    match count {
        0 => "-".to_owned(),
        _ => count.to_string(),
    }
}

/// Share of the recording: 100 % is one thread in the call all the time.
fn percent(ns: u64, duration: Duration) -> String {
    let whole = duration.as_secs_f64();
    if whole > 0.0 {
        let part = Duration::from_nanos(ns).as_secs_f64();
        format!("{:.2}", 100.0 * part / whole)
    } else {
        "-".to_owned()
    }
}

/// A time with three digits or so.
fn time(ns: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs")];
    for (unit, name) in UNITS {
        if ns >= unit {
            let (whole, thousandths) = (ns / unit, ns % unit * 1000 / unit);
            return match whole {
                100.. => format!("{whole} {name}"),
                10.. => format!("{whole}.{} {name}", thousandths / 100),
                _ => format!("{whole}.{:02} {name}", thousandths / 10),
            };
        }
    }
    format!("{ns} ns")
}

#[cfg(test)]
mod tests {
    use profiler_common::syscalls::wanted;

    use super::{super::report::tests::example, render, time};

    /// A report as people see it.
    #[test]
    fn table_has_rows_total_errors_and_account() {
        let text = render(&example(wanted::CALLS));
        let expected = "\
System calls of app (pid 7) in 1.00 s

 call      calls  errors  no return    time  wall %     mean      p50      p95      p99      max
 read          3       1          1  503 ms   50.30  1.00 ms  1.98 µs  3.00 ms  3.00 ms  3.00 ms
 getpid     1000       -          -  100 µs    0.01   100 ns    99 ns    99 ns    99 ns   100 ns
 (1 more)
 total      1003       1          2  503 ms   50.31  3.09 µs    99 ns    99 ns    99 ns  3.00 ms

 call  error   times
 read  EAGAIN      1

calls entered: 1005 calls
counted: 1005 calls
lost: 0 calls
own CPU time, profiler: 0.012 s
";
        assert_eq!(text, expected, "\n{text}");
        let text = render(&example(wanted::CALLS | wanted::BY_THREAD));
        assert!(text.contains("worker (8)"), "{text}");
    }

    /// Times keep three digits.
    #[test]
    fn times_are_short() {
        let texts = [0, 999, 1_000, 12_345, 123_456, 7_654_321, 65_000_000_000].map(time);
        assert_eq!(
            texts,
            [
                "0 ns", "999 ns", "1.00 µs", "12.3 µs", "123 µs", "7.65 ms", "65.0 s"
            ]
        );
    }
}
