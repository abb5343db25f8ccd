//! What is recorded: how each program is started, and which of its functions each sample should have.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Result, bail, ensure};

use super::{packed, tree};
use crate::{interpreters::interpreters, shell};

/// Minor versions of `CPython` in the tree of Debian sid.
const PYTHON_OF_TREE: [&str; 2] = ["3.14", "3.15"];
/// The last release of each minor version that Python's registry has, and the system's own.
const GO: [&str; 8] = [
    "system", "1.21.13", "1.22.10", "1.23.9", "1.24.11", "1.25.5", "1.26.6", "1.27.3",
];
/// What `openssl speed` calls ten of its algorithms.
const OPENSSL: [&str; 10] = [
    "aes-128-cbc",
    "aes-256-gcm",
    "aes-128-ctr",
    "chacha20-poly1305",
    "sha1",
    "sha256",
    "sha512",
    "rsa2048",
    "ecdsap256",
    "ed25519",
];
/// Programs whose debug information is in a file of its own, and how they are compiled.
const SPLIT: [(&str, &[&str]); 3] = [
    ("c++, split", &["g++", "-O2", "-g", "-fomit-frame-pointer"]),
    ("rust, split", &["rustc", "-O", "-g"]),
    (
        "rust, split, panic=abort",
        &["rustc", "-O", "-g", "-Cpanic=abort"],
    ),
];
const PYTHON_FUNCTIONS: &[&str] = &["<module>", "main"];
/// The interpreter's own functions are folded, so that only its process's beginning is outside of its code. A C function
/// there has been called by that code.
const PYTHON_START: &[&str] = &["_start", "__libc_start", "libc.so.6+", "[cut: "];
/// More Python frames than are kept: both ends and what says how many are between.
const BOTH_ENDS: &[&str] = &[
    "[cut: Python stack longer than is kept]",
    "<module>",
    "main",
    "down",
    "Python frames left out]",
    "down",
];
/// As an exception's handler is put in place, this function's return address is the handler's already, its frame is
/// not: no unwinder can go on.
const HANDLER_COMES: &[&str] = &["[cut: ", "handle(", ";_Unwind_RaiseException"];

/// A program to be recorded.
pub(super) struct Program {
    pub(super) name: String,
    pub(super) command: Command,
    /// Functions that every sample has, outermost first.
    pub(super) functions: &'static [&'static str],
    /// What may be outside of the first of them, if that is judged.
    pub(super) start: &'static [&'static str],
    /// What a stack has, in this order, that is right although it is cut.
    pub(super) right_cut: &'static [&'static str],
    /// Whether a process that it starts does the work.
    pub(super) has_children: bool,
}

impl Default for Program {
    fn default() -> Self {
        Self {
            name: String::new(),
            command: Command::new("true"),
            functions: &[],
            start: &[],
            right_cut: &[],
            has_children: false,
        }
    }
}

impl Program {
    pub(super) fn new(
        name: String,
        mut command: Command,
        functions: &'static [&'static str],
    ) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self {
            name,
            command,
            functions,
            ..Self::default()
        }
    }
}

/// Those whose names begin so; what they need is built or brought here.
pub(super) fn all(folder: &Path, only: Option<&str>) -> Result<Vec<Program>> {
    fs::create_dir_all(folder)?;
    let mut programs = Vec::new();
    let is_chosen =
        |kind: &str| only.is_none_or(|only| only.starts_with(kind) || kind.starts_with(only));
    if is_chosen("python") {
        pythons(folder, &mut programs)?;
    }
    if is_chosen("packed") {
        packed::all(folder, &mut programs)?;
    }
    if is_chosen("go") {
        for version in GO {
            let named = format!("go {version}");
            if only.is_none_or(|only| named.starts_with(only)) {
                programs.push(go(folder, version)?);
            }
        }
    }
    if is_chosen("musl") {
        for (kind, flags) in [("dynamic", &[][..]), ("static", &["-static"])] {
            programs.push(musl(folder, kind, flags)?);
        }
    }
    for (name, compiler) in SPLIT {
        if is_chosen(name) {
            programs.push(split(folder, name, compiler)?);
        }
    }
    if is_chosen("openssl") {
        programs.extend(OPENSSL.map(openssl));
    }
    programs.retain(|program| only.is_none_or(|only| program.name.starts_with(only)));
    Ok(programs)
}

/// Every interpreter of the machine and of the tree: two functions deep; 3.14 also with many threads, 400 functions deep
/// and with its compiler.
fn pythons(folder: &Path, programs: &mut Vec<Program>) -> Result<()> {
    let text = shell::root().join("xtask/trees/app.py");
    let mut add = |name: String, mut command: Command, deep: &str, waiting: &str| {
        command.args([deep, waiting]);
        let mut program = Program::new(name, command, PYTHON_FUNCTIONS);
        program.start = PYTHON_START;
        if deep == "400" {
            program.right_cut = BOTH_ENDS;
        }
        programs.push(program);
    };
    for (version, path) in interpreters() {
        let mut command = Command::new(path);
        command.arg(&text);
        add(format!("python {version}"), command, "2", "0");
    }
    let tree = tree::sid(folder)?;
    fs::copy(&text, tree.join("tmp/app.py"))?;
    for version in PYTHON_OF_TREE {
        let start = |with_compiler: &str| {
            let mut command = Command::new("unshare");
            command
                .args(["-m", "chroot"])
                .arg(&tree)
                .arg(format!("/usr/bin/python{version}"))
                .arg("/tmp/app.py")
                .env("PYTHON_JIT", with_compiler);
            command
        };
        for (how, with_compiler, deep, waiting) in [
            ("", "0", "2", "0"),
            (", 700 threads", "0", "2", "700"),
            (", 400 deep", "0", "400", "0"),
            (", compiled", "1", "2", "0"),
        ] {
            let name = format!("python {version}{how}");
            add(name, start(with_compiler), deep, waiting);
        }
    }
    Ok(())
}

/// Ciphers, signatures, text and the collector of garbage, stripped.
fn go(folder: &Path, version: &str) -> Result<Program> {
    let compiler = match version {
        "system" => PathBuf::from("go"),
        version => tree::go(folder, version)?,
    };
    let program = folder.join(format!("busy-{version}"));
    let source = shell::root().join("profiler/tests/live/golang/busy.go");
    let mut build = Command::new(&compiler);
    build
        .args(["build", "-ldflags", "-s -w", "-o"])
        .arg(&program)
        .arg(source)
        .env("GOCACHE", folder.join("go-cache"))
        .env("GOTOOLCHAIN", "local")
        .env("GO111MODULE", "off");
    shell::run(&mut build)?;
    let command = Command::new(program);
    Ok(Program::new(
        format!("go {version}"),
        command,
        &["runtime."],
    ))
}

/// Calls back from the C library, which has no unwind tables.
fn musl(folder: &Path, kind: &str, flags: &[&str]) -> Result<Program> {
    let program = folder.join(format!("sorted-{kind}"));
    let mut build = Command::new("musl-gcc");
    build
        .args(["-O2", "-o"])
        .arg(&program)
        .args(flags)
        .arg(shell::root().join("xtask/trees/sorted.c"));
    shell::run(&mut build)?;
    ensure!(program.exists(), "musl-gcc has made no program");
    let name = format!("musl, {kind}");
    Ok(Program::new(name, Command::new(program), &["main;"]))
}

/// Stripped, with its debug information in a file beside it.
fn split(folder: &Path, name: &str, compiler: &[&str]) -> Result<Program> {
    let program = folder.join(name.replace([' ', ','], "-"));
    let (Some((compiler, flags)), Some(file)) = (compiler.split_first(), program.file_name())
    else {
        bail!("no compiler for {name}");
    };
    let source = if *compiler == "rustc" {
        "split.rs"
    } else {
        "split.cpp"
    };
    let mut build = Command::new(compiler);
    build
        .args(flags)
        .arg("-o")
        .arg(&program)
        .arg(shell::root().join("xtask/trees").join(source));
    shell::run(&mut build)?;
    let debug = folder.join(".debug");
    fs::create_dir_all(&debug)?;
    let debug = debug.join(file).with_extension("debug");
    let mut keep = Command::new("objcopy");
    shell::run(keep.arg("--only-keep-debug").arg(&program).arg(&debug))?;
    let mut link = std::ffi::OsString::from("--add-gnu-debuglink=");
    link.push(&debug);
    let mut strip = Command::new("objcopy");
    shell::run(strip.arg("--strip-all").arg(link).arg(&program))?;
    let mut split = Program::new(name.to_owned(), Command::new(program), &["main;", "handle"]);
    if source == "split.cpp" {
        split.right_cut = HANDLER_COMES;
    }
    Ok(split)
}

/// Debian's library is stripped, so only whole stacks say something.
fn openssl(algorithm: &str) -> Program {
    let mut command = Command::new("openssl");
    command.args(["speed", "-seconds", "60"]);
    match algorithm {
        "rsa2048" | "ecdsap256" | "ed25519" => command.arg(algorithm),
        cipher => command.args(["-bytes", "8192", "-evp", cipher]),
    };
    Program::new(format!("openssl {algorithm}"), command, &[])
}
