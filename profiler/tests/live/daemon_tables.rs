//! Connections and system calls that the daemon keeps: the sums of its windows are what the programs did.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdout, Command, Stdio},
    thread::{scope, sleep},
    time::Duration,
};

use profiler::store;
use serde_json::{Value, json};

use crate::{
    bench::{Bench, Target, bench, text},
    filters::Cgroup,
    postgres::Postgres,
    queries::{Report, pgbench, server, sql},
    service::Daemon,
    tcp::COMMON,
};

/// A program that waits for a word before it does anything.
struct Program {
    target: Target,
    lines: BufReader<ChildStdout>,
}

impl Program {
    fn start(bench: &Bench, source: &str, wrap: &str) -> Self {
        let source = format!("{COMMON}{source}");
        let program = bench.compile("tabled", &source, &["-lpthread", "-w"]);
        let script = format!("{wrap} exec {}", program.display());
        let mut target = if wrap.is_empty() {
            Target::start(&program, &[])
        } else {
            Target::spawn(Command::new("unshare").args(["-n", "sh", "-c", &script]))
        };
        let lines = BufReader::new(target.0.stdout.take().expect("a pipe"));
        let mut program = Self { target, lines };
        program.says("ready");
        program
    }

    fn go(&mut self) {
        let stdin = self.target.0.stdin.as_mut().expect("a pipe");
        stdin.write_all(b"!").expect("it listens");
    }

    fn says(&mut self, wanted: &str) {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("it talks");
        assert_eq!(line.trim_end(), wanted);
    }
}

fn sections(capability: &str, pid: &str) -> String {
    format!(
        "[sampling]\nenabled = false\n[windows]\nlength = '1s'\n[overhead]\nmax = '100%'\n\
         [{capability}]\ntargets = {{ pids = [{pid}] }}\n"
    )
}

/// What was kept, without a loss.
fn kept(bench: &Bench, verb: &str, more: &[&str]) -> Value {
    let state = bench.path("state").display().to_string();
    let arguments = [verb, "--since", "1h", "--state", &state, "--json"];
    let output = bench.profiler(&[&arguments, more].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    println!("{:#}", report["account"]);
    assert_eq!(report["account"]["lost"], json!({}));
    report
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

/// What was kept of the unit is all of the list, and of another one nothing.
fn assert_of_unit(bench: &Bench, verb: &str, list: &str, cgroup: Option<&Cgroup>) {
    let Some(cgroup) = cgroup else {
        println!("units not asked for: no cgroup v2 hierarchy that can be written to");
        return;
    };
    let all = kept(bench, verb, &[]);
    let unit = kept(bench, verb, &["--unit", &cgroup.unit()]);
    assert_eq!(unit[list], all[list]);
    assert_eq!(kept(bench, verb, &["--unit", "other"])[list], json!([]));
}

/// Every call is in one window, those that several windows pass during too; processes that have ended are no exception.
#[test]
fn system_calls_are_kept() {
    let Some(bench) = bench() else { return };
    let source = r#"
#include <sys/syscall.h>
#include <sys/wait.h>
int main(void) {
  go(); char b[8];
  for (int i = 0; i < 5; i++) { for (int j = 0; j < 100; j++) syscall(SYS_getppid); for (int j = 0; j < 10; j++) syscall(SYS_read, -1, b, 8); ms(300); }
  ms(2500);
  for (int i = 0; i < 100; i++) { pid_t child = fork(); if (!child) { for (int j = 0; j < 7; j++) syscall(SYS_getuid); _exit(0); } waitpid(child, 0, 0); }
  puts("done"); fflush(stdout); pause();
}
"#;
    let cgroup = Cgroup::make();
    let mut program = Program::start(&bench, source, "");
    let pid = program.target.pid();
    if let Some(cgroup) = &cgroup {
        cgroup.add_below(&program.target);
    }
    let daemon = Daemon::start(&bench, &sections("syscalls", &pid));
    program.go();
    program.says("done");
    sleep(Duration::from_millis(2500));
    let windows = daemon.stop();
    assert!(windows.len() >= 6, "{windows:#?}");
    let report = kept(&bench, "syscalls", &[]);
    let row = |call: &str| {
        let rows = report["calls"].as_array().expect("a list");
        let row = rows.iter().find(|row| row["call"] == call);
        row.unwrap_or_else(|| panic!("no {call} in {report:#}"))
    };
    let figures = |call: &str| {
        let row = row(call);
        ["returned", "errors", "before", "open", "ended"].map(|key| number(&row[key]))
    };
    assert_eq!(figures("getppid"), [500, 0, 0, 0, 0]);
    // The one that waited for the word was under way.
    assert_eq!(figures("read"), [51, 50, 1, 0, 0]);
    assert_eq!(figures("clock_nanosleep"), [6, 0, 0, 0, 0]);
    assert_eq!(figures("getuid"), [700, 0, 0, 0, 0]);
    assert_eq!(figures("exit_group"), [0, 0, 0, 0, 100]);
    assert_eq!(figures("pause"), [0, 0, 0, 1, 0]);
    let slept = row("clock_nanosleep");
    let time_ns = number(&slept["time_ns"]);
    // Each once: the long one twice would be more, however busy the machine is.
    let is_once = time_ns < 4_000_000_000 + number(&slept["max_ns"]);
    assert!(time_ns >= 4_000_000_000 && is_once, "{slept}");
    assert!(number(&slept["max_ns"]) >= 2_500_000_000, "{slept}");
    let errors = report["errors"].as_array().expect("a list");
    assert!(errors.contains(&json!({"call": "read", "error": "EBADF", "times": 50})));
    let account = &report["account"];
    assert_eq!(account["entered"], account["counted"], "{account:#}");
    // Whose they are is known.
    let own = kept(&bench, "syscalls", &["--pid", &pid, "--comm", "tabl*"]);
    let has = |report: &Value, call: &str| {
        let rows = report["calls"].as_array().expect("a list");
        rows.iter().any(|row| row["call"] == call)
    };
    assert!(has(&own, "getppid") && !has(&own, "getuid"), "{own:#}");
    assert_eq!(
        kept(&bench, "syscalls", &["--comm", "other"])["calls"],
        json!([])
    );
    assert_of_unit(&bench, "syscalls", "calls", cgroup.as_ref());
}

/// Of processes that live for a millisecond, hundreds a second, every call is counted, and known to be of its unit,
/// wherever a window begins.
#[test]
fn short_lives_are_kept() {
    let Some(bench) = bench() else { return };
    let source = r#"
#include <sys/syscall.h>
#include <sys/wait.h>
int main(void) {
  go();
  for (int i = 0; i < 3000; i++) { pid_t child = fork(); if (!child) { for (int j = 0; j < 7; j++) syscall(SYS_getuid); _exit(0); } waitpid(child, 0, 0); usleep(1000); }
  puts("done"); fflush(stdout); pause();
}
"#;
    let cgroup = Cgroup::make();
    let mut program = Program::start(&bench, source, "");
    if let Some(cgroup) = &cgroup {
        cgroup.add_below(&program.target);
    }
    let sections = sections("syscalls", &program.target.pid());
    let daemon = Daemon::start(&bench, &sections.replace("'1s'", "'200ms'"));
    program.go();
    program.says("done");
    daemon.stop();
    let report = kept(&bench, "syscalls", &[]);
    let rows = report["calls"].as_array().expect("a list");
    let of = |call: &str, figure: &str| {
        let row = rows.iter().find(|row| row["call"] == call);
        row.map_or(0, |row| number(&row[figure]))
    };
    assert_eq!(of("getuid", "returned"), 7 * 3000);
    assert_eq!(of("exit_group", "ended"), 3000);
    assert_of_unit(&bench, "syscalls", "calls", cgroup.as_ref());
}

/// After a reload whoever is named no more is not counted.
#[test]
fn reloads_change_whose_calls_are_kept() {
    let Some(bench) = bench() else { return };
    let source = r#"
#include <sys/syscall.h>
int main(void) { go(); for (int i = 0; i < 50; i++) syscall(SYS_getppid); puts("done"); fflush(stdout); pause(); }
"#;
    let (mut one, mut two) = (
        Program::start(&bench, source, ""),
        Program::start(&bench, source, ""),
    );
    let daemon = Daemon::start(&bench, &sections("syscalls", &one.target.pid()));
    daemon.windows(1);
    daemon.reload(&sections("syscalls", &two.target.pid()));
    daemon.told("READY=1");
    // The last one of the old watch, and one of the new.
    let before = store::list(&daemon.state).expect("it can be read").len();
    daemon.windows(before + 2);
    for program in [&mut one, &mut two] {
        program.go();
        program.says("done");
    }
    daemon.stop();
    let of = |program: &Program, call: &str| {
        let report = kept(&bench, "syscalls", &["--pid", &program.target.pid()]);
        let rows = report["calls"].as_array().expect("a list");
        let row = rows.iter().find(|row| row["call"] == call);
        row.map_or(0, |row| number(&row["returned"]))
    };
    assert_eq!((of(&one, "getppid"), of(&two, "getppid")), (0, 50));
    // Its last call was under way when the other one was named.
    assert_eq!(of(&one, "read"), 0);
}

/// What the budget has shed says so in the status, the log and the windows around the pause, and is back when there
/// is room.
#[test]
fn what_is_shed_says_so() {
    let Some(bench) = bench() else { return };
    let source = "int main(void) { go(); for (;;) ms(10); }";
    let mut program = Program::start(&bench, source, "");
    program.go();
    let sections = sections("syscalls", &program.target.pid());
    let daemon = Daemon::start(&bench, &sections.replace("100%", "0.01%"));
    daemon.told("syscalls SHED by the CPU budget");
    daemon.logged("CPU budget: syscalls off");
    daemon.reload(&sections);
    daemon.logged("syscalls: shed by the CPU budget, until there is room again");
    daemon.told("STATUS=syscalls: pid");
    daemon.logged("syscalls is back, within the CPU budget: pid");
    let before = store::list(&daemon.state).expect("it can be read").len();
    daemon.windows(before + 2);
    daemon.stop();
    let report = kept(&bench, "syscalls", &[]);
    for when in ["before", "after"] {
        let note = format!("window {when} a pause, shed by the CPU budget");
        assert_eq!(report["account"]["notes"][note], 1);
    }
}

/// A client that stays connected.
struct Client(Child);

impl Client {
    /// Asks for this first.
    fn start(postgres: &Postgres, query: &str) -> Self {
        let mut psql = postgres.client("psql").expect("psql is there");
        let psql = psql.args(["--no-psqlrc", "-qAtX"]).stdin(Stdio::piped());
        let mut client = Self(psql.stdout(Stdio::null()).spawn().expect("psql runs"));
        client.ask(query);
        let count = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE query = '{query};' AND state = 'idle'"
        );
        let told = (0..100).find(|_| {
            sleep(Duration::from_millis(100));
            sql(postgres, &count).trim() == "1"
        });
        assert!(told.is_some(), "the server never ran {query}");
        client
    }

    fn ask(&mut self, query: &str) {
        let stdin = self.0.stdin.as_mut().expect("a pipe");
        writeln!(stdin, "{query};").expect("it listens");
    }

    /// Asks for this at last.
    fn end(mut self, query: &str) {
        self.ask(query);
        drop(self.0.stdin.take());
        assert!(self.0.wait().expect("it is ours").success());
    }
}

/// After a reload a server that is named no more is not watched, and neither are the processes that it had forked; of
/// the other one every call is kept, those of statements that were prepared before the reload among them.
#[test]
fn reloads_change_whose_queries_are_kept() {
    let Some(bench) = bench() else { return };
    let (one, two) = (server(), server());
    pgbench(&two, &["--quiet", "--initialize", "--scale=1"]);
    let pids = format!("{}, {}", one.server.id(), two.server.id());
    let daemon = Daemon::start(&bench, &sections("queries", &pids));
    let clients = [&one, &two].map(|server| Client::start(server, "SELECT 1 AS before"));
    let load = ["--select-only", "--no-vacuum", "--protocol=prepared"];
    let calls = scope(|scope| {
        let load = [&load[..], &["--client=2", "--time=5"]].concat();
        let bench = scope.spawn({
            let two = &two;
            move || pgbench(two, &load)
        });
        sleep(Duration::from_secs(1));
        daemon.reload(&sections("queries", &two.server.id().to_string()));
        daemon.told("READY=1");
        // The last one of both, and one of the second alone.
        let before = store::list(&daemon.state).expect("it can be read").len();
        daemon.windows(before + 2);
        bench.join().expect("pgbench ends")
    });
    assert_eq!(sql(&one, "SELECT 2 AS of_one").trim(), "2");
    assert_eq!(sql(&two, "SELECT 2 AS of_two").trim(), "2");
    let [of_one, of_two] = clients;
    of_one.end("SELECT 1 AS after_of_one");
    of_two.end("SELECT 1 AS after_of_two");
    sleep(Duration::from_millis(200));
    daemon.stop();
    let report = Report(kept(&bench, "queries", &[]));
    let of = |text: &str| {
        let found = report.statements().iter();
        let calls = found.filter(|one| one["statement"] == text);
        calls.map(|one| number(&one["calls"])).sum::<u64>()
    };
    assert_eq!(of("SELECT $1 AS before"), 2);
    let select = "SELECT abalance FROM pgbench_accounts WHERE aid = $1";
    assert_eq!(of(select), calls);
    let after = ["SELECT $1 AS of_two", "SELECT $1 AS after_of_two"];
    assert_eq!(after.map(of), [1, 1], "{:#}", report.0);
    let after = ["SELECT $1 AS of_one", "SELECT $1 AS after_of_one"];
    assert_eq!(after.map(of), [0, 0], "{:#}", report.0);
}

/// A connection that lives through all windows is one with all of its bytes; short ones are all there, with their ends.
#[test]
fn connections_are_kept() {
    let Some(bench) = bench() else { return };
    let source = r#"
int main(void) {
  int l = listening(4000, 100), c = connected("127.0.0.1", 4000), a = accept(l, 0, 0); go();
  char b[4096] = { 0 };
  for (int i = 0; i < 12; i++) {
    write(c, b, 100); whole(a, b, 100);
    int s = connected("127.0.0.1", 4000), t = accept(l, 0, 0); write(s, b, 10); whole(t, b, 10); close(s); read(t, b, 1); close(t);
    ms(300);
  }
  connected("127.0.0.1", 4001);
  puts("done"); fflush(stdout); pause();
}
"#;
    let cgroup = Cgroup::make();
    let mut program = Program::start(&bench, source, "ip link set lo up &&");
    let pid = program.target.pid();
    if let Some(cgroup) = &cgroup {
        cgroup.add_below(&program.target);
    }
    // In the program's network namespace, as a daemon is on its host.
    let mut inside = Command::new("nsenter");
    inside.args(["-t", &pid, "-n", env!("CARGO_BIN_EXE_profiler")]);
    std::fs::create_dir(bench.path("state")).expect("a folder");
    let daemon = Daemon::spawn(&bench, &sections("tcp", &pid), &mut inside);
    program.go();
    program.says("done");
    sleep(Duration::from_millis(2500));
    let windows = daemon.stop();
    assert!(windows.len() >= 5, "{windows:#?}");
    let report = kept(&bench, "tcp", &[]);
    let figures = |role: &str, peer: &str| {
        let peers = report["peers"].as_array().expect("a list");
        let found = (peers.iter()).find(|one| one["role"] == role && one["peer"] == peer);
        let found = found.unwrap_or_else(|| panic!("no {role} {peer} in {report:#}"));
        ["begun", "failed", "open", "sent", "received"].map(|key| number(&found[key]))
    };
    // The one that was there before is known by its port, which the kernel has given to it.
    assert_eq!(figures("client", "127.0.0.1:4000"), [12, 0, 1, 1320, 0]);
    let server = figures("server", "127.0.0.1 -> our 4000");
    assert_eq!(server, [12, 0, 1, 0, 1320]);
    assert_eq!(figures("client", "127.0.0.1:4001"), [1, 1, 0, 0, 0]);
    let account = &report["account"];
    // The hour before the first window has none.
    let notes = account["notes"].as_object().expect("an object");
    let is_gap = |note: &String| note.starts_with("no window from ");
    assert!(notes.keys().all(is_gap), "{account:#}");
    let counts = ["before", "begun", "listed"].map(|key| number(&account[key]));
    assert_eq!(counts, [2, 25, 25]);
    let ends = json!({"closed by us": 12, "closed by peer": 12, "refused": 1});
    assert_eq!(report["ends"], ends);
    let other = kept(&bench, "tcp", &["--pid", "1"]);
    assert_eq!(other["peers"], json!([]));
    assert_of_unit(&bench, "tcp", "peers", cgroup.as_ref());
}
