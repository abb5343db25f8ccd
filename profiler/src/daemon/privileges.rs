//! Fewer privileges: of whatever the daemon was started with it keeps what it needs as long as it runs, and can
//! never get more again.
//!
//! Capabilities belong to threads, so they are dropped before the first one is started. What attaching needs is kept:
//! CPUs come online, targets come, and a reload attaches anew.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

use crate::error::Error;

/// What is kept, each for its reason.
const NEEDED: [Capability; 6] = [
    // Maps, and loading programs.
    Capability::CAP_BPF,
    // Attaching them, and perf events.
    Capability::CAP_PERFMON,
    // Mappings, memory and roots of other users' processes.
    Capability::CAP_SYS_PTRACE,
    // Their files.
    Capability::CAP_DAC_READ_SEARCH,
    // The mapped files themselves, deleted or not.
    Capability::CAP_CHECKPOINT_RESTORE,
    // Names of the kernel's functions.
    Capability::CAP_SYSLOG,
];

/// What happened.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Privileges {
    /// Names of the capabilities that remain.
    pub(super) kept: Vec<String>,
    /// How many were dropped.
    pub(super) dropped: usize,
}

/// Drops what is not needed, for this thread and those that it starts.
pub(super) fn reduce() -> Result<Privileges, Error> {
    let failed = |error: CapsError| Error::System {
        action: "drop capabilities",
        source: std::io::Error::other(error.to_string()),
    };
    let held = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let kept = kept_of(&held);
    // Before the permitted set shrinks, as it wants a capability.
    if held.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::read(None, CapSet::Bounding).map_err(failed)? {
            if !NEEDED.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability).map_err(failed)?;
            }
        }
    }
    caps::clear(None, CapSet::Ambient).map_err(failed)?;
    caps::clear(None, CapSet::Inheritable).map_err(failed)?;
    caps::set(None, CapSet::Effective, &kept).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(failed)?;
    rustix::thread::set_no_new_privs(true).map_err(|error| Error::System {
        action: "give up new privileges",
        source: error.into(),
    })?;
    let mut names: Vec<String> = kept.iter().map(ToString::to_string).collect();
    names.sort();
    Ok(Privileges {
        kept: names,
        dropped: held.len() - kept.len(),
    })
}

fn kept_of(held: &CapsHashSet) -> CapsHashSet {
    NEEDED
        .into_iter()
        .filter(|capability| held.contains(capability))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{CapSet, Capability, NEEDED, kept_of, reduce};

    /// Of everything only what is needed is kept, of nothing nothing is made.
    #[test]
    fn only_the_needed_are_kept() {
        let all = caps::all();
        assert_eq!(kept_of(&all), NEEDED.into_iter().collect());
        let some = [Capability::CAP_BPF, Capability::CAP_SYS_ADMIN];
        assert_eq!(
            kept_of(&some.into_iter().collect()),
            [Capability::CAP_BPF].into_iter().collect()
        );
    }

    /// A thread that has dropped them has no more than those, and cannot get others back.
    #[test]
    fn dropped_is_dropped() {
        let thread = std::thread::spawn(|| {
            let before = caps::read(None, CapSet::Permitted).unwrap();
            let privileges = reduce().unwrap();
            let after = caps::read(None, CapSet::Effective).unwrap();
            assert_eq!(after, kept_of(&before));
            assert_eq!(privileges.kept.len() + privileges.dropped, before.len());
            assert!(caps::raise(None, CapSet::Permitted, Capability::CAP_SYS_ADMIN).is_err());
            assert!(rustix::thread::no_new_privs().unwrap());
        });
        thread.join().unwrap();
    }
}
