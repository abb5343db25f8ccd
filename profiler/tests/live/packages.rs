//! Packages that tests run and that come from the registries of other languages. Each set is installed once, below the
//! build's own temporary folder; where there is no registry the test that wants it is skipped.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use crate::{django, drivers, python::interpreters};

/// py-spy, of which nothing can be imported.
const PY_SPY: [&str; 1] = ["py-spy==0.4.3"];

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
    let check = format!("import {modules}");
    made(packages, "bin/python", &["-c", &check])
}

/// py-spy. `None` where there is no registry.
pub(crate) fn py_spy() -> Option<PathBuf> {
    let program = "bin/py-spy";
    Some(made(&PY_SPY, program, &["--version"])?.join(program))
}

/// A venv with these packages, in which this program runs with these arguments.
fn made(packages: &[&str], program: &str, arguments: &[&str]) -> Option<PathBuf> {
    let venv = folder(packages);
    // Not only there: the interpreter that it was made of may have been replaced since.
    if runs(Command::new(venv.join(program)).args(arguments)) {
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
        .envs([
            ("CARGO_PROFILE_DEV_DEBUG", "none"),
            ("CARGO_INCREMENTAL", "0"),
        ])
        .current_dir(&folder);
    runs(&mut cargo).then(|| folder.join("target/debug").join(name))
}

/// What was installed is found again. Each set is installed here, side by side: the tests that want one are timed.
#[test]
fn each_set_is_installed_once() {
    let django = || venv(&django::PACKAGES, django::MODULES);
    let python = || venv(&drivers::PYTHON, drivers::PYTHON_MODULES);
    let node = || node_modules(&drivers::NODE);
    let rust = || rust_program(&drivers::path(drivers::TOKIO), &drivers::RUST);
    let sets: [(&str, &(dyn Fn() -> Option<PathBuf> + Sync)); 5] = [
        ("Django", &django),
        ("drivers for Python", &python),
        ("drivers for Node", &node),
        ("a driver for Rust", &rust),
        ("py-spy", &py_spy),
    ];
    let had = thread::scope(|scope| {
        sets.map(|(name, set)| (name, set, scope.spawn(set)))
            .map(|(name, set, thread)| (name, set, thread.join().expect("it does not panic")))
    });
    for (name, set, installed) in had {
        match installed {
            Some(place) => {
                assert!(place.exists(), "{name} at {}", place.display());
                assert_eq!(set().as_ref(), Some(&place), "{name} again");
            }
            None => println!("skipped: {name} cannot be had"),
        }
    }
}
