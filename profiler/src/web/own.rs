//! What the daemon's own process uses; what cannot be read is left out.

use std::{fs, time::Duration};

use procfs::process::Process;
use rustix::process::{Resource, getrlimit};

use crate::record::finish::process_cpu_time;

/// Of this process, now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) cpu: Duration,
    pub(super) resident_bytes: Option<u64>,
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
    /// Seconds after the Unix epoch.
    pub(super) started_s: Option<u64>,
}

impl Own {
    pub(super) fn read() -> Self {
        let process = Process::myself().ok();
        let memory = process.as_ref().and_then(|process| process.statm().ok());
        let open_fds = fs::read_dir("/proc/self/fd").map(|list| list.count() as u64);
        let started = process.and_then(|process| {
            let ticks = process.stat().ok()?.starttime;
            Some(procfs::boot_time_secs().ok()? + ticks / procfs::ticks_per_second())
        });
        Self {
            cpu: process_cpu_time(),
            resident_bytes: memory.map(|memory| memory.resident * procfs::page_size()),
            // One of them reads the list.
            open_fds: open_fds.ok().map(|count| count.saturating_sub(1)),
            max_fds: getrlimit(Resource::Nofile).current,
            started_s: started,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Own;

    /// This process has memory, descriptors and a past.
    #[test]
    fn own_process_is_known() {
        let own = Own::read();
        assert!(own.resident_bytes.unwrap() > 1 << 20);
        assert!(own.open_fds.unwrap() > 2 && own.open_fds < own.max_fds);
        let now_s = crate::store::now_ms() / 1000;
        assert!(own.started_s.unwrap() <= now_s + 1);
    }
}
