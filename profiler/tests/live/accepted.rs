//! Workers that share a port: each has the connections that it accepts.

use std::{
    fs,
    io::{BufRead, Write},
    process::Stdio,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    bench::{bench, signal, text, until_watching},
    tcp::{connections, start},
};

/// Two workers that accept from one socket, and how many each of them has accepted.
const WORKERS: &str = r#"
int counts[2];
void serve(int l, int report) {
  for (int n = 0;;) { int s = accept(l, 0, 0); char c; read(s, &c, 1); if (c == 'q') { n = n; write(report, &n, sizeof n); _exit(0); }
    n++; write(s, "y", 1); close(s); }
}
void say(const char *what) { int c = connected("127.0.0.1", 4100); write(c, what, 1); char a; read(c, &a, 1); close(c); }
int main(void) {
  int l = listening(4100, 64), reports[2][2];
  for (int i = 0; i < 2; i++) { pipe(reports[i]); if (fork() == 0) serve(l, reports[i][1]); }
  go();
  for (int i = 0; i < 40; i++) say("x");
  ms(200);
  for (int i = 0; i < 2; i++) { int c = connected("127.0.0.1", 4100); write(c, "q", 1); ms(100); }
  for (int i = 0; i < 2; i++) read(reports[i][0], &counts[i], sizeof counts[i]);
  ms(100);
  printf("%d %d\n", counts[0], counts[1]); fflush(stdout); pause();
}
"#;

/// A connection is of the worker that accepted it, not of the one that listens; of a worker that is watched alone those of the others
/// are not shown.
#[test]
fn connections_are_of_who_accepts_them() {
    let Some(bench) = bench() else { return };
    let (mut target, mut lines) = start(&bench, "workers", WORKERS);
    let master = target.pid();
    let children = format!("/proc/{master}/task/{master}/children");
    let children = fs::read_to_string(children).expect("it has some");
    let workers: Vec<&str> = children.split_whitespace().collect();
    let watch = |arguments: &[&str]| {
        let mut command = bench.command(&[&["tcp", "--json", "-d", "10m"], arguments].concat());
        let watching = (command.stdout(Stdio::piped()).stderr(Stdio::piped()))
            .spawn()
            .expect("the profiler runs");
        until_watching(&watching);
        watching
    };
    let all = watch(&["--descendants", "-p", &master]);
    let one = watch(&["-p", workers[0]]);
    target
        .0
        .stdin
        .as_mut()
        .expect("a pipe")
        .write_all(b"!")
        .expect("it listens");
    let mut line = String::new();
    lines.read_line(&mut line).expect("the program talks");
    let counts: Vec<usize> = line
        .split_whitespace()
        .map(|word| word.parse().expect("a count"))
        .collect();
    let end = |watching: std::process::Child| -> Value {
        signal(&watching, Signal::INT);
        let output = watching.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!(report["account"]["lost"], serde_json::json!({}));
        report
    };
    let (all, one) = (end(all), end(one));
    let of = |report: &Value, pid: &str| {
        let pid: u64 = pid.parse().expect("a pid");
        let mine = connections(report, "server", ":4100");
        mine.iter().filter(|one| one["pid"] == pid).count()
    };
    // Each has accepted one more that made it end.
    let expected = [counts[0] + 1, counts[1] + 1];
    assert_eq!(
        [of(&all, workers[0]), of(&all, workers[1])],
        expected,
        "{all:#}"
    );
    assert_eq!(of(&all, &master), 0, "{all:#}");
    assert_eq!(of(&one, workers[0]), expected[0], "{one:#}");
    assert_eq!(
        connections(&one, "server", ":4100").len(),
        expected[0],
        "{one:#}"
    );
}
