//! The guest's root file system: Debian 12 with systemd, Postgres and a compiler, made once; guests never change it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use super::kernel::MIRROR;
use crate::shell;

const SUITE: &str = "bookworm";
/// What boots, what is watched, and what the live tests build and run programs with.
const PACKAGES: &str = "systemd,systemd-sysv,kmod,postgresql,\
    bpftool,g++,iproute2,libc6-dev,musl-tools,openssl,procps,python3,strace";
/// Sparse: only what is written counts.
const SIZE: &str = "3G";

/// Runs the steps and turns the machine off, whatever comes of them.
const UNIT: &str = "\
[Unit]
Description=Steps of cargo xtask test-kernel
SuccessAction=poweroff-force
FailureAction=poweroff-force

[Service]
ExecStart=/bin/sh /host/run
StandardOutput=journal+console
StandardError=inherit

[Install]
WantedBy=multi-user.target
";

/// Where the image is, which is made anew after its recipe changed.
pub(super) fn root(folder: &Path) -> Result<PathBuf> {
    let image = folder.join("root.ext4");
    let note = folder.join("root.recipe");
    let recipe = format!("{MIRROR} {SUITE} {PACKAGES} {SIZE}\n{UNIT}");
    if image.exists() && fs::read_to_string(&note).is_ok_and(|made| made == recipe) {
        return Ok(image);
    }
    println!("making a root file system of Debian's packages, which takes three minutes, once");
    let tree = folder.join("root");
    if tree.exists() {
        fs::remove_dir_all(&tree)?;
    }
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", "--variant=minbase", "--mode=root"])
        .arg(format!("--include={PACKAGES}"))
        .arg("--aptopt=Apt::Install-Recommends \"false\"")
        .arg(SUITE)
        .arg(&tree)
        .arg(MIRROR);
    shell::run(&mut make)?;
    settle(&tree)?;
    let part = folder.join("root.ext4.part");
    let mut format = Command::new("mkfs.ext4");
    format
        .args(["-q", "-F", "-d"])
        .arg(&tree)
        .arg(&part)
        .arg(SIZE);
    shell::run(&mut format)?;
    fs::remove_dir_all(&tree)?;
    fs::rename(part, &image)?;
    fs::write(note, recipe)?;
    Ok(image)
}

/// What makes a tree of packages a machine that boots into our unit.
fn settle(tree: &Path) -> Result<()> {
    for folder in ["host", "usr/lib/modules"] {
        fs::create_dir_all(tree.join(folder))?;
    }
    fs::write(tree.join("etc/hostname"), "guest\n")?;
    // Without one systemd takes this for a first boot, and enables whatever there is.
    fs::write(
        tree.join("etc/machine-id"),
        "00000000000000000000000000000001\n",
    )?;
    let units = tree.join("etc/systemd/system");
    fs::write(units.join("guest.service"), UNIT)?;
    symlink(
        "/etc/systemd/system/guest.service",
        units.join("multi-user.target.wants/guest.service"),
    )?;
    // Started by the step that wants it.
    let started = units.join("multi-user.target.wants/postgresql.service");
    if started.is_symlink() {
        fs::remove_file(started)?;
    }
    Ok(())
}
