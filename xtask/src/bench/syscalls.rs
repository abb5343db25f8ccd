//! What counting system calls costs: a program that does nothing else, in turns under nobody, the profiler,
//! `strace -c`, `perf trace -s` and bpftrace; and beside the profiler while that counts another one's. What it costs a
//! server is `pgbench`'s business.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{pgbench, turns::Turns};
use crate::{
    interrupt, setup,
    shell::{self, has},
};

/// Tells the time of a call, ns, as it measured it itself: the median of pieces that are shorter than a time slice, so
/// that what else runs does not count.
const LOOP: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#define PIECE 1000
static int order(const void *a, const void *b) { double d = *(double *)a - *(double *)b; return (d > 0) - (d < 0); }
int main(int argc, char **argv) {
  long n = atol(argv[1]) / PIECE; struct timespec a, b; double *times = calloc(n, sizeof *times);
  for (long i = 0; i < n; i++) {
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (int j = 0; j < PIECE; j++) syscall(SYS_getppid);
    clock_gettime(CLOCK_MONOTONIC, &b);
    times[i] = ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / PIECE;
  }
  qsort(times, n, sizeof *times, order);
  fprintf(stderr, "loop: %.1f\n", times[n / 2]);
}
"#;

/// What bpftrace does to know what we tell: count, sum, and a histogram of the times of each call. `{who}` is a
/// condition.
pub(super) const BPFTRACE: &str = "
tracepoint:raw_syscalls:sys_enter /{who}/ { @s[tid] = nsecs; }
tracepoint:raw_syscalls:sys_exit /@s[tid]/ {
  $t = nsecs - @s[tid]; delete(@s[tid]);
  @stats[args->id] = stats($t); @times[args->id] = hist($t);
}";

/// A profiler that takes longer to begin does not begin.
const BEGIN_MAX: Duration = Duration::from_secs(20);

/// Who counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counter {
    Nobody,
    Ours,
    OursByThread,
    /// The profiler counts another process.
    OursElsewhere,
    Strace,
    PerfTrace,
    Bpftrace,
}

impl Counter {
    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Ours => "profiler syscalls",
            Self::OursByThread => "profiler syscalls --by-thread --errors",
            Self::OursElsewhere => "profiler syscalls of another process",
            Self::Strace => "strace -c",
            Self::PerfTrace => "perf trace -s",
            Self::Bpftrace => "bpftrace",
        }
    }

    /// Calls of one turn: as many as take some tenths of a second.
    fn calls(self) -> u32 {
        match self {
            Self::Strace => 30_000,
            Self::PerfTrace => 60_000,
            _ => 1_000_000,
        }
    }

    fn command(self, program: &Path, folder: &Path) -> Command {
        let profiler = |more: &[&str]| {
            let mut command = Command::new(shell::root().join("target/release/profiler"));
            command.arg("syscalls").args(more).arg("-o");
            command.arg(folder.join("table")).arg("--").arg(program);
            command
        };
        let mut command = match self {
            Self::Nobody | Self::OursElsewhere => Command::new(program),
            Self::Ours => profiler(&[]),
            Self::OursByThread => profiler(&["--by-thread", "--errors"]),
            Self::Strace => {
                let mut strace = Command::new("strace");
                strace
                    .args(["-c", "-f", "-o"])
                    .arg(folder.join("table"))
                    .arg(program);
                strace
            }
            Self::PerfTrace => {
                let mut perf = Command::new("perf");
                perf.args(["trace", "-s", "-o"])
                    .arg(folder.join("table"))
                    .arg("--")
                    .arg(program);
                perf
            }
            // Takes the command as one text.
            Self::Bpftrace => {
                let mut bpftrace = Command::new("bpftrace");
                let command = format!("{} {}", program.display(), self.calls());
                bpftrace
                    .args(["-e", &BPFTRACE.replace("{who}", "pid == cpid"), "-o"])
                    .arg(folder.join("table"))
                    .args(["-c", &command])
                    .stdout(Stdio::null());
                return bpftrace;
            }
        };
        command.arg(self.calls().to_string()).stdout(Stdio::null());
        command
    }
}

/// Runs the verb.
pub(super) fn run(rounds: u32) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "counting wants root: `sudo -E env PATH=\"$PATH\" cargo xtask bench syscalls`"
    );
    interrupt::watch()?;
    setup::toolchain()?;
    setup::tests()?;
    super::build()?;
    super::tell_of_company()?;
    for rival in ["strace", "perf", "bpftrace"] {
        if !has(rival) {
            println!("{rival} is not here: left out");
        }
    }
    let folder = tempfile::tempdir()?;
    loops(rounds, folder.path())?;
    pgbench::run(rounds, folder.path())
}

fn loops(rounds: u32, folder: &Path) -> Result<()> {
    let program = compile(folder)?;
    let mut counters = vec![
        Counter::Nobody,
        Counter::Ours,
        Counter::OursByThread,
        Counter::OursElsewhere,
    ];
    counters.extend(has("strace").then_some(Counter::Strace));
    counters.extend(has("perf").then_some(Counter::PerfTrace));
    counters.extend(has("bpftrace").then_some(Counter::Bpftrace));
    let names = counters.iter().map(|counter| counter.name()).collect();
    let mut turns = Turns::new(names);
    for round in 0..rounds {
        turns.round(round, |index| {
            let Some(counter) = counters.get(index) else {
                unreachable!("a counter for each name")
            };
            turn(*counter, &program, folder)
        })?;
    }
    turns.print("a call of getppid, ns");
    Ok(())
}

fn compile(folder: &Path) -> Result<PathBuf> {
    let (source, program) = (folder.join("loop.c"), folder.join("loop"));
    fs::write(&source, LOOP)?;
    shell::run(
        Command::new("gcc")
            .arg("-O2")
            .arg("-o")
            .arg(&program)
            .arg(&source),
    )?;
    Ok(program)
}

/// One turn: the time of a call, ns.
fn turn(counter: Counter, program: &Path, folder: &Path) -> Result<f64> {
    let elsewhere = (counter == Counter::OursElsewhere)
        .then(|| count_elsewhere(folder))
        .transpose()?;
    let output = counter.command(program, folder).output()?;
    if let Some(mut child) = elsewhere {
        ensure!(
            child.try_wait()?.is_none(),
            "the profiler ended before the loop did"
        );
        let status = child.wait()?;
        ensure!(status.success(), "the profiler failed: {status}");
    }
    let talk = String::from_utf8_lossy(&output.stderr);
    let time = talk
        .lines()
        .find_map(|line| line.strip_prefix("loop: ")?.parse().ok());
    time.with_context(|| format!("no time: {}", talk.lines().next().unwrap_or_default()))
}

/// A profiler that counts a program which sleeps, and does so already: it lets its command go when it is attached.
fn count_elsewhere(folder: &Path) -> Result<Child> {
    let begun = folder.join("begun");
    if begun.exists() {
        fs::remove_file(&begun)?;
    }
    let mut profiler = Command::new(shell::root().join("target/release/profiler"));
    profiler
        .args(["syscalls", "-o"])
        .arg(folder.join("other"))
        .args(["--", "sh", "-c", "touch \"$0\"; exec sleep 3"])
        .arg(&begun);
    let mut child = profiler.stderr(Stdio::null()).spawn()?;
    let started = Instant::now();
    while !begun.exists() {
        ensure!(
            child.try_wait()?.is_none() && started.elapsed() < BEGIN_MAX,
            "the profiler does not begin"
        );
        sleep(Duration::from_millis(20));
    }
    Ok(child)
}
