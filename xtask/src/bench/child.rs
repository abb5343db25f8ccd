//! A program whose cost is measured, from outside and to its end.

use std::{
    collections::HashMap,
    fs,
    process::{Child, Command},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::postgres::dies_with_us;

/// Between two looks at the program.
const LOOK: Duration = Duration::from_millis(20);

/// A running program, ended and waited for when dropped.
pub(super) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a program took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    /// User and system time, of its own and of the children it waited for.
    pub(super) cpu: Duration,
    /// CPU seconds per second in the middle of its run: without beginning and end.
    pub(super) cpu_steady: Option<f64>,
    /// What it had resident at most, mapped BPF maps left out: as far as the looks at it saw.
    pub(super) peak_kib: u64,
    /// Memory of its BPF maps.
    pub(super) maps_kib: u64,
}

/// Runs a program to its end. `middle` is when, counted from its start, `cpu_steady` is taken.
pub(super) fn run(command: &mut Command, middle: (Duration, Duration)) -> Result<Used> {
    dies_with_us(command);
    let name = command.get_program().display().to_string();
    let child = command
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    let started = Instant::now();
    let mut used = Used::default();
    let mut marks = Vec::new();
    loop {
        if let Some((status, cpu)) = reap(&child)? {
            ensure!(status == 0, "{name} failed: wait status {status:#x}");
            used.cpu = cpu;
            used.cpu_steady = slope(&marks);
            return Ok(used);
        }
        let pid = child.id();
        used.peak_kib = used.peak_kib.max(resident_kib(pid).unwrap_or(0));
        let elapsed = started.elapsed();
        let due = [middle.0, middle.1].get(marks.len()).copied();
        if due.is_some_and(|due| elapsed >= due) {
            used.maps_kib = used.maps_kib.max(maps_bytes(pid) >> 10);
            marks.extend(cpu_so_far(pid).map(|cpu| (Instant::now(), cpu)));
        }
        sleep(LOOK);
    }
}

/// The wait status and the CPU time of a child that has ended. `std` gives no times.
fn reap(child: &Child) -> Result<Option<(i32, Duration)>> {
    let pid = libc::pid_t::try_from(child.id())?;
    let mut status = 0;
    // SAFETY: plain numbers, of which zeros are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live variables of their types. The child is ours, and nobody else
    // waits for it: `Child` does not when it is dropped.
    let ended = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) };
    ensure!(
        ended >= 0,
        "cannot wait: {}",
        std::io::Error::last_os_error()
    );
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs())
            + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    Ok((ended == pid).then(|| (status, time(usage.ru_utime) + time(usage.ru_stime))))
}

fn slope(marks: &[(Instant, Duration)]) -> Option<f64> {
    let &[(begin, before), (end, after)] = marks else {
        return None;
    };
    let used = after.checked_sub(before)?.as_secs_f64();
    Some(used / end.duration_since(begin).as_secs_f64())
}

/// What it has resident now, without BPF maps: those are counted once and whole by [`maps_bytes`], though a
/// ring is mapped twice.
pub(super) fn resident_kib(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).ok()?;
    let mut is_map = false;
    let mut sum = 0;
    for line in text.lines() {
        if let Some(size) = line.strip_prefix("Rss:") {
            let size: u64 = size.trim().strip_suffix(" kB")?.parse().ok()?;
            sum += if is_map { 0 } else { size };
        } else if line
            .split(' ')
            .next()
            .is_some_and(|range| range.contains('-'))
        {
            is_map = line.contains("bpf-map");
        }
    }
    Some(sum)
}

/// Run time of all threads, by the scheduler's own account.
pub(super) fn cpu_so_far(pid: u32) -> Option<Duration> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let times = tasks.flatten().filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ')
            .next()?
            .parse()
            .ok()
            .map(Duration::from_nanos)
    });
    Some(times.sum())
}

/// Memory of the BPF maps that a process has open, each once.
pub(super) fn maps_bytes(pid: u32) -> u64 {
    let infos = fs::read_dir(format!("/proc/{pid}/fdinfo"));
    let maps: HashMap<u64, u64> = infos
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|info| {
            let text = fs::read_to_string(info.path()).ok()?;
            let number = |key: &str| -> Option<u64> {
                let line = text.lines().find_map(|line| line.strip_prefix(key))?;
                line.trim().parse().ok()
            };
            Some((number("map_id:")?, number("memlock:")?))
        })
        .collect();
    maps.values().sum()
}
