//! `cargo xtask package`: a .deb and an .rpm of a release build, and what Debian's and RPM's own tools say of them.
//! Both hold the same files; nothing is compiled when they are installed.

mod files;
mod maintainer;
mod notices;
mod tools;
#[cfg(test)]
mod unit;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{
    setup,
    shell::{self, cargo, command, output, rung},
};

/// Where packages and what goes into them come to lie.
const FOLDER: &str = "target/package";

/// Runs the verb.
pub(crate) fn run() -> Result<()> {
    rung("what packaging needs", needs)?;
    rung("packages", || make().map(drop))
}

fn needs() -> Result<()> {
    setup::toolchain()?;
    setup::packaging()?;
    tools::install()
}

/// Makes both packages and checks them; where the .deb is.
pub(crate) fn make() -> Result<PathBuf> {
    needs()?;
    let folder = shell::root().join(FOLDER);
    // What an older version left would be packaged too.
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    shell::run(&mut cargo(&["build", "--release", "--package", "profiler"]))?;
    manual(&folder)?;
    notices::write(&folder.join("THIRD-PARTY-NOTICES"))?;
    shell::run(&mut command(
        "gzip",
        &["-9n", &format!("{FOLDER}/THIRD-PARTY-NOTICES")],
    ))?;
    let maintainer = maintainer::find();
    maintainer::sign_changelog(&maintainer, &folder.join("changelog"))?;
    let deb = deb(&folder, &maintainer)?;
    let rpm = rpm(&folder)?;
    files::compare(&deb, &rpm)?;
    for package in [&deb, &rpm] {
        let bytes = fs::metadata(package)?.len();
        println!("{} ({bytes} bytes)", package.display());
    }
    Ok(deb)
}

/// The manual and the completions, made by an example of `profiler` from the definition of its command line: of the
/// release build too, which is there already.
fn manual(folder: &Path) -> Result<()> {
    let manual = folder.join("manual");
    let run = [
        "run",
        "--release",
        "--quiet",
        "--package",
        "profiler",
        "--example",
        "manual",
        "--",
    ];
    shell::run(cargo(&run).arg(&manual))?;
    let mut pages = Vec::new();
    for entry in fs::read_dir(&manual)? {
        let path = entry?.path();
        if path.extension().is_some_and(|suffix| suffix == "1") {
            pages.push(path);
        }
    }
    ensure!(!pages.is_empty(), "the example wrote no page of the manual");
    shell::run(command("gzip", &["-9n"]).args(pages))
}

/// Strips the binary, whose symbols become a package of their own, finds what it depends on, and takes lintian's word.
fn deb(folder: &Path, maintainer: &str) -> Result<PathBuf> {
    let mut deb = cargo(&[
        "deb",
        "--package",
        "profiler",
        "--no-build",
        "--dbgsym",
        "--locked",
        "--maintainer",
        maintainer,
        "--output",
    ]);
    shell::run(deb.arg(folder))?;
    let deb = only(folder, "deb")?;
    files::linked(&listing(
        "dpkg-deb",
        &["--show", "--showformat=${Depends}"],
        &deb,
    )?)?;
    let lintian = [
        "--allow-root",
        "--fail-on",
        "error,warning",
        "--tag-display-limit",
        "0",
    ];
    shell::run(command("lintian", &lintian).arg(&deb))?;
    Ok(deb)
}

/// cargo-generate-rpm does not strip.
fn rpm(folder: &Path) -> Result<PathBuf> {
    let binary = shell::root().join("target/release/profiler");
    shell::run(
        command("strip", &["--strip-all", "-o"])
            .arg(folder.join("profiler"))
            .arg(binary),
    )?;
    // By what the binary names, not by whatever scripts this machine's rpm has.
    let make = [
        "generate-rpm",
        "--package",
        "profiler",
        "--auto-req",
        "builtin",
        "--output",
    ];
    shell::run(cargo(&make).arg(folder))?;
    let rpm = only(folder, "rpm")?;
    shell::run(command("rpm", &["-K", "--nosignature"]).arg(&rpm))?;
    Ok(rpm)
}

/// The only file of this suffix.
fn only(folder: &Path, suffix: &str) -> Result<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|found| found == suffix) {
            found.push(path);
        }
    }
    ensure!(
        found.len() == 1,
        "there are {} .{suffix} files, not one",
        found.len()
    );
    found.pop().context("no package was made")
}

/// What a program prints, or an error that names it.
fn listing(program: &str, arguments: &[&str], file: &Path) -> Result<String> {
    output(command(program, arguments).arg(file))
        .with_context(|| format!("{program} cannot read {}", file.display()))
}
