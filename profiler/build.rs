//! Compiles the BPF programs into the object that the library embeds: the one place that knows how.
//!
//! Without a BPF toolchain an empty object takes its place, so that `cargo check`, `clippy` and `doc`
//! work anywhere; linking anything then fails, with a message that names `cargo xtask setup`.

#[path = "build/compile.rs"]
mod compile;
#[path = "build/toolchain.rs"]
mod toolchain;

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
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
            let arch = variable("CARGO_CFG_TARGET_ARCH")?;
            let folder = target_dir(&out).join("bpf");
            let built = compile::object(workspace, &folder, &compiler, &linker, &arch)?;
            match built {
                Ok(built) => fs::copy(built, object).map(drop),
                Err(talk) => refuse(&compiler, &talk),
            }
        }
        Err(missing) => stand_in(&out, &object, &missing),
    }
}

/// Where all builds come to lie, which cargo marks: the core library is built once for all profiles.
fn target_dir(out: &Path) -> &Path {
    let is_marked = |folder: &&Path| folder.join("CACHEDIR.TAG").exists();
    out.ancestors().find(is_marked).unwrap_or(out)
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

fn refuse(compiler: &Compiler, talk: &str) -> io::Result<()> {
    for line in talk.lines() {
        println!("cargo::warning={line}");
    }
    let compiler = compiler.rustc.display();
    Err(io::Error::other(format!(
        "the BPF programs do not compile with {compiler}; see the warnings above"
    )))
}

/// An empty object, and a linker script argument that no linker can satisfy: its name is the message,
/// as a build script runs before anybody knows whether something will be linked.
fn stand_in(out: &Path, object: &Path, missing: &Missing) -> io::Result<()> {
    fs::write(object, [])?;
    // Nothing watched changes when the toolchain is installed; a file that never exists makes cargo look
    // again at each build.
    let never = out.join("no such file: look for the toolchain again");
    println!("cargo::rerun-if-changed={}", never.display());
    println!("cargo::warning=no BPF toolchain: {missing}; run `cargo xtask setup`");
    let message = out.join("BPF object missing: run `cargo xtask setup`, then build again");
    println!("cargo::rustc-link-arg={}", message.display());
    Ok(())
}
