//! Packages that tests run and that come from the registries of other languages. Each set is installed once, below the
//! build's own temporary folder; where there is no registry the test that wants it is skipped.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::python::interpreters;

/// The folder of a set, which bears the first one's name and version.
fn folder(packages: &[&str]) -> PathBuf {
    let name = packages[0].replace("==", "-").replace('@', "-");
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn runs(command: &mut Command) -> bool {
    let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// A venv with these packages of Python, in which these modules can be imported. `None` where there is no registry.
pub(crate) fn venv(packages: &[&str], modules: &str) -> Option<PathBuf> {
    let venv = folder(packages);
    // Not only there: the interpreter that it was made of may have been replaced since.
    let check = format!("import {modules}");
    if runs(Command::new(venv.join("bin/python")).args(["-c", &check])) {
        return Some(venv);
    }
    // The system's, and where that comes without `venv` the newest other.
    interpreters().into_iter().rev().find(|(_, python)| {
        let make = ["-m", "venv", "--clear"];
        runs(Command::new(python).args(make).arg(&venv))
    })?;
    let mut pip = Command::new(venv.join("bin/pip"));
    runs(pip.args(["-q", "install"]).args(packages)).then_some(venv)
}

/// A folder of modules with these packages of npm. `None` where there is no registry.
pub(crate) fn node_modules(packages: &[&str]) -> Option<PathBuf> {
    let prefix = folder(packages);
    let modules = prefix.join("node_modules");
    if modules.is_dir() {
        return Some(modules);
    }
    std::fs::create_dir_all(&prefix).ok()?;
    let mut npm = Command::new("npm");
    npm.args([
        "install",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--no-save",
        "--prefix",
    ]);
    runs(npm.arg(&prefix).args(packages)).then_some(modules)
}

/// A program of one file of Rust with these dependencies, each a line of `Cargo.toml`. `None` where there is no
/// registry, or what comes from there does not fit the program any more.
pub(crate) fn rust_program(source: &Path, dependencies: &[&str]) -> Option<PathBuf> {
    let name = source.file_stem()?.to_str()?;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).ok()?;
    let manifest = format!(
        "[package]\nname = '{name}'\nversion = '0.0.0'\nedition = '2024'\n\n[workspace]\n\n[[bin]]\nname = '{name}'\npath = \
         '{}'\n\n[dependencies]\n{}\n",
        source.display(),
        dependencies.join("\n")
    );
    std::fs::write(folder.join("Cargo.toml"), manifest).ok()?;
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "--target-dir", "target"])
        .current_dir(&folder);
    runs(&mut cargo).then(|| folder.join("target/debug").join(name))
}
