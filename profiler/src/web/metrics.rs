//! Metrics of the daemon itself in `OpenMetrics`, or in Prometheus' older text format for who asks for plain text.
//! Pure.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    sync::atomic::AtomicU64,
};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use super::{own::Own, statements};
use crate::{
    daemon::status::{Snapshot, State},
    export::{Health, Target},
    postgres::totals::Shown,
    profile::Lost,
    store::{Figure, Sampled},
};

/// Content type of `OpenMetrics`.
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Content type of the older format.
pub(super) const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) type Labels = Vec<(&'static str, String)>;
type Seconds = Counter<f64, AtomicU64>;

/// All metrics.
pub(super) fn render(
    snapshot: &Snapshot,
    exports: &[(Target, Health)],
    queries: &[Shown],
    own: &Own,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    process(&mut registry, own);
    statements::register(&mut registry, queries);
    let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("profiler_build", "The profiler's version", build);
    let mut profiler = Section(registry.sub_registry_with_prefix("profiler"));
    capabilities(&mut profiler, snapshot);
    windows(&mut profiler, snapshot);
    export(&mut profiler, exports);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

/// Metrics of one prefix.
pub(super) struct Section<'a>(pub(super) &'a mut Registry);

impl Section<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        self.0.register(name, help, counter);
    }

    pub(super) fn counters(&mut self, name: &str, help: &str, values: Vec<(Labels, u64)>) {
        let family = Family::<Labels, Counter>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, help, family);
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        let gauge = Gauge::<f64, AtomicU64>::default();
        gauge.set(float(value));
        self.0.register(name, help, gauge);
    }

    pub(super) fn gauges(&mut self, name: &str, help: &str, values: Vec<(Labels, u64)>) {
        let family = Family::<Labels, Gauge<f64, AtomicU64>>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(float(value));
        }
        self.0.register(name, help, family);
    }
}

fn process(registry: &mut Registry, own: &Own) {
    let cpu = Seconds::default();
    cpu.inc_by(own.cpu.as_secs_f64());
    let help = "CPU time of this process, user and system";
    registry.register_with_unit("process_cpu", help, Unit::Seconds, cpu);
    let mut process = Section(registry.sub_registry_with_prefix("process"));
    let gauges = [
        (
            "resident_memory_bytes",
            "Memory of this process",
            own.resident_bytes,
        ),
        ("open_fds", "Open file descriptors", own.open_fds),
        (
            "max_fds",
            "Most file descriptors that may be open",
            own.max_fds,
        ),
        (
            "start_time_seconds",
            "Start of this process after the Unix epoch",
            own.started_s,
        ),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            process.gauge(name, help, value);
        }
    }
}

fn capabilities(profiler: &mut Section<'_>, snapshot: &Snapshot) {
    let are = |is_so: fn(&State) -> bool| {
        let states = snapshot.capabilities.iter();
        let values = states.map(|(capability, state)| {
            let labels = vec![("capability", capability.name().to_owned())];
            (labels, u64::from(is_so(state)))
        });
        values.collect()
    };
    let up = are(|state| matches!(state, State::On(_)));
    profiler.gauges("capability_up", "Whether a capability runs", up);
    let shed = are(|state| *state == State::Shed);
    let help = "Whether a capability is off as the CPU budget has shed it";
    profiler.gauges("capability_shed", help, shed);
    let bpf = Seconds::default();
    bpf.inc_by(snapshot.bpf.as_secs_f64());
    let help = "CPU time inside the BPF programs; 0 where the kernel does not tell";
    profiler
        .0
        .register_with_unit("bpf_run", help, Unit::Seconds, bpf);
    let overhead = Gauge::<f64, AtomicU64>::default();
    overhead.set(float(snapshot.own_ppm) / 1e6);
    let help = "Share of the time of all CPUs that the profiler used in the last seconds, BPF programs included";
    profiler.0.register("overhead_ratio", help, overhead);
    let help = "Whether the CPU budget has cut something";
    profiler.gauge("over_budget", help, u64::from(snapshot.cut.is_some()));
    let help = "Whether the last reload of the configuration was refused";
    profiler.gauge(
        "configuration_refused",
        help,
        u64::from(snapshot.refused.is_some()),
    );
}

fn windows(profiler: &mut Section<'_>, snapshot: &Snapshot) {
    let modes = [
        (Sampled::Cpu, snapshot.samples),
        (Sampled::OffCpu, snapshot.off_cpu),
        (Sampled::Wall, snapshot.wall),
    ];
    let samples =
        modes.map(|(mode, counts)| (vec![("mode", mode.name().to_owned())], counts.shown));
    let help = "Samples, or spans off the CPU, in windows that were written";
    profiler.counters("samples", help, samples.into());
    // From the beginning, so that an alarm can be set.
    let mut causes = BTreeMap::from([(Lost::RingFull.text().to_owned(), 0)]);
    causes.extend(snapshot.lost_by.clone());
    let lost = causes
        .into_iter()
        .map(|(cause, count)| (vec![("reason", cause)], count));
    let help = "Samples that are in no window";
    profiler.counters("samples_lost", help, lost.collect());
    let help = "Calls of Postgres in windows that were written";
    profiler.counter("postgres_calls", help, snapshot.calls.shown);
    let help = "Calls of Postgres, or what may be ones, that are in no window";
    profiler.counter("postgres_calls_lost", help, snapshot.calls.lost);
    tables(profiler, snapshot);
    let help = "Samples whose stack was cut";
    profiler.counter("stacks_truncated", help, snapshot.cut_stacks);
    let windows = &snapshot.windows;
    profiler.counter("windows_written", "Windows written", windows.written);
    let lost = windows.lost.iter();
    let lost = lost.map(|(cause, count)| (vec![("reason", cause.text().to_owned())], *count));
    profiler.counters(
        "windows_lost",
        "Windows that could not be written",
        lost.collect(),
    );
    let help = "Windows deleted, as too old or too many";
    profiler.counter("windows_deleted", help, windows.deleted);
    profiler.gauge("stored_windows", "Windows in the store", windows.kept);
    profiler.gauge(
        "stored_bytes",
        "Bytes of the windows in the store",
        windows.kept_bytes,
    );
    if let Some(newest_ms) = windows.newest_ms {
        let help = "End of the newest window after the Unix epoch";
        profiler.gauge("newest_window_timestamp_seconds", help, newest_ms / 1000);
    }
}

/// Connections and system calls.
fn tables(profiler: &mut Section<'_>, snapshot: &Snapshot) {
    let sum = |figure| snapshot.sums.get(&figure).copied().unwrap_or(0);
    let events = [
        ("opened", Figure::Opened),
        ("closed", Figure::Closed),
        ("failed", Figure::Failed),
        ("reset", Figure::Reset),
    ];
    let events = events.map(|(event, figure)| (vec![("event", event.to_owned())], sum(figure)));
    let help = "TCP connections of targets by what became of them, in windows that were written";
    profiler.counters("tcp_connections", help, events.to_vec());
    let counters = [
        (
            "tcp_retransmits",
            "Segments that targets sent again",
            sum(Figure::Retransmitted),
        ),
        (
            "tcp_connections_lost",
            "TCP connections, or events of them, that are in no window",
            snapshot.connections.lost,
        ),
        (
            "syscalls",
            "System calls of targets in windows that were written",
            snapshot.syscalls.shown,
        ),
        (
            "syscall_errors",
            "Of those, the ones that returned an error",
            sum(Figure::CallErrors),
        ),
        (
            "syscalls_lost",
            "System calls that are in no window",
            snapshot.syscalls.lost,
        ),
    ];
    for (name, help, value) in counters {
        profiler.counter(name, help, value);
    }
}

fn export(profiler: &mut Section<'_>, exports: &[(Target, Health)]) {
    let labels = |(target, health): &(Target, Health)| -> Labels {
        vec![
            ("target", target.url.clone()),
            ("kind", target.kind.name().to_owned()),
            ("signal", health.signal.name().to_owned()),
        ]
    };
    let mut requests = Vec::new();
    let mut dropped = Vec::new();
    let (mut waiting, mut bytes) = (Vec::new(), Vec::new());
    for export in exports {
        let health = &export.1;
        for (result, count) in [("success", health.sent), ("failure", health.failures)] {
            let mut labels = labels(export);
            labels.push(("result", result.to_owned()));
            requests.push((labels, count));
        }
        for (cause, count) in &health.dropped {
            let mut labels = labels(export);
            labels.push(("reason", cause.text().to_owned()));
            dropped.push((labels, *count));
        }
        waiting.push((labels(export), health.waiting));
        bytes.push((labels(export), health.waiting_bytes));
    }
    profiler.counters(
        "export_requests",
        "Windows sent, and attempts that failed",
        requests,
    );
    profiler.counters(
        "export_windows_dropped",
        "Windows that were not sent",
        dropped,
    );
    profiler.gauges(
        "export_queue_windows",
        "Windows that wait to be sent",
        waiting,
    );
    profiler.gauges("export_queue_bytes", "Bytes of these windows", bytes);
}

/// Exact up to 2^53, which no count here comes near.
#[expect(clippy::cast_precision_loss, reason = "as the comment says")]
fn float(value: u64) -> f64 {
    value as f64
}

/// The same in Prometheus' older text format, in which a family bears the name of its samples.
pub(super) fn to_text(open_metrics: &str) -> String {
    let mut text = String::new();
    let mut types = BTreeMap::new();
    for line in open_metrics.lines() {
        if let Some((name, kind)) = line
            .strip_prefix("# TYPE ")
            .and_then(|rest| rest.split_once(' '))
        {
            types.insert(name, kind);
        }
    }
    for line in open_metrics.lines() {
        let metadata = ["# HELP ", "# TYPE "]
            .into_iter()
            .find_map(|key| Some((key, line.strip_prefix(key)?)));
        let Some((key, (name, rest))) =
            metadata.and_then(|(key, rest)| Some((key, rest.split_once(' ')?)))
        else {
            if !line.starts_with("# UNIT ") && line != "# EOF" {
                text.push_str(line);
                text.push('\n');
            }
            continue;
        };
        let (suffix, kind) = match types.get(name) {
            Some(&"counter") => ("_total", "counter"),
            Some(&"info") => ("_info", "gauge"),
            Some(kind) => ("", *kind),
            None => ("", "untyped"),
        };
        let rest = if key == "# TYPE " { kind } else { rest };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{key}{name}{suffix} {rest}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{BTreeMap, Figure, Health, Own, Snapshot, State, Target, render, to_text};
    use crate::{
        daemon::status::Counts,
        export::{Dropped, Kind, Signal},
        store::{Capability, LostWindow},
    };

    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot {
            samples: Counts {
                shown: 1234,
                lost: 5,
            },
            own_ppm: 2500,
            lost_by: BTreeMap::from([("ring buffer full".to_owned(), 5)]),
            ..Snapshot::default()
        };
        let on = State::On("host".to_owned());
        snapshot.capabilities.insert(Capability::Sampling, on);
        snapshot.capabilities.insert(Capability::Tcp, State::Shed);
        snapshot.sums.insert(Figure::Opened, 9);
        snapshot.syscalls.lost = 4;
        snapshot.windows.kept = 7;
        snapshot.windows.newest_ms = Some(2000);
        snapshot.windows.lost.insert(LostWindow::DiskFull, 1);
        snapshot
    }

    fn exports() -> Vec<(Target, Health)> {
        let target = Target {
            kind: Kind::Otlp,
            url: "http://c\"\\:4318".to_owned(),
            headers_file: None,
            signals: vec![Signal::Profiles],
        };
        let health = Health {
            sent: 3,
            dropped: BTreeMap::from([(Dropped::QueueFull, 2)]),
            ..Health::default()
        };
        vec![(target, health)]
    }

    /// Each figure under its name, losses by cause, labels escaped, and an end.
    #[test]
    fn figures_have_their_names() {
        let text = render(&snapshot(), &exports(), &[], &Own::read()).unwrap();
        for line in [
            "profiler_samples_total{mode=\"cpu\"} 1234",
            "profiler_samples_lost_total{reason=\"ring buffer full\"} 5",
            "profiler_windows_lost_total{reason=\"disk full\"} 1",
            "profiler_stored_windows 7.0",
            "profiler_tcp_connections_total{event=\"opened\"} 9",
            "profiler_tcp_retransmits_total 0",
            "profiler_syscalls_lost_total 4",
            "profiler_overhead_ratio 0.0025",
            "profiler_capability_up{capability=\"sampling\"} 1.0",
            "profiler_capability_up{capability=\"tcp\"} 0.0",
            "profiler_capability_shed{capability=\"sampling\"} 0.0",
            "profiler_capability_shed{capability=\"tcp\"} 1.0",
            "profiler_newest_window_timestamp_seconds 2.0",
            "profiler_export_requests_total{target=\"http://c\\\"\\\\:4318\",kind=\"otlp\",signal=\"profiles\",result=\"success\"} 3",
            "# TYPE process_cpu_seconds counter",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "no {line} in\n{text}"
            );
        }
        assert!(
            text.contains("\nprofiler_build_info{version=\"")
                && text.contains("\nprocess_resident_memory_bytes ")
        );
        assert!(text.ends_with("# EOF\n"));
    }

    /// The older format has the same samples, described under their own names.
    #[test]
    fn older_format_has_the_same_samples() {
        let open = render(&snapshot(), &exports(), &[], &Own::default()).unwrap();
        let text = to_text(&open);
        let samples = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(str::to_owned).collect()
        };
        assert_eq!(samples(&text), samples(&open));
        assert!(text.contains("# TYPE profiler_samples_total counter\n"));
        assert!(text.contains("# TYPE profiler_build_info gauge\n"));
        assert!(!text.contains("# EOF") && !text.contains("# UNIT"));
    }
}
