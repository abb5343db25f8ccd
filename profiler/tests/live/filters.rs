//! Whom a recording is of: all filtering happens in the kernel, and what is not wanted is not there.

use std::{fs, os::unix::process::CommandExt, path::PathBuf, process::Command};

use crate::bench::{Bench, SPLIT, Target, bench};

/// Two targets that differ in name, and a third that is neither.
fn three(bench: &Bench) -> (Target, Target, Target) {
    let start = |name| Target::start(&bench.compile(name, SPLIT, &[]), &[]);
    (start("alpha-one"), start("alpha-two"), start("beta"))
}

/// Several processes are recorded under their own names, and no other.
#[test]
fn only_the_named_processes() {
    let Some(bench) = bench() else { return };
    let (one, two, _other) = three(&bench);
    let folded = bench.folded(&["-p", &format!("{},{}", one.pid(), two.pid()), "-d", "2s"]);
    folded.assert_has("alpha-one;");
    folded.assert_has("alpha-two;");
    assert_eq!(folded.samples("beta;"), 0, "{}", folded.text);
}

/// A cgroup limits a recording of the host to its processes; a name limits it further.
#[test]
fn only_processes_of_a_cgroup() {
    let Some(bench) = bench() else { return };
    let Some(cgroup) = Cgroup::make() else {
        println!("skipped: no cgroup v2 hierarchy that can be written to");
        return;
    };
    let (one, two, _other) = three(&bench);
    cgroup.add(&one);
    cgroup.add_below(&two);
    let path = cgroup.0.to_str().expect("text");
    let folded = bench.folded(&["--all", "--cgroup", path, "-d", "2s"]);
    folded.assert_has("alpha-one;");
    folded.assert_has("alpha-two;");
    assert_eq!(folded.samples("beta;"), 0, "{}", folded.text);
    let named = bench.folded(&["--cgroup", path, "--comm", "alpha-t*", "-d", "2s"]);
    named.assert_has("alpha-two;");
    assert_eq!(named.total(), named.samples("alpha-two;"), "{}", named.text);
    let unit = bench.folded(&["--unit", &cgroup.unit(), "-d", "2s"]);
    unit.assert_has("alpha-two;");
    assert_eq!(unit.total(), unit.samples("alpha-two;"), "{}", unit.text);
}

/// A process that enters the cgroup later is recorded from then on, with its names.
#[test]
fn newcomers_are_recorded() {
    let Some(bench) = bench() else { return };
    let Some(cgroup) = Cgroup::make() else {
        println!("skipped: no cgroup v2 hierarchy that can be written to");
        return;
    };
    let program = bench.compile("newcomer", SPLIT, &[]);
    let procs = cgroup.0.join("cgroup.procs");
    let script = format!(
        "sleep 1; echo $$ > {}; exec {}",
        procs.display(),
        program.display()
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).process_group(0);
    let _target = Target::spawn(&mut shell);
    let folded = bench.folded(&["--cgroup", cgroup.0.to_str().expect("text"), "-d", "4s"]);
    folded.assert_has("newcomer;");
    folded.assert_has("main;seventy;burn");
}

/// Threads are told apart on request.
#[test]
fn threads_are_told_apart() {
    const THREADS: &str = r#"
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
volatile uint64_t sink;
static void *work(void *name) { pthread_setname_np(pthread_self(), name); for (;;) sink++; return 0; }
int main(void) { pthread_t t; pthread_create(&t, 0, work, "worker-a"); pthread_create(&t, 0, work, "worker-b"); pthread_join(t, 0); }
"#;
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("threads", THREADS, &["-pthread"]), &[]);
    let folded = bench.folded(&["-p", &target.pid(), "-d", "2s", "--threads"]);
    folded.assert_has("threads;worker-a;");
    folded.assert_has("threads;worker-b;");
    let merged = bench.folded(&["-p", &target.pid(), "-d", "2s"]);
    assert_eq!(merged.samples("worker-"), 0, "{}", merged.text);
}

/// A cgroup of the test's, with one below it that looks like a systemd unit's. Gone when dropped.
pub(crate) struct Cgroup(pub(crate) PathBuf);

impl Cgroup {
    pub(crate) fn make() -> Option<Self> {
        let root = profiler::cgroup::mount_point().ok()?;
        let name = format!(
            "profiler-test-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        );
        let name: String = name
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
            .collect();
        let path = root.join(name);
        fs::create_dir(&path).ok()?;
        let cgroup = Self(path);
        fs::create_dir(cgroup.0.join(format!("{}.service", cgroup.unit()))).ok()?;
        Some(cgroup)
    }

    pub(crate) fn unit(&self) -> String {
        format!(
            "unit-of-{}",
            self.0.file_name().expect("it has one").to_string_lossy()
        )
    }

    pub(crate) fn add(&self, target: &Target) {
        fs::write(self.0.join("cgroup.procs"), target.pid()).expect("the cgroup takes it");
    }

    pub(crate) fn add_below(&self, target: &Target) {
        let below = self.0.join(format!("{}.service", self.unit()));
        fs::write(below.join("cgroup.procs"), target.pid()).expect("the cgroup takes it");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Dropped after the targets: an empty cgroup can be removed once they are reaped.
        for _ in 0..100 {
            let below = self.0.join(format!("{}.service", self.unit()));
            let _ = fs::remove_dir(below);
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}
