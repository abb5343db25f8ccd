//! On a machine without a BPF toolchain checking works: the lints and the documentation are made
//! so, see [`crate::check`]. Here: linking fails, says what mends it, and nothing of that is kept.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, ensure};

use crate::{
    check,
    shell::{self, command},
};

/// The argument that cargo hands to the linker is asked of the build script, and a linker is given
/// it: building everything a second time would show the same.
pub(super) fn toolchain() -> Result<()> {
    let told = told()?;
    let argument = told
        .lines()
        .find_map(|line| line.strip_prefix("cargo::rustc-link-arg="))
        .context("a build without a toolchain gives the linker nothing to fail by")?;
    let source = tempfile::NamedTempFile::with_suffix(".rs")?;
    fs::write(&source, "fn main() {}")?;
    let out = tempfile::tempdir()?;
    let mut rustc = command("rustc", &["--crate-name", "linked"]);
    let link = rustc
        .arg(source.path())
        .arg("--out-dir")
        .arg(out.path())
        .args(["-C", &format!("link-arg={argument}")])
        .output()?;
    let talk = String::from_utf8_lossy(&link.stderr);
    ensure!(!link.status.success(), "it links without a BPF object");
    ensure!(
        talk.contains("run `cargo xtask setup`"),
        "the error does not name the remedy: {talk}"
    );
    // A stand-in is made anew by each build, so that installing the toolchain is enough.
    let watched = told
        .lines()
        .filter_map(|line| line.strip_prefix("cargo::rerun-if-changed="));
    let missing = watched.map(PathBuf::from).filter(|path| !path.exists());
    ensure!(
        missing.count() > 0,
        "a build without the toolchain is taken for current"
    );
    Ok(())
}

/// What the build script told cargo, without a toolchain.
fn told() -> Result<String> {
    let builds = fs::read_dir(shell::root().join(check::without()).join("debug/build"))?;
    let outputs = builds.flatten().filter_map(|folder| {
        let name = folder.file_name();
        let output = folder.path().join("output");
        let is_ours = name.to_string_lossy().starts_with("profiler-");
        let time = output.metadata().ok()?.modified().ok()?;
        is_ours.then_some((time, output))
    });
    let (_, newest) = outputs.max().context("the build script did not run")?;
    Ok(fs::read_to_string(newest)?)
}
