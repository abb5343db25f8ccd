//! Finds what it takes to compile for BPF: a compiler with the sources of its own `core` library,
//! and a bpf-linker whose LLVM can read that compiler's bitcode.
//!
//! Shared by the build script, which uses it, and by `cargo xtask setup`, which installs it.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Set to `none` to build as on a machine without a BPF toolchain.
pub(crate) const HIDE: &str = "PROFILER_BPF_TOOLCHAIN";

/// A version of LLVM: major, minor, patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Llvm(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl fmt::Display for Llvm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Llvm {
    /// Reads `22.1.8`; what is missing is zero.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().split('.').map(|number| number.parse().ok());
        Some(Self(
            numbers.next()??,
            numbers.next().flatten().unwrap_or(0),
            numbers.next().flatten().unwrap_or(0),
        ))
    }
}

/// A compiler that can build `core` for BPF.
#[derive(Clone, Debug)]
pub(crate) struct Compiler {
    /// Its cargo.
    pub(crate) cargo: PathBuf,
    /// Its rustc.
    pub(crate) rustc: PathBuf,
    /// The LLVM it writes bitcode with.
    pub(crate) llvm: Llvm,
}

/// What is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// No compiler with library sources.
    Compiler,
    /// No linker.
    Linker {
        /// The LLVM it must have.
        need: Llvm,
    },
    /// A linker that cannot read the compiler's bitcode.
    LinkerLlvm {
        /// The LLVM it has.
        has: Llvm,
        /// The LLVM it must have.
        need: Llvm,
    },
}

impl std::error::Error for Missing {}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compiler => write!(
                f,
                "no Rust compiler with library sources (rust-src) for the BPF target"
            ),
            Self::Linker { need } => write!(
                f,
                "no bpf-linker on PATH or in ~/.cargo/bin; one with LLVM {} is needed",
                need.0
            ),
            Self::LinkerLlvm { has, need } => write!(
                f,
                "bpf-linker uses LLVM {has}, but the compiler writes bitcode of LLVM {need}: \
                 a bpf-linker with LLVM {} and no older than {need} is needed",
                need.0
            ),
        }
    }
}

/// The first compiler that will do: a nightly of rustup's with rust-src, else the system's (Debian's
/// rustc-web, cargo-web and rust-web-src).
pub(crate) fn compiler() -> Result<Compiler, Missing> {
    if env::var_os(HIDE).is_some_and(|value| value == "none") {
        return Err(Missing::Compiler);
    }
    let mut candidates = nightlies();
    candidates.push(PathBuf::from("/usr"));
    let found = candidates.iter().find_map(|root| compiler_in(root));
    found.ok_or(Missing::Compiler)
}

fn nightlies() -> Vec<PathBuf> {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".rustup")));
    let entries = home.and_then(|home| fs::read_dir(home.join("toolchains")).ok());
    let mut nightlies: Vec<PathBuf> = entries
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("nightly"))
        })
        .collect();
    nightlies.sort();
    nightlies.reverse();
    nightlies
}

/// Rustup's shims are no compilers of their own, so both programs are named by full path.
fn compiler_in(root: &Path) -> Option<Compiler> {
    let (cargo, rustc) = (root.join("bin/cargo"), root.join("bin/rustc"));
    let library = root.join("lib/rustlib/src/rust/library/core/Cargo.toml");
    if !library.is_file() || !cargo.is_file() || !rustc.is_file() {
        return None;
    }
    let version = output(Command::new(&rustc).arg("-vV"))?;
    let llvm = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    let llvm = Llvm::parse(llvm)?;
    Some(Compiler { cargo, rustc, llvm })
}

/// The linker, checked against the compiler's LLVM.
pub(crate) fn linker(need: Llvm) -> Result<PathBuf, Missing> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    folders.extend(home.map(|home| home.join("bin")));
    let found = folders
        .iter()
        .map(|folder| folder.join("bpf-linker"))
        .find(|file| file.is_file());
    let linker = found.ok_or(Missing::Linker { need })?;
    match linker_llvm(&linker) {
        // A linker that says nothing of its LLVM has it built in: the link itself will tell.
        None => Ok(linker),
        Some(has) if has.0 == need.0 && has >= need => Ok(linker),
        Some(has) => Err(Missing::LinkerLlvm { has, need }),
    }
}

/// The LLVM that a linker loads, from the library it is linked with; its patch level from that
/// installation's own word, as the library's name has none.
fn linker_llvm(linker: &Path) -> Option<Llvm> {
    let libraries = output(Command::new("ldd").arg(linker))?;
    let line = libraries.lines().find(|line| line.contains("libLLVM"))?;
    let library = line.split("=>").nth(1)?.split_whitespace().next()?;
    let config = Path::new(library)
        .parent()?
        .parent()?
        .join("bin/llvm-config");
    let told = output(Command::new(config).arg("--version")).and_then(|text| Llvm::parse(&text));
    told.or_else(|| {
        let name = Path::new(library).file_name()?.to_str()?;
        let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
        let Llvm(major, minor, _) = Llvm::parse(digits)?;
        // Of an unknown patch level, the benefit of the doubt.
        Some(Llvm(major, minor, u32::MAX))
    })
}

fn output(command: &mut Command) -> Option<String> {
    let output = command
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}
