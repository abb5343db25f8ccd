//! The report as comma-separated values (RFC 4180), a line for each statement; times in ns; an absent figure is an empty
//! field, several values of one are separated by blanks. The account follows in lines that begin with `#`. Pure.

use std::fmt::Write;

use super::{
    origin::side_text,
    report::{Report, Row},
};
use crate::{output::csv::field, printable::printable};

const HEADER: &str = "statement,fingerprint,side,by,via,databases,users,impact_permille,calls,errors,skipped,aborted,\
                      unfinished,unseen,shared,total_ns,mean_ns,p50_ns,p95_ns,p99_ns,max_ns,first_row_ns,wait_ns,\
                      ready_ns,rows,sent,received,fetches,copied_in,copied_out,prepares,prepares_ns,prepares_failed,queryid";

/// Renders a report.
pub(super) fn render(report: &Report<'_>) -> String {
    let mut text = format!("{HEADER}\n");
    for row in &report.rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{},{}", labels(row), figures(row));
    }
    for line in report.account.iter().flat_map(|account| account.lines()) {
        let _ = writeln!(text, "# {}", printable(&line));
    }
    text
}

fn labels(row: &Row<'_>) -> String {
    let seen = &row.figures.seen;
    let several = |values: &std::collections::BTreeSet<std::sync::Arc<str>>| {
        let values: Vec<&str> = values.iter().map(AsRef::as_ref).collect();
        field(&values.join(" "))
    };
    [
        field(&row.text),
        row.fingerprint
            .map(|fingerprint| fingerprint.to_string())
            .unwrap_or_default(),
        side_text(row.side).to_owned(),
        field(row.by.unwrap_or_default()),
        seen.transports
            .iter()
            .map(|transport| transport.text())
            .collect::<Vec<_>>()
            .join(" "),
        several(&seen.databases),
        several(&seen.users),
    ]
    .join(",")
}

fn figures(row: &Row<'_>) -> String {
    let figures = row.figures;
    let known = |figure: Option<u64>| figure.map(|figure| figure.to_string()).unwrap_or_default();
    [
        row.share_permille.to_string(),
        figures.calls.to_string(),
        figures.failed().to_string(),
        figures.skipped.to_string(),
        figures.aborted.to_string(),
        figures.unfinished.to_string(),
        figures.unseen.to_string(),
        figures.shared.to_string(),
        figures.total_ns.to_string(),
        known(figures.mean_ns()),
        known(figures.quantile_ns(50)),
        known(figures.quantile_ns(95)),
        known(figures.quantile_ns(99)),
        known(figures.longest_ns()),
        known(figures.mean_first_row_ns()),
        figures.wait_ns.to_string(),
        figures.ready_ns.to_string(),
        figures.rows.to_string(),
        figures.sent.to_string(),
        figures.received.to_string(),
        figures.fetches.to_string(),
        figures.copied_in.to_string(),
        figures.copied_out.to_string(),
        figures.prepares.to_string(),
        figures.prepares_ns.to_string(),
        figures.prepares_failed.values().sum::<u64>().to_string(),
        row.query_id.map(|id| id.to_string()).unwrap_or_default(),
    ]
    .join(",")
}

#[cfg(test)]
mod tests {
    use super::{HEADER, render};
    use crate::postgres::example::with_report;

    /// Every line has a field for each column, texts are quoted, and the account is a comment.
    #[test]
    fn rows_fit_the_header() {
        let text = with_report(10, render);
        let (comments, rows): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|line| line.starts_with('#'));
        assert_eq!(rows[0], HEADER);
        let quoted = "\"SELECT a, \"\"b\"\" FROM t\",";
        let rest = rows[1].strip_prefix(quoted).expect(rows[1]);
        let commas = |text: &str| text.matches(',').count();
        assert_eq!(commas(rest) + 1, commas(HEADER));
        assert!(
            rows[2].starts_with("INSERT INTO t VALUES ($1),"),
            "{}",
            rows[2]
        );
        assert_eq!(commas(rows[2]), commas(HEADER));
        assert!(comments.contains(&"# calls seen: 5"), "{comments:?}");
    }
}
