//! How much CPU time the daemon uses: its own, user and system, and that of its BPF programs.

use std::time::{Duration, Instant};

use crate::record::finish::process_cpu_time;

/// Readings, each since the one before.
#[derive(Debug)]
pub(super) struct Overhead {
    at: Instant,
    used: Duration,
    cpus: u32,
}

impl Overhead {
    /// Begins now. `bpf` is what the programs have used so far.
    pub(super) fn begin(bpf: Duration) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            at: Instant::now(),
            used: process_cpu_time() + bpf,
            cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
        }
    }

    /// Millionths of the time of all CPUs since the last reading.
    pub(super) fn read(&mut self, bpf: Duration) -> u64 {
        let (now, used) = (Instant::now(), process_cpu_time() + bpf);
        let share = share_ppm(used.saturating_sub(self.used), (now - self.at) * self.cpus);
        self.at = now;
        self.used = used;
        share
    }
}

fn share_ppm(used: Duration, whole: Duration) -> u64 {
    let share = used.as_nanos() * 1_000_000 / whole.as_nanos().max(1);
    u64::try_from(share).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Duration, share_ppm};

    /// Shares are of all CPUs' time; none of no time is none.
    #[test]
    fn shares() {
        let ms = Duration::from_millis;
        assert_eq!(share_ppm(ms(10), ms(2000)), 5000);
        assert_eq!(share_ppm(ms(0), ms(0)), 0);
    }
}
