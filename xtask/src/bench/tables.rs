//! Making unwind tables of large files of this system: runs `profiler/examples/tables.rs`, so that xtask
//! needs no profiler, and no BPF toolchain, to be built.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    postgres,
    shell::{self, cargo, output},
};

/// One object a file, as the example prints them.
pub(super) fn measure() -> Result<Vec<Value>> {
    let files: Vec<PathBuf> = [postgres::find("postgres"), python(), llvm()]
        .into_iter()
        .flatten()
        .collect();
    let example = ["--release", "--package", "profiler", "--example", "tables"];
    shell::run(cargo(&["build"]).args(example))?;
    let mut run = cargo(&["run", "--quiet"]);
    run.args(example).arg("--").args(files);
    let lines = output(&mut run).context("profiler/examples/tables.rs failed")?;
    lines
        .lines()
        .map(|line| serde_json::from_str(line).context("profiler/examples/tables.rs prints JSON"))
        .collect()
}

/// The interpreter's library, the system's before others, else the interpreter itself.
fn python() -> Option<PathBuf> {
    let library = largest(&libraries("libpython3"));
    library.or_else(|| {
        let interpreter = output(&mut shell::command(
            "python3",
            &[
                "-c",
                "import os, sys; print(os.path.realpath(sys.executable))",
            ],
        ))?;
        Some(PathBuf::from(interpreter))
    })
}

fn llvm() -> Option<PathBuf> {
    largest(&libraries("libLLVM"))
}

/// The system's shared libraries whose names begin so.
fn libraries(prefix: &str) -> Vec<PathBuf> {
    let machine = std::env::consts::ARCH;
    let folders = [
        format!("/usr/lib/{machine}-linux-gnu"),
        "/usr/lib64".to_owned(),
    ];
    let entries = folders.iter().flat_map(|folder| {
        fs::read_dir(Path::new(folder))
            .into_iter()
            .flatten()
            .flatten()
    });
    entries
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with(prefix) && name.contains(".so")
        })
        .filter_map(|entry| entry.path().canonicalize().ok())
        .collect()
}

fn largest(files: &[PathBuf]) -> Option<PathBuf> {
    let bytes = |file: &&PathBuf| file.metadata().map_or(0, |metadata| metadata.len());
    files.iter().max_by_key(bytes).cloned()
}
