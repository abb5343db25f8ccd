//! `cargo xtask test-trees`: programs of many versions, of newer systems too, recorded one after the other: how many of the
//! samples have the right names and whole stacks. Newer software comes from trees of Debian sid and from the registry of
//! Python packages.

mod packed;
mod programs;
mod recorded;
mod tree;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command},
    thread::sleep,
    time::Duration,
};

use anyhow::{Result, ensure};
use clap::Args;

use self::recorded::Recorded;
use crate::{
    interrupt, setup,
    shell::{self, cargo},
};

/// Where trees are kept between runs.
const FOLDER: &str = "target/trees";
/// Interpreters start within that, also with many threads.
const START: Duration = Duration::from_millis(1500);

/// `cargo xtask test-trees`
#[derive(Args)]
pub(crate) struct Options {
    /// Seconds of each recording
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Only programs whose name begins so
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// The profiler to judge, as built before (a release is built without it)
    #[arg(long, value_name = "FILE")]
    profiler: Option<PathBuf>,
    /// Another profiler to compare with, as built from an earlier commit
    #[arg(long, value_name = "FILE")]
    before: Option<PathBuf>,
}

/// Runs the verb.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "recording wants root: `sudo -E env PATH=\"$PATH\" cargo xtask test-trees`"
    );
    interrupt::watch()?;
    setup::tests()?;
    let ours = match &options.profiler {
        Some(built) => built.clone(),
        None => release()?,
    };
    let folder = shell::root().join(FOLDER);
    let programs = programs::all(&folder, options.only.as_deref())?;
    println!("\n{:44} {:>15} {:>15}", "program", "names, %", "whole, %");
    let mut is_short = false;
    for mut program in programs {
        interrupt::check()?;
        let running = Running::start(&mut program.command)?;
        let record =
            |profiler: &Path| Recorded::of(profiler, running.0.id(), &program, options.seconds);
        let before = options.before.as_deref().map(record).transpose()?;
        let after = record(&ours)?;
        let column = |share: &dyn Fn(&Recorded) -> f64| {
            let after = format!("{:.1}", share(&after));
            before.as_ref().map_or_else(
                || after.clone(),
                |before| format!("{:.1} → {after}", share(before)),
            )
        };
        let (names, whole) = (
            column(&|recorded| recorded.named(&program)),
            column(&|recorded| recorded.whole(&program)),
        );
        println!("{:44} {names:>15} {whole:>15}", program.name);
        is_short |= after.named(&program) < 99.0 || after.whole(&program) < 99.5;
    }
    if is_short {
        println!("\nshort of 99 % of names or 99.5 % of whole stacks: see above");
    }
    Ok(())
}

fn release() -> Result<PathBuf> {
    shell::run(&mut cargo(&["build", "--release", "--package", "profiler"]))?;
    Ok(shell::root().join("target/release/profiler"))
}

/// A program that ends with us.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        let running = Self(command.spawn()?);
        sleep(START);
        Ok(running)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
