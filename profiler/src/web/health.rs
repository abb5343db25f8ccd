//! Whether the daemon does what it is there for. Pure.

use std::time::{Duration, Instant};

use crate::daemon::status::{Snapshot, State};

/// Longest time without a sign of life: each part gives one several times a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is wrong, if anything is.
pub(super) fn trouble(snapshot: &Snapshot, now: Instant) -> Vec<String> {
    let still = |since: Instant| {
        let time = now.saturating_duration_since(since);
        (time > PATIENCE).then_some(time.as_secs())
    };
    let mut trouble = Vec::new();
    match snapshot.looked {
        None => trouble.push("starting".to_owned()),
        Some(looked) => trouble.extend(
            still(looked).map(|seconds| format!("the main loop stands still for {seconds} s")),
        ),
    }
    for (capability, state) in &snapshot.capabilities {
        let name = capability.name();
        match state {
            State::Failed(why) => trouble.push(format!("{name} failed and is tried again: {why}")),
            State::On(_) => {
                let since = snapshot.beats.get(capability).map(|(_, since)| *since);
                let seconds = since.and_then(still);
                trouble.extend(seconds.map(|s| format!("{name} stands still for {s} s")));
            }
            // Neither is trouble: what is shed is as it should be, for want of CPU time.
            State::Off | State::Shed => {}
        }
    }
    trouble
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Snapshot, State, trouble};
    use crate::store::Capability;

    /// A loop that stands still is trouble, and so is a capability that failed; one that is off is none.
    #[test]
    fn standstill_is_trouble() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut snapshot = Snapshot::default();
        assert_eq!(trouble(&snapshot, start), ["starting"]);
        snapshot.looked = Some(start);
        snapshot
            .capabilities
            .insert(Capability::Sampling, State::On("host".to_owned()));
        snapshot.beats.insert(Capability::Sampling, (7, start));
        assert!(trouble(&snapshot, at(10)).is_empty());
        assert_eq!(trouble(&snapshot, at(11)).len(), 2);
        snapshot.looked = Some(at(11));
        assert_eq!(
            trouble(&snapshot, at(11)),
            ["sampling stands still for 11 s"]
        );
        let failed = State::Failed("no perf events".to_owned());
        snapshot.capabilities.insert(Capability::Sampling, failed);
        assert!(trouble(&snapshot, at(11))[0].contains("no perf events"));
        snapshot
            .capabilities
            .insert(Capability::Sampling, State::Off);
        assert!(trouble(&snapshot, at(11)).is_empty());
    }
}
