//! Whether the daemon does what it is there for, thread by thread. Pure.

use std::time::{Duration, Instant};

use super::status::{Snapshot, State};
use crate::export::{Health, Target};

/// Longest time without a sign of life: each capability gives one several times a second.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest time that a request of an export stands: it has a limit of half of that.
const EXPORT_PATIENCE: Duration = Duration::from_secs(60);
/// Windows for which a thread may be at one thing, and windows that may be lost in a row.
const WINDOWS: u32 = 3;

/// What is wrong, if anything is.
pub(crate) fn trouble(
    snapshot: &Snapshot,
    exports: &[(Target, Health)],
    now: Instant,
) -> Vec<String> {
    let mut trouble = standstill(snapshot, exports, now);
    for (capability, state) in &snapshot.capabilities {
        if let State::Failed(why) = state {
            let name = capability.name();
            trouble.push(format!("{name} failed and is tried again: {why}"));
        }
    }
    trouble
}

/// What does not go on: the service manager's watchdog does not hear from us as long as there is
/// any of it. What has failed is being looked after, and is none.
pub(crate) fn standstill(
    snapshot: &Snapshot,
    exports: &[(Target, Health)],
    now: Instant,
) -> Vec<String> {
    let still = |since: Instant, patience: Duration| {
        let time = now.saturating_duration_since(since);
        (time > patience).then_some(time.as_secs())
    };
    let mut trouble = Vec::new();
    match snapshot.looked {
        None => trouble.push("starting".to_owned()),
        Some(looked) => trouble.extend(
            still(looked, PATIENCE).map(|s| format!("the main loop stands still for {s} s")),
        ),
    }
    for (capability, state) in &snapshot.capabilities {
        // Neither of the others is trouble: what is shed is as it should be, for want of CPU time.
        if let State::On(_) = state
            && let Some((_, since)) = snapshot.beats.get(capability)
            && let Some(s) = still(*since, PATIENCE)
        {
            trouble.push(format!("{} stands still for {s} s", capability.name()));
        }
    }
    let windows = snapshot.window * WINDOWS;
    for (thread, (what, since)) in &snapshot.at {
        let seconds = still(*since, windows.max(PATIENCE));
        trouble.extend(
            seconds.map(|s| format!("the thread of {thread} stands still for {s} s: {what}")),
        );
    }
    for (target, health) in exports {
        let seconds = health.since;
        let seconds = seconds.and_then(|since| still(since, windows.max(EXPORT_PATIENCE)));
        let (kind, signal) = (target.kind.name(), health.signal.name());
        trouble.extend(
            seconds.map(|s| format!("the export of {signal} to {kind} stands still for {s} s")),
        );
    }
    for (capability, (count, cause)) in &snapshot.lost_in_a_row {
        if *count >= u64::from(WINDOWS) {
            let (name, cause) = (capability.name(), cause.text());
            trouble.push(format!("{name}: {count} windows in a row lost: {cause}"));
        }
    }
    trouble
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Health, Snapshot, State, Target, standstill, trouble};
    use crate::{
        export::{Kind, Signal},
        store::{Capability, LostWindow},
    };

    /// A daemon that is well, at a time, with windows of a minute.
    fn well(start: Instant) -> Snapshot {
        let mut snapshot = Snapshot {
            looked: Some(start),
            window: Duration::from_secs(60),
            ..Snapshot::default()
        };
        snapshot
            .capabilities
            .insert(Capability::Sampling, State::On("host".to_owned()));
        snapshot.beats.insert(Capability::Sampling, (7, start));
        snapshot
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    /// A loop that stands still is trouble, and so is a capability that failed; one that is off is
    /// none.
    #[test]
    fn standstill_is_trouble() {
        let start = Instant::now();
        let wrong = |snapshot: &Snapshot, seconds| trouble(snapshot, &[], at(start, seconds));
        assert_eq!(wrong(&Snapshot::default(), 0), ["starting"]);
        let mut snapshot = well(start);
        assert!(wrong(&snapshot, 10).is_empty());
        assert_eq!(wrong(&snapshot, 11).len(), 2);
        snapshot.looked = Some(at(start, 11));
        assert_eq!(wrong(&snapshot, 11), ["sampling stands still for 11 s"]);
        let failed = State::Failed("no perf events".to_owned());
        snapshot.capabilities.insert(Capability::Sampling, failed);
        assert!(wrong(&snapshot, 11)[0].contains("no perf events"));
        let still = standstill(&snapshot, &[], at(start, 11));
        assert!(still.is_empty(), "it is being looked after: {still:?}");
        snapshot
            .capabilities
            .insert(Capability::Sampling, State::Off);
        assert!(wrong(&snapshot, 11).is_empty());
    }

    /// A thread that has been at one window for three windows is named, with what it is at and
    /// since when; one that waits for work is not.
    #[test]
    fn threads_that_hang_are_named() {
        let start = Instant::now();
        let mut snapshot = well(start);
        let still = |snapshot: &mut Snapshot, seconds| {
            snapshot.looked = Some(at(start, seconds));
            let sampling = (8, at(start, seconds));
            snapshot.beats.insert(Capability::Sampling, sampling);
            standstill(snapshot, &[], at(start, seconds))
        };
        assert!(still(&mut snapshot, 1000).is_empty());
        snapshot.at.insert("windows", ("naming", start));
        assert!(still(&mut snapshot, 180).is_empty());
        assert_eq!(
            still(&mut snapshot, 181),
            ["the thread of windows stands still for 181 s: naming"]
        );
        snapshot.window = Duration::from_millis(100);
        assert!(still(&mut snapshot, 10).is_empty(), "a moment is nothing");
        assert_eq!(still(&mut snapshot, 11).len(), 1);
        snapshot.at.clear();
        assert!(still(&mut snapshot, 11).is_empty());
    }

    /// An export whose request neither arrives nor fails is named by what it sends.
    #[test]
    fn exports_that_hang_are_named() {
        let start = Instant::now();
        let target = Target {
            kind: Kind::Parca,
            url: "http://user:secret@parca".to_owned(),
            headers_file: None,
            signals: vec![Signal::Profiles],
        };
        let mut snapshot = well(at(start, 181));
        let health = |since| Health {
            since,
            ..Health::default()
        };
        let still = |snapshot: &Snapshot, since, seconds| {
            let exports = [(target.clone(), health(since))];
            standstill(snapshot, &exports, at(start, seconds))
        };
        assert!(still(&snapshot, None, 181).is_empty());
        assert_eq!(
            still(&snapshot, Some(start), 181),
            ["the export of profiles to parca stands still for 181 s"]
        );
        snapshot.window = Duration::from_secs(1);
        snapshot.looked = Some(at(start, 60));
        assert!(still(&snapshot, Some(start), 60).is_empty());
    }

    /// Three windows lost in a row are trouble, two are not, whatever another capability writes.
    #[test]
    fn windows_lost_in_a_row_are_trouble() {
        let start = Instant::now();
        let mut snapshot = well(start);
        let mut lost = |capability, count| {
            let lost = (count, LostWindow::DiskFull);
            snapshot.lost_in_a_row.insert(capability, lost);
            standstill(&snapshot, &[], start)
        };
        assert!(lost(Capability::Tcp, 2).is_empty());
        assert_eq!(
            lost(Capability::Sampling, 3),
            ["sampling: 3 windows in a row lost: disk full"]
        );
    }
}
