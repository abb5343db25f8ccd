//! Processes that begin, end, fork and execute while they are recorded, and the profiler's own end.

use std::{collections::BTreeSet, fs, process::Command, thread::sleep, time::Duration};

use rustix::process::Signal;

use crate::bench::{Bench, SPLIT, Target, bench, signal, text, until_watching};

/// 50 ms of work, then an exit status of its own.
const SHORT: &str = r"
#include <stdint.h>
#include <time.h>
volatile uint64_t sink;
static uint64_t now(void) { struct timespec t; clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }
__attribute__((noinline)) void short_work(void) { while (now() < 50000000ull) for (int i = 0; i < 100000; i++) sink += i; }
int main(void) { short_work(); return 7; }
";

/// A child that burns, as long as its parent does.
pub(crate) const FORKER: &str = r"
#include <stdint.h>
#include <unistd.h>
#include <sys/wait.h>
volatile uint64_t sink;
__attribute__((noinline)) void child_work(void) { for (uint64_t i = 0; i < 300000000ull; i++) sink += i; }
__attribute__((noinline)) void parent_work(void) { for (uint64_t i = 0; i < 50000000ull; i++) sink += i; }
int main(void) { for (;;) { parent_work(); pid_t pid = fork(); if (!pid) { child_work(); _exit(0); } waitpid(pid, 0, 0); } }
";

/// A command is recorded from its first instruction, however short it is, and its status is ours.
#[test]
fn short_command_is_caught() {
    let Some(bench) = bench() else { return };
    let program = bench.compile("short", SHORT, &[]);
    let program = program.to_str().expect("text");
    let output = bench.profiler(&[
        "record",
        "-F",
        "997",
        "-f",
        "folded",
        "-o",
        "out.folded",
        "--",
        program,
    ]);
    assert_eq!(output.status.code(), Some(7), "{}", text(&output.stderr));
    let folded = fs::read_to_string(bench.path("out.folded")).expect("it was written");
    assert!(
        folded.contains("short;") && folded.contains("main;short_work"),
        "{folded}"
    );
    assert!(
        !folded.contains("profiler;"),
        "nothing of the time before its exec: {folded}"
    );
}

/// The default name says what was recorded.
#[test]
fn default_file_is_named_after_the_target() {
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let output = bench.profiler(&["record", "-p", &target.pid(), "-d", "500ms"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let svg = fs::read_to_string(bench.path(&format!("profile-split-{}.svg", target.pid())))
        .expect("it was written");
    assert!(svg.contains("<svg") && svg.contains("seventy") && svg.contains(&target.pid()));
}

/// A command that cannot be started has the shell's status, and nothing is written.
#[test]
fn missing_command_is_127() {
    let Some(bench) = bench() else { return };
    let output = bench.profiler(&["record", "-o", "out.svg", "--", "/nonexistent/command"]);
    assert_eq!(output.status.code(), Some(127), "{}", text(&output.stderr));
    assert!(!bench.path("out.svg").exists());
}

/// Children created while recording are recorded only if asked for.
#[test]
fn descendants_are_followed_if_asked() {
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("forker", FORKER, &[]), &[]);
    let with = bench.folded(&["-p", &target.pid(), "--descendants", "-d", "4s"]);
    with.assert_has("main;child_work");
    with.assert_has("main;parent_work");
    let without = bench.folded(&["-p", &target.pid(), "-d", "4s"]);
    // The child that lived when the recording began is not the target either.
    assert_eq!(without.samples("child_work"), 0, "{}", without.text);
    without.assert_has("main;parent_work");
}

/// A command's children are recorded under their own names, through fork and exec.
#[test]
fn children_of_a_command_are_recorded() {
    let Some(bench) = bench() else { return };
    let program = bench.compile("short", SHORT, &[]);
    let script = format!("{0}; {0}; exit 3", program.display());
    let output = bench.profiler(&[
        "record", "-F", "997", "-f", "folded", "-o", "-", "--", "sh", "-c", &script,
    ]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).contains("main;short_work"),
        "{}",
        text(&output.stdout)
    );
}

/// A target that ends ends the recording, which is written.
#[test]
fn recording_ends_with_its_target() {
    let Some(bench) = bench() else { return };
    let mut target = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let recording = bench
        .command(&[
            "record",
            "-p",
            &target.pid(),
            "-d",
            "1h",
            "-o",
            "out.folded",
        ])
        .spawn();
    let mut recording = recording.expect("the profiler runs");
    until_watching(&recording);
    sleep(Duration::from_secs(1));
    target.0.kill().expect("it lives");
    target.0.wait().expect("it is ours");
    assert!(recording.wait().expect("it is ours").success());
    assert!(
        fs::read_to_string(bench.path("out.folded"))
            .expect("it was written")
            .contains("seventy")
    );
}

/// Ctrl-C and SIGTERM end a recording early; it is written whole.
#[test]
fn interrupted_recording_is_written() {
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    for end in [Signal::INT, Signal::TERM] {
        let mut recording = start_recording(&bench, &target);
        signal(&recording, end);
        assert!(recording.wait().expect("it is ours").success());
        let folded = fs::read_to_string(bench.path("out.folded")).expect("it was written");
        assert!(
            folded.contains("seventy") && folded.contains("# taken"),
            "{folded}"
        );
        fs::remove_file(bench.path("out.folded")).expect("it is there");
    }
}

/// Killed without a chance to clean up, the profiler leaves no program, no file and no harm.
#[test]
fn killed_profiler_leaves_nothing() {
    let Some(bench) = bench() else { return };
    let mut target = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let mut recording = start_recording(&bench, &target);
    let ids = programs_of(recording.id());
    let shown: Vec<String> = ids.iter().filter_map(|id| bpftool(id)).collect();
    assert!(
        shown.len() >= 4 && shown.concat().contains("cpu_sample"),
        "{shown:?}"
    );
    signal(&recording, Signal::KILL);
    recording.wait().expect("it is ours");
    // The kernel frees programs after a grace period of its own.
    let left = (0..100).find(|_| {
        sleep(Duration::from_millis(50));
        ids.iter().all(|id| bpftool(id).is_none())
    });
    assert!(left.is_some(), "a program outlives the profiler");
    let files: Vec<_> = fs::read_dir(bench.path(""))
        .expect("it is there")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert!(
        !files
            .iter()
            .any(|name| name.to_string_lossy().contains("profiler") || name == "out.folded"),
        "{files:?}"
    );
    assert!(
        target.0.try_wait().expect("it is ours").is_none(),
        "the target goes on"
    );
}

fn start_recording(bench: &Bench, target: &Target) -> std::process::Child {
    let recording = bench
        .command(&[
            "record",
            "-p",
            &target.pid(),
            "-d",
            "1h",
            "-o",
            "out.folded",
        ])
        .spawn();
    let recording = recording.expect("the profiler runs");
    // Until its programs are loaded and some samples taken.
    let loaded = (0..200).find(|_| {
        sleep(Duration::from_millis(50));
        programs_of(recording.id()).len() >= 4
    });
    assert!(loaded.is_some(), "the profiler does not load its programs");
    until_watching(&recording);
    sleep(Duration::from_secs(1));
    recording
}

/// The ids of the BPF programs that a process holds, by the kernel's own account.
pub(crate) fn programs_of(pid: u32) -> BTreeSet<String> {
    let infos = fs::read_dir(format!("/proc/{pid}/fdinfo"))
        .into_iter()
        .flatten()
        .flatten();
    let texts = infos.filter_map(|info| fs::read_to_string(info.path()).ok());
    let ids = texts.filter_map(|text| {
        let line = text.lines().find(|line| line.starts_with("prog_id:"))?;
        Some(line.trim_start_matches("prog_id:").trim().to_owned())
    });
    ids.collect()
}

/// What bpftool says of a program, if it is there.
pub(crate) fn bpftool(id: &str) -> Option<String> {
    let output = Command::new("bpftool")
        .args(["prog", "show", "id", id])
        .output()
        .expect("bpftool runs");
    output.status.success().then(|| text(&output.stdout))
}
