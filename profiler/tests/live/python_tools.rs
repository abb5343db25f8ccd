//! `profiler dump`, and a recording beside py-spy's of the same program.

use std::{
    fs,
    process::{Command, Stdio},
    thread::sleep,
    time::Duration,
};

use serde_json::Value;

use crate::{
    bench::{Target, bench, text},
    packages::py_spy,
    python::interpreters,
};

/// A dump shows where each thread waits, with what it called, on every version; it stops nothing.
#[test]
fn dump_shows_every_thread() {
    let program = r"
import threading, time

def nap():
    time.sleep(1000)  # napping

def locked(lock):
    with lock:
        time.sleep(1000)

lock = threading.Lock()
lock.acquire()
threading.Thread(target=nap, daemon=True).start()
threading.Thread(target=locked, args=(lock,), daemon=True).start()
while True: pass
";
    let Some(bench) = bench() else { return };
    let path = bench.path("naps.py");
    fs::write(&path, program).expect("the program can be written");
    for (version, python) in interpreters() {
        let target = Target::spawn(Command::new(&python).arg(&path));
        let pid = target.pid();
        until_threads(&pid, 3);
        let dump = text(&bench.profiler(&["dump", "-p", &pid]).stdout);
        let threads: Vec<&str> = dump.split("\n\n").skip(1).collect();
        assert_eq!(threads.len(), 3, "{version}: {dump}");
        let has = |thread: &str, pieces: &[&str]| {
            let mut rest = thread;
            pieces.iter().all(|piece| match rest.split_once(piece) {
                Some((_, after)) => {
                    rest = after;
                    true
                }
                None => false,
            })
        };
        assert!(
            has(
                threads[0],
                &["running", "holds the GIL", "naps.<module> (naps.py:15)"]
            ),
            "{version}: {dump}"
        );
        let expected = ["blocked: ", "naps.nap (naps.py:5)", "start_thread"];
        assert!(has(threads[1], &expected), "{version}: {dump}");
        let expected = ["blocked: futex", "naps.locked (naps.py:8)", "start_thread"];
        assert!(has(threads[2], &expected), "{version}: {dump}");
        let json = bench.profiler(&["dump", "-p", &pid, "--json"]).stdout;
        let json: Value = serde_json::from_slice(&json).expect("it is JSON");
        let frames = json["threads"][1]["frames"].as_array().expect("a list");
        let nap = frames.iter().find(|frame| frame["name"] == "naps.nap");
        let nap = nap.expect("such a frame");
        assert_eq!((&nap["line"], &nap["kind"]), (&5.into(), &"python".into()));
    }
}

/// Waits until a process has so many threads, and each of them has got to where it stays.
#[track_caller]
fn until_threads(pid: &str, wanted: usize) {
    let tasks = format!("/proc/{pid}/task");
    let there = (0..100).find(|_| {
        sleep(Duration::from_millis(100));
        fs::read_dir(&tasks).expect("it lives").count() == wanted
    });
    assert!(there.is_some(), "never {wanted} threads");
    sleep(Duration::from_millis(300));
}

/// The same functions have the same shares, within 3 points, in ours and in py-spy's recording: at these rates that
/// is more than four standard deviations.
#[test]
fn shares_are_those_of_py_spy() {
    let program = r"
def burn(n):
    while n: n -= 1

def fifty(): burn(50000)
def thirty(): burn(30000)
def fifteen(): burn(15000)
def five(): burn(5000)

while True:
    fifty(); thirty(); fifteen(); five()
";
    let Some(bench) = bench() else { return };
    let Some(py_spy) = py_spy() else {
        println!("skipped: py-spy could not be installed");
        return;
    };
    let path = bench.path("shares.py");
    fs::write(&path, program).expect("the program can be written");
    // Of every third version: each takes 12 s, and other tests look at all of them.
    for (version, python) in interpreters().into_iter().skip(1).step_by(3) {
        let target = Target::spawn(Command::new(&python).arg(&path));
        sleep(Duration::from_millis(300));
        let pid = target.pid();
        let raw = bench.path("raw");
        let mut spy = Command::new(&py_spy);
        spy.args([
            "record", "--pid", &pid, "-d", "12", "-r", "999", "-f", "raw", "-o",
        ]);
        let spy = spy
            .arg(&raw)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut spy = spy.expect("py-spy starts");
        let ours = bench.folded(&["-p", &pid, "-d", "12s", "-F", "999"]);
        let spied = spy.wait().expect("py-spy ends");
        let Ok(raw) = fs::read_to_string(&raw) else {
            println!("{version}: py-spy cannot: {spied}");
            continue;
        };
        let stacks: Vec<(&str, f64)> = raw
            .lines()
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(stack, count)| Some((stack, count.parse().ok()?)))
            .collect();
        let total: f64 = stacks.iter().map(|(_, count)| count).sum();
        for function in ["fifty", "thirty", "fifteen", "five"] {
            let mine = ours.share(&format!("shares.{function} ("));
            let theirs = stacks
                .iter()
                .filter(|(stack, _)| stack.contains(&format!("{function} (")));
            let theirs: f64 = 100.0 * theirs.map(|(_, count)| count).sum::<f64>() / total;
            println!("{version}: {function} {mine:.1} %, py-spy {theirs:.1} %");
            assert!((mine - theirs).abs() < 3.0, "{version}: {function}");
        }
    }
}
