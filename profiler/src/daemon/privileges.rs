//! Fewer privileges: of whatever the daemon was started with it keeps what it needs as long as it runs, and can
//! never get more again.
//!
//! Capabilities belong to threads, so they are dropped before the first one is started. What attaching needs is kept:
//! CPUs come online, targets come, and a reload attaches anew.

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

use super::config::Settings;
use crate::{
    error::Error,
    kernel::{self, PARANOID_MIN},
    postgres::Tls,
};

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

/// Why `CAP_SYS_ADMIN` is kept too, where it is: whoever has it is all but root.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "one for each reason")]
pub(super) struct Reasons {
    /// `kernel.perf_event_paranoid` as Debian sets it, 3: perf events want it, and so do tracepoints.
    pub(super) paranoid: bool,
    /// Probes in TLS libraries want it.
    pub(super) tls: bool,
    /// Sockets of other network namespaces are listed from within them.
    pub(super) namespaces: bool,
    /// Tracepoints are described in a file system that is not mounted here.
    pub(super) no_tracefs: bool,
}

impl Reasons {
    /// Of what is configured at the start; a reload gets nothing back.
    pub(super) fn of(settings: &Settings) -> Self {
        let refuses = kernel::perf_event_paranoid().is_some_and(|level| level >= PARANOID_MIN);
        let queries = settings.queries.as_ref();
        Self {
            paranoid: refuses && (settings.sampling.is_some() || queries.is_some()),
            tls: queries.is_some_and(|queries| queries.tls != Tls::Off),
            namespaces: settings.tcp.is_some(),
            no_tracefs: (queries.is_some() || settings.tcp.is_some()) && !kernel::has_tracefs(),
        }
    }

    fn are_any(self) -> bool {
        self.paranoid || self.tls || self.namespaces || self.no_tracefs
    }
}

/// What happened.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Privileges {
    /// Names of the capabilities that remain.
    pub(super) kept: Vec<String>,
    /// How many were dropped.
    pub(super) dropped: usize,
}

/// Drops what is not needed, for this thread and those that it starts.
pub(super) fn reduce(reasons: Reasons) -> Result<Privileges, Error> {
    let failed = |error: CapsError| Error::System {
        action: "drop capabilities",
        source: std::io::Error::other(error.to_string()),
    };
    let held = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let kept = kept_of(&held, reasons);
    // Before the permitted set shrinks, as it wants a capability.
    if held.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::read(None, CapSet::Bounding).map_err(failed)? {
            if !NEEDED.contains(&capability) && !kept.contains(&capability) {
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

/// Whether this thread has `CAP_SYS_ADMIN`.
pub(super) fn is_admin() -> bool {
    caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_ADMIN).unwrap_or_default()
}

/// Drops everything, for this thread and those that it starts: it has nothing to do with the kernel.
pub(crate) fn give_up() {
    for set in [CapSet::Effective, CapSet::Permitted] {
        if let Err(error) = caps::clear(None, set) {
            tracing::warn!(%error, "a thread keeps capabilities that it does not need");
        }
    }
}

fn kept_of(held: &CapsHashSet, reasons: Reasons) -> CapsHashSet {
    let more = reasons.are_any().then_some(Capability::CAP_SYS_ADMIN);
    NEEDED
        .into_iter()
        .chain(more)
        .filter(|capability| held.contains(capability))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{CapSet, Capability, NEEDED, Reasons, give_up, kept_of, reduce};

    /// Of everything only what is needed is kept, of nothing nothing is made.
    #[test]
    fn only_the_needed_are_kept() {
        let all = caps::all();
        let none = Reasons::default();
        assert_eq!(kept_of(&all, none), NEEDED.into_iter().collect());
        let some = [Capability::CAP_BPF, Capability::CAP_SYS_ADMIN];
        assert_eq!(
            kept_of(&some.into_iter().collect(), none),
            [Capability::CAP_BPF].into_iter().collect()
        );
        let tls = Reasons { tls: true, ..none };
        let some = some.into_iter().collect();
        assert_eq!(kept_of(&some, tls), some);
    }

    /// A thread that has given up everything has nothing.
    #[test]
    fn given_up_is_gone() {
        let thread = std::thread::spawn(|| {
            give_up();
            assert!(caps::read(None, CapSet::Permitted).unwrap().is_empty());
            assert!(caps::read(None, CapSet::Effective).unwrap().is_empty());
        });
        thread.join().unwrap();
    }

    /// A thread that has dropped them has no more than those, and cannot get others back.
    #[test]
    fn dropped_is_dropped() {
        let thread = std::thread::spawn(|| {
            let before = caps::read(None, CapSet::Permitted).unwrap();
            let privileges = reduce(Reasons::default()).unwrap();
            let after = caps::read(None, CapSet::Effective).unwrap();
            assert_eq!(after, kept_of(&before, Reasons::default()));
            assert_eq!(privileges.kept.len() + privileges.dropped, before.len());
            assert!(caps::raise(None, CapSet::Permitted, Capability::CAP_SYS_ADMIN).is_err());
            assert!(rustix::thread::no_new_privs().unwrap());
        });
        thread.join().unwrap();
    }
}
