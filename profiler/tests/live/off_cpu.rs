//! Time off the CPU is right: against what the programs themselves measure and the scheduler's own
//! account.

use std::{
    fs,
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    thread::{scope, sleep},
    time::{Duration, Instant},
};

use rustix::{
    process::Signal,
    time::{ClockId, clock_gettime},
};
use serde_json::Value;

use crate::bench::{Bench, Folded, Target, bench, signal, text, until_watching};

/// Threads that wait in known ways and note how long, ns, in a file of words: sleeping, on CPUs in turn;
/// waiting for a lock; reading a pipe; waiting for a vforked child; burning CPU time.
const WAITS: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
volatile uint64_t sink, *words;
pthread_mutex_t big_lock = PTHREAD_MUTEX_INITIALIZER;
int pipes[2], cpus;
static uint64_t now(clockid_t clock) { struct timespec t; clock_gettime(clock, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }
static void ms(int n) { struct timespec t = { 0, n * 1000000 }; clock_nanosleep(CLOCK_MONOTONIC, 0, &t, 0); }
static void name(const char *s) { pthread_setname_np(pthread_self(), s); }
static void pin(int cpu) { cpu_set_t set; CPU_ZERO(&set); CPU_SET(cpu, &set); sched_setaffinity(0, sizeof set, &set); }
static void burn(int n) { uint64_t end = now(CLOCK_THREAD_CPUTIME_ID) + n * 1000000ull; while (now(CLOCK_THREAD_CPUTIME_ID) < end) sink++; }
#define TIMED(word, call) do { uint64_t t = now(CLOCK_MONOTONIC); call; words[word] += now(CLOCK_MONOTONIC) - t; } while (0)
void *sleeper(void *a) { name("sleeper"); for (int i = 0;; i++) { pin(i % cpus); TIMED(1, ms(20)); burn(2); } }
void *holder(void *a) { name("holder"); for (;;) { pthread_mutex_lock(&big_lock); ms(30); pthread_mutex_unlock(&big_lock); ms(10); } }
void *waiter(void *a) { name("waiter"); for (;;) { TIMED(2, pthread_mutex_lock(&big_lock)); pthread_mutex_unlock(&big_lock); ms(5); } }
void *reader(void *a) { name("reader"); char c; for (;;) { TIMED(3, read(pipes[0], &c, 1)); ms(5); } }
void *writer(void *a) { name("writer"); for (;;) { ms(25); write(pipes[1], "x", 1); } }
void *vforker(void *a) { name("vforker"); for (;;) { uint64_t t = now(CLOCK_MONOTONIC); if (vfork() == 0) { ms(15); _exit(0); } words[4] += now(CLOCK_MONOTONIC) - t; ms(5); } }
void *burner(void *a) { name("burner"); for (;;) { burn(5); words[5] = now(CLOCK_THREAD_CPUTIME_ID); ms(10); } }
void *rival(void *a) { name("rival"); pin(0); for (;;) burn(50); }
int main(int argc, char **argv) {
  int file = open(argv[1], O_RDWR | O_CREAT, 0600);
  ftruncate(file, 4096);
  words = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  cpus = sysconf(_SC_NPROCESSORS_ONLN);
  pipe(pipes);
  void *(*threads[])(void *) = { sleeper, holder, waiter, reader, writer, vforker, burner, rival, rival };
  for (int i = 0; i < 9; i++) { pthread_t t; pthread_create(&t, 0, threads[i], 0); }
  for (;;) { words[0] = now(CLOCK_MONOTONIC); ms(1); }
}
"#;

/// The program's own measurements at one time.
struct Look {
    /// `CLOCK_MONOTONIC`, ns.
    at_ns: u64,
    words: Vec<u64>,
    rivals: Vec<(String, u64, u64)>,
}

/// Says that it is over when it is dropped, as by a test that fails: a thread waits for that.
pub(crate) struct Over<'a>(pub(crate) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Looks at the program's measurements all the time while something else is done: what the recording
/// covers is known only when it is over, and a machine under load does not do the same all the time.
fn look_on<R>(file: &Path, pid: &str, work: impl FnOnce() -> R) -> (Vec<Look>, R) {
    let done = AtomicBool::new(false);
    let look = || {
        let mut looks = Vec::new();
        while !done.load(Ordering::Relaxed) {
            let now = clock_gettime(ClockId::Monotonic);
            let seconds = u64::try_from(now.tv_sec).expect("a time");
            looks.push(Look {
                at_ns: seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).expect("a time"),
                words: words(file),
                rivals: schedstat(pid, "rival"),
            });
            sleep(Duration::from_millis(10));
        }
        looks
    };
    scope(|scope| {
        let looks = scope.spawn(look);
        let over = Over(&done);
        let result = work();
        drop(over);
        (looks.join().expect("it looks on"), result)
    })
}

/// The program's own measurements: time of day, then its words.
fn words(file: &Path) -> Vec<u64> {
    let bytes = fs::read(file).expect("the program has made it");
    let words = bytes.chunks(8).take(6);
    words
        .map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")))
        .collect()
}

/// CPU time and time on the run queue of each thread of a name, ns, by the scheduler's account.
fn schedstat(pid: &str, name: &str) -> Vec<(String, u64, u64)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives");
    let mut found = Vec::new();
    for task in tasks {
        let task = task.expect("it lives").path();
        if fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name) {
            let text = fs::read_to_string(task.join("schedstat")).expect("it lives");
            let numbers: Vec<u64> = text
                .split_whitespace()
                .map(|n| n.parse().expect("a number"))
                .collect();
            let tid = task
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            found.push((tid, numbers[0], numbers[1]));
        }
    }
    found
}

#[expect(clippy::cast_precision_loss, reason = "some seconds in ns")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

#[track_caller]
fn assert_close(what: &str, measured: f64, expected: f64, tolerance: f64) {
    println!(
        "{what}: measured {:.2} %, expected {:.2} %",
        100.0 * measured,
        100.0 * expected
    );
    assert!(
        (measured - expected).abs() < tolerance,
        "{what}: measured {measured:.4}, expected {expected:.4}"
    );
}

struct Recording {
    profile: Value,
    stderr: String,
}

impl Recording {
    fn new(bench: &Bench, arguments: &[&str]) -> Self {
        let record = [&["record", "-f", "json", "-o", "-"], arguments].concat();
        let output = bench.profiler(&record);
        let stderr = text(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        let profile = serde_json::from_slice(&output.stdout).expect("JSON");
        Self { profile, stderr }
    }

    fn number(value: &Value) -> u64 {
        value.as_u64().expect("a number")
    }

    fn duration_ns(&self) -> u64 {
        Self::number(&self.profile["meta"]["duration_ns"])
    }

    fn at<'a>(&'a self, list: &str, index: &Value) -> &'a Value {
        &self.profile[list][usize::try_from(Self::number(index)).expect("an index")]
    }

    /// Time of one thread's stacks whose innermost frame holds all pieces, ns.
    fn leaf_ns(&self, thread: &str, pieces: &[&str]) -> u64 {
        let samples = self.profile["samples"].as_array().expect("a list");
        let matching = samples.iter().filter(|sample| {
            let stack = self.at("stacks", &sample["stack"]);
            let leaf = &self.at("locations", &stack[0])["frames"][0]["name"];
            let leaf = leaf.as_str().expect("a name");
            self.at("threads", &sample["thread"])["name"] == thread
                && pieces.iter().all(|piece| leaf.contains(piece))
        });
        matching
            .map(|sample| Self::number(&sample["count"]) * 1000)
            .sum()
    }

    /// Each thread's account: name, tid, time followed and in each state.
    fn times(&self) -> Vec<(String, String, u64, [u64; 4])> {
        let list = self.profile["thread_times"].as_array().expect("a list");
        list.iter()
            .map(|times| {
                let thread = self.at("threads", &times["thread"]);
                let state = |name: &str| Self::number(&times["in_state_ns"][name]);
                (
                    thread["name"].as_str().expect("a name").to_owned(),
                    thread["tid"].to_string(),
                    Self::number(&times["followed_ns"]),
                    ["running", "runnable", "blocked", "uninterruptible"].map(state),
                )
            })
            .collect()
    }
}

/// Two threads that want the same CPU run and wait for it as long as the scheduler says.
fn assert_rivals(recording: &Recording, before: &Look, after: &Look) {
    let (duration, elapsed) = (recording.duration_ns(), after.at_ns - before.at_ns);
    let times = recording.times();
    for ((tid, cpu_0, queue_0), (_, cpu_1, queue_1)) in before.rivals.iter().zip(&after.rivals) {
        let (.., states) = times
            .iter()
            .find(|(_, id, ..)| id == tid)
            .expect("it is followed");
        let (running, runnable) = (share(states[0], duration), share(states[1], duration));
        let (ran, queued) = (
            share(cpu_1 - cpu_0, elapsed),
            share(queue_1 - queue_0, elapsed),
        );
        assert_close("rival, running", running, ran, 0.04);
        assert_close("rival, run queue", runnable, queued, 0.04);
    }
}

/// Every kind of wait is as long as the program itself measured, threads that change CPUs included; the
/// states of each thread add up to the time of the recording.
#[test]
fn waits_are_as_long_as_they_are() {
    let Some(bench) = bench() else { return };
    let program = bench.compile("waits", WAITS, &["-lpthread"]);
    let file = bench.path("words");
    let target = Target::start(&program, &[file.to_str().expect("a plain path")]);
    let pid = target.pid();
    sleep(Duration::from_millis(300));
    let (looks, recording) = look_on(&file, &pid, || {
        Recording::new(&bench, &["-p", &pid, "-d", "8s", "--wall"])
    });
    let started = Recording::number(&recording.profile["meta"]["started_monotonic_ns"]);
    let look = |at_ns: u64| {
        let after = looks.partition_point(|look| look.at_ns <= at_ns);
        &looks[after.min(looks.len() - 1)]
    };
    let (before, after) = (look(started), look(started + recording.duration_ns()));
    println!("{}", recording.stderr);
    let elapsed = after.at_ns - before.at_ns;
    let own = |word: usize| share(after.words[word] - before.words[word], elapsed);
    let duration = recording.duration_ns();
    let shown = |thread, pieces: &[&str]| share(recording.leaf_ns(thread, pieces), duration);
    let sleeping = shown("sleeper", &["clock_nanosleep"]);
    assert_close("sleeping", sleeping, own(1), 0.02);
    let locked = shown("waiter", &["futex", "big_lock", "held by holder"]);
    assert_close("waiting for a lock", locked, own(2), 0.02);
    assert_close(
        "reading a pipe",
        shown("reader", &["read, pipe"]),
        own(3),
        0.02,
    );
    let vforking = shown("vforker", &["uninterruptible: vfork"]);
    assert_close("waiting for a child", vforking, own(4), 0.02);
    assert_close("burning", shown("burner", &["running"]), own(5), 0.02);
    for (name, tid, followed, states) in recording.times() {
        let sum: u64 = states.iter().sum();
        assert_close(
            &format!("{name} {tid}, all states"),
            share(sum, duration),
            1.0,
            0.01,
        );
        assert_eq!(sum, followed);
        assert!(name != "sleeper" || states[2] > 0, "it sleeps");
    }
    assert_rivals(&recording, before, after);
    // What is drawn is all of the time.
    let samples = recording.profile["samples"].as_array().expect("a list");
    let drawn: u64 = samples
        .iter()
        .map(|s| Recording::number(&s["count"]) * 1000)
        .sum();
    let followed: u64 = recording.times().iter().map(|times| times.2).sum();
    assert_close("drawn of followed", share(drawn, followed), 1.0, 0.001);
}

/// A hundred thousand switches a second are not all looked at, yet all of the time is accounted for, below
/// the threshold or shown.
#[test]
fn many_switches_lose_no_time() {
    let Some(bench) = bench() else { return };
    let source = r"
#include <pthread.h>
#include <unistd.h>
int there[2], back[2];
void *echo(void *a) { char c; for (;;) { read(there[0], &c, 1); write(back[1], &c, 1); } }
int main(void) {
  pthread_t t; pipe(there); pipe(back); pthread_create(&t, 0, echo, 0);
  char c = 0; for (;;) { write(there[1], &c, 1); read(back[0], &c, 1); }
}
";
    let program = bench.compile("echo", source, &["-lpthread"]);
    for threshold in ["1ms", "0"] {
        let target = Target::start(&program, &[]);
        let recording = Recording::new(
            &bench,
            &[
                "-p",
                &target.pid(),
                "-d",
                "3s",
                "--off-cpu",
                "--min-block",
                threshold,
            ],
        );
        println!("{}", recording.stderr);
        let lost = &recording.profile["account"]["lost"];
        assert!(lost.get("unexplained").is_none(), "{lost}");
        let (mut off, duration) = (0, recording.duration_ns());
        for (name, tid, followed, states) in recording.times() {
            assert_close(
                &format!("{name} {tid}"),
                share(followed, duration),
                1.0,
                0.01,
            );
            off += states[1] + states[2] + states[3];
        }
        let samples = recording.profile["samples"].as_array().expect("a list");
        let drawn: u64 = samples
            .iter()
            .map(|s| Recording::number(&s["count"]) * 1000)
            .sum();
        assert_close("drawn of time off the CPU", share(drawn, off), 1.0, 0.01);
    }
}

/// Threads that accept, read and close, and threads that connect, wait a moment and write: each has a new socket all the
/// time.
const CONNECTIONS: &str = r#"
#include <arpa/inet.h>
#include <pthread.h>
#include <unistd.h>
struct sockaddr_in place = { .sin_family = AF_INET };
int listener;
void *serve(void *a) { char c; for (;;) { int s = accept(listener, 0, 0); read(s, &c, 1); close(s); } }
void *ask(void *a) { for (;;) { int s = socket(AF_INET, SOCK_STREAM, 0); connect(s, (void *)&place, sizeof place);
  usleep(3500); write(s, "x", 1); struct linger now = { 1, 0 }; setsockopt(s, SOL_SOCKET, SO_LINGER, &now, sizeof now); close(s); } }
int main(void) {
  listener = socket(AF_INET, SOCK_STREAM, 0);
  place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  bind(listener, (void *)&place, sizeof place);
  socklen_t size = sizeof place;
  getsockname(listener, (void *)&place, &size);
  listen(listener, 128);
  for (int i = 0; i < 8; i++) { pthread_t t; pthread_create(&t, 0, serve, 0); pthread_create(&t, 0, ask, 0); }
  pause();
}
"#;

/// A recording of thousands of new sockets a second ends when it is to end, and loses nothing.
#[test]
fn new_sockets_do_not_hold_the_end_up() {
    let Some(bench) = bench() else { return };
    let program = bench.compile("connections", CONNECTIONS, &["-pthread"]);
    let target = Target::start(&program, &[]);
    let arguments = [
        "record",
        "-p",
        &target.pid(),
        "-d",
        "3s",
        "--off-cpu",
        "--min-block",
        "0us",
        "-f",
        "folded",
        "-o",
        "-",
    ];
    let begun = Instant::now();
    let output = bench.profiler(&arguments);
    let seconds = begun.elapsed().as_secs_f64();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let folded = Folded::parse(&text(&output.stdout));
    println!("{seconds:.1} s for 3 s");
    // Only a hang: it took 66 s.
    assert!(seconds < 30.0, "{seconds:.1} s for 3 s");
    folded.assert_has("[blocked: read, ");
    let lost = folded
        .text
        .lines()
        .filter(|line| line.starts_with("# lost"));
    let lost: Vec<&str> = lost.filter(|line| !line.contains(": 0 ")).collect();
    assert!(lost.is_empty(), "{lost:?}");
    let mut recording = bench.command(&[
        "record",
        "-p",
        &target.pid(),
        "--off-cpu",
        "--min-block",
        "0us",
        "-f",
        "folded",
        "-o",
        "out",
    ]);
    let recording = recording.stdout(Stdio::piped()).stderr(Stdio::piped());
    let recording = recording.spawn().expect("the profiler runs");
    until_watching(&recording);
    sleep(Duration::from_secs(1));
    let begun = Instant::now();
    signal(&recording, Signal::INT);
    let output = recording.wait_with_output().expect("it ends");
    println!("{:.2} s after SIGINT", begun.elapsed().as_secs_f64());
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(begun.elapsed() < Duration::from_secs(10));
}
