//! Compiles the BPF programs into the object that the library embeds: the one place that knows how.
//!
//! Without a BPF toolchain an empty object takes its place, so that `cargo check`, `clippy` and `doc`
//! work anywhere; linking anything then fails, with a message that names `cargo xtask setup`.

#[path = "build/toolchain.rs"]
mod toolchain;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use toolchain::{Compiler, HIDE, Missing};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let variable = |name: &str| env::var(name).map_err(io::Error::other);
    let out = PathBuf::from(variable("OUT_DIR")?);
    let manifest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = manifest.parent().ok_or(io::ErrorKind::NotFound)?;
    watch(workspace);
    let object = out.join("profiler-ebpf.o");
    let found = toolchain::compiler()
        .and_then(|compiler| Ok((toolchain::linker(compiler.llvm)?, compiler)));
    match found {
        Ok((linker, compiler)) => {
            let built = compile(workspace, &out, &compiler, &linker)?;
            fs::copy(built, object).map(drop)
        }
        Err(missing) => stand_in(&out, &object, &missing),
    }
}

fn watch(workspace: &Path) {
    for path in [
        "Cargo.lock",
        "profiler-common",
        "profiler-ebpf",
        "profiler/build",
        "profiler/build.rs",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(path).display());
    }
    for variable in [HIDE, "PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
}

/// Runs the BPF compiler in a target folder of its own. The profile is set here: optimized, since the verifier refuses debug code, and
/// without panics and overflow checks, since it refuses those too.
fn compile(
    workspace: &Path,
    out: &Path,
    compiler: &Compiler,
    linker: &Path,
) -> io::Result<PathBuf> {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").map_err(io::Error::other)?;
    let target_dir = out.join("bpf");
    let flags = [
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", linker.display()),
        format!("--cfg=bpf_target_arch=\"{arch}\""),
    ];
    let mut cargo = clean_command(&compiler.cargo);
    cargo
        .current_dir(workspace)
        .env("RUSTC", &compiler.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .args([
            "build",
            "--release",
            "--locked",
            "--quiet",
            "-Zbuild-std=core",
        ])
        .args([
            "--target",
            "bpfel-unknown-none",
            "--package",
            "profiler-ebpf",
        ])
        .arg("--target-dir")
        .arg(&target_dir);
    for setting in [
        "opt-level=3",
        "panic=\"abort\"",
        "lto=true",
        "debug=2",
        "codegen-units=1",
        "overflow-checks=false",
    ] {
        cargo.args(["--config", &format!("profile.release.{setting}")]);
    }
    let output = cargo.output()?;
    if output.status.success() {
        return Ok(target_dir.join("bpfel-unknown-none/release/profiler-ebpf"));
    }
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        println!("cargo::warning={line}");
    }
    let compiler = compiler.rustc.display();
    Err(io::Error::other(format!(
        "the BPF programs do not compile with {compiler}; see the warnings above"
    )))
}

/// A command without what the outer cargo put into the environment, but with what the user set for
/// any cargo.
fn clean_command(program: &Path) -> Command {
    const OUTER: [&str; 10] = [
        "CARGO",
        "RUST",
        "CLIPPY",
        "DEP_",
        "OUT_DIR",
        "TARGET",
        "HOST",
        "PROFILE",
        "OPT_LEVEL",
        "DEBUG",
    ];
    const USER: [&str; 6] = [
        "CARGO_HOME",
        "RUSTUP_HOME",
        "CARGO_HTTP_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_NET_",
    ];
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| text.starts_with(prefix));
        if begins(&OUTER) && !begins(&USER) {
            command.env_remove(&name);
        }
    }
    command
}

/// An empty object, and a linker script argument that no linker can satisfy: its name is the message,
/// as a build script runs before anybody knows whether something will be linked.
fn stand_in(out: &Path, object: &Path, missing: &Missing) -> io::Result<()> {
    fs::write(object, [])?;
    println!("cargo::warning=no BPF toolchain: {missing}; run `cargo xtask setup`");
    let message = out.join("BPF object missing: run `cargo xtask setup`, then build again");
    println!("cargo::rustc-link-arg={}", message.display());
    Ok(())
}
