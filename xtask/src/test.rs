//! `cargo xtask test`: the whole ladder. CI runs exactly this.

use anyhow::{Result, ensure};

use crate::{
    check, setup,
    shell::{self, cargo, command, has, rung},
    toolchain,
};

/// Runs the verb.
pub(crate) fn run() -> Result<()> {
    rung("what building needs", setup::toolchain)?;
    rung("what the tests run", setup::tests)?;
    check::quick()?;
    rung("without a BPF toolchain", without_toolchain)?;
    rung("licences, bans, sources", licences)?;
    rung("unit, property, golden, command line and live tests", tests)?;
    println!("\nall rungs passed");
    Ok(())
}

/// Checking works on a machine without a BPF toolchain; linking fails, and says what mends it.
fn without_toolchain() -> Result<()> {
    let without = |arguments: &[&str]| {
        let mut cargo = cargo(arguments);
        cargo.env(toolchain::HIDE, "none");
        cargo
    };
    shell::run(&mut without(&["check", "--quiet"]))?;
    let build = without(&["build", "--quiet", "--package", "profiler"]).output()?;
    let talk = String::from_utf8_lossy(&build.stderr);
    ensure!(!build.status.success(), "it links without a BPF object");
    ensure!(
        talk.contains("run `cargo xtask setup`"),
        "the error does not name the remedy: {talk}"
    );
    Ok(())
}

/// Only licences, bans and sources: advisories come from a database that is cloned from elsewhere.
fn licences() -> Result<()> {
    if !has("cargo-deny") {
        println!("cargo-deny is not here: building it, which takes some minutes, once");
        let install = ["install", "cargo-deny", "--version", "0.20.2", "--locked"];
        shell::run(
            command("cargo", &install)
                .env_remove("CARGO_TARGET_DIR")
                .current_dir("/"),
        )?;
    }
    shell::run(&mut cargo(&[
        "deny", "check", "licenses", "bans", "sources",
    ]))
}

/// Live tests load BPF programs, which wants root. Where we are not, they say so and are skipped; with
/// CI=true they fail instead.
fn tests() -> Result<()> {
    shell::run(&mut cargo(&[
        "test",
        "--workspace",
        "--exclude",
        "profiler-ebpf",
    ]))
}
