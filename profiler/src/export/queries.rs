//! A window of queries as a request of OTLP's metrics signal, by the semantic conventions for databases (1.44). Pure.
//!
//! What clients saw is `db.client.operation.duration`. The conventions have no name for what a server saw: that is
//! `postgres.query.duration`, with the same attributes. Calls, rows and errors are counters of our own. All points are
//! of the window alone (delta temporality).

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{InstrumentationScope, KeyValue, any_value::Value},
    metrics::v1::{
        AggregationTemporality, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
    },
};

use super::otlp::{key_value, nanoseconds, resource, signed, text};
use crate::{
    postgres::{
        Window,
        latencies::Latencies,
        measured::Measured,
        protocol::{Side, SqlState},
        sql::{Fingerprint, summary},
    },
    store::Table,
};

/// Most statements of a window that are sent each for itself: those with the most time. The others are one.
const STATEMENTS_MAX: usize = 500;
/// Longest text of a statement, in characters.
const TEXT_MAX: usize = 2000;

/// Bounds of the buckets that the conventions advise, s, and in ns.
const BOUNDS: [(f64, u64); 9] = [
    (0.001, 1_000_000),
    (0.005, 5_000_000),
    (0.01, 10_000_000),
    (0.05, 50_000_000),
    (0.1, 100_000_000),
    (0.5, 500_000_000),
    (1.0, 1_000_000_000),
    (5.0, 5_000_000_000),
    (10.0, 10_000_000_000),
];

const SCHEMA: &str = "https://opentelemetry.io/schemas/1.44.0";

/// The request; none for a window without a statement. `started` is its begin after the Unix epoch.
pub(super) fn request(
    window: &Window,
    started: Duration,
    host: &str,
) -> Option<ExportMetricsServiceRequest> {
    let times = Times {
        begin: nanoseconds(started),
        end: nanoseconds(started + window.duration()),
    };
    let sides = [Side::Client, Side::Server].into_iter();
    let scopes: Vec<ScopeMetrics> = sides
        .filter_map(|side| scope(window, side, times))
        .collect();
    if scopes.is_empty() {
        return None;
    }
    Some(ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource(window.title(), host)),
            scope_metrics: scopes,
            schema_url: SCHEMA.to_owned(),
        }],
    })
}

/// Of a window, ns after the Unix epoch.
#[derive(Clone, Copy)]
struct Times {
    begin: u64,
    end: u64,
}

/// Whose figures are one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Identity {
    Statement(Fingerprint),
    /// Its text was not seen.
    Unknown,
    /// It is one of too many.
    Overflow,
}

/// What becomes points with the same attributes.
#[derive(Default)]
struct Group {
    attributes: Vec<KeyValue>,
    calls: u64,
    rows: u64,
    errors: BTreeMap<SqlState, u64>,
    latencies: Latencies,
    failed: BTreeMap<SqlState, Latencies>,
}

impl Group {
    fn add(&mut self, measured: &Measured<'_>) {
        self.calls += measured.calls();
        self.rows += measured.rows();
        for (code, count) in measured.errors() {
            *self.errors.entry(code).or_default() += count;
        }
        self.latencies.add(&measured.latencies());
        for (code, latencies) in measured.failed() {
            self.failed.entry(*code).or_default().add(latencies);
        }
    }
}

fn scope(window: &Window, side: Side, times: Times) -> Option<ScopeMetrics> {
    let groups = groups(window, side);
    if groups.is_empty() {
        return None;
    }
    let (scope, duration, what) = match side {
        Side::Client => (
            "profiler.postgres.client",
            "db.client.operation.duration",
            "Duration of database client operations.",
        ),
        Side::Server => (
            "profiler.postgres.server",
            "postgres.query.duration",
            "Duration of calls as the server saw them.",
        ),
    };
    let histogram = Histogram {
        data_points: groups
            .iter()
            .flat_map(|group| durations(group, times))
            .collect(),
        aggregation_temporality: AggregationTemporality::Delta.into(),
    };
    let mut metrics = vec![metric((duration, "s", what), Data::Histogram(histogram))];
    metrics.extend(counters(&groups, times));
    Some(ScopeMetrics {
        scope: Some(InstrumentationScope {
            name: scope.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        }),
        metrics,
        schema_url: SCHEMA.to_owned(),
    })
}

/// Calls, rows and errors.
fn counters(groups: &[Group], times: Times) -> [Metric; 3] {
    let count = |name, unit, what, points| {
        let sum = Sum {
            data_points: points,
            aggregation_temporality: AggregationTemporality::Delta.into(),
            is_monotonic: true,
        };
        metric((name, unit, what), Data::Sum(sum))
    };
    let number = |of: fn(&Group) -> u64| -> Vec<NumberDataPoint> {
        let points = groups.iter();
        points
            .map(|group| point(group.attributes.clone(), of(group), times))
            .collect()
    };
    let errors = groups.iter().flat_map(|group| {
        let of = |(code, count): (&SqlState, &u64)| point(with_error(group, *code), *count, times);
        group.errors.iter().map(of)
    });
    let calls = "Calls, however they ended, with those whose own duration is not known.";
    [
        count(
            "postgres.query.calls",
            "{call}",
            calls,
            number(|group| group.calls),
        ),
        count(
            "postgres.query.rows",
            "{row}",
            "Rows returned or affected.",
            number(|group| group.rows),
        ),
        count(
            "postgres.query.errors",
            "{error}",
            "Errors of calls and of preparing.",
            errors.collect(),
        ),
    ]
}

/// Statements with the most time first; each set of attributes once.
fn groups(window: &Window, side: Side) -> Vec<Group> {
    let of_side = window.measured().filter(|measured| measured.side == side);
    let mut all: Vec<Measured<'_>> = of_side.collect();
    all.sort_by_key(|measured| (Reverse(measured.total_ns()), measured.fingerprint));
    let mut groups: BTreeMap<Identity, Group> = BTreeMap::new();
    for (position, measured) in all.iter().enumerate() {
        let identity = match measured.fingerprint {
            _ if position >= STATEMENTS_MAX => Identity::Overflow,
            Some(fingerprint) => Identity::Statement(fingerprint),
            None => Identity::Unknown,
        };
        let group = groups.entry(identity).or_insert_with(|| Group {
            attributes: attributes(identity, measured),
            ..Group::default()
        });
        group.add(measured);
    }
    groups.into_values().collect()
}

fn attributes(identity: Identity, measured: &Measured<'_>) -> Vec<KeyValue> {
    let side = match measured.side {
        Side::Client => "client",
        Side::Server => "server",
    };
    let mut attributes = vec![
        text("db.system.name", "postgresql"),
        text("postgres.query.side", side),
    ];
    match identity {
        Identity::Overflow => {
            attributes.push(key_value("otel.metric.overflow", Value::BoolValue(true)));
        }
        Identity::Unknown => {}
        Identity::Statement(fingerprint) => {
            let normal = measured.text.unwrap_or_default();
            let summary = summary(normal);
            attributes.push(text("postgres.query.fingerprint", &fingerprint.to_string()));
            attributes.push(text("db.query.text", &shortened(normal)));
            if !summary.is_empty() {
                attributes.push(text("db.query.summary", &summary));
            }
            attributes.extend(measured.database().map(|name| text("db.namespace", name)));
        }
    }
    attributes
}

fn shortened(normal: &str) -> String {
    match normal.char_indices().nth(TEXT_MAX) {
        Some((end, _)) => format!("{}…", &normal[..end]),
        None => normal.to_owned(),
    }
}

fn with_error(group: &Group, code: SqlState) -> Vec<KeyValue> {
    let mut attributes = group.attributes.clone();
    if code == SqlState::UNKNOWN {
        attributes.push(text("error.type", "_OTHER"));
    } else {
        let code = code.to_string();
        attributes.push(text("error.type", &code));
        attributes.push(text("db.response.status_code", &code));
    }
    attributes
}

/// A point for the calls that succeeded, and one for each code of those that failed.
fn durations(group: &Group, times: Times) -> Vec<HistogramDataPoint> {
    let mut succeeded = group.latencies.clone();
    for failed in group.failed.values() {
        succeeded.remove(failed);
    }
    let failed = group.failed.iter();
    let failed = failed.map(|(code, latencies)| (with_error(group, *code), latencies.clone()));
    let all = std::iter::once((group.attributes.clone(), succeeded)).chain(failed);
    all.filter(|(_, latencies)| latencies.calls() > 0)
        .map(|(attributes, latencies)| HistogramDataPoint {
            attributes,
            start_time_unix_nano: times.begin,
            time_unix_nano: times.end,
            count: latencies.calls(),
            sum: Some(Duration::from_nanos(latencies.sum_ns).as_secs_f64()),
            bucket_counts: latencies.within(&BOUNDS.map(|(_, ns)| ns)),
            explicit_bounds: BOUNDS.iter().map(|(seconds, _)| *seconds).collect(),
            ..HistogramDataPoint::default()
        })
        .collect()
}

fn metric((name, unit, description): (&str, &str, &str), data: Data) -> Metric {
    Metric {
        name: name.to_owned(),
        description: description.to_owned(),
        unit: unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn point(attributes: Vec<KeyValue>, value: u64, times: Times) -> NumberDataPoint {
    NumberDataPoint {
        attributes,
        start_time_unix_nano: times.begin,
        time_unix_nano: times.end,
        value: Some(number_data_point::Value::AsInt(signed(value))),
        ..NumberDataPoint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::{
        Data, HistogramDataPoint, KeyValue, Metric, STATEMENTS_MAX, Value, number_data_point,
        request,
    };
    use crate::postgres::{Window, example};

    fn metrics(window: &Window) -> Vec<Metric> {
        let request = request(window, Duration::from_secs(100), "host-1").unwrap();
        let resource = request.resource_metrics.into_iter().next().unwrap();
        let scopes = resource.scope_metrics.into_iter();
        scopes.flat_map(|scope| scope.metrics).collect()
    }

    fn durations(window: &Window) -> Vec<HistogramDataPoint> {
        let metrics = metrics(window);
        let metric = metrics.iter().find(|metric| metric.unit == "s").unwrap();
        assert_eq!(metric.name, "postgres.query.duration");
        match &metric.data {
            Some(Data::Histogram(histogram)) => {
                assert_eq!(histogram.aggregation_temporality, 1, "delta");
                histogram.data_points.clone()
            }
            other => panic!("{other:?}"),
        }
    }

    fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
        let found = attributes.iter().find(|one| one.key == key)?;
        match found.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => Some(text),
            _ => None,
        }
    }

    fn sum(window: &Window, name: &str) -> i64 {
        let metrics = metrics(window);
        let metric = metrics.iter().find(|metric| metric.name == name).unwrap();
        let Some(Data::Sum(sum)) = &metric.data else {
            panic!("{metric:?}");
        };
        let points = sum.data_points.iter();
        points
            .map(|point| match point.value {
                Some(number_data_point::Value::AsInt(count)) => count,
                _ => 0,
            })
            .sum()
    }

    /// A statement has its normal form, its summary and its database; failures stand apart, by their code.
    #[test]
    fn points_follow_the_conventions() {
        let points = durations(&example::stored(Duration::from_secs(60)));
        assert_eq!(points.len(), 2);
        let of = |word: &str| {
            let is = |point: &&HistogramDataPoint| {
                value(&point.attributes, "db.query.text")
                    .unwrap()
                    .starts_with(word)
            };
            points.iter().find(is).unwrap()
        };
        let select = of("SELECT");
        assert_eq!((select.count, select.sum), (3, Some(0.06)));
        assert_eq!(select.bucket_counts, [0, 0, 1, 2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(select.explicit_bounds.len() + 1, select.bucket_counts.len());
        assert_eq!(
            (select.start_time_unix_nano, select.time_unix_nano),
            (100_000_000_000, 160_000_000_000)
        );
        for (key, wanted) in [
            ("db.system.name", "postgresql"),
            ("db.query.summary", "SELECT t"),
            ("db.namespace", "shop"),
        ] {
            assert_eq!(value(&select.attributes, key), Some(wanted));
        }
        assert_eq!(value(&select.attributes, "error.type"), None);
        let insert = of("INSERT");
        assert_eq!(
            (insert.count, value(&insert.attributes, "error.type")),
            (1, Some("23505"))
        );
        assert_eq!(
            value(&insert.attributes, "db.response.status_code"),
            Some("23505")
        );
        assert_eq!(
            value(&insert.attributes, "db.query.text"),
            Some("INSERT INTO t VALUES ($1)")
        );
    }

    /// Counters have every call, also those without a duration.
    #[test]
    fn counters_have_every_call() {
        let window = example::stored(Duration::from_secs(60));
        assert_eq!(sum(&window, "postgres.query.calls"), 5);
        assert_eq!(sum(&window, "postgres.query.rows"), 15);
        assert_eq!(sum(&window, "postgres.query.errors"), 1);
        assert!(request(&example::window(Duration::ZERO, &[]), Duration::ZERO, "h").is_none());
    }

    /// Of too many statements those with the least time are one, no set of attributes comes twice, no call is missing.
    #[test]
    fn statements_are_bounded() {
        let texts: Vec<String> = (0..STATEMENTS_MAX + 7)
            .map(|n| format!("SELECT c FROM a{}b", letters(n)))
            .collect();
        let calls: Vec<(&str, u64)> = texts
            .iter()
            .zip(1..)
            .map(|(text, ms)| (text.as_str(), ms))
            .collect();
        let points = durations(&example::window(Duration::from_secs(1), &calls));
        assert_eq!(points.len(), STATEMENTS_MAX + 1);
        let sets: BTreeSet<String> = points
            .iter()
            .map(|point| format!("{:?}", point.attributes))
            .collect();
        assert_eq!(sets.len(), points.len());
        let counts: u64 = points.iter().map(|point| point.count).sum();
        assert_eq!(counts, calls.len() as u64);
        let overflow = points.iter().find(|point| point.count == 7).unwrap();
        assert!(
            overflow
                .attributes
                .iter()
                .any(|one| one.key == "otel.metric.overflow")
        );
        assert_eq!(value(&overflow.attributes, "db.query.text"), None);
    }

    /// Digits in names may be made up, and are no difference.
    fn letters(number: usize) -> String {
        let letter = |digit: u32| char::from(b'a' + u8::try_from(digit).unwrap());
        number
            .to_string()
            .chars()
            .map(|digit| letter(digit.to_digit(10).unwrap()))
            .collect()
    }
}
