//! Metrics of statements: calls, rows, errors and latencies, by fingerprint and side. Pure.

use std::fmt;

use prometheus_client::{
    collector::Collector,
    encoding::DescriptorEncoder,
    metrics::MetricType,
    registry::{Registry, Unit},
};

use super::metrics::{Labels, Section};
use crate::{
    postgres::{latencies::BOUNDS_NS, totals::Shown},
    printable::printable,
};

/// Adds them, where there are any.
pub(super) fn register(registry: &mut Registry, shown: &[Shown]) {
    if shown.is_empty() {
        return;
    }
    let mut section = Section(registry);
    let each = |value: fn(&Shown) -> u64| shown.iter().map(move |one| (labels(one), value(one)));
    let help = "Calls of Postgres, however they ended; statements that have no series of their own are fingerprint=\"other\"";
    let calls = each(|one| one.sums.calls);
    section.counters("postgres_query_calls", help, calls.collect());
    let help = "Rows that these calls returned or affected";
    let rows = each(|one| one.sums.rows);
    section.counters("postgres_query_rows", help, rows.collect());
    let errors = shown.iter().flat_map(|one| {
        one.sums.errors.iter().map(|(class, count)| {
            let mut labels = labels(one);
            labels.push(("sqlstate_class", class.clone()));
            (labels, *count)
        })
    });
    let help = "Errors of calls and of preparing, by the class of their SQLSTATE";
    section.counters("postgres_query_errors", help, errors.collect());
    let texts = shown.iter().filter_map(|one| {
        let mut labels = labels(one);
        labels.push(("query", printable(one.text.as_ref()?).into_owned()));
        Some((labels, 1))
    });
    let help = "Normal form of a statement, without its values";
    section.gauges("postgres_query_info", help, texts.collect());
    registry.register_collector(Box::new(Durations(shown.to_vec())));
}

fn labels(shown: &Shown) -> Labels {
    vec![
        ("fingerprint", shown.fingerprint.clone()),
        ("side", shown.side.to_owned()),
    ]
}

/// The histograms: what is kept of them is sums by bucket already.
#[derive(Debug)]
struct Durations(Vec<Shown>);

impl Collector for Durations {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Latency of calls that ended in sight each by itself, failed ones among them; bounds are right to 1 %";
        let mut family = encoder.encode_descriptor(
            "postgres_query_duration",
            help,
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        let bounds = BOUNDS_NS.iter().map(|bound| seconds(*bound));
        let bounds: Vec<f64> = bounds.chain([f64::INFINITY]).collect();
        for one in &self.0 {
            let latencies = &one.sums.latencies;
            let counts = latencies.buckets().iter().copied();
            let buckets: Vec<(f64, u64)> = bounds.iter().copied().zip(counts).collect();
            let (sum, calls) = (seconds(latencies.sum_ns), latencies.calls());
            let labels = labels(one);
            let mut metric = family.encode_family(&labels)?;
            metric.encode_histogram::<Labels>(sum, calls, &buckets, None)?;
        }
        Ok(())
    }
}

/// Exact to a microsecond for a hundred years of latencies.
#[expect(clippy::cast_precision_loss, reason = "as the comment says")]
fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        process::{Command, Stdio},
        time::Duration,
    };

    use super::Shown;
    use crate::{
        daemon::status::Snapshot,
        postgres::{example, totals::Totals},
        web::{
            metrics::{render, to_text},
            own::Own,
        },
    };

    fn shown(top: usize) -> Vec<Shown> {
        let mut totals = Totals::default();
        totals.set_top(top);
        totals.add(&example::stored(Duration::ZERO));
        totals.shown()
    }

    fn text(shown: &[Shown]) -> String {
        render(&Snapshot::default(), &[], shown, &Own::default()).unwrap()
    }

    /// Three calls of 10, 20 and 30 ms stand in their buckets under the fingerprint, the text in a series of its own.
    #[test]
    fn statements_have_series() {
        let shown = shown(10);
        let text = text(&shown);
        let select = shown.iter().find(|one| one.sums.rows == 9).unwrap();
        let labels = format!("fingerprint=\"{}\",side=\"server\"", select.fingerprint);
        for line in [
            "# TYPE postgres_query_duration_seconds histogram".to_owned(),
            format!("postgres_query_duration_seconds_sum{{{labels}}} 0.06"),
            format!("postgres_query_duration_seconds_count{{{labels}}} 3"),
            format!("postgres_query_duration_seconds_bucket{{le=\"0.005\",{labels}}} 0"),
            format!("postgres_query_duration_seconds_bucket{{le=\"0.01\",{labels}}} 1"),
            format!("postgres_query_duration_seconds_bucket{{le=\"0.05\",{labels}}} 3"),
            format!("postgres_query_duration_seconds_bucket{{le=\"+Inf\",{labels}}} 3"),
            format!("postgres_query_calls_total{{{labels}}} 3"),
            format!("postgres_query_info{{{labels},query=\"SELECT a, \\\"b\\\" FROM t\"}} 1.0"),
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "no {line} in\n{text}"
            );
        }
        assert!(text.contains("sqlstate_class=\"23\"} 1\n"), "{text}");
    }

    /// No statement's text is a label but of the info series, and without places nothing has a fingerprint.
    #[test]
    fn cardinality_is_bounded() {
        let text = text(&shown(0));
        assert!(!text.contains("SELECT") && !text.contains("postgres_query_info{"));
        assert!(
            text.contains("postgres_query_calls_total{fingerprint=\"other\",side=\"server\"} 5")
        );
    }

    /// Prometheus' own tool finds nothing to complain of.
    #[test]
    fn promtool_accepts_statements() {
        let text = to_text(&text(&shown(1)));
        let promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut promtool) = promtool else {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "no promtool here"
            );
            println!("skipped: no promtool here");
            return;
        };
        promtool
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
        let output = promtool.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.is_empty(),
            "{said}\nof\n{text}"
        );
    }
}
