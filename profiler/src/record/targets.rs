//! Checks of what was typed against what runs, before anything is recorded.

use std::{fs, time::Duration};

use procfs::process::{Process, StatFlags};

use crate::{config, error::Error};

/// The kernel's limit where its file cannot be read: its own default.
const MAX_RATE_DEFAULT_HZ: u64 = 100_000;

/// Refuses what could not be recorded: no such process, a thread's id, a kernel thread, a rate out
/// of range.
pub(super) fn check(config: &config::Record) -> Result<(), Error> {
    check_frequency(config.frequency_hz)?;
    config
        .targets
        .pids
        .iter()
        .try_for_each(|&pid| check_pid(pid))
}

fn check_frequency(frequency_hz: u64) -> Result<(), Error> {
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

fn check_pid(pid: u32) -> Result<(), Error> {
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

fn open(pid: u32) -> Option<Process> {
    Process::new(i32::try_from(pid).ok()?).ok()
}

/// CPU time that these processes have used in their lives, as far as they still can be asked.
pub(super) fn cpu_time(pids: impl IntoIterator<Item = u32>) -> Duration {
    let ticks: u64 = pids
        .into_iter()
        .filter_map(|pid| open(pid)?.stat().ok())
        .map(|stat| stat.utime + stat.stime)
        .sum();
    Duration::from_millis(ticks.saturating_mul(1000) / procfs::ticks_per_second().max(1))
}

#[cfg(test)]
mod tests {
    use super::{Error, check_frequency, check_pid};

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

    /// Zero and more than the kernel allows are refused.
    #[test]
    fn rates_have_limits() {
        assert!(check_frequency(99).is_ok());
        assert!(check_frequency(0).is_err() && check_frequency(u64::MAX).is_err());
    }
}
