//! Targets: checks of what was typed against what runs, and telling the kernel side.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    time::Duration,
};

use procfs::process::{Process, StatFlags};

use profiler_common::{
    comm::CommGlob,
    config::{Settings, target},
};

use super::{command::Held, running::Running};
use crate::{
    cgroup::Cgroup,
    config::{self, Descendants, Targets},
    error::Error,
    kernel::{Kernel, kernel_offsets},
    process, sockets,
    terminal::say,
};

/// The kernel's limit where its file cannot be read: its own default.
const MAX_RATE_DEFAULT_HZ: u64 = 100_000;

/// Most names of processes that are left out are shown.
const NAMES_SHOWN: usize = 3;

/// Refuses what could not be recorded: no such process, a thread's id, a kernel thread, a rate out
/// of range.
pub(super) fn check(config: &config::Record) -> Result<(), Error> {
    check_frequency(config.frequency_hz)?;
    check_named(&config.targets)
}

/// Refuses processes that cannot be watched, and says what of a pre-fork server is left out.
pub(crate) fn check_named(targets: &Targets) -> Result<(), Error> {
    targets.pids.iter().try_for_each(|&pid| check_pid(pid))?;
    if targets.descendants == Descendants::Ignore {
        let below = descendants(&targets.pids);
        let below = below.into_iter().filter(|pid| !targets.pids.contains(pid));
        let names: Vec<String> = below.filter_map(process::comm).collect();
        if let Some(line) = left_out(&names) {
            say(&line);
        }
    }
    Ok(())
}

/// What is said of processes that descend from the targets and are not watched, by their names.
fn left_out(names: &[String]) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| Reverse(*count));
    let kinds: Vec<String> = (counts.iter().take(NAMES_SHOWN))
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    let more = if counts.len() > NAMES_SHOWN {
        ", …"
    } else {
        ""
    };
    (!names.is_empty()).then(|| {
        format!(
            "note: not watched: {}{more}, which descend from the target; hint: add --descendants",
            kinds.join(", ")
        )
    })
}

/// The settings of the kernel side that say whom.
pub(crate) fn settings(targets: &Targets) -> Result<Settings, Error> {
    let mut settings = Settings {
        filters: targets.filters(),
        offsets: kernel_offsets()?,
        ..Settings::UNSET
    };
    if let Some((_, cgroup)) = &targets.cgroup {
        settings.cgroup_id = cgroup.id;
        settings.cgroup_level = cgroup.level;
    }
    if let Some((_, glob)) = targets.comm {
        settings.comm = glob;
    }
    Ok(settings)
}

/// Starts the command, if there is one, and holds it.
pub(crate) fn hold_command(targets: &Targets) -> Result<Option<Held>, Error> {
    let Some(command) = &targets.command else {
        return Ok(None);
    };
    let held = Held::start(command);
    held.map(Some)
        .map_err(|source| command_error(targets, source))
}

/// Lets the command go.
pub(crate) fn release(held: Held, targets: &Targets) -> Result<Running, Error> {
    let child = held.release();
    Running::new(child.map_err(|source| command_error(targets, source))?)
}

fn command_error(targets: &Targets, source: io::Error) -> Error {
    let name = targets.command.iter().flatten().next();
    Error::Command {
        command: name
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default(),
        source,
    }
}

/// Tells the kernel side of the processes that are named, and of the command that is held; gives them all.
pub(crate) fn name(
    kernel: &mut Kernel,
    targets: &Targets,
    held: Option<&Held>,
) -> Result<BTreeSet<u32>, Error> {
    let follow = match targets.descendants {
        Descendants::Follow => target::FOLLOW,
        Descendants::Ignore => 0,
    };
    for &pid in &targets.pids {
        kernel.add_target(pid, follow)?;
    }
    if let Some(held) = held {
        kernel.add_target(held.pid(), follow | target::AWAIT_EXEC)?;
    }
    let named = targets.pids.iter().copied();
    Ok(named.chain(held.map(Held::pid)).collect())
}

/// Makes what descends from the targets already targets too, and hands it to `each`. Forks must be followed by
/// now, so that looking until nothing is new finds all.
pub(crate) fn add_descendants(
    kernel: &mut Kernel,
    targets: &Targets,
    alive: &mut BTreeSet<u32>,
    mut each: impl FnMut(u32),
) -> Result<(), Error> {
    if targets.descendants != Descendants::Follow {
        return Ok(());
    }
    loop {
        let new = descendants(&targets.pids);
        let new: Vec<u32> = new.difference(alive).copied().collect();
        if new.is_empty() {
            return Ok(());
        }
        for pid in new {
            kernel.add_target(pid, target::FOLLOW)?;
            each(pid);
            alive.insert(pid);
        }
    }
}

/// The processes that are targets now: of those named that live, or of all, each that passes the filters.
pub(crate) fn present(targets: &Targets, alive: &BTreeSet<u32>) -> Vec<u32> {
    let mut pids = if targets.names_processes() {
        alive.iter().copied().collect()
    } else {
        sockets::everybody()
    };
    pids.retain(|&pid| passes(targets, pid));
    pids
}

/// Whether a process has the name and the cgroup that are asked for, if any are.
fn passes(targets: &Targets, pid: u32) -> bool {
    let is_named = |(_, glob): &(String, CommGlob)| {
        process::comm(pid).is_some_and(|comm| glob.matches_name(&comm))
    };
    let is_in = |(_, cgroup): &(String, Cgroup)| {
        process::cgroup(pid).is_some_and(|path| cgroup.holds(&path))
    };
    targets.comm.as_ref().is_none_or(is_named) && targets.cgroup.as_ref().is_none_or(is_in)
}

/// Leaves out those that have ended: the kernel side tells every exit, but for a full ring.
pub(crate) fn forget_ended(alive: &mut BTreeSet<u32>) {
    alive.retain(|pid| process::is_alive(*pid));
}

/// Whether every named process has ended.
pub(crate) fn all_gone(alive: &mut BTreeSet<u32>) -> bool {
    forget_ended(alive);
    alive.is_empty()
}

pub(crate) fn check_frequency(frequency_hz: u64) -> Result<(), Error> {
    let text =
        fs::read_to_string("/proc/sys/kernel/perf_event_max_sample_rate").unwrap_or_default();
    let max_hz = text.trim().parse().unwrap_or(MAX_RATE_DEFAULT_HZ);
    if (1..=max_hz).contains(&frequency_hz) {
        Ok(())
    } else {
        Err(Error::Frequency {
            frequency_hz,
            max_hz,
        })
    }
}

pub(crate) fn check_pid(pid: u32) -> Result<(), Error> {
    let process = open(pid).ok_or(Error::NoSuchProcess { pid })?;
    let status = process.status().map_err(|_| Error::NoSuchProcess { pid })?;
    if let Ok(tgid) = u32::try_from(status.tgid)
        && tgid != pid
    {
        return Err(Error::ThreadId {
            tid: pid,
            pid: tgid,
        });
    }
    let stat = process.stat().map_err(|_| Error::NoSuchProcess { pid })?;
    if stat.flags & StatFlags::PF_KTHREAD.bits() != 0 {
        return Err(Error::KernelThread {
            pid,
            comm: stat.comm,
        });
    }
    Ok(())
}

/// Every process that descends from these.
pub(crate) fn descendants(pids: &[u32]) -> BTreeSet<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for process in procfs::process::all_processes().into_iter().flatten() {
        let stat = process.and_then(|process| process.stat());
        if let Ok(stat) = stat
            && let (Ok(parent), Ok(pid)) = (u32::try_from(stat.ppid), u32::try_from(stat.pid))
        {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = BTreeSet::new();
    let mut queue = pids.to_vec();
    while let Some(pid) = queue.pop() {
        for &child in children.get(&pid).into_iter().flatten() {
            if found.insert(child) {
                queue.push(child);
            }
        }
    }
    found
}

fn open(pid: u32) -> Option<Process> {
    Process::new(i32::try_from(pid).ok()?).ok()
}

/// CPU time that these processes have used in their lives, as far as they still can be asked.
pub(crate) fn cpu_time(pids: impl IntoIterator<Item = u32>) -> Duration {
    let ticks: u64 = pids
        .into_iter()
        .filter_map(|pid| open(pid)?.stat().ok())
        .map(|stat| stat.utime + stat.stime)
        .sum();
    Duration::from_millis(ticks.saturating_mul(1000) / procfs::ticks_per_second().max(1))
}

#[cfg(test)]
mod tests {
    use super::{Error, check_frequency, check_pid, left_out};

    /// Each kind of bad target has its own error.
    #[test]
    fn bad_targets_are_told_apart() {
        assert!(check_pid(std::process::id()).is_ok());
        assert!(matches!(
            check_pid(4_194_304),
            Err(Error::NoSuchProcess { .. })
        ));
        let tid = rustix::thread::gettid()
            .as_raw_nonzero()
            .get()
            .unsigned_abs();
        assert!(
            matches!(check_pid(tid), Err(Error::ThreadId { .. })),
            "tests run on threads of their own"
        );
    }

    /// Processes that are left out are counted by name, the most frequent first.
    #[test]
    fn workers_are_counted_by_name() {
        let names = ["b", "a", "b", "c", "d"].map(str::to_owned);
        assert_eq!(
            left_out(&names).unwrap(),
            "note: not watched: 2 b, 1 a, 1 c, …, which descend from the target; hint: add --descendants"
        );
        assert_eq!(left_out(&[]), None);
    }

    /// Zero and more than the kernel allows are refused.
    #[test]
    fn rates_have_limits() {
        assert!(check_frequency(99).is_ok());
        assert!(check_frequency(0).is_err() && check_frequency(u64::MAX).is_err());
    }
}
