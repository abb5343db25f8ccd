//! Go programs without debug information: names, files, lines and inlined functions as Go's own runtime has them, and
//! whole stacks in what Go has in assembly.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::bench::{Bench, Target, bench, text};

/// Ways to build: a name, whether with C, and further arguments.
const BUILDS: [(&str, bool, &[&str]); 4] = [
    ("plain", false, &[]),
    ("anywhere", false, &["-buildmode=pie"]),
    ("with-c", true, &[]),
    ("with-c-anywhere", true, &["-buildmode=pie"]),
];

/// Builds a program stripped of all that can be.
fn build(bench: &Bench, source: &str, (name, with_c, more): (&str, bool, &[&str])) -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live/golang");
    let program = bench.path(name);
    let text = std::fs::read_to_string(sources.join(source)).expect("it is there");
    let lines = text
        .lines()
        .filter(|line| with_c || !line.ends_with("// with C"));
    let path = bench.path(source);
    std::fs::write(&path, lines.collect::<Vec<_>>().join("\n")).expect("it can be written");
    let mut go = Command::new("go");
    go.args(["build", "-ldflags", "-s -w", "-o"])
        .arg(&program)
        .args(more)
        .arg(&path)
        .env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("go"))
        .env("GO111MODULE", "off")
        .env("CGO_ENABLED", if with_c { "1" } else { "0" });
    assert!(go.status().expect("go runs").success(), "{name}");
    program
}

/// The stack of a goroutine that waits is the one that Go's runtime has printed, down to the lines.
#[test]
fn stacks_are_those_of_gos_runtime() {
    let Some(bench) = bench() else { return };
    for how in BUILDS {
        let mut target = Target::start(&build(&bench, "stack.go", how), &[]);
        let printed = BufReader::new(target.0.stdout.take().expect("it is piped")).lines();
        let printed = printed.map_while(Result::ok);
        let printed: Vec<String> = printed.take_while(|line| line != "ready").collect();
        let output = bench.profiler(&["dump", "--json", "-p", &target.pid()]);
        let dump: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let threads = dump["threads"].as_array().expect("a list").iter();
        let stacks: Vec<Vec<String>> = threads.map(frames).collect();
        println!("{}: {printed:#?}", how.0);
        let is_it =
            |stack: &&Vec<String>| stack.iter().any(|frame| frame.starts_with("main.show "));
        let stack = stacks.iter().find(is_it).expect("the goroutine's thread");
        let show = stack
            .iter()
            .position(|frame| frame.starts_with("main.show "));
        assert_eq!(
            stack[show.unwrap_or_default() + 1..],
            printed,
            "{}",
            text(&output.stderr)
        );
        assert!(
            dump["threads"]
                .as_array()
                .iter()
                .flat_map(|all| all.iter())
                .all(|thread| thread["cut"].is_null())
        );
    }
}

fn frames(thread: &Value) -> Vec<String> {
    let frames = thread["frames"].as_array().expect("a list").iter();
    let frame = |frame: &Value| {
        let part = |name: &str| frame[name].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", part("name"), part("file"), frame["line"])
    };
    frames.map(frame).collect()
}

/// Hashes, ciphers, signatures, long numbers and the collector of garbage: what is written in assembly uses the frame
/// pointer's register, and the runtime switches stacks.
#[test]
fn assembly_and_the_runtime_are_walked() {
    let Some(bench) = bench() else { return };
    let target = Target::start(&build(&bench, "busy.go", BUILDS[0]), &[]);
    let folded = bench.folded(&["-p", &target.pid(), "-d", "4s", "-F", "199"]);
    folded.assert_whole();
    for function in [
        "main.hashes",
        "main.seal",
        "main.sign",
        "main.power",
        "main.text",
    ] {
        folded.assert_has(&format!("main.main;{function}"));
    }
    assert!(!folded.text.contains("[.text]"), "all has names");
}
