//! `profiler daemon --check`: what a configuration would do here, a line a capability. Nothing is attached, but for a
//! perf event with nobody to sample, where only trying tells whether this kernel allows one.

use std::{fs, path::Path, time::Duration};

use super::{
    config::{Settings, Targets, load},
    privileges::{Reasons, is_admin},
};
use crate::{
    artifact::{Artifact, Destination},
    error::{Error, Exit},
    kernel, postgres, preflight,
    printable::shown,
    record::targets::check_frequency,
    store::{Capability, Sampled, trusted},
};

/// Prints what would run; fails where something that is on cannot be.
pub fn check(path: &Path, listen_publicly: bool) -> Result<Exit, Error> {
    let settings = load(path)?;
    crate::web::check(settings.web.as_ref(), listen_publicly)?;
    let events = events(Reasons::of(&settings));
    let refusals = Refusals {
        sampling: refusal(require_sampling(&settings)).or_else(|| events.refusal.clone()),
        queries: refusal(require_queries(&settings)).or_else(|| events.refusal.clone()),
        tcp: refusal(require_table(settings.tcp.as_ref())),
        syscalls: refusal(require_table(settings.syscalls.as_ref())),
    };
    let store = store_refusal(&settings.state);
    let mut lines = vec![format!("configuration: {} is right", shown(path))];
    lines.push(describe_store(&settings, store.as_deref()));
    lines.extend(self::lines(&settings, &refusals));
    lines.extend(events.note);
    lines.push(String::new());
    Artifact::open(&Destination::Stdout)?.write(lines.join("\n").as_bytes())?;
    Ok(if refusals == Refusals::default() && store.is_none() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

/// Why capabilities that are on cannot be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Refusals {
    sampling: Option<String>,
    queries: Option<String>,
    tcp: Option<String>,
    syscalls: Option<String>,
}

impl Refusals {
    /// What the budget has shed for now.
    pub(super) fn of_budget(shed: &[Capability]) -> Self {
        let why = |capability| {
            let is_shed = shed.contains(&capability);
            is_shed.then(|| "shed by the CPU budget, until there is room again".to_owned())
        };
        Self {
            sampling: why(Capability::Sampling),
            queries: why(Capability::Queries),
            tcp: why(Capability::Tcp),
            syscalls: why(Capability::Syscalls),
        }
    }
}

/// What `kernel.perf_event_paranoid` means for perf events, where it is as Debian sets it.
#[derive(Debug, Default)]
struct Events {
    /// Why there are none.
    refusal: Option<String>,
    /// By what there are.
    note: Option<String>,
}

fn events(reasons: Reasons) -> Events {
    if !reasons.paranoid {
        return Events::default();
    }
    if is_admin() {
        let note = "perf events: by CAP_SYS_ADMIN, as kernel.perf_event_paranoid is above 2; profiler.service wants \
                    perf-events.conf or sys-admin.conf of /usr/share/doc/profiler/examples";
        return Events {
            note: Some(note.to_owned()),
            ..Events::default()
        };
    }
    Events {
        refusal: refusal(kernel::probe::perf_event().map_err(Error::from)),
        ..Events::default()
    }
}

/// A line a capability, whether it is on.
pub(super) fn lines(settings: &Settings, refusals: &Refusals) -> Vec<String> {
    let line = |name, targets, refusal: &Option<String>| {
        table_line(name, targets, settings.window, refusal.as_deref())
    };
    let queries = settings.queries.as_ref().map(|queries| &queries.targets);
    let mut lines = vec![
        sampling_line(settings, refusals.sampling.as_deref()),
        line("queries", queries, &refusals.queries),
        line("tcp", settings.tcp.as_ref(), &refusals.tcp),
        line("syscalls", settings.syscalls.as_ref(), &refusals.syscalls),
        web_line(settings),
    ];
    lines.extend(export_lines(settings));
    lines
}

/// The line of what is kept as tables, of whoever is named.
fn table_line(
    name: &str,
    targets: Option<&Targets>,
    window: Duration,
    refusal: Option<&str>,
) -> String {
    let Some(targets) = targets else {
        return format!("{name}: off, nobody is named ({name}.targets)");
    };
    if let Some(refusal) = refusal {
        return format!("{name}: {refusal}");
    }
    format!(
        "{name}: on, {}, windows of {:.1} s",
        targets.description(),
        window.as_secs_f64()
    )
}

fn web_line(settings: &Settings) -> String {
    match &settings.web {
        None => "web: off, as configured (web.listen)".to_owned(),
        Some(web) => format!("web: on, page and metrics at {}", web.listen),
    }
}

fn export_lines(settings: &Settings) -> Vec<String> {
    if settings.export.targets.is_empty() {
        return vec!["export: off, as configured ([[export]])".to_owned()];
    }
    let targets = settings.export.targets.iter();
    targets
        .map(|target| {
            let signals: Vec<&str> = target.signals.iter().map(|signal| signal.name()).collect();
            format!(
                "export: on, {} to {} at {}",
                signals.join(" and "),
                target.kind.name(),
                target.url
            )
        })
        .collect()
}

/// The line of sampling.
fn sampling_line(settings: &Settings, refusal: Option<&str>) -> String {
    let Some(sampling) = &settings.sampling else {
        return "sampling: off, as configured (sampling.enabled)".to_owned();
    };
    if let Some(refusal) = refusal {
        return format!("sampling: {refusal}");
    }
    let what = match sampling.sampled {
        Sampled::Cpu => format!("at {} Hz", sampling.frequency_hz),
        Sampled::OffCpu => format!("off the CPU, waits from {:?} on", sampling.min_block),
        Sampled::Wall => format!(
            "all time, at {} Hz and waits from {:?} on",
            sampling.frequency_hz, sampling.min_block
        ),
    };
    format!(
        "sampling: on, {} {what}, windows of {:.1} s",
        sampling.description(),
        settings.window.as_secs_f64()
    )
}

/// Refuses sampling that could not work here.
pub(super) fn require_sampling(settings: &Settings) -> Result<(), Error> {
    let Some(sampling) = &settings.sampling else {
        return Ok(());
    };
    preflight::require_record()?;
    check_frequency(sampling.frequency_hz)
}

/// Likewise, watching queries.
pub(super) fn require_queries(settings: &Settings) -> Result<(), Error> {
    let queries = settings.queries.as_ref();
    Ok(queries.map_or(Ok(()), |queries| postgres::require(queries.tls))?)
}

/// Likewise, what is kept of connections or system calls.
pub(super) fn require_table(targets: Option<&Targets>) -> Result<(), Error> {
    match targets {
        Some(_) => Ok(preflight::require_record()?),
        None => Ok(()),
    }
}

/// Why not, with what mends it.
fn refusal(required: Result<(), Error>) -> Option<String> {
    let why = required.err()?.with_hint();
    Some(format!("impossible here, {why}"))
}

fn describe_store(settings: &Settings, refusal: Option<&str>) -> String {
    let state = shown(&settings.state);
    match refusal {
        Some(refusal) => format!("store: impossible, {state}: {refusal}"),
        None => format!(
            "store: {state}, up to {} MB and {:.1} days",
            settings.retention.bytes / 1_000_000,
            settings.retention.age.as_secs_f64() / 86_400.0
        ),
    }
}

/// Why windows could not be kept there. The directory may still have to be made.
fn store_refusal(state: &Path) -> Option<String> {
    if let Ok(Some(why)) = trusted::why_exposed(state) {
        return Some(why);
    }
    let existing = state.ancestors().find(|path| path.exists())?;
    match fs::metadata(existing) {
        Ok(metadata) if !metadata.is_dir() => Some("not a directory".to_owned()),
        Ok(_) => {
            let writable = rustix::fs::access(existing, rustix::fs::Access::WRITE_OK);
            writable.err().map(|error| error.to_string())
        }
        Err(error) => Some(error.to_string()),
    }
}
