//! Names survive what happens to processes and files in production.

use std::{
    collections::BTreeSet,
    fs,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use crate::bench::{SPLIT, Target, bench, text};

/// A binary that is deleted, or replaced, while it runs keeps its names.
#[test]
fn deleted_and_replaced_binaries_keep_their_names() {
    let Some(bench) = bench() else { return };
    let program = bench.compile("split", SPLIT, &[]);
    let target = Target::start(&program, &[]);
    fs::remove_file(&program).expect("it is there");
    let deleted = bench.folded(&["-p", &target.pid(), "-d", "2s"]);
    deleted.assert_has("split;");
    deleted.assert_has("main;seventy;burn");
    fs::copy("/bin/true", &program).expect("it can be replaced");
    bench
        .folded(&["-p", &target.pid(), "-d", "2s"])
        .assert_has("main;seventy;burn");
}

/// A binary that only exists in another mount namespace has names, after its process's end too.
#[test]
fn other_mount_namespaces_are_seen_through() {
    let Some(bench) = bench() else { return };
    let program = bench.compile("split", SPLIT, &[]);
    let inside = bench.path("inside");
    fs::create_dir(&inside).expect("a folder");
    let script = format!(
        "mount -t tmpfs none {0} && cp {1} {0}/contained && exec timeout 3 {0}/contained",
        inside.display(),
        program.display()
    );
    let _target = Target::spawn(Command::new("unshare").args(["-m", "sh", "-c", &script]));
    let pid = pid_of("contained");
    assert!(!inside.join("contained").exists(), "it is hidden from us");
    let folded = bench.folded(&["-p", &pid, "-d", "1h"]);
    folded.assert_has("contained;");
    folded.assert_has("main;seventy;burn");
}

/// Waits until a program of this name runs.
#[track_caller]
fn pid_of(name: &str) -> String {
    let found = (0..100).find_map(|_| {
        sleep(Duration::from_millis(100));
        let output = Command::new("pgrep").args(["-n", "-x", name]).output();
        let pid = text(&output.expect("pgrep runs").stdout).trim().to_owned();
        (!pid.is_empty()).then_some(pid)
    });
    found.expect("it runs")
}

/// Each function of a stripped binary has one name, made of its first address, and never `[unknown]`.
#[test]
fn stripped_functions_have_one_name_each() {
    let Some(bench) = bench() else { return };
    let program = bench.compile("split", SPLIT, &["-no-pie"]);
    let symbols = text(
        &Command::new("nm")
            .arg(&program)
            .output()
            .expect("nm runs")
            .stdout,
    );
    let address = |function: &str| {
        let line = symbols
            .lines()
            .find(|line| line.ends_with(&format!(" T {function}")))
            .expect("a symbol");
        u64::from_str_radix(line.split(' ').next().expect("an address"), 16).expect("a number")
    };
    assert!(
        Command::new("strip")
            .arg(&program)
            .status()
            .expect("strip runs")
            .success()
    );
    let target = Target::start(&program, &[]);
    let folded = bench.folded(&["-p", &target.pid(), "-d", "3s"]);
    let frames: BTreeSet<&str> = folded
        .stacks
        .iter()
        .flat_map(|(stack, _)| stack.split(';'))
        .collect();
    for function in ["_start", "main", "seventy", "twenty", "ten", "burn"] {
        let name = format!("split+{:#x}", address(function));
        assert!(
            frames.contains(name.as_str()),
            "{name} ({function}) in {frames:?}"
        );
    }
    assert_eq!(
        frames
            .iter()
            .filter(|frame| frame.starts_with("split+"))
            .count(),
        6,
        "{frames:?}"
    );
    assert!(!folded.text.contains("unknown"), "{}", folded.text);
}

/// Functions inlined by the compiler are shown, with their own lines.
#[test]
fn inlined_functions_are_shown() {
    const INLINED: &str = r"
#include <stdint.h>
volatile uint64_t sink;
static inline __attribute__((always_inline)) void inner(void) { for (int i = 0; i < 1000; i++) sink += i; }
static inline __attribute__((always_inline)) void outer(void) { inner(); }
int main(void) { for (;;) outer(); }
";
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("inlined", INLINED, &[]), &[]);
    bench
        .folded(&["-p", &target.pid(), "-d", "2s"])
        .assert_has(";main;outer_[i];inner_[i]");
    let output = bench.profiler(&[
        "record",
        "-p",
        &target.pid(),
        "-d",
        "1s",
        "-f",
        "json",
        "-o",
        "-",
    ]);
    let json = text(&output.stdout);
    assert!(json.contains("inlined.c"), "{json}");
}

/// The kernel and its virtual library have names.
#[test]
fn kernel_and_vdso_have_names() {
    const CALLS: &str = r#"
#include <time.h>
#include <fcntl.h>
#include <unistd.h>
int main(void) {
    struct timespec t; static char buffer[1 << 20]; int fd = open("/dev/zero", O_RDONLY);
    for (;;) { for (int i = 0; i < 20000; i++) clock_gettime(CLOCK_MONOTONIC, &t); for (int i = 0; i < 20; i++) read(fd, buffer, sizeof buffer); }
}
"#;
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("calls", CALLS, &[]), &[]);
    let folded = bench.folded(&["-p", &target.pid(), "-d", "3s"]);
    folded.assert_has("clock_gettime");
    folded.assert_has("ksys_read_[k]");
    let output = bench.profiler(&[
        "record",
        "-p",
        &target.pid(),
        "-d",
        "1s",
        "-f",
        "json",
        "-o",
        "-",
    ]);
    let json = text(&output.stdout);
    assert!(json.contains("\"[vdso]\""), "{json}");
}

/// Makes a loop without end, with a frame record, calls it and tells of it in a perf map.
const JIT: &str = r#"
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
int main(void) {
    unsigned char code[] = {0x55, 0x48, 0x89, 0xe5, 0xeb, 0xfe};
    void *page = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(page, code, sizeof code);
    char path[64]; sprintf(path, "/tmp/perf-%d.map", getpid());
    FILE *map = fopen(path, "w");
    fprintf(map, "%lx %lx LazyCompile:~handler app.js:7\n", (unsigned long)page, sizeof code);
    fclose(map);
    ((void (*)(void))page)();
}
"#;

/// Code that a runtime made is named by its perf map.
#[test]
fn perf_maps_name_compiled_code() {
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("jit", JIT, &[]), &[]);
    let folded = bench.folded(&["-p", &target.pid(), "-d", "1s"]);
    let _ = fs::remove_file(format!("/tmp/perf-{}.map", target.pid()));
    folded.assert_has(";main;LazyCompile:~handler app.js:7_[j]");
}

/// A perf map is found below the root and by the process id that the target itself sees.
#[test]
fn perf_maps_of_containers_are_found() {
    let Some(bench) = bench() else { return };
    let program = bench.compile("jit-inside", JIT, &[]);
    let script = format!(
        "mount -t tmpfs none /mnt && cp {} /mnt && mount -t tmpfs none /tmp && exec /mnt/jit-inside",
        program.display()
    );
    let unshare = [
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "sh",
        "-c",
        &script,
    ];
    let _target = Target::spawn(Command::new("unshare").args(unshare));
    let pid = pid_of("jit-inside");
    assert!(!fs::exists(format!("/tmp/perf-{pid}.map")).expect("/tmp can be read"));
    let folded = bench.folded(&["-p", &pid, "-d", "1s"]);
    folded.assert_has(";main;LazyCompile:~handler app.js:7_[j]");
}

/// Somebody else's pipe in the place of a perf map does not stop the profiler.
#[test]
fn a_pipe_is_no_perf_map() {
    let Some(bench) = bench() else { return };
    let silent = JIT.replace(r#"fopen(path, "w")"#, r#"fopen("/dev/null", "w")"#);
    let target = Target::start(&bench.compile("silent-jit", &silent, &[]), &[]);
    let path = format!("/tmp/perf-{}.map", target.pid());
    assert!(
        Command::new("mkfifo")
            .arg(&path)
            .status()
            .expect("mkfifo runs")
            .success()
    );
    let folded = bench.folded(&["-p", &target.pid(), "-d", "1s"]);
    let _ = fs::remove_file(&path);
    folded.assert_has(";main;[anonymous code]_[j]");
}

/// What a recording names is there for other tools: the stacks of a pprof file, read back.
#[test]
fn recordings_are_read_back() {
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let recorded = bench
        .command(&["record", "-p", &target.pid(), "-d", "2s", "-o", "out.pb.gz"])
        .stderr(Stdio::null())
        .status();
    assert!(recorded.expect("the profiler runs").success());
    let top = text(
        &bench
            .profiler(&["report", "out.pb.gz", "--top", "10"])
            .stdout,
    );
    assert!(top.contains("burn") && top.contains("seventy"), "{top}");
    let go = Command::new("go")
        .args(["tool", "pprof", "-raw"])
        .arg(bench.path("out.pb.gz"))
        .env("HOME", bench.path(""))
        .output();
    let raw = text(&go.expect("go runs").stdout);
    assert!(
        raw.contains("seventy") && raw.contains("cpu/nanoseconds"),
        "{raw}"
    );
}

/// Functions in C whose names are C++'s words for types keep them.
#[test]
fn short_names_in_c_are_kept() {
    const SHORT: &str = r"
#include <stdint.h>
volatile uint64_t sink;
__attribute__((noinline)) void Pc(void) { for (int i = 0; i < 1000; i++) sink += i; }
__attribute__((noinline)) void a(void) { Pc(); sink++; }
__attribute__((noinline)) void v(void) { a(); sink++; }
int main(void) { for (;;) v(); }
";
    let Some(bench) = bench() else { return };
    let program = bench.compile("short", SHORT, &[]);
    let target = Target::start(&program, &[]);
    bench
        .folded(&["-p", &target.pid(), "-d", "1s"])
        .assert_has("main;v;a;Pc");
}
