//! `cargo xtask bench`: what profiling costs. Times differ from machine to machine and from minute to
//! minute, so what is claimed are ratios of what ran in turns; nothing asserts them.

mod child;
mod daemon;
mod figures;
mod pgbench;
mod python;
mod queries;
mod recorder;
mod syscalls;
mod tables;
mod turns;
mod workload;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use serde_json::json;

use self::{
    recorder::{Recorder, Recording},
    workload::Workload,
};
use crate::{
    interrupt, setup,
    shell::{self, cargo, has},
};

/// What is measured
#[derive(Subcommand)]
pub(crate) enum What {
    /// The cost of recording a busy Postgres, in turns with perf; and of making unwind tables
    Record(Options),
    /// The cost of making unwind tables
    Tables,
    /// The cost of counting system calls, in turns with strace, perf and bpftrace; and of watching connections
    Syscalls {
        /// Turns of each, of which the medians count
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
    },
    /// The cost of reading the queries of a busy Postgres, in turns with the server's own statistics and log
    Queries {
        /// Turns of each, of which the medians count
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
    },
    /// The cost of the daemon that samples the whole host, alone and beside pgbench and Python
    Daemon {
        /// Windows of 60 s that count, of each kind
        #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
        windows: u32,
        /// This profiler instead, built from another commit
        #[arg(long, value_name = "FILE")]
        profiler: Option<PathBuf>,
    },
    /// The cost of recording a busy Python program, in turns with py-spy
    Python {
        /// Turns of each, of which the medians count
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Seconds that are measured in each turn
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
    },
}

/// `cargo xtask bench record`
#[derive(Args)]
pub(crate) struct Options {
    /// Turns of each recorder, of which the medians count
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each recording [default: the profiler's own]
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(3..))]
    seconds: u32,
    /// In turns with this profiler, built from an earlier commit, instead of perf
    #[arg(long, value_name = "FILE")]
    before: Option<PathBuf>,
    /// Also write everything that was measured, machine-readable
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Runs the verb.
pub(crate) fn run(what: &What) -> Result<()> {
    match what {
        What::Record(options) => record(options),
        What::Syscalls { rounds } => syscalls::run(*rounds),
        What::Python { rounds, seconds } => python::run(*rounds, *seconds),
        What::Queries { rounds } => queries::run(*rounds),
        What::Daemon { windows, profiler } => daemon::run(*windows, profiler.as_deref()),
        What::Tables => {
            setup::toolchain()?;
            figures::print_tables(&tables::measure()?);
            Ok(())
        }
    }
}

fn record(options: &Options) -> Result<()> {
    let Options {
        rounds,
        seconds,
        before,
        json,
    } = options;
    ensure!(
        rustix::process::geteuid().is_root(),
        "recording wants root: `sudo -E env PATH=\"$PATH\" cargo xtask bench record`"
    );
    interrupt::watch()?;
    setup::toolchain()?;
    setup::tests()?;
    build()?;
    let mut recorders = vec![Recorder::None, Recorder::Ours];
    if let Some(before) = before {
        recorder::BEFORE.get_or_init(|| before.clone());
        recorders.push(Recorder::Before);
    } else if has("perf") {
        recorders.extend([Recorder::PerfDwarf, Recorder::PerfFramePointers]);
    } else {
        println!(
            "perf is not here: nothing to compare with. Debian's package is linux-perf: \
             `apt-get install linux-perf`"
        );
    }
    tell_of_company()?;
    let recordings = in_turns(&recorders, *rounds, *seconds)?;
    let tables = tables::measure()?;
    figures::print_recordings(&recordings, *seconds);
    figures::print_tables(&tables);
    if let Some(path) = json {
        let all = json!({
            "version": 1,
            "seconds": seconds,
            "frequency_hz": recorder::FREQUENCY_HZ,
            "recordings": recordings.iter().map(Recording::json).collect::<Vec<_>>(),
            "ratios": figures::ratios(&recordings)
                .into_iter()
                .map(|ratio| ratio.json())
                .collect::<Vec<_>>(),
            "tables": tables,
        });
        fs::write(path, serde_json::to_vec_pretty(&all)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("\nwrote {}", path.display());
    }
    Ok(())
}

/// Builds what is measured.
fn build() -> Result<()> {
    shell::run(&mut cargo(&["build", "--release", "--package", "profiler"]))
}

/// Whoever else uses the machine makes the rounds differ.
fn tell_of_company() -> Result<()> {
    let load = fs::read_to_string("/proc/loadavg")?;
    let minute = load.split(' ').next().unwrap_or_default();
    let processors = std::thread::available_parallelism()?;
    println!(
        "load of the last minute: {minute} on {processors} processors; what runs besides makes the rounds \
         differ"
    );
    Ok(())
}

/// Each round begins with another recorder, so that none has the same neighbour each time.
fn in_turns(recorders: &[Recorder], rounds: u32, seconds: u32) -> Result<Vec<Recording>> {
    let workload = Workload::start()?;
    let mut recordings = Vec::new();
    for round in 0..rounds {
        let mut order = recorders.to_vec();
        order.rotate_left(round as usize % recorders.len());
        for recorder in order {
            interrupt::check()?;
            println!("round {}: {}", round + 1, recorder.name());
            recordings.push(workload.record(recorder, round, seconds)?);
        }
    }
    Ok(recordings)
}
