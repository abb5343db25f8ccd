//! `cargo xtask fuzz`: throws bytes at the readers of foreign bytes. The targets are in `fuzz/`.
//!
//! The time is shared out between the targets. What was found earlier (`fuzz/corpus`) is where the
//! next run begins; the first one begins with small ELF files of this system.

mod seeds;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, builder::PossibleValuesParser};

use crate::{
    setup,
    shell::{self, cargo, command, has, output},
};

const CARGO_FUZZ_VERSION: &str = "0.13.2";

/// The targets and their shares of the time: there is little to find in a record.
const TARGETS: [(&str, u64); 19] = [
    ("table", 4),
    ("call_frames", 5),
    ("records", 1),
    ("line_table", 1),
    ("code_object", 2),
    ("sql", 2),
    ("postgres", 4),
    ("elf_files", 3),
    ("symbols", 2),
    ("returns", 2),
    ("perf_map", 1),
    ("recording", 4),
    ("window", 2),
    ("maps", 1),
    ("sockets", 1),
    ("configuration", 2),
    ("request", 1),
    ("answer", 1),
    ("go_table", 2),
];

/// Longest input: a page of Linux's smallest programs and libraries, and still thousands of runs a
/// second.
const INPUT_BYTES_MAX: u64 = 64 << 10;
/// Most system files to begin with.
const SEEDS: usize = 48;
/// An input that takes longer hangs the reader.
const HANG_SECONDS: u32 = 10;
/// An input for which more is allocated in one piece is a find: tables of files this small take a few MB.
const PIECE_MIB_MAX: u32 = 64;
/// Memory of the whole fuzzer: the sanitizer and what was found earlier take some 100 MB.
const MEMORY_MIB_MAX: u32 = 2048;
/// Lines of a find that are shown.
const STORY_LINES: usize = 40;

/// `cargo xtask fuzz`
#[derive(Args)]
pub(crate) struct Options {
    /// Seconds, of all targets together, building not counted
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..))]
    time: u64,
    /// Inputs of each target, instead of a time
    #[arg(long, value_name = "INPUTS", conflicts_with = "time")]
    runs: Option<u64>,
    /// Without the address sanitizer, which finds little in safe Rust: some three times as many inputs
    #[arg(long)]
    fast: bool,
    /// Only this target, for all of the time
    #[arg(long, value_name = "TARGET", value_parser = PossibleValuesParser::new(TARGETS.map(|(name, _)| name)))]
    only: Option<String>,
}

/// Runs the verb.
pub(crate) fn run(options: &Options) -> Result<()> {
    let Options {
        time,
        runs,
        fast,
        only,
    } = options;
    let build = Build { is_fast: *fast };
    tools()?;
    seed()?;
    shell::run(&mut build.cargo_fuzz("build", None))?;
    let is_wanted = |(name, _): &(&str, u64)| only.as_ref().is_none_or(|only| only == name);
    let targets: Vec<(&str, u64)> = TARGETS.into_iter().filter(is_wanted).collect();
    let shares: u64 = targets.iter().map(|(_, share)| share).sum();
    let mut found = Vec::new();
    for (target, share) in targets {
        let seconds = (time * share / shares).max(1);
        let until = runs.map_or(Until::Seconds(seconds), Until::Runs);
        println!("\n== {target}: {until}");
        if let Err(error) = fuzz(build, target, until) {
            println!("{error:#}");
            found.push(target);
        }
    }
    if found.is_empty() {
        println!("\nno crash, no hang, no want of memory");
        return Ok(());
    }
    for target in &found {
        for input in files(&artifacts(target)) {
            println!("crashing input: {}", input.display());
            println!(
                "  again: RUSTC_BOOTSTRAP=1 cargo fuzz run --target-dir target/fuzz {target} {}",
                input.display()
            );
        }
    }
    bail!("found something: {}", found.join(", "))
}

/// What fuzzing needs: cargo-fuzz and a C++ compiler, which are installed, and a Rust with a
/// sanitizer, which is not ours to choose.
fn tools() -> Result<()> {
    let rustc = |arguments: &[&str]| {
        output(&mut command("rustc", arguments)).context("no rustc: is rustup's on PATH?")
    };
    let version = rustc(&["-vV"])?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc does not tell its host")?;
    let libraries = Path::new(&rustc(&["--print", "sysroot"])?)
        .join("lib/rustlib")
        .join(host)
        .join("lib");
    let has_sanitizer = files(&libraries).iter().any(|file| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("librustc") && name.ends_with("rt.asan.a")
    });
    ensure!(
        has_sanitizer,
        "this Rust has no address sanitizer in {}; rustup's has: `rustup toolchain install stable && \
         rustup default stable`",
        libraries.display()
    );
    if !has("c++") {
        println!("libFuzzer is built from source: that needs a C++ compiler.");
        setup::apt(&["g++"])?;
    }
    if !has("cargo-fuzz") {
        println!("cargo-fuzz is not here: building it, which takes a minute, once");
        let install = [
            "install",
            "cargo-fuzz",
            "--version",
            CARGO_FUZZ_VERSION,
            "--locked",
        ];
        shell::run(
            command("cargo", &install)
                .env_remove("CARGO_TARGET_DIR")
                .current_dir("/"),
        )?;
    }
    Ok(())
}

/// How targets are built.
#[derive(Clone, Copy)]
struct Build {
    is_fast: bool,
}

impl Build {
    /// Sanitizers are behind `-Z`: `RUSTC_BOOTSTRAP` lets a stable compiler take it, so that no nightly is
    /// needed.
    fn cargo_fuzz(self, verb: &str, target: Option<&str>) -> Command {
        let (folder, sanitizer) = if self.is_fast {
            ("target/fuzz-fast", "none")
        } else {
            ("target/fuzz", "address")
        };
        let mut fuzz = cargo(&[
            "fuzz",
            verb,
            "--target-dir",
            folder,
            "--sanitizer",
            sanitizer,
        ]);
        fuzz.args(target).env("RUSTC_BOOTSTRAP", "1");
        fuzz
    }
}

/// How long a target is run.
#[derive(Clone, Copy)]
enum Until {
    Seconds(u64),
    Runs(u64),
}

impl fmt::Display for Until {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seconds(seconds) => write!(formatter, "{seconds} s"),
            Self::Runs(runs) => write!(formatter, "{runs} inputs"),
        }
    }
}

/// Runs one target, its talk into a file.
fn fuzz(build: Build, target: &str, until: Until) -> Result<()> {
    let log = shell::root().join(format!("fuzz/artifacts/{target}.log"));
    fs::create_dir_all(shell::root().join("fuzz/artifacts"))?;
    let talk = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut run = build.cargo_fuzz("run", Some(target));
    run.args([
        "--".to_owned(),
        match until {
            Until::Seconds(seconds) => format!("-max_total_time={seconds}"),
            Until::Runs(runs) => format!("-runs={runs}"),
        },
        format!("-max_len={INPUT_BYTES_MAX}"),
        format!("-timeout={HANG_SECONDS}"),
        format!("-malloc_limit_mb={PIECE_MIB_MAX}"),
        format!("-rss_limit_mb={MEMORY_MIB_MAX}"),
        "-print_final_stats=1".to_owned(),
    ]);
    let result = shell::run(run.stderr(talk));
    let talk = fs::read(&log)?;
    let talk = String::from_utf8_lossy(&talk);
    if result.is_err() {
        // The sanitizer's story, without the fuzzer's input in three notations.
        let story = talk.lines().skip_while(|line| !tells_of_a_find(line));
        for line in story.take(STORY_LINES) {
            println!("{line}");
        }
        println!("all of it: {}", log.display());
    }
    for line in talk.lines() {
        if let Some(fact) = line.strip_prefix("stat::") {
            println!("{fact}");
        }
    }
    result
}

fn tells_of_a_find(line: &str) -> bool {
    line.contains(" panicked at ") || line.starts_with("==") || line.starts_with("ALARM")
}

fn artifacts(target: &str) -> PathBuf {
    shell::root().join("fuzz/artifacts").join(target)
}

fn corpus(target: &str) -> Result<PathBuf> {
    let folder = shell::root().join("fuzz/corpus").join(target);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// Gives the targets something to begin with, unless they have it from an earlier run.
fn seed() -> Result<()> {
    for (target, contents) in seeds::texts()? {
        let folder = corpus(target)?;
        if files(&folder).is_empty() {
            for (number, content) in contents.iter().enumerate() {
                fs::write(folder.join(format!("seed-{number}")), content)?;
            }
        }
    }
    let (tables, frames) = (corpus("table")?, corpus("call_frames")?);
    let whole = corpus("elf_files")?;
    if [&tables, &frames, &whole]
        .iter()
        .all(|folder| !files(folder).is_empty())
    {
        return Ok(());
    }
    let small = small_elf_files();
    ensure!(
        !small.is_empty(),
        "no small ELF file in /usr: nothing to begin with"
    );
    println!("seeds: {} small ELF files of this system", small.len());
    for (number, file) in small.iter().enumerate() {
        let name = format!("seed-{number}");
        let seed = tables.join(&name);
        for seed in [&seed, &whole.join(&name)] {
            fs::copy(file, seed).with_context(|| format!("cannot copy {}", file.display()))?;
        }
        seed_frames(&seed, &frames.join(&name))?;
    }
    Ok(())
}

/// Takes `.eh_frame` out of a file, and puts the letter before it that `targets/call_frames.rs` wants.
fn seed_frames(file: &Path, seed: &Path) -> Result<()> {
    let mut extract = Command::new("objcopy");
    extract
        .args(["-O", "binary", "--only-section=.eh_frame"])
        .arg(file)
        .arg(seed);
    // Without objcopy there are no seeds of this kind, and the fuzzer finds the form by itself.
    if output(&mut extract).is_some()
        && let Ok(section) = fs::read(seed)
    {
        fs::write(seed, [b"0", section.as_slice()].concat())?;
    }
    Ok(())
}

/// ELF files that fit into an input, some of each size.
fn small_elf_files() -> Vec<PathBuf> {
    let machine = std::env::consts::ARCH;
    let folders = [
        "/usr/bin".to_owned(),
        "/usr/sbin".to_owned(),
        format!("/usr/lib/{machine}-linux-gnu"),
        "/usr/lib64".to_owned(),
    ];
    let mut small: Vec<(u64, PathBuf)> = folders
        .iter()
        .flat_map(|folder| files(Path::new(folder)))
        .filter_map(|file| Some((file.metadata().ok()?.len(), file)))
        .filter(|(bytes, file)| *bytes <= INPUT_BYTES_MAX && is_elf(file))
        .collect();
    small.sort();
    small.dedup_by_key(|(bytes, _)| *bytes);
    let step = small.len().div_ceil(SEEDS).max(1);
    small
        .into_iter()
        .step_by(step)
        .map(|(_, file)| file)
        .collect()
}

fn is_elf(file: &Path) -> bool {
    fs::read(file).is_ok_and(|bytes| bytes.starts_with(b"\x7fELF"))
}

/// The files in a folder, by name; none where there is no such folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files
}
