//! `profiler dump`: whole stacks of threads that wait, of many threads, and of code that keeps frame pointers.

use std::{path::Path, process::Command, thread::sleep, time::Duration};

use serde_json::Value;

use crate::{
    bench::{Bench, Target, bench, text},
    python::interpreters,
};

/// Waits in a call six functions deep. Nothing in it has call frame information.
const SLEEPER: &str = r"
#include <unistd.h>
__attribute__((noinline)) void third(void) { for (;;) pause(); }
__attribute__((noinline)) void second(void) { third(); }
__attribute__((noinline)) void first(void) { second(); }
int main(void) { first(); }
";

/// Waits in a function that the C library calls back, below a signal handler.
const NESTED: &str = r"
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
volatile int sink;
__attribute__((noinline)) void innermost(void) { for (;;) pause(); }
__attribute__((noinline)) void on_signal(int signal) { innermost(); sink = signal; }
__attribute__((noinline)) int compare(const void *one, const void *other) {
    raise(SIGUSR1);
    return *(const int *)one - *(const int *)other;
}
__attribute__((noinline)) void sort(int *rows) { qsort(rows, 2, sizeof *rows, compare); sink++; }
int main(void) {
    int rows[2] = {2, 1};
    signal(SIGUSR1, on_signal);
    sort(rows);
}
";

/// So many threads that wait, and the main one.
const THREADS: &str = r"
import threading
stop = threading.Event()

def waiter():
    stop.wait()

for _ in range(700):
    threading.Thread(target=waiter, daemon=True).start()
print('ready', flush=True)
stop.wait()
";

/// Threads with names: by the way that most use, of a class of their own, with a dictionary that was looked at, renamed.
const NAMED: &str = r"
import threading
stop = threading.Event()

class Crew(threading.Thread):
    def run(self):
        stop.wait()

def waiter():
    stop.wait()

threading.Thread(target=waiter, name='plain', daemon=True).start()
Crew(name='of a class', daemon=True).start()
looked = threading.Thread(target=waiter, name='looked at', daemon=True)
looked.__dict__['more'] = 1
looked.start()
renamed = threading.Thread(target=waiter, daemon=True)
renamed.start()
renamed.name = 'renamed \u017c'
print('ready', flush=True)
stop.wait()
";

fn dump(bench: &Bench, pid: &str) -> Vec<Value> {
    let output = bench.profiler(&["dump", "--json", "-p", pid]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let dump: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    dump["threads"].as_array().expect("a list").clone()
}

fn names(thread: &Value) -> Vec<&str> {
    let frames = thread["frames"].as_array().expect("a list").iter();
    frames.filter_map(|frame| frame["name"].as_str()).collect()
}

/// The frame pointer of a thread that waits is known: code that keeps it has its whole stack.
#[test]
fn waiting_threads_have_their_frame_pointers() {
    let Some(bench) = bench() else { return };
    let flags = ["-fno-asynchronous-unwind-tables", "-fno-unwind-tables"];
    let program = bench.compile("sleeper", SLEEPER, &flags);
    let target = Target::start(&program, &[]);
    let threads = dump(&bench, &target.pid());
    let names = names(&threads[0]);
    let functions = ["third", "second", "first", "main"];
    let found = names.windows(4).any(|names| names == functions);
    assert!(found && names.last() == Some(&"_start"), "{names:?}");
    assert_eq!(threads[0]["cut"], Value::Null);
}

/// Threads have the names that Python has given them, in every interpreter; the first one keeps the process's.
#[test]
fn threads_have_pythons_names() {
    let Some(bench) = bench() else { return };
    for (version, python) in interpreters() {
        let target = ready(&python, NAMED);
        let threads = dump(&bench, &target.pid());
        let (first, others) = threads.split_first().expect("it has threads");
        let mut names: Vec<_> = others.iter().map(|thread| &thread["name"]).collect();
        names.sort_by_key(ToString::to_string);
        let given = ["looked at", "of a class", "plain", "renamed \u{17c}"];
        assert_eq!(names, given, "{version}");
        assert!(
            first["name"]
                .as_str()
                .is_some_and(|name| name.starts_with("python")),
            "{first}"
        );
    }
}

/// Recordings by thread have the same names, of a thread that has ended too.
#[test]
fn recordings_have_pythons_names() {
    const PROGRAM: &str = r"
import threading, time

def burn(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(10000): pass

threading.Thread(target=burn, args=(60,), name='crew \u017c-1', daemon=True).start()
threading.Thread(target=burn, args=(3,), name='for a while', daemon=True).start()
print('ready!', flush=True)
time.sleep(60)
";
    let Some(bench) = bench() else { return };
    let target = ready(Path::new("/usr/bin/python3"), PROGRAM);
    let folded = bench.folded(&["-p", &target.pid(), "-d", "4s", "--threads"]);
    folded.assert_has(";crew \u{17c}-1;");
    folded.assert_has(";for a while;");
}

/// An interpreter whose program has said that it is ready, and whose threads wait by now.
fn ready(python: &Path, program: &str) -> Target {
    let mut target = Target::spawn(Command::new(python).args(["-c", program]));
    let stdout = target.0.stdout.as_mut().expect("it is piped");
    let mut ready = [0; 6];
    std::io::Read::read_exact(stdout, &mut ready).expect("it is ready");
    // The last thread that was started may not wait yet.
    sleep(Duration::from_millis(200));
    target
}

/// What gdb says of a stack that it reads by other means: the same functions, through a signal handler and a call back
/// from the C library.
#[test]
fn stacks_are_those_of_gdb() {
    const FUNCTIONS: [&str; 5] = ["innermost", "on_signal", "compare", "sort", "main"];
    let Some(bench) = bench() else { return };
    for flags in [
        ["-O2", "-fomit-frame-pointer"],
        ["-O2", "-fno-omit-frame-pointer"],
    ] {
        let target = Target::start(&bench.compile("nested", NESTED, &flags), &[]);
        let threads = dump(&bench, &target.pid());
        let gdb = Command::new("gdb")
            .args(["-nx", "-batch", "-ex", "bt", "-p", &target.pid()])
            .output();
        let gdb = text(
            &gdb.expect("gdb runs: `cargo xtask setup --tests` installs it")
                .stdout,
        );
        let frames = gdb.lines().filter(|line| line.starts_with('#'));
        let words = frames.map(|line| line.split(['(', ' ']).collect::<Vec<_>>());
        let theirs =
            words.filter_map(|words| words.into_iter().find(|word| FUNCTIONS.contains(word)));
        let ours = names(&threads[0])
            .into_iter()
            .filter(|name| FUNCTIONS.contains(name));
        let (theirs, ours): (Vec<_>, Vec<_>) = (theirs.collect(), ours.collect());
        assert_eq!((&ours, theirs.len()), (&theirs, 5), "{gdb}");
        assert_eq!(threads[0]["cut"], Value::Null);
    }
}

/// Every thread of many has its Python frames, the first one too, which is last in the interpreter's list.
#[test]
fn many_threads_have_their_python_frames() {
    let Some(bench) = bench() else { return };
    for (version, python) in interpreters() {
        let target = ready(&python, THREADS);
        let threads = dump(&bench, &target.pid());
        let of = |name: &str| {
            let has = |thread: &&Value| names(thread).iter().any(|frame| frame.contains(name));
            threads.iter().filter(has).count()
        };
        let counts = (threads.len(), of("waiter"), of("<module>"));
        assert_eq!(counts, (701, 700, 1), "{version}");
    }
}
