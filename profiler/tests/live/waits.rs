//! Time off the CPU in the daemon: each window has the time in which threads were blocked in it, as they say
//! themselves, and windows of different modes stay apart.

use std::{fs, path::Path};

use profiler::{
    profile::{Lost, Profile, Sample},
    store::{self, Capability, Entry},
};

use crate::{
    bench::{Bench, Target, bench, text},
    service::{Daemon, report},
};

/// Threads that nap for so many ms, with some work between, and note when each nap began and ended, ns of the wall
/// clock; and one that waits for ever.
const NAPS: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#define ENTRIES 4000
volatile uint64_t sink;
struct naps { volatile uint64_t begin_end[ENTRIES][2]; } *all;
static int lengths_ms[3] = { 1300, 110, 20 };
static const char *names[3] = { "long", "middle", "short" };
static uint64_t now(clockid_t clock) { struct timespec t; clock_gettime(clock, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }
static void burn(int ms) { uint64_t end = now(CLOCK_THREAD_CPUTIME_ID) + ms * 1000000ull; while (now(CLOCK_THREAD_CPUTIME_ID) < end) sink++; }
void *nap(void *which) {
  long n = (long)which;
  pthread_setname_np(pthread_self(), names[n]);
  struct timespec t = { lengths_ms[n] / 1000, lengths_ms[n] % 1000 * 1000000l };
  for (int i = 0; i < ENTRIES; i++) {
    all[n].begin_end[i][0] = now(CLOCK_REALTIME);
    clock_nanosleep(CLOCK_MONOTONIC, 0, &t, 0);
    all[n].begin_end[i][1] = now(CLOCK_REALTIME);
    burn(5);
  }
  return 0;
}
void *stuck(void *a) { pthread_setname_np(pthread_self(), "stuck"); for (;;) pause(); }
int main(int argc, char **argv) {
  int file = open(argv[1], O_RDWR | O_CREAT, 0600);
  ftruncate(file, 3 * sizeof *all);
  all = mmap(0, 3 * sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  pthread_t t;
  for (long i = 0; i < 3; i++) pthread_create(&t, 0, nap, (void *)i);
  pthread_create(&t, 0, stuck, 0);
  for (;;) pause();
}
"#;
const NAMES: [&str; 3] = ["long", "middle", "short"];
const ENTRIES: usize = 4000;

/// Naps of each thread: begin and end, ns after the Unix epoch.
fn naps(file: &Path) -> Vec<Vec<(u64, u64)>> {
    let bytes = fs::read(file).expect("the program has made it");
    let words = bytes.chunks_exact(8);
    let words: Vec<u64> = words
        .map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")))
        .collect();
    let pairs = words.chunks_exact(2).map(|pair| match *pair {
        [begin, 0] => (begin, u64::MAX),
        [begin, end] => (begin, end),
        _ => (0, 0),
    });
    let pairs: Vec<(u64, u64)> = pairs.collect();
    let threads = pairs.chunks_exact(ENTRIES);
    let began = |naps: &[(u64, u64)]| naps.iter().copied().filter(|nap| nap.0 > 0).collect();
    threads.map(began).collect()
}

/// Of these naps, what lies in a window, ns.
fn slept(naps: &[(u64, u64)], name: &store::WindowName) -> u64 {
    let (begin, end) = (name.begin_ms * 1_000_000, name.end_ms * 1_000_000);
    let part = |nap: &(u64, u64)| nap.1.min(end).saturating_sub(nap.0.max(begin));
    naps.iter().map(part).sum()
}

fn window(state: &Path, entry: &Entry) -> Profile {
    let bytes = store::open(state, &entry.name).expect("it is there");
    let profile = profiler::report::read(&bytes).expect("a profile");
    let account = &profile.account;
    assert_eq!(account.taken, account.shown + account.lost_total());
    assert!(
        !account.lost.contains_key(&Lost::Unexplained),
        "{account:?}"
    );
    profile
}

/// Time of the stacks of a thread in which it was blocked, ns: not that in which it only wanted a CPU.
fn time_ns(profile: &Profile, thread: &str) -> u64 {
    let is_blocked = |sample: &&Sample| {
        let leaf = profile.stacks[sample.stack.index()].locations.first();
        let frame = leaf.and_then(|id| profile.location(*id).frames.first());
        frame.is_some_and(|frame| frame.name.starts_with("[blocked"))
    };
    let samples = profile.samples.iter().filter(is_blocked);
    let of_thread = samples.filter(|sample| profile.threads[sample.thread.index()].name == thread);
    of_thread.map(|sample| sample.count * 1000).sum()
}

/// Leaves of all stacks, with their times.
fn leaves(profile: &Profile) -> String {
    let leaves = profile.samples.iter().map(|sample| {
        let leaf = profile.stacks[sample.stack.index()].locations.first();
        let frame = leaf.and_then(|id| profile.location(*id).frames.first());
        let name = frame.map_or("", |frame| &frame.name);
        let thread = &profile.threads[sample.thread.index()].name;
        format!("{thread}: {name} {} us", sample.count)
    });
    leaves.collect::<Vec<_>>().join(", ")
}

fn settings(pid: &str, mode: &str) -> String {
    format!(
        "[windows]\nlength = '400ms'\n[overhead]\nmax = '100%'\n[log]\nlevel = 'debug'\n\
         [sampling]\nmode = '{mode}'\nfrequency = 199\ntargets = {{ pids = [{pid}] }}"
    )
}

fn start(bench: &Bench) -> (Target, std::path::PathBuf) {
    let program = bench.compile("naps", NAPS, &["-lpthread"]);
    let file = bench.path("naps-file");
    let target = Target::start(&program, &[file.to_str().expect("a plain path")]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    (target, file)
}

/// Every window has as much waiting of each thread as the thread itself noted for that time, also of waits that last
/// through several windows; a thread that never comes back is in all of them; together nothing is lost or told twice.
#[test]
fn windows_have_the_waits_that_were_in_them() {
    let Some(bench) = bench() else { return };
    let (target, file) = start(&bench);
    let daemon = Daemon::start(&bench, &settings(&target.pid(), "off-cpu"));
    daemon.windows(12);
    let state = daemon.state.clone();
    let entries = daemon.stop();
    let naps = naps(&file);
    let (mut sum, mut expected) = ([0; 3], [0; 3]);
    let (mut shown, mut wrong) = (0, Vec::new());
    // In the first one they are followed from some time after its begin.
    for (number, entry) in entries.iter().enumerate() {
        assert_eq!(entry.name.capability, Capability::OffCpu);
        let profile = window(&state, entry);
        shown += profile.total();
        if number == 0 {
            continue;
        }
        let length_ns = (entry.name.end_ms - entry.name.begin_ms) * 1_000_000;
        let tolerance_ns = 15_000_000 + length_ns / 50;
        for (thread, name) in NAMES.iter().enumerate() {
            let (found, wanted) = (time_ns(&profile, name), slept(&naps[thread], &entry.name));
            println!(
                "{} {name}: {found} ns, by its own account {wanted} ns",
                entry.name
            );
            sum[thread] += found;
            expected[thread] += wanted;
            if *name != "short" && found.abs_diff(wanted) >= tolerance_ns {
                wrong.push(format!(
                    "{}: {name}: {found} of {wanted}; {}; {:?}",
                    entry.name,
                    leaves(&profile),
                    profile.account
                ));
            }
        }
        let stuck = time_ns(&profile, "stuck");
        if stuck.abs_diff(length_ns) >= tolerance_ns {
            wrong.push(format!("{}: stuck: {stuck} of {length_ns}", entry.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (thread, name) in NAMES.iter().enumerate() {
        let (found, wanted) = (sum[thread], expected[thread]);
        println!("{name}: {found} ns of {wanted} ns");
        assert!(
            found.abs_diff(wanted) < wanted / 40,
            "{name}: {found} of {wanted}"
        );
    }
    let all = report(&bench, &state, &[]);
    assert_eq!(all.total(), shown);
    all.assert_has("clock_nanosleep");
    assert!(
        all.text.contains("# event: off-cpu") || all.text.contains("off-cpu"),
        "{}",
        all.text
    );
}

/// A store with windows of two modes shows one of them, says that the other is there, and shows that when asked.
#[test]
fn modes_stay_apart() {
    let Some(bench) = bench() else { return };
    let (target, _) = start(&bench);
    let pid = target.pid();
    let daemon = Daemon::start(&bench, &settings(&pid, "wall"));
    daemon.windows(3);
    daemon.reload(&settings(&pid, "cpu"));
    daemon.told("READY=1");
    let before = store::list(&daemon.state).expect("a store").len();
    daemon.windows(before + 3);
    let state = daemon.state.clone();
    daemon.stop();
    let on_cpu = report(&bench, &state, &[]);
    assert!(on_cpu.samples("burn") > 0, "{}", on_cpu.text);
    // Going to sleep takes time on the CPU, little of it.
    assert!(
        on_cpu.samples("clock_nanosleep") < on_cpu.samples("burn") / 4,
        "{}",
        on_cpu.text
    );
    assert!(
        on_cpu
            .text
            .contains("window of mode wall left out, --mode wall shows it"),
        "{}",
        on_cpu.text
    );
    let wall = report(&bench, &state, &["--mode", "wall"]);
    wall.assert_has("clock_nanosleep");
    wall.assert_has("burn");
    assert!(
        wall.text.contains("window of mode cpu left out"),
        "{}",
        wall.text
    );
    let state = state.to_str().expect("text");
    let none = [
        "report", "--state", state, "--since", "1h", "--mode", "off-cpu", "-o", "-",
    ];
    let output = bench.profiler(&none);
    assert!(!output.status.success());
    assert!(
        text(&output.stderr).contains("no window"),
        "{}",
        text(&output.stderr)
    );
}

/// Each wait of a new thread for its first CPU is told, though it has left none with a stack.
#[test]
fn new_threads_wait_for_their_first_cpu() {
    let Some(bench) = bench() else { return };
    let source = r"
#include <pthread.h>
#include <unistd.h>
void *nothing(void *a) { return 0; }
int main(void) { for (;;) { pthread_t t; pthread_create(&t, 0, nothing, 0); pthread_join(t, 0); usleep(2000); } }
";
    let program = bench.compile("begins", source, &["-lpthread"]);
    let target = Target::start(&program, &[]);
    let pid = target.pid();
    let arguments = [
        "record",
        "-p",
        &pid,
        "-d",
        "2s",
        "--wall",
        "--min-block",
        "0",
        "--format",
        "json",
        "-o",
        "-",
    ];
    let output = bench.profiler(&arguments);
    let profile: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let account = &profile["account"];
    println!("{}", text(&output.stderr));
    assert!(account["lost"].get("unexplained").is_none(), "{account}");
    let begun = account["complete_stacks"]["thread not started yet"].as_u64();
    assert!(begun.is_some_and(|begun| begun > 100), "{account}");
}
