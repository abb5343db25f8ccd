//! The report as comma-separated values (RFC 4180), times in ns; an absent figure is an empty field. The account
//! follows in lines that begin with `#`. Pure.

use std::fmt::Write;

use super::{report::Report, tally::Sum};
use crate::{output::csv::field, printable::printable};

const HEADER: &str = "call,pid,tid,thread,descriptor,file,returned,whole,before,errors,ended,open,time_ns,mean_ns,\
                      p50_ns,p95_ns,p99_ns,max_ns";

/// Renders a report.
pub(super) fn render(report: &Report) -> String {
    let mut text = format!("{HEADER}\n");
    for row in &report.rows {
        let (tid, thread) = row.thread.as_ref().map_or((None, ""), |(tid, name)| {
            (Some(u64::from(*tid)), name.as_str())
        });
        let (number, file) = row
            .descriptor
            .as_ref()
            .map_or((String::new(), ""), |(number, text)| {
                (number.to_string(), text.as_str())
            });
        let fields = [
            field(&row.call),
            number_or_none(row.pid.map(u64::from)),
            number_or_none(tid),
            field(thread),
            number,
            field(file),
        ];
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{},{}", fields.join(","), figures(&row.sum));
    }
    for (call, error, times) in &report.errors {
        let _ = writeln!(text, "# error {call} {error}: {times} times");
    }
    if report.more > 0 {
        let _ = writeln!(text, "# rows left out by --limit: {}", report.more);
    }
    for line in report
        .account
        .iter()
        .flat_map(super::account::Account::lines)
    {
        let _ = writeln!(text, "# {}", printable(&line));
    }
    text
}

fn figures(sum: &Sum) -> String {
    let cell = &sum.cell;
    let fields = [
        Some(sum.returned()),
        Some(cell.calls),
        Some(cell.before),
        Some(cell.errors),
        Some(cell.ended),
        Some(sum.open),
        Some(sum.time_ns()),
        sum.mean_ns(),
        sum.quantile_ns(50),
        sum.quantile_ns(95),
        sum.quantile_ns(99),
        (cell.calls > 0).then_some(cell.max_ns),
    ];
    fields.map(number_or_none).join(",")
}

fn number_or_none(number: Option<u64>) -> String {
    number.map_or_else(String::new, |number| number.to_string())
}

#[cfg(test)]
mod tests {
    use profiler_common::syscalls::wanted;

    use super::{super::report::tests::example, HEADER, render};

    /// Every row has a field for each column, and the account is a comment.
    #[test]
    fn rows_fit_the_header() {
        let text = render(&example(wanted::CALLS));
        let (comments, rows): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with('#'));
        let commas = |line: &str| line.matches(',').count();
        assert!(rows.iter().all(|row| commas(row) == commas(HEADER)));
        assert_eq!(
            rows[2],
            "getpid,,,,,,1000,1000,0,0,0,0,100000,100,99,99,99,100"
        );
        assert!(comments.contains(&"# lost: 0 calls"));
    }
}
