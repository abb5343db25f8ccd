//! `cargo xtask test`: the whole ladder. CI runs exactly this.
//!
//! The live tests are built first and take the longest. What needs no quiet machine (lints, the other builds) goes on
//! beside them, on processors that have nothing else to do.

mod aside;
mod lanes;
mod live;
mod process;
mod programs;
pub(crate) mod servers;
mod tally;
mod without;

use anyhow::{Result, ensure};

use crate::{
    check, compile, setup,
    shell::{self, cargo, command, has, rung},
    toolchain,
};

use aside::Aside;
pub(crate) use aside::Rungs;
use lanes::in_lanes;
use programs::Programs;
pub(crate) use programs::TESTED;
use tally::{Counts, Tally, skips};

/// Runs the verb.
pub(crate) fn run() -> Result<()> {
    rung("what building needs", setup::toolchain)?;
    let installs = Aside::start(Rungs::Installs)?;
    let mut checks = Aside::start(Rungs::Checks)?;
    let programs = rung("building the live tests", Programs::live)?;
    installs.end()?;
    let mut tally = Tally::default();
    rung("live tests", || {
        live::run(&programs, &mut tally, &mut checks)
    })?;
    checks.end()?;
    let programs = Programs::built()?;
    rung("unit, property, golden, format, command line", || {
        others(&programs, &mut tally)
    })?;
    println!("{tally}");
    ensure!(!tally.has_failed(), "tests failed");
    println!("\nall rungs passed");
    Ok(())
}

/// The rungs beside the others.
pub(crate) fn aside(rungs: Rungs) -> Result<()> {
    match rungs {
        Rungs::Installs => rung("what the tests run", setup::tests),
        Rungs::Checks => {
            // First, as the lints may make it out of date.
            rung("building the other tests", Programs::all)?;
            check::quick()?;
            rung("without a BPF toolchain", without::toolchain)?;
            rung("the BPF programs compile for aarch64", other_processor)?;
            rung("licences, bans, sources", licences)
        }
    }
}

/// The processor that no test here can run on: its BPF programs compile. In the folder of the others, so that the core
/// library is there: nothing else is built then.
fn other_processor() -> Result<()> {
    let compiler = toolchain::compiler()?;
    let linker = toolchain::linker(compiler.llvm)?;
    let root = shell::root();
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let folder = root.join(target).join("bpf");
    let built = compile::object(&root, &folder, &compiler, &linker, "aarch64")?;
    built.map(drop).map_err(anyhow::Error::msg)
}

/// Only licences, bans and sources: advisories come from a database that is cloned from elsewhere.
fn licences() -> Result<()> {
    if !has("cargo-deny") {
        println!("cargo-deny is not here: building it, which takes some minutes, once");
        // It runs for a second: making it quicker would take longer.
        let install = [
            "install",
            "cargo-deny",
            "--version",
            "0.20.2",
            "--locked",
            "--debug",
        ];
        shell::run(
            command("cargo", &install)
                .env("CARGO_PROFILE_DEV_DEBUG", "none")
                .env_remove("CARGO_TARGET_DIR")
                .current_dir("/"),
        )?;
    }
    shell::run(&mut cargo(&[
        "deny", "check", "licenses", "bans", "sources",
    ]))
}

/// Programs whose tests do not disturb each other: as many tests of each at a time as there are processors, and two
/// programs, as some have one test only.
fn others(programs: &Programs, tally: &mut Tally) -> Result<()> {
    let run = |program| process::run(&mut programs.command(program, &["--show-output"]));
    in_lanes(programs.others.iter().collect(), run, |program, ended| {
        let ended = ended?;
        let counts = Counts::read(&ended.talk).unwrap_or(Counts {
            failed: 1,
            ..Counts::default()
        });
        let Counts {
            passed,
            failed,
            skipped,
        } = counts;
        let seconds = ended.time.as_secs_f64();
        println!(
            "{seconds:6.1} s  {passed} passed, {failed} failed, {skipped} skipped  {}",
            program.name
        );
        skips(&ended.talk).for_each(|line| println!("    {line}"));
        if failed > 0 {
            println!("{}", ended.talk);
        }
        tally.take(&program.name, counts, ended.time);
        Ok(())
    })
}
