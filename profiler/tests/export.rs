//! Windows sent to receivers of the test's own, which decode them with the official types; go's pprof reads what
//! Pyroscope gets.

#![expect(
    clippy::expect_used,
    reason = "a test stops where its ground gives way"
)]

use std::{
    collections::{BTreeMap, VecDeque},
    io::{Read, Write},
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
    thread::sleep,
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, Uri},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::ExportMetricsServiceRequest,
        profiles::v1development::ExportProfilesServiceRequest,
    },
    metrics::v1::{HistogramDataPoint, metric::Data, number_data_point::Value},
};
use profiler::{
    export::{Dropped, Export, Exports, Health, Kind, Limits, Signal, Target},
    postgres::Window,
    profile::Profile,
    report,
};
use prost::Message;
use tokio::{net::TcpListener, sync::oneshot};

/// Far longer than anything here takes.
const PATIENCE: u32 = 600;

/// What a receiver does with a request.
#[derive(Clone, Copy)]
enum Mood {
    Takes,
    Fails,
    Refuses,
    /// Answers nothing until the receiver is gone.
    Hangs,
}

struct Got {
    path: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

#[derive(Default)]
struct Book {
    got: Vec<Got>,
    /// Moods of the next requests; afterwards it takes everything.
    moods: VecDeque<Mood>,
}

/// Takes requests until dropped.
struct Receiver {
    book: Arc<Mutex<Book>>,
    url: String,
    _stop: oneshot::Sender<()>,
}

impl Receiver {
    /// At an address of its own, or at that of one before.
    fn start(moods: &[Mood], url: Option<&str>) -> Self {
        let book = Arc::new(Mutex::new(Book {
            moods: moods.iter().copied().collect(),
            ..Book::default()
        }));
        let address = url.map_or("127.0.0.1:0".to_owned(), |url| {
            url.trim_start_matches("http://").to_owned()
        });
        let listener = std::net::TcpListener::bind(address).expect("a port");
        listener.set_nonblocking(true).expect("it can");
        let url = format!("http://{}", listener.local_addr().expect("it has one"));
        let (stop, stopped) = oneshot::channel::<()>();
        let router = Router::new().fallback(take).with_state(Arc::clone(&book));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).expect("it is one");
                tokio::select! {
                    _ = axum::serve(listener, router).into_future() => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            book,
            url,
            _stop: stop,
        }
    }

    fn got<T>(&self, look: impl Fn(&[Got]) -> T) -> T {
        look(&self.book.lock().expect("nobody panics").got)
    }
}

async fn take(
    State(book): State<Arc<Mutex<Book>>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let mood = {
        let mut book = book.lock().expect("nobody panics");
        let mood = book.moods.pop_front().unwrap_or(Mood::Takes);
        book.got.push(Got {
            path: uri.path().to_owned(),
            headers,
            body: body.to_vec(),
        });
        mood
    };
    match mood {
        Mood::Takes => StatusCode::OK,
        Mood::Fails => StatusCode::SERVICE_UNAVAILABLE,
        Mood::Refuses => StatusCode::BAD_REQUEST,
        Mood::Hangs => std::future::pending().await,
    }
}

/// A window of two services, 100 samples at 100 Hz.
fn profile() -> Profile {
    let text = b"nginx;main;serve;read_[k] 70\ncron;main 25\ncron;main;poll 5\n";
    let mut profile = report::read(text).expect("they are stacks");
    profile.meta.frequency_hz = 100;
    profile.meta.started = Duration::from_secs(1_763_700_000);
    profile.meta.duration = Duration::from_secs(1);
    profile
}

fn exports(state: &Path, kind: Kind, url: &str, bytes: u64) -> Exports {
    exports_of(state, (kind, Signal::Profiles), url, bytes)
}

fn exports_of(state: &Path, (kind, signal): (Kind, Signal), url: &str, bytes: u64) -> Exports {
    let exports = Exports::default();
    let export = Export {
        targets: vec![Target {
            kind,
            url: url.to_owned(),
            headers_file: None,
            signals: vec![signal],
        }],
        limits: Limits {
            bytes,
            age: Duration::from_secs(3600),
        },
    };
    exports.configure(state, &export).expect("a thread starts");
    exports
}

/// Waits until it fares so.
#[track_caller]
fn wait(exports: &Exports, wanted: impl Fn(&Health) -> bool) -> Health {
    let health = || exports.health().pop().expect("there is one").1;
    let found = (0..PATIENCE).find_map(|_| {
        sleep(Duration::from_millis(100));
        Some(health()).filter(|health| wanted(health))
    });
    found.unwrap_or_else(|| panic!("it never came to that: {:?}", health()))
}

fn decode<M: Message + Default>(body: &[u8]) -> M {
    let mut plain = Vec::new();
    GzDecoder::new(body)
        .read_to_end(&mut plain)
        .expect("it is gzip");
    M::decode(plain.as_slice()).expect("it is a request")
}

fn sum(request: &ExportProfilesServiceRequest) -> i64 {
    let resources = request.resource_profiles.iter();
    let profiles = resources
        .flat_map(|resource| &resource.scope_profiles)
        .flat_map(|scope| &scope.profiles);
    profiles
        .flat_map(|profile| &profile.samples)
        .flat_map(|sample| &sample.values)
        .sum()
}

/// A Collector gets every sample of a window, by service.
#[test]
fn collector_gets_every_sample() {
    let state = tempfile::tempdir().expect("a folder");
    let receiver = Receiver::start(&[], None);
    let exports = exports(state.path(), Kind::Otlp, &receiver.url, 1 << 20);
    exports.offer(&profile());
    let health = wait(&exports, |health| health.sent == 1 && health.waiting == 0);
    assert_eq!((health.failures, health.dropped.len()), (0, 0));
    receiver.got(|got| {
        assert_eq!(got[0].path, "/v1development/profiles");
        assert_eq!(got[0].headers["content-type"], "application/x-protobuf");
        let request: ExportProfilesServiceRequest = decode(&got[0].body);
        assert_eq!(sum(&request), 100);
        assert_eq!(request.resource_profiles.len(), 2);
    });
}

/// A window as the store has it, of two statements and a failure, and its bytes.
fn queries() -> (serde_json::Value, Window) {
    let text = include_str!("window-queries.json");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).expect("memory takes it");
    let bytes = encoder.finish().expect("memory takes it");
    let window = Window::read(&bytes).expect("it is a window");
    (serde_json::from_str(text).expect("it is JSON"), window)
}

/// Figures of the metrics of a request by name: counts, and of a histogram its points.
fn figures(
    request: &ExportMetricsServiceRequest,
) -> (BTreeMap<String, u64>, Vec<HistogramDataPoint>) {
    let (mut counts, mut points) = (BTreeMap::new(), Vec::new());
    let resources = request.resource_metrics.iter();
    let scopes = resources.flat_map(|resource| &resource.scope_metrics);
    for metric in scopes.flat_map(|scope| &scope.metrics) {
        match metric.data.as_ref().expect("it has some") {
            Data::Sum(sum) => {
                let value = |value: Option<Value>| match value {
                    Some(Value::AsInt(count)) => u64::try_from(count).expect("a count"),
                    _ => panic!("no count"),
                };
                let total = sum.data_points.iter().map(|point| value(point.value)).sum();
                counts.insert(metric.name.clone(), total);
            }
            Data::Histogram(histogram) => points.extend(histogram.data_points.clone()),
            _ => panic!("{metric:?}"),
        }
    }
    (counts, points)
}

/// A Collector gets the calls, rows, errors and times of a window of queries, decoded by the official types.
#[test]
fn collector_gets_every_call() {
    let state = tempfile::tempdir().expect("a folder");
    let receiver = Receiver::start(&[], None);
    let signal = (Kind::Otlp, Signal::Metrics);
    let exports = exports_of(state.path(), signal, &receiver.url, 1 << 20);
    let (stored, window) = queries();
    // Stacks are another signal's.
    exports.offer(&profile());
    exports.offer_queries(&window, Duration::from_secs(1_763_700_000));
    let health = wait(&exports, |health| health.sent == 1 && health.waiting == 0);
    assert_eq!((health.signal, health.failures), (Signal::Metrics, 0));
    let request: ExportMetricsServiceRequest = receiver.got(|got| {
        assert_eq!(got.len(), 1);
        assert_eq!(got[0].path, "/v1/metrics");
        assert_eq!(got[0].headers["content-type"], "application/x-protobuf");
        assert_eq!(got[0].headers["content-encoding"], "gzip");
        decode(&got[0].body)
    });
    let (counts, points) = figures(&request);
    let groups = stored["groups"].as_array().expect("a list");
    let sum = |key: &str| -> u64 {
        let values = groups.iter().map(|group| group["figures"][key].as_u64());
        values.map(|value| value.expect("a number")).sum()
    };
    assert_eq!(
        Some(counts["postgres.query.calls"]),
        stored["calls"].as_u64()
    );
    assert_eq!(counts["postgres.query.rows"], sum("rows"));
    assert_eq!(counts["postgres.query.errors"], 1);
    let timed: u64 = points.iter().map(|point| point.count).sum();
    assert_eq!(timed, sum("timed"));
    let seconds: f64 = points.iter().filter_map(|point| point.sum).sum();
    let total = Duration::from_nanos(sum("total_ns")).as_secs_f64();
    assert!((seconds - total).abs() < 1e-9, "{seconds} of {total}");
    for point in &points {
        assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
    }
}

/// A receiver that fails, hangs and is gone gets everything once it is back; meanwhile nobody waits for it.
#[test]
fn receiver_comes_back() {
    let state = tempfile::tempdir().expect("a folder");
    let receiver = Receiver::start(&[Mood::Fails, Mood::Hangs], None);
    let url = receiver.url.clone();
    let exports = exports(state.path(), Kind::Otlp, &url, 1 << 20);
    for _ in 0..3 {
        exports.offer(&profile());
    }
    wait(&exports, |health| {
        health.failures == 1 && health.waiting == 3
    });
    let hangs = (0..PATIENCE).any(|_| {
        sleep(Duration::from_millis(100));
        receiver.got(|got| got.len() == 2)
    });
    assert!(hangs, "it is tried again");
    exports.offer(&profile());
    drop(receiver);
    wait(&exports, |health| {
        health.failures >= 2 && health.waiting == 4
    });
    let receiver = Receiver::start(&[], Some(&url));
    let health = wait(&exports, |health| health.sent == 4 && health.waiting == 0);
    assert_eq!((health.dropped.len(), health.trouble), (0, None));
    assert_eq!(
        receiver.got(|got| got.iter().map(|got| sum(&decode(&got.body))).sum::<i64>()),
        400
    );
}

/// What a receiver does not want is dropped and counted, and the next window is sent.
#[test]
fn refused_windows_are_counted() {
    let state = tempfile::tempdir().expect("a folder");
    let receiver = Receiver::start(&[Mood::Refuses], None);
    let exports = exports(state.path(), Kind::Parca, &receiver.url, 1 << 20);
    exports.offer(&profile());
    exports.offer(&profile());
    let health = wait(&exports, |health| health.sent == 1 && health.waiting == 0);
    assert_eq!(health.dropped[&Dropped::Refused], 1);
    receiver.got(|got| assert_eq!(got[1].path, "/api/profiles/writeraw"));
}

/// A full queue drops the oldest windows and counts them; what is left is sent by the next daemon.
#[test]
fn full_queue_drops_the_oldest() {
    let state = tempfile::tempdir().expect("a folder");
    let url = Receiver::start(&[], None).url.clone();
    let first = exports(state.path(), Kind::Pyroscope, &url, 1 << 20);
    first.offer(&profile());
    let one = wait(&first, |health| health.waiting == 1 && health.failures > 0).waiting_bytes;
    drop(first);
    let second = exports(state.path(), Kind::Pyroscope, &url, 3 * one + one / 2);
    for _ in 0..5 {
        second.offer(&profile());
    }
    let health = wait(&second, |health| health.waiting == 3);
    assert_eq!(health.dropped[&Dropped::QueueFull], 3);
    assert!(health.waiting_bytes <= 3 * one + one / 2);
    drop(second);
    let receiver = Receiver::start(&[], Some(&url));
    let third = exports(state.path(), Kind::Pyroscope, &url, 1 << 20);
    wait(&third, |health| health.sent == 3 && health.waiting == 0);
    assert!(receiver.got(<[Got]>::len) >= 3);
}

/// A state directory that cannot be written to loses windows, and says so.
#[test]
fn unwritable_queue_is_counted() {
    let exports = exports(
        Path::new("/proc/none"),
        Kind::Otlp,
        "http://127.0.0.1:9",
        1 << 20,
    );
    exports.offer(&profile());
    let health = wait(&exports, |health| !health.dropped.is_empty());
    assert_eq!(health.dropped[&Dropped::QueueFailed], 1);
}

/// What Pyroscope gets is valid for pprof itself: a series for each service, with samples and CPU time.
#[test]
fn go_tool_pprof_reads_what_pyroscope_gets() {
    let state = tempfile::tempdir().expect("a folder");
    let receiver = Receiver::start(&[], None);
    let exports = exports(state.path(), Kind::Pyroscope, &receiver.url, 1 << 20);
    exports.offer(&profile());
    wait(&exports, |health| health.sent == 1);
    let body = receiver.got(|got| {
        assert_eq!(got[0].path, "/push.v1.PusherService/Push");
        assert_eq!(got[0].headers["content-type"], "application/json");
        got[0].body.clone()
    });
    let body: serde_json::Value = serde_json::from_slice(&body).expect("it is JSON");
    let series = body["series"].as_array().expect("there are some");
    let services: Vec<&str> = series
        .iter()
        .filter_map(|series| series["labels"][1]["value"].as_str())
        .collect();
    assert_eq!(services, ["cron", "nginx"]);
    let packed = series[1]["samples"][0]["rawProfile"].as_str();
    let packed = BASE64_STANDARD.decode(packed.expect("it is text"));
    let path = state.path().join("nginx.pb.gz");
    std::fs::write(&path, packed.expect("it is base64")).expect("it can be written");
    let mut go = Command::new("go");
    go.args(["tool", "pprof", "-symbolize=none", "-raw"]);
    let Ok(output) = go.arg(&path).output() else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "no go here");
        eprintln!("skipped: no go here");
        return;
    };
    let raw = String::from_utf8_lossy(&output.stdout);
    for expected in [
        "PeriodType: cpu nanoseconds",
        "Period: 10000000",
        "samples/count cpu/nanoseconds",
        "70  700000000: ",
        "comm:[nginx]",
    ] {
        assert!(raw.contains(expected), "no `{expected}` in\n{raw}");
    }
    assert!(!raw.contains("pid:") && !raw.contains("cron"), "{raw}");
}
