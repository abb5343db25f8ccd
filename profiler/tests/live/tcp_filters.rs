//! `tcp` takes every filter that the other verbs take, and says what of a pre-fork server is left out.

use std::{collections::BTreeSet, io::Write, process::Output};

use serde_json::Value;

use crate::{
    bench::{Bench, Target, bench, text},
    filters::Cgroup,
    tcp::start,
};

/// Has a connection with itself, and makes one after the other once it goes on.
const TALKS: &str = r#"
int main(void) {
  int l = listening(7000, 50), kept = connected("127.0.0.1", 7000), other = accept(l, 0, 0);
  go();
  for (;;) { int c = connected("127.0.0.1", 7000), s = accept(l, 0, 0); write(c, "x", 1); read(s, &kept, 1); close(c); close(s); ms(20); }
  return other;
}
"#;

/// A process with a child that waits.
const FORKS: &str = r#"
#include <sys/prctl.h>
#include <signal.h>
#include <stdlib.h>
#include <stdio.h>
#include <unistd.h>
int main(void) {
  if (fork() == 0) { prctl(PR_SET_PDEATHSIG, SIGKILL); prctl(PR_SET_NAME, "the-worker"); puts("ready"); fflush(stdout); for (;;) pause(); }
  for (;;) pause();
}
"#;

/// Runs `tcp` for a second, which must end well.
fn tcp(bench: &Bench, who: &[&str]) -> Output {
    let output = bench.profiler(&[&["tcp", "--json", "-d", "1s"], who].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    output
}

/// Asserts that there are connections from before and new ones, all of one process.
fn assert_only(bench: &Bench, who: &[&str], target: &Target) {
    let output = tcp(bench, who);
    let result: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let connections = result["connections"].as_array().expect("a list");
    let pids: BTreeSet<_> = connections.iter().map(|one| one["pid"].as_u64()).collect();
    let own = Some(u64::from(target.0.id()));
    assert_eq!(pids, BTreeSet::from([own]), "{who:?}: {result:#}");
    for begun in [true, false] {
        let is_such = |one: &&Value| one["before"].as_bool() != Some(begun);
        assert!(connections.iter().any(|one| is_such(&one)), "{result:#}");
    }
}

/// A name and a cgroup say whose connections are listed, of those that are there and of new ones.
#[test]
fn names_and_cgroups_choose_connections() {
    let Some(bench) = bench() else { return };
    let (mut one, _lines) = start(&bench, "alpha-talks", TALKS);
    let (mut two, _others) = start(&bench, "beta-talks", TALKS);
    for target in [&mut one, &mut two] {
        let input = target.0.stdin.as_mut().expect("a pipe");
        input.write_all(b"x").expect("it reads");
    }
    assert_only(&bench, &["--comm", "alpha-t*"], &one);
    let Some(cgroup) = Cgroup::make() else {
        println!("skipped: no cgroup v2 hierarchy that can be written to");
        return;
    };
    cgroup.add_below(&two);
    let path = cgroup.0.to_str().expect("text");
    assert_only(&bench, &["--cgroup", path], &two);
    assert_only(&bench, &["--unit", &cgroup.unit()], &two);
}

/// Workers that are left out are named, with the option that includes them; else nothing is said.
#[test]
fn workers_that_are_left_out_are_named() {
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("the-master", FORKS, &[]), &[]);
    let name = format!("/proc/{0}/task/{0}/children", target.pid());
    let has_child = || std::fs::read_to_string(&name).is_ok_and(|children| !children.is_empty());
    while !has_child() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let note = "1 the-worker, which descend from the target; hint: add --descendants";
    let left_out = text(&tcp(&bench, &["-p", &target.pid()]).stderr);
    assert!(left_out.contains(note), "{left_out}");
    let included = text(&tcp(&bench, &["-p", &target.pid(), "--descendants"]).stderr);
    assert!(!included.contains("descend"), "{included}");
}
