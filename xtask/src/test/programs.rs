//! The programs with tests: cargo builds them and says where they are, so that nothing is built or run twice.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::shell::{self, cargo, command};

/// What has tests of its own.
pub(crate) const TESTED: [&str; 3] = ["--workspace", "--exclude", "profiler-ebpf"];
/// What cargo says of all of them, kept from one process of ours for another.
const BUILT: &str = "target/tests.json";
/// The name of the live tests.
const LIVE: &str = "live";

/// A program with tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    /// What users call it: the package and the program's own name.
    pub(super) name: String,
    path: PathBuf,
    /// The folder of its package, where cargo runs tests.
    folder: PathBuf,
}

/// All of them.
pub(super) struct Programs {
    /// One test at a time: they record programs, and the load of another test would be the finding.
    pub(super) live: Program,
    /// Tests that do not disturb each other.
    pub(super) others: Vec<Program>,
    /// The profiler that they run.
    profiler: PathBuf,
}

impl Programs {
    /// Builds the live tests only.
    pub(super) fn live() -> Result<Self> {
        Self::read(&Self::talk(&["--test", LIVE])?)
    }

    /// Builds all of them, for [`built`](Self::built).
    pub(super) fn all() -> Result<()> {
        let programs = Self::talk(&["--test", "*", "--bin", "xtask"])?;
        // To optimize these takes longer than they run.
        let plain = "profile.dev.package.profiler.opt-level=0";
        let units = Self::talk(&["--lib", "--config", plain])?;
        fs::write(shell::root().join(BUILT), programs + &units)?;
        Ok(())
    }

    /// Those that were built last.
    pub(super) fn built() -> Result<Self> {
        Self::read(&fs::read_to_string(shell::root().join(BUILT))?)
    }

    fn talk(which: &[&str]) -> Result<String> {
        let mut cargo = cargo(&["test", "--no-run", "--quiet"]);
        cargo
            .args(TESTED)
            .args(which)
            .arg("--message-format=json-render-diagnostics");
        if std::env::var_os("CI").is_some() {
            // What is built once is built sooner without notes for the next time.
            cargo.env("CARGO_INCREMENTAL", "0");
        }
        let output = cargo.stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "the tests do not build");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Reads what cargo tells, a JSON object a line.
    fn read(talk: &str) -> Result<Self> {
        let told = || talk.lines().flat_map(serde_json::from_str::<Value>);
        let mut others: Vec<Program> = told().filter_map(|told| program(&told)).collect();
        let live = others.iter().position(|program| program.name == LIVE);
        let live = others.remove(live.context("cargo made no live tests")?);
        let profiler = told().filter(|told| told["target"]["kind"][0] == "bin");
        let profiler = profiler.filter(|told| told["profile"]["test"] == false);
        let mut paths = profiler.filter_map(|told| Some(told["executable"].as_str()?.into()));
        Ok(Self {
            live,
            others,
            profiler: paths.next_back().context("cargo made no profiler")?,
        })
    }

    /// A program with tests, run as cargo does.
    pub(super) fn command(&self, program: &Program, arguments: &[&str]) -> Command {
        let mut command = command(&program.path.to_string_lossy(), arguments);
        command
            .current_dir(&program.folder)
            .stdin(Stdio::null())
            .env("CARGO_MANIFEST_DIR", &program.folder)
            .env("CARGO_BIN_EXE_profiler", &self.profiler);
        command
    }
}

/// The program that cargo tells of, if it has tests.
fn program(told: &Value) -> Option<Program> {
    let path = told["executable"].as_str()?.into();
    let manifest = Path::new(told["manifest_path"].as_str()?);
    let target = &told["target"];
    let kind = target["kind"][0].as_str()?;
    let name = target["name"].as_str()?;
    (told["profile"]["test"] == true).then(|| Program {
        name: match kind {
            "test" => name.to_owned(),
            kind => format!("{name} ({kind})"),
        },
        path,
        folder: manifest.parent().unwrap_or(manifest).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Programs;

    const TALK: &str = r#"{"reason":"compiler-artifact","manifest_path":"/w/profiler/Cargo.toml","target":{"kind":["lib"],"name":"profiler"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","manifest_path":"/w/profiler/Cargo.toml","target":{"kind":["lib"],"name":"profiler"},"profile":{"test":true},"executable":"/t/debug/deps/profiler-1"}
{"reason":"compiler-artifact","manifest_path":"/w/profiler/Cargo.toml","target":{"kind":["bin"],"name":"profiler"},"profile":{"test":false},"executable":"/t/debug/profiler"}
{"reason":"compiler-artifact","manifest_path":"/w/profiler/Cargo.toml","target":{"kind":["example"],"name":"manual"},"profile":{"test":false},"executable":"/t/debug/examples/manual"}
{"reason":"compiler-artifact","manifest_path":"/w/profiler/Cargo.toml","target":{"kind":["test"],"name":"live"},"profile":{"test":true},"executable":"/t/debug/deps/live-1"}
{"reason":"build-finished","success":true}
"#;

    /// Programs with tests are told from those without, and the live tests from the others.
    #[test]
    fn programs_are_told_apart() {
        let programs = Programs::read(TALK).unwrap();
        let others: Vec<_> = programs.others.iter().map(|other| &other.name).collect();
        assert_eq!(others, ["profiler (lib)"]);
        assert_eq!(programs.live.path, Path::new("/t/debug/deps/live-1"));
        assert_eq!(programs.live.folder, Path::new("/w/profiler"));
        assert_eq!(programs.profiler, Path::new("/t/debug/profiler"));
        assert!(
            Programs::read("").is_err(),
            "without the live tests it stops"
        );
    }
}
