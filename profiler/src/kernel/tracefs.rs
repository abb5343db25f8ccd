//! The kernel's tracing file system, where classic tracepoints are described and numbered.
//!
//! Where it is not mounted it is mounted for a thread of our own in a mount namespace of that thread, which ends with
//! it: nobody else sees it, and nothing of the machine is changed.

use std::path::Path;

use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};

use super::KernelError;

/// Where it may be mounted; by default at the first one.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Does something with it mounted; hands the place to it.
pub(super) fn with<T: Send>(
    each: impl FnOnce(&'static str) -> Result<T, KernelError> + Send,
) -> Result<T, KernelError> {
    if let Some(place) = mounted() {
        return each(place);
    }
    let [place, _] = PLACES;
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            mount_for_this_thread(place).map_err(|error| KernelError::NoTracefs(error.into()))?;
            each(place)
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Where it is mounted for everybody.
fn mounted() -> Option<&'static str> {
    let is_mounted = |place: &&str| Path::new(place).join("events").is_dir();
    PLACES.into_iter().find(is_mounted)
}

/// Whether nothing has to be mounted.
pub fn has_tracefs() -> bool {
    mounted().is_some()
}

fn mount_for_this_thread(place: &str) -> rustix::io::Result<()> {
    // SAFETY: no descriptor is shared less by that: only the mounts that this thread sees are its own.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
    // Else the others would see it, where mounts are shared.
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("tracefs", place, "tracefs", flags, None)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::with;

    /// It is there for the one who asks, and whether it is for others does not change.
    #[test]
    fn nobody_else_sees_it() {
        let events = Path::new("/sys/kernel/tracing/events/syscalls");
        let before = events.is_dir();
        let there = with(|place| Ok(Path::new(place).join("events/syscalls").is_dir()));
        match there {
            Ok(there) => assert!(there),
            Err(error) => eprintln!("without the privilege to mount: {error}"),
        }
        assert_eq!(events.is_dir(), before);
    }
}
