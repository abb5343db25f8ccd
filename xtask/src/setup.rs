//! `cargo xtask setup`: finds or installs the BPF toolchain, and what the tests need.
//!
//! Idempotent: what is there is left alone. Each step says what and why before it does anything.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    shell::{self, command, has, output},
    toolchain::{self, Llvm, Missing},
};

/// The bpf-linker that is installed: newer ones need other compilers.
const LINKER_VERSION: &str = "0.11.0";
/// Debian's compiler for the BPF side, with its library sources, and the LLVM it was built with.
const DEBIAN_COMPILER: [&str; 3] = ["rustc-web", "cargo-web", "rust-web-src"];

/// A nightly with LLVM 22.
const PINNED_NIGHTLY: &str = "nightly-2026-05-19";

/// A way to get a compiler, and what to call it.
type Step = (&'static str, fn() -> Result<()>);

/// Programs that the tests run, with the Debian package of each.
const TEST_PROGRAMS: [(&str, &str); 20] = [
    ("gcc", "gcc"),
    ("g++", "g++"),
    ("gdb", "gdb"),
    ("musl-gcc", "musl-tools"),
    ("node", "nodejs"),
    ("strip", "binutils"),
    ("bpftool", "bpftool"),
    ("go", "golang-go"),
    ("python3", "python3"),
    ("npm", "npm"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("strace", "strace"),
    ("ip", "iproute2"),
    ("ss", "iproute2"),
    ("javac", "default-jdk-headless"),
    ("pgbouncer", "pgbouncer"),
    ("pgproto", "pgpool2"),
    ("pg_config", "libpq-dev"),
    ("systemd-analyze", "systemd"),
];

/// Programs that make and check packages, with the Debian package of each.
const PACKAGING_PROGRAMS: [(&str, &str); 6] = [
    ("dpkg-shlibdeps", "dpkg-dev"),
    ("gzip", "gzip"),
    ("lintian", "lintian"),
    ("rpm", "rpm"),
    ("strip", "binutils"),
    ("systemd-analyze", "systemd"),
];

/// Programs that make and run a guest, with the Debian package of each.
const GUEST_PROGRAMS: [(&str, &str); 8] = [
    ("busybox", "busybox-static"),
    ("cpio", "cpio"),
    ("depmod", "kmod"),
    ("dpkg-deb", "dpkg"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mmdebstrap", "mmdebstrap"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("xz", "xz-utils"),
];

/// The driver of Postgres for Java, and its package.
const JDBC: (&str, &str) = ("/usr/share/java/postgresql.jar", "libpostgresql-jdbc-java");

/// `cargo xtask setup`
#[derive(Args)]
pub(crate) struct Options {
    /// Install nothing; fail if something is missing
    #[arg(long)]
    check: bool,
    /// Also what the tests run
    #[arg(long)]
    tests: bool,
}

/// Says what is there and what is not.
fn check() -> Result<()> {
    let compiler = toolchain::compiler();
    let mut missing = Vec::new();
    match &compiler {
        Ok(compiler) => {
            println!(
                "BPF compiler: {}, {} (LLVM {})",
                compiler.cargo.display(),
                compiler.rustc.display(),
                compiler.llvm
            );
            match toolchain::linker(compiler.llvm) {
                Ok(linker) => println!("BPF linker:   {}", linker.display()),
                Err(error) => missing.push(error.to_string()),
            }
        }
        Err(error) => missing.push(error.to_string()),
    }
    for line in &missing {
        println!("missing:      {line}");
    }
    if missing.is_empty() {
        Ok(())
    } else {
        bail!("the BPF toolchain is not complete; `cargo xtask setup` installs it")
    }
}

/// Runs the verb.
pub(crate) fn run(options: &Options) -> Result<()> {
    if options.check {
        return check();
    }
    toolchain()?;
    if options.tests {
        tests()?;
    }
    check()
}

/// Installs what building needs.
pub(crate) fn toolchain() -> Result<()> {
    let compiler = match toolchain::compiler() {
        Ok(compiler) => compiler,
        Err(_) => install_compiler()?,
    };
    match toolchain::linker(compiler.llvm) {
        Ok(_) => Ok(()),
        Err(missing @ (Missing::Linker { need } | Missing::LinkerLlvm { need, .. })) => {
            println!("{missing}");
            install_linker(need)
        }
        Err(missing) => bail!("{missing}"),
    }
}

/// Debian's compiler, which comes from the same place as everything else and has an LLVM that
/// bpf-linker can be built with; else the library sources of a nightly that is there; else a nightly
/// of the time when its LLVM was one that bpf-linker can be built with everywhere.
fn install_compiler() -> Result<toolchain::Compiler> {
    println!(
        "The BPF programs need a Rust compiler with the sources of its own library: none is here."
    );
    let steps: [Step; 3] = [
        ("Debian's compiler with its library sources", || {
            apt(&DEBIAN_COMPILER)
        }),
        ("the library sources of rustup's nightly", add_sources),
        (
            "a pinned nightly of rustup's with its library sources",
            install_nightly,
        ),
    ];
    for (what, step) in steps {
        println!("Trying {what}.");
        if let Err(error) = step() {
            println!("cannot be had here: {error:#}");
        }
        if let Ok(compiler) = toolchain::compiler() {
            return Ok(compiler);
        }
    }
    bail!(
        "{}; install a rustup nightly with rust-src by hand",
        Missing::Compiler
    )
}

fn add_sources() -> Result<()> {
    let toolchains = output(&mut command("rustup", &["toolchain", "list"])).unwrap_or_default();
    if !toolchains
        .lines()
        .any(|line| line.starts_with("nightly-x86_64") || line.starts_with("nightly-aarch64"))
    {
        bail!("there is no nightly");
    }
    shell::run(&mut command(
        "rustup",
        &["component", "add", "rust-src", "--toolchain", "nightly"],
    ))
}

fn install_nightly() -> Result<()> {
    let install = [
        "toolchain",
        "install",
        PINNED_NIGHTLY,
        "--profile",
        "minimal",
        "--component",
        "rust-src",
    ];
    shell::run(&mut command("rustup", &install))
}

fn install_linker(need: Llvm) -> Result<()> {
    let major = need.0;
    let prefix = format!("/usr/lib/llvm-{major}");
    println!(
        "Linking BPF programs needs bpf-linker with LLVM {major} (the compiler's own): building it takes a minute."
    );
    if !Path::new(&prefix).join("include/llvm-c").is_dir() {
        apt(&[&format!("llvm-{major}-dev"), "g++"])?;
    }
    let feature = format!("llvm-{major}");
    let mut install = command(
        "cargo",
        &[
            "install",
            "bpf-linker",
            "--version",
            LINKER_VERSION,
            "--locked",
            "--force",
            "--no-default-features",
            "--features",
            &feature,
        ],
    );
    // The build of another program must not see the settings of ours.
    install
        .env("LLVM_PREFIX", prefix)
        .env_remove("CARGO_TARGET_DIR")
        .current_dir("/");
    shell::run(&mut install)
}

/// Installs what the tests run.
pub(crate) fn tests() -> Result<()> {
    let mut packages: Vec<&str> = TEST_PROGRAMS
        .iter()
        .filter(|(program, _)| !has(program))
        .map(|(_, package)| *package)
        .collect();
    if crate::postgres::find("initdb").is_none() {
        packages.extend(["postgresql", "postgresql-contrib"]);
    }
    if !Path::new(JDBC.0).exists() {
        packages.push(JDBC.1);
    }
    // Debian's `venv` module is there without it, and fails.
    let venv = ["-c", "import ensurepip"];
    if output(&mut command("/usr/bin/python3", &venv)).is_none() {
        packages.push("python3-venv");
    }
    packages.dedup();
    install("The tests run", &packages)?;
    promtool()
}

/// Takes only the program out of Debian's package: installed, it would start a server and keep it running.
fn promtool() -> Result<()> {
    if has("promtool") {
        return Ok(());
    }
    println!("The tests run promtool, which is taken out of Debian's package prometheus.");
    let folder = tempfile::tempdir()?;
    let inside = |program: &str, arguments: &[&str]| {
        let mut command = command(program, arguments);
        command.current_dir(folder.path());
        command
    };
    update()?;
    shell::run(&mut inside("apt-get", &["-q", "download", "prometheus"]))?;
    let unpack = "dpkg-deb -x prometheus_*.deb . && rm prometheus_*.deb";
    shell::run(&mut inside("sh", &["-c", unpack]))?;
    let program = folder.path().join("usr/bin/promtool");
    let place = ["install", "-m", "755"];
    shell::run(as_root(&place).arg(program).arg("/usr/local/bin/"))
}

/// Installs what makes and checks packages.
pub(crate) fn packaging() -> Result<()> {
    programs("Packages are made with", &PACKAGING_PROGRAMS)
}

/// Installs what makes and runs a guest.
pub(crate) fn guest() -> Result<()> {
    programs("Guests are made with", &GUEST_PROGRAMS)
}

/// Installs what is not here of these programs.
pub(crate) fn programs(what_for: &str, programs: &[(&str, &str)]) -> Result<()> {
    let missing = programs.iter().filter(|(program, _)| !has(program));
    let packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    install(what_for, &packages)
}

fn install(what_for: &str, packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    println!(
        "{what_for} programs that are not here: {}.",
        packages.join(", ")
    );
    apt(packages)
}

/// Installs Debian packages.
pub(crate) fn apt(packages: &[&str]) -> Result<()> {
    if !has("apt-get") {
        bail!(
            "no apt-get here: install what Debian calls {} by other means",
            packages.join(", ")
        );
    }
    update()?;
    let install = ["install", "--no-install-recommends"];
    shell::run(&mut apt_get(&[&install[..], packages].concat()))
}

/// Brings the list of packages up to date.
fn update() -> Result<()> {
    shell::run(&mut apt_get(&["update"])).context("the list of packages cannot be had")
}

fn apt_get(arguments: &[&str]) -> Command {
    let apt = [
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "-q",
        "-y",
    ];
    as_root(&[&apt[..], arguments].concat())
}

/// A program with its arguments, as root or through sudo.
fn as_root(words: &[&str]) -> Command {
    if rustix::process::geteuid().is_root() {
        command(words[0], &words[1..])
    } else {
        command("sudo", words)
    }
}
