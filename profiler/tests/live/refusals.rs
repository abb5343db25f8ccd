//! Bad input: one clear error with a hint, a status that is not zero, nothing half-written.

use std::{
    fs,
    process::{Command, Output},
};

use crate::bench::{Bench, SPLIT, Target, bench, text};

#[track_caller]
fn assert_refused(bench: &Bench, arguments: &[&str], error: &str, hint: &str) {
    let output = bench.profiler(arguments);
    assert_error(&output, error, hint);
    let left: Vec<_> = fs::read_dir(bench.path(""))
        .expect("it is there")
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    let artifacts = left.iter().filter(|name| {
        name.to_string_lossy().contains("out.") || name.to_string_lossy().starts_with("profile-")
    });
    assert_eq!(artifacts.count(), 0, "{left:?}");
}

#[track_caller]
fn assert_error(output: &Output, error: &str, hint: &str) {
    let talk = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{talk}");
    let line = talk
        .lines()
        .find(|line| line.starts_with("profiler: error: "))
        .unwrap_or_default();
    assert!(line.contains(error), "`{error}` in: {talk}");
    assert!(
        talk.lines()
            .any(|line| line.starts_with("hint: ") && line.contains(hint)),
        "`{hint}` in: {talk}"
    );
    assert!(output.stdout.is_empty(), "{}", text(&output.stdout));
}

/// Targets that cannot be recorded.
#[test]
fn bad_targets() {
    let Some(bench) = bench() else { return };
    assert_refused(
        &bench,
        &["record", "-p", "4194304", "-o", "out.svg"],
        "no process has PID 4194304",
        "pgrep",
    );
    let kernel_thread = fs::read_dir("/proc/2").is_ok();
    assert!(kernel_thread, "kthreadd is everywhere");
    assert_refused(
        &bench,
        &["record", "-p", "2", "-o", "out.svg"],
        "is a kernel thread",
        "--all",
    );
    assert_refused(
        &bench,
        &["record", "--unit", "no-such-unit", "-o", "out.svg"],
        "no cgroup of a unit",
        "is it running?",
    );
}

/// Rates out of range.
#[test]
fn bad_rates() {
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    for rate in ["0", "999999999"] {
        assert_refused(
            &bench,
            &["record", "-p", &target.pid(), "-F", rate, "-o", "out.svg"],
            "the kernel allows 1 to",
            "99 is enough",
        );
    }
}

/// Paths that cannot be written are refused before anything is recorded.
#[test]
fn bad_paths() {
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let refused = |path: &str, error: &str, hint: &str| {
        assert_refused(
            &bench,
            &["record", "-p", &target.pid(), "-d", "1h", "-o", path],
            error,
            hint,
        );
    };
    refused(
        "/nonexistent/out.svg",
        "cannot write /nonexistent/out.svg",
        "create its folder",
    );
    refused("/proc/out.svg", "cannot write /proc/out.svg", "");
    refused("out.jpeg", "cannot tell the format", ".pb.gz");
}

/// An idle target has no samples, which is said, with why.
#[test]
fn idle_target() {
    let Some(bench) = bench() else { return };
    let target = Target::spawn(Command::new("sleep").arg("1000"));
    assert_refused(
        &bench,
        &["record", "-p", &target.pid(), "-d", "1s", "-o", "out.svg"],
        "it used 0.00 s of CPU",
        "--off-cpu",
    );
}

/// A full disk is told, and the file is not there, half or whole.
#[test]
fn full_disk() {
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let disk = bench.path("disk");
    fs::create_dir(&disk).expect("a folder");
    let script = format!(
        "mount -t tmpfs -o size=8k none {0} && {1} record -p {2} -d 1s -o {0}/out.svg; status=$?; ls -A {0} >&2; exit $status",
        disk.display(),
        env!("CARGO_BIN_EXE_profiler"),
        target.pid()
    );
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .output()
        .expect("unshare runs");
    assert_error(&output, "cannot write", "free some space");
    let talk = text(&output.stderr);
    assert!(
        !talk
            .lines()
            .any(|line| line == "out.svg" || line.starts_with(".profiler")),
        "{talk}"
    );
}

/// Without privileges the missing capability is named, and `doctor` agrees.
#[test]
fn no_privilege() {
    let Some(bench) = bench() else { return };
    let program = bench.path("profiler");
    fs::copy(env!("CARGO_BIN_EXE_profiler"), &program).expect("it can be copied");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(bench.path(""), mode).expect("it is ours");
    let target = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let nobody = |arguments: &[&str]| {
        let mut setpriv = Command::new("setpriv");
        setpriv
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .args(arguments);
        setpriv.current_dir("/tmp").output().expect("setpriv runs")
    };
    assert_error(
        &nobody(&["record", "-p", &target.pid(), "-o", "-"]),
        "needs CAP_BPF and CAP_PERFMON",
        "setcap",
    );
    let doctor = nobody(&["doctor", "--json"]);
    assert_eq!(doctor.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    let verdicts: Vec<(&str, &str)> = report["commands"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|command| Some((command["name"].as_str()?, command["verdict"].as_str()?)))
        .collect();
    assert_eq!(
        verdicts,
        [
            ("record", "no"),
            ("syscalls", "no"),
            ("tcp", "no"),
            ("queries", "no"),
            ("report", "works"),
            ("doctor", "works")
        ]
    );
}

/// Here, as root, recording works and `doctor` says so.
#[test]
fn doctor_says_what_is_true() {
    let Some(bench) = bench() else { return };
    let doctor = bench.profiler(&["doctor", "--json"]);
    assert_eq!(doctor.status.code(), Some(0), "{}", text(&doctor.stdout));
    let report: serde_json::Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    assert_ne!(report["commands"][0]["verdict"], "no", "{report}");
    let table = text(&bench.profiler(&["doctor"]).stdout);
    assert!(
        table.contains("our programs, loaded and attached"),
        "{table}"
    );
}
