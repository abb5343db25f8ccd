//! Python stacks that are longer than a record.

use std::{fs, process::Command};

use crate::{
    bench::{Bench, Folded, Target, bench},
    python::interpreters,
};

/// Works at the end of a recursion of the depth that it is given.
const PROGRAM: &str = r"
import sys, threading
sys.setrecursionlimit(10000)
threading.stack_size(256 << 20)

def spin():
    while True:
        for _ in range(1000):
            pass

def down(n):
    if n == 0:
        spin()
    down(n - 1)

def begin():
    down(int(sys.argv[1]))

thread = threading.Thread(target=begin)
thread.start()
thread.join()
";

fn record(bench: &Bench, python: &std::path::Path, depth: usize) -> Folded {
    let path = bench.path("deep.py");
    fs::write(&path, PROGRAM).expect("it can be written");
    let target = Target::spawn(Command::new(python).arg(&path).arg(depth.to_string()));
    // A busy machine may leave it little time.
    let mut recordings = (0..20).map(|_| bench.folded(&["-p", &target.pid(), "-d", "1s"]));
    let folded = recordings.find(|folded| folded.total() > 20);
    folded.expect("it has 21 samples in a second")
}

/// Of a recursion of 400 functions both ends are there, and how many are left out between them; they add up.
#[test]
fn both_ends_of_a_deep_stack_are_there() {
    let Some(bench) = bench() else { return };
    for (version, python) in interpreters() {
        let folded = record(&bench, &python, 400);
        let (mut right, mut all) = (0, 0);
        for (stack, count) in &folded.stacks {
            let frames: Vec<&str> = stack.split(';').collect();
            let of = |name: &str| frames.iter().filter(|frame| frame.contains(name)).count();
            all += count;
            let gap = frames.iter().find_map(|frame| {
                let number = frame
                    .strip_prefix('[')?
                    .strip_suffix(" Python frames left out]")?;
                number.parse::<usize>().ok()
            });
            let ends = of("deep.begin") == 1 && of("deep.spin") == 1;
            if ends && gap.is_some_and(|gap| gap > 0 && gap + of("deep.down") == 401) {
                right += count;
            }
        }
        println!("{version}: {right} of {all}");
        assert!(
            right * 100 >= all * 99,
            "{version}: {right} of {all}: {}",
            folded.text
        );
    }
}

/// Of a recursion of 3,000 the inner end is there, and that there is more.
#[test]
fn a_bottomless_stack_says_so() {
    let Some(bench) = bench() else { return };
    for (version, python) in interpreters() {
        let folded = record(&bench, &python, 3000);
        let right = folded.samples("[more than ");
        assert!(
            right * 100 >= folded.total() * 99,
            "{version}: {}",
            folded.text
        );
        let spins = folded.samples("deep.spin");
        assert!(
            spins * 100 >= folded.total() * 99,
            "{version}: {}",
            folded.text
        );
        assert_eq!(
            folded.samples("deep.begin"),
            0,
            "{version}: what was not reached"
        );
    }
}
