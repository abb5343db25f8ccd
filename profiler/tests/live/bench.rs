//! The work bench of the live tests: programs to be recorded, and the profiler to record them.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use tempfile::TempDir;

/// Three functions that share the CPU 70 : 20 : 10, called through frame pointers all the way.
pub(crate) const SPLIT: &str = r"
#include <stdint.h>
volatile uint64_t sink;
__attribute__((noinline)) void burn(uint64_t n) { for (uint64_t i = 0; i < n; i++) sink += i * i; }
__attribute__((noinline)) void seventy(void) { burn(70000); sink++; }
__attribute__((noinline)) void twenty(void) { burn(20000); sink++; }
__attribute__((noinline)) void ten(void) { burn(10000); sink++; }
int main(void) { for (;;) { seventy(); twenty(); ten(); } }
";

/// Unoptimized code keeps frame pointers in every function; optimized code drops them in functions
/// that call nothing, whatever the flags say.
const FRAME_POINTERS: [&str; 2] = ["-O0", "-g"];

/// A folder of the test's own, or `None` where the test cannot run.
pub(crate) fn bench() -> Option<Bench> {
    if rustix::process::geteuid().is_root() {
        return Some(Bench {
            folder: tempfile::tempdir().expect("a temporary folder"),
        });
    }
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "live tests need root, and CI=true"
    );
    println!("skipped: live tests load BPF programs, which needs root");
    None
}

pub(crate) struct Bench {
    folder: TempDir,
}

impl Bench {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Compiles a C program, with frame pointers and debug information unless told otherwise.
    pub(crate) fn compile(&self, name: &str, source: &str, more: &[&str]) -> PathBuf {
        let (file, program) = (self.path(&format!("{name}.c")), self.path(name));
        fs::write(&file, source).expect("the source can be written");
        let mut gcc = Command::new("gcc");
        gcc.args(FRAME_POINTERS)
            .args(more)
            .arg("-o")
            .arg(&program)
            .arg(&file);
        assert!(gcc.status().expect("gcc runs").success());
        program
    }

    /// Runs the profiler in this folder to its end.
    pub(crate) fn profiler(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the profiler runs")
    }

    /// The profiler, not started yet.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_profiler"));
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Records, and gives the folded stacks.
    pub(crate) fn folded(&self, arguments: &[&str]) -> Folded {
        let output = self.profiler(&[&["record", "-f", "folded", "-o", "-"], arguments].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        Folded::parse(&text(&output.stdout))
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A program of the test's, ended when dropped.
pub(crate) struct Target(pub(crate) Child);

impl Target {
    pub(crate) fn start(program: &Path, arguments: &[&str]) -> Self {
        Self::spawn(Command::new(program).args(arguments))
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        let death = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
        // SAFETY: the closure makes one system call and nothing else.
        unsafe { command.pre_exec(death) };
        let child = command
            .stdout(Stdio::piped())
            .stdin(Stdio::piped())
            .spawn()
            .expect("the target starts");
        // Past the dynamic linker, into main.
        sleep(Duration::from_millis(100));
        Self(child)
    }

    pub(crate) fn pid(&self) -> String {
        self.0.id().to_string()
    }

    /// CPU time used so far, ns, by the scheduler's own account.
    pub(crate) fn cpu_ns(&self) -> u64 {
        let schedstat =
            fs::read_to_string(format!("/proc/{}/schedstat", self.0.id())).expect("it lives");
        schedstat
            .split(' ')
            .next()
            .and_then(|number| number.parse().ok())
            .expect("a number")
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until a profiler watches: it catches Ctrl-C from then on. How long loading takes is the machine's affair.
pub(crate) fn until_watching(profiler: &Child) {
    let status = format!("/proc/{}/status", profiler.id());
    let catches = || {
        let status = fs::read_to_string(&status).ok()?;
        let mask = status
            .lines()
            .find_map(|line| line.strip_prefix("SigCgt:"))?;
        let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
        Some(mask & 1 << (Signal::INT.as_raw() - 1) != 0)
    };
    let watching = (0..600).find(|_| {
        sleep(Duration::from_millis(100));
        catches() == Some(true)
    });
    assert!(watching.is_some(), "the profiler does not begin to watch");
}

/// Sends a signal to a child.
pub(crate) fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("it lives");
}

/// Folded stacks with their counts.
pub(crate) struct Folded {
    pub(crate) stacks: Vec<(String, u64)>,
    pub(crate) text: String,
}

impl Folded {
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let stacks = lines.filter_map(|line| {
            let (stack, count) = line.rsplit_once(' ')?;
            Some((stack.to_owned(), count.parse().ok()?))
        });
        Self {
            stacks: stacks.collect(),
            text: text.to_owned(),
        }
    }

    /// Those of processes with this name.
    pub(crate) fn of(&self, comm: &str) -> Self {
        let is_its = |line: &&str| line.split(';').next() == Some(comm);
        let lines: Vec<&str> = self.text.lines().filter(is_its).collect();
        Self::parse(&lines.join("\n"))
    }

    pub(crate) fn total(&self) -> u64 {
        self.stacks.iter().map(|(_, count)| count).sum()
    }

    /// Samples of stacks that hold this piece.
    pub(crate) fn samples(&self, piece: &str) -> u64 {
        self.stacks
            .iter()
            .filter(|(stack, _)| stack.contains(piece))
            .map(|(_, count)| count)
            .sum()
    }

    /// Their share of all, in percent.
    #[expect(clippy::cast_precision_loss, reason = "a few thousand samples")]
    pub(crate) fn share(&self, piece: &str) -> f64 {
        100.0 * self.samples(piece) as f64 / self.total() as f64
    }

    /// Nearly all stacks are whole, by the account.
    #[track_caller]
    pub(crate) fn assert_whole(&self) {
        let mut lines = self.text.lines();
        let line = lines.find(|line| line.starts_with("# complete stacks: "));
        let percent = line
            .and_then(|line| line.rsplit_once(", ")?.1.strip_suffix(" %"))
            .and_then(|percent| percent.parse::<f64>().ok())
            .expect("an account");
        println!("{percent} % whole");
        assert!(self.total() > 50 && percent >= 99.5, "{}", self.text);
    }

    #[track_caller]
    pub(crate) fn assert_has(&self, piece: &str) {
        assert!(
            self.samples(piece) > 0,
            "no stack with `{piece}` in:\n{}",
            self.text
        );
    }
}
