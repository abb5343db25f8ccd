//! What the child gives up before it reads a byte that it did not write.

use std::{io, time::Duration};

use rustix::{
    process::{
        DumpableBehavior, Gid, Resource, Rlimit, Signal, Uid, getrlimit, set_dumpable_behavior,
        set_parent_process_death_signal, setrlimit,
    },
    thread::{
        CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
        remove_capability_from_bounding_set, set_capabilities, set_no_new_privs, set_thread_groups,
        set_thread_res_gid, set_thread_res_uid,
    },
};

use super::{filter, readable::COPIED_MAX};
use crate::symbolize::limits::Limits;

/// Users from here on exist nowhere; each child is one of its own, by its process id. `nobody` would not do: what runs as
/// that user may stop and end us.
const NO_USER: u32 = 0x7000_0000;
/// Descriptors: the standard ones, and those of one question, opened twice.
const DESCRIPTORS: u64 = 64;

/// Everything but the socket, the right to read what is passed through it and so much memory. Only for a process
/// with one thread: what is given up is the calling thread's.
pub(super) fn enter(limits: &Limits) -> io::Result<()> {
    // SAFETY: no descriptor but the standard ones is in use: nothing has been opened yet.
    if unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) } != 0 {
        // The parent's close by themselves; this is for those of whoever started the parent.
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    ignore_signals();
    limit_resources(limits)?;
    become_no_user()?;
    set_no_new_privs(true)?;
    // After the change of user, which takes it away.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::thread::set_name(c"symbolize")?;
    // What reads the time looks at how once, by calls that are refused from here on.
    used();
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
/// parent stays, without capabilities.
fn become_no_user() -> io::Result<()> {
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
        let user = NO_USER + std::process::id();
        let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
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

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File},
        io::{self, Read},
        os::fd::AsRawFd,
        process::Command,
    };

    use rustix::thread::{CapabilitySet, capabilities};

    use super::enter;
    use crate::symbolize::Limits;

    /// Says to the test that it is the process to be confined.
    const INSIDE: &str = "PROFILER_TEST_INSIDE";

    fn is_refused(result: impl Into<i64>) {
        let error = io::Error::last_os_error();
        assert_eq!(
            (result.into(), error.raw_os_error()),
            (-1, Some(libc::EPERM))
        );
    }

    fn inside() {
        let file = File::open("/proc/self/exe").unwrap();
        let status = File::open("/proc/thread-self/status").unwrap();
        // Beyond those that are closed.
        // SAFETY: both are descriptors of this process, whose standard input nobody reads.
        let moved = unsafe { libc::dup2(status.as_raw_fd(), libc::STDIN_FILENO) };
        assert_eq!(moved, libc::STDIN_FILENO);
        enter(&Limits::VERB).unwrap();
        // SAFETY: its arguments are numbers.
        is_refused(unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0) });
        // SAFETY: its argument is a number.
        is_refused(unsafe { libc::kill(1, 0) });
        // SAFETY: its arguments are numbers.
        is_refused(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) });
        let denied = |error: io::Error| assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        denied(fs::read_link("0").unwrap_err());
        denied(File::create("/tmp/profiler-confined").unwrap_err());
        denied(Command::new("/bin/true").spawn().unwrap_err());
        // SAFETY: its argument is a number.
        let closed = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFD) };
        assert_eq!(closed, -1);
        std::mem::forget((file, status));
        let left =
            capabilities(None).map(|sets| sets.permitted | sets.effective | sets.inheritable);
        // `capget` itself is refused too; the kernel's own word is below.
        assert!(left.is_err() || left == Ok(CapabilitySet::empty()));
        let mut status = String::new();
        io::stdin().read_to_string(&mut status).unwrap();
        let value = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap();
            line.trim_start_matches(':').trim().to_owned()
        };
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(value(set), "0000000000000000", "{set}");
        }
        assert_eq!(
            (value("NoNewPrivs"), value("Seccomp")),
            ("1".to_owned(), "2".to_owned())
        );
        let uids: Vec<String> = value("Uid").split_whitespace().map(str::to_owned).collect();
        assert!(uids.iter().all(|uid| uid != "0"), "{uids:?}");
        println!("confined");
    }

    /// Inside, no socket can be made, no file written, no program run and no process signalled, there are no
    /// capabilities, and what was open is closed.
    #[test]
    fn nothing_is_left() {
        if std::env::var_os(INSIDE).is_some() {
            inside();
            return;
        }
        let name = "symbolize::child::sandbox::tests::nothing_is_left";
        let output = Command::new("/proc/self/exe")
            .args(["--exact", name, "--nocapture", "--test-threads", "1"])
            .env(INSIDE, "1")
            .current_dir("/proc/self/fd")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("confined"), "{text}");
    }
}
