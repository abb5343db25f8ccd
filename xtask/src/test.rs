//! `cargo xtask test`: the whole ladder. CI runs exactly this.

use anyhow::{Result, ensure};

use crate::{
    check, compile, setup,
    shell::{self, cargo, command, has, rung},
    toolchain,
};

/// What has tests of its own.
const TESTED: [&str; 3] = ["--workspace", "--exclude", "profiler-ebpf"];

/// Runs the verb.
pub(crate) fn run() -> Result<()> {
    rung("what building needs", setup::toolchain)?;
    rung("what the tests run", setup::tests)?;
    check::quick()?;
    rung("without a BPF toolchain", without_toolchain)?;
    rung("the BPF programs for aarch64", other_processor)?;
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
    // Of the same packages as the tests are, so that what they depend on is built once.
    let mut build = without(&["test", "--no-run", "--quiet", "--bin", "profiler"]);
    let build = build.args(TESTED).output()?;
    let talk = String::from_utf8_lossy(&build.stderr);
    ensure!(!build.status.success(), "it links without a BPF object");
    ensure!(
        talk.contains("run `cargo xtask setup`"),
        "the error does not name the remedy: {talk}"
    );
    looks_again()
}

/// A stand-in is made anew by each build, so that installing the toolchain is enough: nothing is
/// cached from before.
fn looks_again() -> Result<()> {
    let mut again = cargo(&["check", "--verbose"]);
    let talk = again.env(toolchain::HIDE, "none").output()?.stderr;
    let talk = String::from_utf8_lossy(&talk).into_owned();
    ensure!(
        talk.contains("Dirty profiler "),
        "a build without the toolchain is taken for current: {talk}"
    );
    Ok(())
}

/// The processor that no test here can run on: its BPF programs compile.
fn other_processor() -> Result<()> {
    let compiler = toolchain::compiler()?;
    let linker = toolchain::linker(compiler.llvm)?;
    let root = shell::root();
    let folder = root.join("target/bpf-aarch64");
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
                .env_remove("CARGO_TARGET_DIR")
                .current_dir("/"),
        )?;
    }
    shell::run(&mut cargo(&[
        "deny", "check", "licenses", "bans", "sources",
    ]))
}

/// Live tests load BPF programs, which wants root. Where we are not, they say so and are skipped; with
/// CI=true they fail instead. One test at a time: programs that live for milliseconds are recorded, and the
/// load of another test on few CPUs would be the finding.
fn tests() -> Result<()> {
    let mut cargo = cargo(&["test"]);
    shell::run(cargo.args(TESTED).env("RUST_TEST_THREADS", "1"))
}
