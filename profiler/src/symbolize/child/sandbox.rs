//! What the child gives up before it reads a byte that it did not write.

use std::{io, time::Duration};

use rustix::{
    process::{
        Gid, Resource, Rlimit, Signal, Uid, getrlimit, set_parent_process_death_signal, setrlimit,
    },
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
        set_thread_res_gid, set_thread_res_uid,
    },
};

use super::{filter, readable::COPIED_MAX};
use crate::symbolize::limits::Limits;

/// The user without any rights.
const NOBODY: u32 = 65_534;
/// Descriptors: the standard ones, and those of one question, opened twice.
const DESCRIPTORS: u64 = 64;

/// Everything but the socket, the right to read what is passed through it and so much memory. Only for a process
/// with one thread: what is given up is the calling thread's.
pub(super) fn enter(limits: &Limits) -> io::Result<()> {
    // SAFETY: no descriptor but the standard ones is in use: nothing has been opened yet.
    if unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) } != 0 {
        // The parent's close by themselves; this is for those of whoever started the parent.
    }
    std::env::set_current_dir("/")?;
    ignore_signals();
    limit_resources(limits)?;
    become_nobody()?;
    set_no_new_privs(true)?;
    // After the change of user, which takes it away.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::thread::set_name(c"symbolize")?;
    filter::install()
}

/// Signals to a whole group (a terminal's, a unit's) are for the profiler, which ends its child itself.
fn ignore_signals() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: to ignore a signal runs no code of ours.
        let _ = unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

fn limit_resources(limits: &Limits) -> io::Result<()> {
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::Nofile, DESCRIPTORS),
        (Resource::Fsize, COPIED_MAX),
        (Resource::Data, limits.data),
        (Resource::As, limits.data.saturating_add(limits.files)),
    ] {
        let maximum = getrlimit(resource).maximum;
        let most = Some(maximum.map_or(most, |maximum| maximum.min(most)));
        setrlimit(
            resource,
            Rlimit {
                current: most,
                maximum: most,
            },
        )?;
    }
    Ok(())
}

/// No capabilities, and as root or the like no user either. In a user namespace that has no such user, that of the
/// parent stays: without capabilities it may do what `nobody` may with files of that user.
fn become_nobody() -> io::Result<()> {
    let permitted = capabilities(None)?.permitted;
    // Only with the right to end us does the parent see another user.
    let needed = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::KILL;
    if permitted.contains(CapabilitySet::SETPCAP) {
        for number in 0..u64::BITS {
            // Those that this kernel does not know are refused.
            let capability = CapabilitySet::from_bits_retain(1 << number);
            let _ = remove_capability_from_bounding_set(capability);
        }
    }
    if permitted.contains(needed) {
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        let change = || -> rustix::io::Result<()> {
            set_thread_groups(&[])?;
            set_thread_res_gid(gid, gid, gid)?;
            set_thread_res_uid(uid, uid, uid)
        };
        match change() {
            Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // Kernels before 4.3 have no such set.
    let _ = clear_ambient_capability_set();
    let none = CapabilitySet::empty();
    set_capabilities(
        None,
        CapabilitySets {
            effective: none,
            permitted: none,
            inheritable: none,
        },
    )?;
    Ok(())
}

/// From here on, so much processor time: beyond it the kernel ends the process.
pub(super) fn allow_seconds(seconds: u64) -> io::Result<()> {
    let limit = getrlimit(Resource::Cpu);
    let most = used().as_secs().saturating_add(seconds).saturating_add(1);
    setrlimit(
        Resource::Cpu,
        Rlimit {
            current: Some(limit.maximum.map_or(most, |maximum| maximum.min(most))),
            maximum: limit.maximum,
        },
    )?;
    Ok(())
}

/// Processor time of this process.
fn used() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
