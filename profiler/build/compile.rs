//! Compiles the BPF programs. Used by the build script and, for processors other than this machine's,
//! by the tests of `xtask`.

use std::{
    env, io,
    path::{Path, PathBuf},
    process::Command,
};

use crate::toolchain::Compiler;

/// Runs the BPF compiler in a target folder of its own, which must not be used by two at a time, for a processor by
/// Rust's name of it. Gives the object's path, or what the compiler said. The profile is set here: optimized, since the
/// verifier refuses debug code, and without panics and overflow checks, since it refuses those too.
pub(crate) fn object(
    workspace: &Path,
    target_dir: &Path,
    compiler: &Compiler,
    linker: &Path,
    arch: &str,
) -> io::Result<Result<PathBuf, String>> {
    let flags = [
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Clinker={}", linker.display()),
    ];
    let mut cargo = clean_command(&compiler.cargo);
    cargo
        .current_dir(workspace)
        .env("RUSTC", &compiler.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("AYA_BPF_TARGET_ARCH", arch)
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
        .arg(target_dir);
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
    Ok(if output.status.success() {
        Ok(target_dir.join("bpfel-unknown-none/release/profiler-ebpf"))
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    })
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
