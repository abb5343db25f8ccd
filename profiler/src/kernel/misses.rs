//! Programs that the kernel did not run, because they were under way on that CPU already.

use std::{
    fs,
    os::fd::{AsFd, AsRawFd},
};

use super::Kernel;

impl Kernel {
    /// How often so far, all programs together: 0 of those that are not loaded.
    pub(super) fn misses(&self) -> u64 {
        let loaded = self.ebpf.programs().filter_map(|(_, program)| {
            let descriptor = program.fd().ok()?.as_fd().as_raw_fd();
            let facts = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).ok()?;
            misses_in(&facts)
        });
        loaded.sum()
    }
}

/// What the kernel tells of a program's descriptor, from 5.12 on.
fn misses_in(facts: &str) -> Option<u64> {
    let mut lines = facts.lines();
    let count = lines.find_map(|line| line.strip_prefix("recursion_misses:"))?;
    count.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::misses_in;

    /// The number is the one of its own line.
    #[test]
    fn misses_are_read() {
        let facts = "prog_type:\t17\nrun_cnt:\t9\nrecursion_misses:\t3\nverified_insns:\t7\n";
        assert_eq!(misses_in(facts), Some(3));
        assert_eq!(misses_in("prog_type:\t17\n"), None);
    }
}
