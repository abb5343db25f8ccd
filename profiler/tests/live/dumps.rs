//! `profiler dump`: whole stacks of threads that wait, of many threads, and of code that keeps frame pointers.

use std::{process::Command, thread::sleep, time::Duration};

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

/// Every thread of many has its Python frames, the first one too, which is last in the interpreter's list.
#[test]
fn many_threads_have_their_python_frames() {
    let Some(bench) = bench() else { return };
    for (version, python) in interpreters() {
        let mut target = Target::spawn(Command::new(&python).args(["-c", THREADS]));
        let stdout = target.0.stdout.as_mut().expect("it is piped");
        let mut ready = [0; 6];
        std::io::Read::read_exact(stdout, &mut ready).expect("it is ready");
        // The last thread that was started may not wait yet.
        sleep(Duration::from_millis(200));
        let threads = dump(&bench, &target.pid());
        let of = |name: &str| {
            let has = |thread: &&Value| names(thread).iter().any(|frame| frame.contains(name));
            threads.iter().filter(has).count()
        };
        let counts = (threads.len(), of("waiter"), of("<module>"));
        assert_eq!(counts, (701, 700, 1), "{version}");
    }
}
