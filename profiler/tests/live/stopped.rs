//! What is stopped by a signal or frozen with its cgroup is called so off the CPU.

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread::{scope, sleep},
    time::Duration,
};

use crate::{
    bench::{Folded, Target, bench, text},
    filters::Cgroup,
    off_cpu::Over,
};

/// A child that stops before it is recorded and one that is stopped and goes on in turn.
const STOPS: &str = r#"
#define _GNU_SOURCE
#include <signal.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>
static void ms(int n) { struct timespec t = { 0, n * 1000000 }; nanosleep(&t, 0); }
volatile int sink;
int main(void) {
  pid_t still = fork();
  if (still == 0) { prctl(PR_SET_PDEATHSIG, SIGKILL); prctl(PR_SET_NAME, "still"); raise(SIGSTOP); }
  pid_t turns = fork();
  if (turns == 0) { prctl(PR_SET_PDEATHSIG, SIGKILL); prctl(PR_SET_NAME, "turns"); for (;;) sink++; }
  for (;;) { ms(60); kill(turns, SIGSTOP); ms(60); kill(turns, SIGCONT); }
}
"#;

/// What a signal has stopped waits for nothing, whether it was stopped before or in the recording.
#[test]
fn stopped_threads_are_called_so() {
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("stops", STOPS, &[]), &[]);
    let pid = target.pid();
    let how = ["--descendants", "--off-cpu", "-d", "2s", "-f", "folded"];
    let output = bench.profiler(&[&["record", "-p", &pid, "-o", "-"], &how[..]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let folded = Folded::parse(&text(&output.stdout));
    assert_stopped(&folded, "still");
    assert_stopped(&folded, "turns");
}

/// A program is stopped for longer than 0.1 s, and waits for nothing.
fn assert_stopped(folded: &Folded, name: &str) {
    let own = folded.stacks.iter().filter(|(stack, _)| {
        let process = stack.split(';').next();
        process.is_some_and(|process| process.starts_with(name))
    });
    let (stopped, others): (Vec<_>, Vec<_>) =
        own.partition(|(stack, _)| stack.ends_with("[stopped]"));
    let stopped: u64 = stopped.iter().map(|(_, us)| us).sum();
    assert!(stopped > 100_000, "{name}: {stopped} us\n{}", folded.text);
    let is_wait = |stack: &str| stack.contains("[blocked: ");
    let others: Vec<_> = others.iter().filter(|(stack, _)| is_wait(stack)).collect();
    assert!(others.is_empty(), "{name}: {others:?}");
}

/// So does what its container's pause has stopped.
#[test]
fn frozen_threads_are_called_so() {
    let Some(bench) = bench() else { return };
    let Some(cgroup) = Cgroup::make() else {
        println!("skipped: no cgroup v2 hierarchy that can be written to");
        return;
    };
    let source = "volatile int sink; int main(void) { for (;;) sink++; }";
    let target = Target::start(&bench.compile("frozen", source, &[]), &[]);
    cgroup.add(&target);
    let freezer = cgroup.0.join("cgroup.freeze");
    let done = AtomicBool::new(false);
    let folded = scope(|scope| {
        scope.spawn(|| {
            for turn in 0_u64.. {
                let is_over = done.load(Ordering::Relaxed);
                let word = if turn.is_multiple_of(2) || is_over {
                    "0"
                } else {
                    "1"
                };
                fs::write(&freezer, word).expect("the cgroup is frozen and thawed");
                if is_over {
                    return;
                }
                sleep(Duration::from_millis(60));
            }
        });
        let _over = Over(&done);
        bench.folded(&["-p", &target.pid(), "--off-cpu", "-d", "2s"])
    });
    assert_stopped(&folded, "frozen");
    fs::write(&freezer, "1").expect("the cgroup is frozen");
    let events = cgroup.0.join("cgroup.events");
    let is_frozen = || fs::read_to_string(&events).is_ok_and(|text| text.contains("frozen 1"));
    while !is_frozen() {
        sleep(Duration::from_millis(5));
    }
    let dump = bench.profiler(&["dump", "-p", &target.pid()]);
    fs::write(&freezer, "0").expect("the cgroup is thawed");
    let dump = text(&dump.stdout);
    assert!(dump.contains("stopped"), "{dump}");
}
