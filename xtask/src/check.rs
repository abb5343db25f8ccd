//! `cargo xtask check`: the quick rungs, which need neither privileges nor a BPF toolchain.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};

use crate::{
    foreign,
    shell::{self, cargo, rung},
};

/// Most lines of a source file, its tests not counted.
const FILE_LINES_MAX: usize = 500;

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
        shell::run(&mut cargo(&[
            "clippy",
            "--quiet",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]))
    })?;
    rung("documentation", || {
        shell::run(cargo(&["doc", "--quiet", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    rung("who opens what", foreign::check)?;
    rung("sizes of files", sizes)
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
