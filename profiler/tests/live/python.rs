//! Python frames: every `CPython` of the machine, in Python code, in C extensions and while it waits.
//!
//! The interpreters are pyenv's and the system's; each test goes through all of them.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::Duration,
};

use serde_json::Value;

use crate::bench::{Bench, Folded, Target, bench, text};
pub(crate) use crate::interpreters::interpreters;

/// What a program does at which line is known from its text: see [`line_of`]. Each kind of work takes its
/// share of the time: what a sample in 250 sees is missed by a recording of seconds once in a while.
const WORK: &str = r"
import asyncio, json, re, sqlite3, zlib
from concurrent.futures import ThreadPoolExecutor

def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)  # fib

def recurse(n):
    if n == 0:
        return spin()  # innermost
    return recurse(n - 1)  # recursion

def spin():
    total = 0
    for i in range(20000):
        total += i  # spinning
    return total

class Shop:
    def sell(self):
        return self.count(3000)  # sell

    def count(self, n):
        while n:
            n -= 1  # counting

def generator(n):
    for i in range(n):
        yield fib(6)  # yielding

def consume():
    for _ in generator(40):  # consuming
        pass

def sort():
    return sorted(range(2000), key=lambda x: fib(1) - x)  # sorting

def use_json():
    return json.loads(json.dumps(list(range(2000))))  # json

def use_re():
    return re.findall(r'(\w+)\s', 'abc def ' * 2000)  # re

def use_zlib():
    return zlib.compress(b'abcdefgh' * 10000)  # zlib

def use_sqlite(connection):
    sql = 'select sum(pyfun(1)) from (select 1 union select 2 union select 3)'
    return connection.execute(sql).fetchall()  # sqlite

def callback(x):
    return fib(12) + x  # called back

def pooled():
    return fib(14)  # in the pool

async def inner():
    fib(14)  # in the loop
    await asyncio.sleep(0)

async def outer():
    await inner()  # awaiting

def multiline(a, b):
    return (a +
            fib(14) +  # second line
            b)

def main():
    connection = sqlite3.connect(':memory:')
    connection.create_function('pyfun', 1, callback)
    pool = ThreadPoolExecutor(1)
    loop = asyncio.new_event_loop()
    while True:
        recurse(30)
        Shop().sell()
        consume()
        sort()
        use_json()
        use_re()
        use_zlib()
        use_sqlite(connection)
        pool.submit(pooled).result()
        loop.run_until_complete(outer())
        multiline(1, 2)

main()
";

/// A program as a file, started by an interpreter.
fn start(bench: &Bench, python: &Path, program: &str) -> Target {
    let path = bench.path("shop.py");
    fs::write(&path, program).expect("the program can be written");
    let target = Target::spawn(Command::new(python).arg(&path));
    sleep(Duration::from_millis(600));
    target
}

/// Every interpreter runs a program, each under a name of its own: recorded together, they are told
/// apart by it.
fn start_all(bench: &Bench, program: &str) -> Vec<(String, Target)> {
    let path = bench.path("shop.py");
    fs::write(&path, program).expect("the program can be written");
    let start = |(version, python): (String, PathBuf)| {
        let name = format!("py-{version}");
        symlink(python, bench.path(&name)).expect("a link can be made");
        let target = Target::spawn(Command::new(bench.path(&name)).arg(&path));
        (name, target)
    };
    let targets = interpreters().into_iter().map(start).collect();
    sleep(Duration::from_millis(600));
    targets
}

/// The line with this comment.
pub(crate) fn line_of(program: &str, comment: &str) -> usize {
    let mark = format!("# {comment}");
    let at = program.lines().position(|line| line.ends_with(&mark));
    1 + at.expect("such a comment")
}

/// A frame as it is written, by its comment.
fn frame(program: &str, function: &str, comment: &str) -> String {
    let line = line_of(program, comment);
    // Before 3.11 a code object knows no more than its function's name.
    format!("{function} (shop.py:{line})_[p]")
}

/// Samples that have the evaluator and no Python frame, by the account.
pub(crate) fn without_frames(folded: &Folded) -> u64 {
    let key = "# note, Python evaluator on the stack without its Python frames: ";
    let line = folded.text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|line| line.split(' ').next()?.replace(',', "").parse().ok())
        .unwrap_or(0)
}

/// Every kind of code stands on its callers.
fn check(version: &str, folded: &Folded) {
    let has = |pieces: &[(&str, &str)]| {
        let frames: Vec<String> = pieces
            .iter()
            .map(|(function, comment)| frame(WORK, function, comment))
            .collect();
        let ends = |stack: &str, frames: &[String]| {
            // A qualified name ends in the name.
            let mut stack = stack.split(';');
            frames
                .iter()
                .all(|frame| stack.any(|found| found.ends_with(frame.as_str())))
        };
        let count: u64 = folded
            .stacks
            .iter()
            .filter(|(stack, _)| ends(stack, &frames))
            .map(|(_, count)| count)
            .sum();
        assert!(count > 0, "{}\n{version}: has no {frames:?}", folded.text);
    };
    let mut recursion = vec![("recurse", "recursion"); 30];
    recursion.extend([("recurse", "innermost"), ("spin", "spinning")]);
    has(&recursion);
    has(&[("sell", "sell"), ("count", "counting")]);
    has(&[
        ("consume", "consuming"),
        ("generator", "yielding"),
        ("fib", "fib"),
    ]);
    has(&[("sort", "sorting"), ("<lambda>", "sorting"), ("fib", "fib")]);
    has(&[
        ("use_sqlite", "sqlite"),
        ("callback", "called back"),
        ("fib", "fib"),
    ]);
    has(&[("pooled", "in the pool"), ("fib", "fib")]);
    has(&[
        ("outer", "awaiting"),
        ("inner", "in the loop"),
        ("fib", "fib"),
    ]);
    has(&[("multiline", "second line"), ("fib", "fib")]);
    has(&[("use_json", "json")]);
    has(&[("use_re", "re")]);
    let zlib = frame(WORK, "use_zlib", "zlib");
    assert!(
        folded
            .stacks
            .iter()
            .any(|(stack, _)| stack.contains(&zlib) && stack.contains(";deflate"))
    );
    // The evaluator that is just being entered may have no frame yet.
    let unfolded = folded.share("_PyEval_EvalFrameDefault");
    assert!(unfolded < 1.0, "{version}: folded away");
    assert!(
        !folded.text.contains("<python code"),
        "{version}: all are read"
    );
}

/// Functions, lines, recursion, methods, generators, callbacks from C, C extensions, a thread pool and
/// coroutines, each on its callers; nearly every sample in the evaluator has its Python frames.
#[test]
fn python_code_has_its_functions_and_lines() {
    let Some(bench) = bench() else { return };
    for (version, python) in interpreters() {
        println!("{version}");
        let target = start(&bench, &python, WORK);
        let folded = bench.folded(&[
            "-p",
            &target.pid(),
            "-d",
            "2500ms",
            "-F",
            "999",
            "--lines",
            "line",
        ]);
        check(&version, &folded);
        let (without, total) = (without_frames(&folded), folded.total());
        println!("{version}: {without} of {total} without Python frames");
        assert!(without * 100 <= total, "{version}: {without} of {total}");
    }
}

/// By function a function is one frame, told by the line that it begins at; the interpreter's own frames
/// are there when asked for.
#[test]
fn functions_are_one_frame_and_the_interpreter_can_be_shown() {
    let Some(bench) = bench() else { return };
    let python = Path::new("/usr/bin/python3");
    let target = start(&bench, python, WORK);
    let pid = target.pid();
    let folded = bench.folded(&["-p", &pid, "-d", "2s"]);
    let begin = line_of(WORK, "spinning") - 3;
    folded.assert_has(&format!("shop.spin (shop.py:{begin})_[p]"));
    folded.assert_has("json.dumps (__init__.py:");
    folded.assert_has("_start;__libc_start_main");
    let native = bench.folded(&["-p", &pid, "-d", "2s", "--native"]);
    native.assert_has(";_PyEval_EvalFrameDefault;shop.<module> (shop.py:1)_[p];");
    for (format, pieces) in [
        ("speedscope", ["\"shop.spin\"", "shop.py"]),
        ("firefox", ["shop.spin (shop.py:", "Python"]),
        ("json", ["\"kind\":\"python\"", "\"first_line\":"]),
    ] {
        let output = bench.profiler(&["record", "-p", &pid, "-d", "1s", "-f", format, "-o", "-"]);
        let file = text(&output.stdout);
        for piece in pieces {
            assert!(file.contains(piece), "{format}: {piece}");
        }
    }
}

/// Threads that wait, with the lock released, have their Python frames: a sleep and a blocking read.
#[test]
fn waits_have_python_frames() {
    let program = r"
import os, threading, time
reader, writer = os.pipe()

def read():
    while True:
        os.read(reader, 1)  # reading

def write():
    while True:
        time.sleep(0.02)  # sleeping
        os.write(writer, b'x')

threading.Thread(target=read).start()
write()
";
    let Some(bench) = bench() else { return };
    let targets = start_all(&bench, program);
    let pids: Vec<String> = targets.iter().map(|(_, target)| target.pid()).collect();
    let pids = pids.join(",");
    let all = bench.folded(&["-p", &pids, "-d", "3s", "--off-cpu", "--lines", "line"]);
    for (version, target) in targets {
        let folded = all.of(&version);
        for (function, comment, leaf) in [
            ("read", "reading", "[blocked: read, pipe]"),
            ("write", "sleeping", "[blocked: "),
        ] {
            let frame = frame(program, function, comment);
            let stacks = folded.stacks.iter();
            let time: u64 = stacks
                .filter(|(stack, _)| stack.contains(&frame) && stack.contains(leaf))
                .map(|(_, us)| us)
                .sum();
            println!("{version}: {function} {time} us");
            assert!(
                time > 2_000_000,
                "{version}: {frame} {time} us in\n{}",
                folded.text
            );
        }
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&target.0),
            rustix::process::Signal::KILL,
        );
    }
}

const WAITING: &str = "[waiting for the GIL]";

/// Two threads that want the interpreter's lock all the time wait for it half of the time each, or get no
/// CPU; threads in C code that released it never wait.
#[test]
fn waiting_for_the_gil_is_told_apart() {
    let program = r"
import sys, threading, zlib

def burn():
    while True:
        for _ in range(10000): pass

def compress():
    data = b'abcdefgh' * 4000000
    while True:
        zlib.compress(data)

work = {'burn': burn, 'compress': compress}[sys.argv[1]]
threading.Thread(target=work).start()
work()
";
    let Some(bench) = bench() else { return };
    let path = bench.path("shop.py");
    fs::write(&path, program).expect("the program can be written");
    for (version, python) in interpreters() {
        for work in ["burn", "compress"] {
            let target = Target::spawn(Command::new(&python).arg(&path).arg(work));
            sleep(Duration::from_millis(500));
            let folded = bench.folded(&["-p", &target.pid(), "-d", "1s", "--wall", "--threads"]);
            // On a busy machine some spans come without their stack.
            let all = folded.total();
            let waiting = folded.samples(WAITING);
            let runnable = folded.samples("[runnable");
            println!("{version} {work}: {waiting} us of {all} waiting, {runnable} runnable");
            assert!(all > 1_500_000, "{version}: {all} us in\n{}", folded.text);
            if work == "burn" {
                // A thread that waits wakes every 5 ms, and on a busy machine gets no CPU then.
                let (least, most) = (waiting * 100 / all, (waiting + runnable) * 100 / all);
                assert!(
                    least <= 55 && most >= 45,
                    "{version}: {least} to {most} % in\n{}",
                    folded.text
                );
            } else {
                assert!(
                    waiting * 50 < all,
                    "{version}: {waiting} us in\n{}",
                    folded.text
                );
            }
        }
    }
}

/// Samples tell whether the lock was held; `--gil` shows those where it was.
#[test]
fn holders_of_the_gil_are_known() {
    let program = r"
import threading, zlib

def burn():
    while True:
        for _ in range(10000): pass

def compress():
    data = b'abcdefgh' * 4000000
    while True:
        zlib.compress(data)

threading.Thread(target=burn).start()
compress()
";
    let Some(bench) = bench() else { return };
    for (version, python) in interpreters() {
        let target = start(&bench, &python, program);
        let pid = target.pid();
        let arguments = ["record", "-p", &pid, "-d", "1s", "-f", "json", "-o", "-"];
        let output = bench.profiler(&arguments);
        let profile: Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
        let samples = profile["samples"].as_array().expect("a list");
        let of = |gil: &str| -> u64 {
            let mine = samples.iter().filter(|sample| sample["gil"] == gil);
            mine.filter_map(|sample| sample["count"].as_u64()).sum()
        };
        println!("{version}: held {}, free {}", of("held"), of("free"));
        assert!(of("held") > 10 && of("free") > 10, "{version}");
        let holders = bench.folded(&["-p", &pid, "-d", "1s", "--gil"]);
        let (burning, deflating) = (holders.share("shop.burn ("), holders.share("deflate"));
        assert!(
            burning > 95.0 && deflating < 3.0,
            "{version}: {}",
            holders.text
        );
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&target.0),
            rustix::process::Signal::KILL,
        );
    }
}

/// Workers that a master forked after its imports have their frames, as have threads that they start.
#[test]
fn forked_workers_have_python_frames() {
    let program = r"
import os, threading, time

def work():
    while True:
        for _ in range(10000): pass  # working

def worker():
    threading.Thread(target=work, daemon=True).start()
    work()

time.sleep(1)
for _ in range(3):
    if os.fork() == 0:
        worker()
time.sleep(60)
";
    let Some(bench) = bench() else { return };
    for (version, python) in interpreters() {
        let path = bench.path("shop.py");
        fs::write(&path, program).expect("the program can be written");
        let target = Target::spawn(Command::new(&python).arg(&path));
        let folded = bench.folded(&["-p", &target.pid(), "-d", "2500ms", "--descendants"]);
        for pid in text(
            &Command::new("pgrep")
                .args(["-P", &target.pid()])
                .output()
                .expect("pgrep runs")
                .stdout,
        )
        .lines()
        {
            let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
            let _ =
                pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        }
        let share = folded.share("shop.work (");
        println!("{version}: {share} % in work, {} samples", folded.total());
        assert!(
            share > 90.0 && folded.total() > 100,
            "{version}:\n{}",
            folded.text
        );
    }
}
