//! Stacks are complete: of everything that distributions, compilers and runtimes build without frame
//! pointers. Each test records what it started for 5 s at 199 Hz and wants 99.5 % of the
//! stacks to reach their outermost frame.

use std::process::Command;

use crate::{
    bench::{Bench, Folded, Target, bench},
    postgres::Postgres,
};

/// Optimized code without frame pointers, as distributions build it.
pub(crate) const RELEASE: [&str; 2] = ["-O2", "-fomit-frame-pointer"];
const FIVE_SECONDS: [&str; 4] = ["-d", "5s", "-F", "199"];
/// What makes the C compiler one of C++.
pub(crate) const CPP: [&str; 3] = ["-xc++", "-Wl,--no-as-needed", "-lstdc++"];

/// Python code, and C extensions.
pub(crate) const CPYTHON: &str = r"
import hashlib, json, re, zlib
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
while True:
    fib(17); json.dumps(list(range(3000))); re.findall(r'(\w+)\s', 'abc def ' * 400)
    hashlib.sha256(b'x' * 200000).hexdigest(); zlib.compress(b'abcdefgh' * 4000)
    sorted(range(3000), key=lambda x: -x)
";

/// What V8 compiles, and V8 itself.
pub(crate) const NODE: &str = r"
const crypto = require('crypto'), zlib = require('zlib');
function fib(n) { return n < 2 ? n : fib(n - 1) + fib(n - 2) }
function work() {
  fib(20); JSON.parse(JSON.stringify([...Array(2000).keys()]));
  'a b c d'.repeat(300).replace(/(\w) /g, '$1-');
  crypto.createHash('sha256').update('x'.repeat(50000)).digest();
  zlib.deflateSync(Buffer.alloc(30000, 'ab'));
  setImmediate(work)
}
work();
";

/// Throws some 20,000 exceptions a second.
pub(crate) const THROWS: &str = r"
#include <stdexcept>
#include <chrono>
volatile long sink;
__attribute__((noinline)) void thrower(int depth) { if (depth == 0) throw std::runtime_error(std::to_string(sink)); thrower(depth - 1); sink = sink + 1; }
int main() {
    auto next = std::chrono::steady_clock::now();
    for (;;) {
        try { thrower(10); } catch (const std::exception &e) { sink = sink + e.what()[0]; }
        next += std::chrono::microseconds(50);
        while (std::chrono::steady_clock::now() < next) sink = sink + 1;
    }
}
";

impl Bench {
    /// Records the process for 5 s.
    fn five_seconds(&self, pid: u32, more: &[&str]) -> Folded {
        self.folded(&[&["-p", &pid.to_string()], &FIVE_SECONDS[..], more].concat())
    }
}

impl Folded {
    /// What follows a key in the account, as a number of samples.
    fn account(&self, key: &str) -> u64 {
        let line = self
            .text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("# {key}: ")));
        let number = line.and_then(|line| line.split(' ').next()?.replace(',', "").parse().ok());
        number.expect("the account has this line")
    }

    #[track_caller]
    #[expect(clippy::cast_precision_loss, reason = "a few thousand samples")]
    fn assert_complete(&self, at_least: u64) {
        let (complete, shown) = (self.account("complete stacks"), self.account("shown"));
        assert!(shown >= at_least, "only {shown} samples:\n{}", self.text);
        let ratio = complete as f64 / shown as f64;
        println!("complete: {complete} of {shown}, {:.2} %", 100.0 * ratio);
        let cut = self
            .text
            .lines()
            .filter(|line| line.contains("cut"))
            .collect::<Vec<_>>()
            .join("\n");
        assert!(ratio >= 0.995, "{complete} of {shown} are complete:\n{cut}");
    }
}

/// Debian's Postgres, the whole cluster with the backends that come and go, and one backend.
#[test]
fn postgres_under_load() {
    let Some(bench) = bench() else { return };
    let postgres = Postgres::start().expect("a cluster starts");
    let pgbench = |arguments: &[&str]| {
        let mut client = postgres.client("pgbench").expect("pgbench is there");
        client.args(arguments);
        client
    };
    let quiet = ["--quiet", "--initialize", "--scale=2"];
    assert!(pgbench(&quiet).output().expect("it runs").status.success());
    let mut load = pgbench(&[
        "--select-only",
        "--client=2",
        "--time=60",
        "--protocol=prepared",
    ]);
    let load = Target::spawn(&mut load);
    let cluster = bench.five_seconds(postgres.server.id(), &["--descendants"]);
    let children = format!("/proc/{0}/task/{0}/children", postgres.server.id());
    let children = std::fs::read_to_string(children).expect("it lives");
    let is_backend = |pid: &&str| {
        let title = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        title.contains("[local]")
    };
    let backend = children.split(' ').find(is_backend).expect("a backend");
    let one = bench.five_seconds(backend.parse().expect("a number"), &[]);
    drop(load);
    cluster.assert_complete(300);
    one.assert_complete(100);
    one.assert_has(";_start;__libc_start_main");
    one.assert_has(";main;PostmasterMain;");
}

/// Debian's `CPython`, in Python code and in C extensions.
#[test]
fn cpython() {
    let Some(bench) = bench() else { return };
    let target = Target::spawn(Command::new("/usr/bin/python3").args(["-c", CPYTHON]));
    let folded = bench.five_seconds(target.0.id(), &[]);
    folded.assert_complete(300);
    folded.assert_has(";_start;__libc_start_main");
}

/// Node: its own code and V8's by table, what V8 compiles by frame pointer.
#[test]
fn node() {
    let Some(bench) = bench() else { return };
    let target = Target::spawn(Command::new("node").args(["-e", NODE]));
    bench.five_seconds(target.0.id(), &[]).assert_complete(300);
}

/// A Rust release build, which keeps no frame pointers.
#[test]
fn rust_release() {
    let Some(bench) = bench() else { return };
    let source = r#"
use std::collections::HashMap;
#[inline(never)] fn count(words: &[String]) -> HashMap<&str, u64> {
    let mut map = HashMap::new(); for word in words { *map.entry(word.as_str()).or_insert(0) += 1; } map
}
#[inline(never)] fn sort(words: &mut Vec<String>) { words.sort_by(|a, b| b.cmp(a)); words.reverse(); }
fn main() { let mut words: Vec<String> = (0..5000).map(|i| format!("word{}", i * 7919 % 997)).collect();
    loop { std::hint::black_box(count(&words)); sort(&mut words); } }
"#;
    std::fs::write(bench.path("words.rs"), source).expect("the source can be written");
    let mut rustc = Command::new("rustc");
    rustc.args([
        "-O",
        "-g",
        "--edition=2021",
        "-Cforce-frame-pointers=no",
        "-o",
    ]);
    rustc.arg(bench.path("words")).arg(bench.path("words.rs"));
    assert!(rustc.status().expect("rustc runs").success());
    let target = Target::start(&bench.path("words"), &[]);
    let folded = bench.five_seconds(target.0.id(), &[]);
    folded.assert_complete(300);
    folded.assert_has(";main;std::rt::lang_start");
    folded.assert_has("words::count");
}

/// A C++ program that throws some 20,000 exceptions a second. While an exception is delivered the
/// stack is being rewritten, for some instructions no caller can be found.
#[test]
fn cpp_exceptions() {
    let Some(bench) = bench() else { return };
    let program = bench.compile("throws", THROWS, &[&RELEASE[..], &CPP].concat());
    let target = Target::start(&program, &[]);
    let folded = bench.five_seconds(target.0.id(), &[]);
    folded.assert_complete(300);
    folded.assert_has(";main;thrower");
    folded.assert_has("_Unwind_RaiseException");
}

/// Code in a signal handler stands on what the signal interrupted.
#[test]
fn signal_handler() {
    let Some(bench) = bench() else { return };
    let source = r"
#include <signal.h>
#include <sys/time.h>
#include <stdint.h>
volatile uint64_t sink;
__attribute__((noinline)) void burn(uint64_t n) { for (uint64_t i = 0; i < n; i++) sink += i * i; sink++; }
void handler(int s) { burn(4000000); sink += s; }
__attribute__((noinline)) void interrupted(void) { burn(100000); sink++; }
int main(void) {
    stack_t stack = { .ss_sp = (char[65536]){0}, .ss_size = 65536 };
    sigaltstack(&stack, 0);
    struct sigaction action = { .sa_handler = handler, .sa_flags = SA_ONSTACK | SA_RESTART };
    sigaction(SIGALRM, &action, 0);
    struct itimerval every = { { 0, 15000 }, { 0, 15000 } };
    setitimer(ITIMER_REAL, &every, 0);
    for (;;) interrupted();
}
";
    let program = bench.compile("signalled", source, &RELEASE);
    let target = Target::start(&program, &[]);
    let folded = bench.five_seconds(target.0.id(), &[]);
    folded.assert_complete(300);
    folded.assert_has(";main;interrupted;burn;__restore_rt;handler;burn");
}

/// Children that run on their parent's memory until they execute something.
#[test]
fn vfork_and_posix_spawn() {
    let Some(bench) = bench() else { return };
    let source = r#"
#include <spawn.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>
extern char **environ;
volatile uint64_t sink;
__attribute__((noinline)) void burn(uint64_t n) { for (uint64_t i = 0; i < n; i++) sink += i * i; sink++; }
int main(int argc, char **argv) {
    if (argc > 1) { burn(30000000); return 0; }
    char *child[] = { argv[0], "child", 0 };
    for (;;) {
        pid_t pid = vfork();
        if (pid == 0) { burn(30000000); execv(argv[0], child); _exit(1); }
        waitpid(pid, 0, 0);
        posix_spawn(&pid, argv[0], 0, 0, child, environ);
        waitpid(pid, 0, 0);
        burn(30000000);
    }
}
"#;
    let program = bench.compile("spawns", source, &RELEASE);
    let target = Target::start(&program, &[]);
    let folded = bench.five_seconds(target.0.id(), &["--descendants"]);
    folded.assert_complete(300);
}

/// A recursion of 200 frames is shown whole.
#[test]
fn deep_recursion() {
    let Some(bench) = bench() else { return };
    let source = r"
#include <stdint.h>
volatile uint64_t sink;
__attribute__((noinline)) uint64_t deep(int n) {
    if (n == 0) { for (int i = 0; i < 1000000; i++) sink += i; return sink; }
    uint64_t below = deep(n - 1); sink++; return below + n;
}
int main(void) { for (;;) sink += deep(200); }
";
    let program = bench.compile(
        "deep",
        source,
        &[
            &RELEASE[..],
            &["-fno-optimize-sibling-calls", "-fno-ipa-cp", "-fno-inline"],
        ]
        .concat(),
    );
    let target = Target::start(&program, &[]);
    let folded = bench.five_seconds(target.0.id(), &[]);
    folded.assert_complete(300);
    folded.assert_has(&format!(";main{}", ";deep".repeat(201)));
}

/// A static program of musl, whose own code has neither tables nor frame pointers.
#[test]
fn musl_static() {
    let Some(bench) = bench() else { return };
    let source = r#"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
volatile uint64_t sink;
static int by_value(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
__attribute__((noinline)) void sorts(int *numbers, int n) { for (int i = 0; i < n; i++) numbers[i] = i * 7919 % n; qsort(numbers, n, sizeof(int), by_value); }
__attribute__((noinline)) void prints(char *text) { for (int i = 0; i < 1000; i++) { snprintf(text, 100, "%d %s %f", i, "text", i * 0.5); sink += strlen(text); } }
int main(void) { int *numbers = malloc(4000 * sizeof(int)); char text[100]; for (;;) { sorts(numbers, 4000); prints(text); } }
"#;
    let (file, program) = (bench.path("musl.c"), bench.path("musl"));
    std::fs::write(&file, source).expect("the source can be written");
    let mut gcc = Command::new("musl-gcc");
    gcc.args(RELEASE)
        .args(["-g", "-static", "-o"])
        .arg(&program)
        .arg(&file);
    assert!(gcc.status().expect("musl-gcc runs").success());
    let target = Target::start(&program, &[]);
    bench.five_seconds(target.0.id(), &[]).assert_complete(300);
}

/// A library that is loaded while the recording runs is unwound within a second.
#[test]
fn library_loaded_later() {
    let Some(bench) = bench() else { return };
    let library = r"
#include <stdint.h>
volatile uint64_t sink;
__attribute__((noinline)) void late_burn(uint64_t n) { for (uint64_t i = 0; i < n; i++) sink += i * i; sink++; }
void late(void) { late_burn(1000000); sink++; }
";
    let source = r"
#include <dlfcn.h>
#include <stdint.h>
#include <time.h>
volatile uint64_t sink;
__attribute__((noinline)) void early(void) { for (uint64_t i = 0; i < 1000000; i++) sink += i * i; sink++; }
int main(int argc, char **argv) {
    time_t start = time(0);
    while (time(0) - start < 4) early();
    void (*late)(void) = (void (*)(void))dlsym(dlopen(argv[1], RTLD_NOW), argv[2]);
    for (;;) { late(); sink++; }
}
";
    let shared = [&RELEASE[..], &["-shared", "-fPIC"]].concat();
    let library = bench.compile("late.so", library, &shared);
    let program = bench.compile("loads", source, &RELEASE);
    let library = library.to_str().expect("a plain path");
    let target = Target::start(&program, &[library, "late"]);
    let folded = bench.five_seconds(target.0.id(), &[]);
    folded.assert_complete(300);
    folded.assert_has(";main;early");
    folded.assert_has(";main;late;late_burn");
}

/// A thousand processes that a master forked are followed, from their first sample on.
#[test]
fn a_thousand_workers() {
    let Some(bench) = bench() else { return };
    let source = r"
#include <stdint.h>
#include <sys/prctl.h>
#include <signal.h>
#include <unistd.h>
volatile uint64_t sink;
__attribute__((noinline)) void work(void) { for (uint64_t i = 0; i < 1000000; i++) sink += i * i; sink++; }
int main(void) {
    sleep(2);
    for (int i = 0; i < 1000; i++) if (fork() == 0) { prctl(PR_SET_PDEATHSIG, SIGKILL); nice(10); for (;;) { work(); usleep(500000); } }
    pause();
}
";
    let program = bench.compile("master", source, &RELEASE);
    let target = Target::start(&program, &[]);
    let pid = target.pid();
    // They have what other programs leave of the CPU, after two seconds.
    let folded = bench.folded(&["-p", &pid, "-d", "10s", "-F", "199", "--descendants"]);
    folded.assert_complete(300);
    folded.assert_has(";main;work");
    assert!(!folded.text.contains("no room"), "{}", folded.text);
}
