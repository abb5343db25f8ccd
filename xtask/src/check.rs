//! `cargo xtask check`: the quick rungs, which need neither privileges nor a BPF toolchain.

mod sentences;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

use crate::{
    foreign,
    shell::{self, cargo, rung},
    toolchain::HIDE,
};

/// Most lines of a source file, its tests not counted.
const FILE_LINES_MAX: usize = 500;

/// Where a build without a BPF toolchain lies: in a folder of its own, so that the one with it stays current. On a
/// machine where everything is built once, macros and C libraries are so too.
pub(crate) fn without() -> &'static str {
    let is_fresh = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    if is_fresh { "target" } else { "target/check" }
}

/// A cargo on a machine without a BPF toolchain.
fn without_toolchain(arguments: &[&str]) -> Command {
    let mut cargo = cargo(arguments);
    cargo.env(HIDE, "none").env("CARGO_TARGET_DIR", without());
    cargo
}

/// Runs the verb.
pub(crate) fn run() -> Result<()> {
    quick()?;
    rung("unit tests", || {
        shell::run(&mut cargo(&["test", "--lib", "--quiet"]))
    })
}

/// Format, lints, documentation, sizes.
pub(crate) fn quick() -> Result<()> {
    rung("format", || {
        shell::run(&mut cargo(&["fmt", "--all", "--check"]))?;
        // A workspace of its own.
        let fuzz = ["--manifest-path", "fuzz/Cargo.toml"];
        shell::run(cargo(&["fmt", "--check"]).args(fuzz))
    })?;
    rung("lints", || {
        let lints = ["clippy", "--quiet", "--all-targets"];
        shell::run(without_toolchain(&lints).args(["--", "-D", "warnings"]))
    })?;
    rung("documentation", || {
        let mut doc = without_toolchain(&["doc", "--quiet", "--no-deps"]);
        shell::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    rung("who opens what", foreign::check)?;
    rung("sizes of files", sizes)?;
    rung("sentences of the documentation", sentences::check)
}

fn sizes() -> Result<()> {
    let mut lines = Vec::new();
    for room in [
        "fuzz/src",
        "fuzz/targets",
        "profiler",
        "profiler-common",
        "profiler-ebpf",
        "xtask",
    ] {
        measure(&shell::root().join(room), &mut lines)?;
    }
    lines.sort_unstable();
    let (longest, file) = lines.last().cloned().unwrap_or_default();
    let median = lines.get(lines.len() / 2).map_or(0, |(lines, _)| *lines);
    println!(
        "{} files, median {median} lines, longest {longest} ({}), tests not counted",
        lines.len(),
        file.display()
    );
    ensure!(
        longest <= FILE_LINES_MAX,
        "{} has {longest} lines, {FILE_LINES_MAX} are allowed",
        file.display()
    );
    Ok(())
}

fn measure(folder: &Path, lines: &mut Vec<(usize, PathBuf)>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            measure(&path, lines)?;
        } else if path.extension().is_some_and(|suffix| suffix == "rs") {
            let text = fs::read_to_string(&path)?;
            let own = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
            lines.push((own.lines().count(), path));
        }
    }
    Ok(())
}
