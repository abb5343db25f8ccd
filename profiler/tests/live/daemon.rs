//! The daemon: windows that are read back, reloads, ends of every kind, disks that are full, targets that come and go.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::Duration,
};

use profiler::store;
use rustix::process::Signal;

use crate::{
    bench::{SPLIT, Target, bench, signal, text},
    filters::Cgroup,
    lifecycle::{FORKER, bpftool, programs_of},
    queries::{Report, pgbench, server},
    service::{Daemon, gaps, report, sections},
};

/// What was sampled in windows is read back as one flamegraph, of all or of one process, with its account.
#[test]
fn windows_are_read_back() {
    let Some(bench) = bench() else { return };
    let program = bench.compile("split", SPLIT, &[]);
    let (one, two) = (Target::start(&program, &[]), Target::start(&program, &[]));
    let pids = format!("pids = [{}, {}]", one.pid(), two.pid());
    let daemon = Daemon::start(&bench, &sections("1s", &pids));
    daemon.windows(3);
    let state = daemon.state.clone();
    let entries = daemon.stop();
    assert!(entries.len() >= 4, "the last one is written at the end");
    assert_eq!(gaps(&entries), []);
    let both = report(&bench, &state, &[]);
    both.assert_has("main;seventy;burn");
    assert!(both.text.contains("# taken: "), "{}", both.text);
    let first = report(&bench, &state, &["--pid", &one.pid()]);
    let second = report(&bench, &state, &["--pid", &two.pid()]);
    assert_eq!(first.total() + second.total(), both.total());
    assert!(first.total() > 0 && second.total() > 0, "{}", both.text);
    let left_out = format!(
        "# lost, of other processes, left out: {} sample",
        second.total()
    );
    assert!(
        first
            .text
            .replace(',', "")
            .contains(&left_out.replace(',', "")),
        "{}",
        first.text
    );
    let named = report(&bench, &state, &["--comm", "spl*"]);
    assert_eq!(named.total(), both.total());
    // The account of every window adds up.
    for entry in &entries {
        let bytes = store::open(&state, &entry.name).expect("it is there");
        let account = profiler::report::read(&bytes).expect("a profile").account;
        assert_eq!(account.taken, account.shown + account.lost_total());
        assert!(
            !account
                .notes
                .contains_key("account of a file read contradicts its samples")
        );
    }
}

/// Killed in the middle, the daemon leaves no program; the store is read and written as if nothing had been, and
/// at most the open window is missing.
#[test]
fn killed_daemon_loses_one_window_at_most() {
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let settings = sections("1s", &format!("pids = [{}]", target.pid()));
    let mut daemon = Daemon::start(&bench, &settings);
    daemon.windows(2);
    let programs = programs_of(daemon.child.id());
    assert!(!programs.is_empty());
    signal(&daemon.child, Signal::KILL);
    let killed = now_ms();
    daemon.child.wait().expect("it is ours");
    let left = (0..100).find(|_| {
        sleep(Duration::from_millis(50));
        programs.iter().all(|id| bpftool(id).is_none())
    });
    assert!(left.is_some(), "a program outlives the daemon");
    let before = store::list(&daemon.state).expect("the store can be read");
    let newest = before.last().expect("there are some").name.end_ms;
    // The open one, and one that was being written.
    let missing = killed.saturating_sub(newest);
    assert!(missing < 3000, "{missing} ms are missing");
    drop(daemon);
    let daemon = Daemon::start(&bench, &settings);
    daemon.windows(before.len() + 1);
    let state = daemon.state.clone();
    daemon.stop();
    let folded = report(&bench, &state, &[]);
    assert!(
        folded.text.contains("# note, no window from "),
        "{}",
        folded.text
    );
}

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    u64::try_from(now.expect("after 1970").as_millis()).expect("a small number")
}

/// A bad configuration is refused and changes nothing; good ones are applied; no window is missing, and sampling
/// does not pause. The service manager is told all of it, and that the daemon lives.
#[test]
fn reloads_keep_every_window() {
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let pids = format!("pids = [{}]", target.pid());
    let daemon = Daemon::start(&bench, &sections("1s", &pids));
    daemon.told("WATCHDOG=1");
    daemon.windows(1);
    daemon.reload("[sampling]\nfrequencey = 5");
    let ready = daemon.told("READY=1");
    assert!(
        ready.contains("REFUSED") && ready.contains("frequencey"),
        "{ready}"
    );
    assert!(
        daemon.log().contains("did you mean `frequency`?"),
        "{}",
        daemon.log()
    );
    daemon.windows(2);
    daemon.reload(&sections("500ms", &pids));
    let ready = daemon.told("READY=1");
    assert!(!ready.contains("REFUSED"), "{ready}");
    let entries = daemon.windows(6);
    daemon.reload(&sections("500ms", &pids).replace("199", "99"));
    daemon.told("READY=1");
    daemon.windows(entries.len() + 3);
    daemon.told("WATCHDOG=1");
    let state = daemon.state.clone();
    let entries = daemon.stop();
    assert_eq!(gaps(&entries), []);
    let lengths: BTreeSet<u64> = (entries.iter())
        .map(|entry| (entry.name.end_ms - entry.name.begin_ms) / 400)
        .collect();
    assert!(lengths.contains(&1) && lengths.contains(&2), "{lengths:?}");
    let folded = report(&bench, &state, &[]);
    assert!(folded.text.contains("different rate"), "{}", folded.text);
}

/// A disk that is full and one that is read-only cost windows, which is said, and nothing else.
#[test]
fn disks_that_cannot_be_written() {
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let state = bench.path("state");
    fs::create_dir(&state).expect("a folder");
    let script = format!(
        "mount -t tmpfs -o size=512k none {} && exec \"$0\" \"$@\"",
        state.display()
    );
    let mut unshare = Command::new("unshare");
    unshare
        .args(["-m", "sh", "-c", &script])
        .arg(env!("CARGO_BIN_EXE_profiler"));
    let settings = sections("500ms", &format!("pids = [{}]", target.pid()));
    let daemon = Daemon::spawn(&bench, &settings, &mut unshare);
    let inside = PathBuf::from(format!("/proc/{}/root", daemon.child.id()))
        .join(state.strip_prefix("/").expect("absolute"));
    let filler = inside.join("filler");
    daemon.logged("window written");
    let full = fs::write(&filler, vec![0; 1 << 20]);
    assert!(full.is_err(), "512 KiB are not enough");
    daemon.logged("disk full");
    fs::remove_file(&filler).expect("it is there");
    let remount = |how: &str| {
        let pid = daemon.child.id().to_string();
        let status = Command::new("nsenter")
            .args(["-t", &pid, "-m", "mount", "-o", how])
            .arg(&state)
            .status();
        assert!(status.expect("nsenter runs").success());
    };
    wait_for_note(&inside, "window before this one lost, disk full");
    remount("remount,ro");
    daemon.logged("state directory not writable");
    remount("remount,rw");
    wait_for_note(
        &inside,
        "window before this one lost, state directory not writable",
    );
    let status = daemon.told("STATUS=");
    assert!(daemon.log().contains("sampling: on"), "{status}");
    signal(&daemon.child, Signal::TERM);
    let ending = daemon.told("STOPPING=1");
    assert!(ending.contains("STATUS="), "{ending}");
}

/// Waits until a window says this.
#[track_caller]
fn wait_for_note(state: &Path, note: &str) {
    let found = (0..600).find(|_| {
        sleep(Duration::from_millis(100));
        let entries = store::list(state).unwrap_or_default();
        entries.iter().rev().take(5).any(|entry| {
            let bytes = store::open(state, &entry.name).unwrap_or_default();
            profiler::report::read(&bytes)
                .is_ok_and(|profile| profile.account.notes.contains_key(note))
        })
    });
    assert!(found.is_some(), "no window says `{note}`");
}

/// A program that ends and is started again and again is sampled under each of its ids.
#[test]
fn restarting_targets_are_followed() {
    let Some(bench) = bench() else { return };
    let program = bench.compile("restarting", SPLIT, &[]);
    let daemon = Daemon::start(&bench, &sections("1s", "commands = ['restarti*']"));
    let mut pids = BTreeSet::new();
    for _ in 0..5 {
        let target = Target::start(&program, &[]);
        pids.insert(target.pid());
        // Found within a second, and then some samples.
        sleep(Duration::from_secs(2));
    }
    let state = daemon.state.clone();
    daemon.stop();
    for pid in &pids {
        report(&bench, &state, &["--pid", pid]).assert_has("main;seventy;burn");
    }
}

/// Units and cgroups are followed by their names: who enters one later is sampled, with what it forks, and found by
/// its unit; who is in neither is not.
#[test]
fn units_and_cgroups_are_followed() {
    let Some(bench) = bench() else { return };
    let Some(cgroup) = Cgroup::make() else {
        println!("skipped: no cgroup v2 hierarchy that can be written to");
        return;
    };
    let program = bench.compile("split", SPLIT, &[]);
    let forker = bench.compile("forker", FORKER, &[]);
    let targets = format!("units = ['{}']", cgroup.unit());
    let daemon = Daemon::start(&bench, &sections("1s", &targets));
    let (inside, outside) = (Target::start(&program, &[]), Target::start(&program, &[]));
    let parent = Target::start(&forker, &[]);
    cgroup.add_below(&inside);
    cgroup.add_below(&parent);
    cgroup.add(&outside);
    // A process that moves is noticed within ten seconds.
    sleep(Duration::from_secs(14));
    let all = cgroup.0.file_name().expect("it has one").to_string_lossy();
    daemon.reload(&sections("1s", &format!("cgroups = ['/{all}']")));
    daemon.told("READY=1");
    sleep(Duration::from_secs(3));
    let state = daemon.state.clone();
    daemon.stop();
    let unit = report(&bench, &state, &["--unit", &cgroup.unit()]);
    unit.assert_has("main;seventy;burn");
    unit.assert_has("main;child_work");
    let of = |target: &Target| report(&bench, &state, &["--pid", &target.pid()]).total();
    assert!(
        of(&inside) > of(&outside),
        "one is in the unit, the other only above"
    );
    assert!(of(&outside) > 0, "the second configuration has both");
}

/// Over its budget of CPU time the daemon samples less often, and says so in the log, to the service manager and in
/// the windows.
#[test]
fn over_budget_the_rate_is_cut() {
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let settings = sections("500ms", &format!("pids = [{}]", target.pid()));
    let daemon = Daemon::start(&bench, &settings.replace("100%", "0.01%"));
    let status = daemon.told("over budget: sampling at 99 Hz");
    assert!(status.contains("at 99 Hz"), "{status}");
    daemon.logged("CPU budget: sampling at 99 Hz");
    let note = "window sampled at 99 in place of 199 Hz, over the CPU budget";
    wait_for_note(&daemon.state, note);
    daemon.told("over budget: sampling at 49 Hz");
    daemon.stop();
}

/// Hundreds of windows of processes that come and go leave the memory as it was; before a release
/// `PROFILER_WINDOWS=10000` of them.
#[test]
fn memory_is_flat() {
    const FIRST: u64 = 50;
    let Some(bench) = bench() else { return };
    let windows = std::env::var("PROFILER_WINDOWS");
    let windows: u64 = windows.map_or(200, |windows| windows.parse().expect("a number"));
    let program = bench.compile("forker", FORKER, &[]);
    let _forker = Target::start(&program, &[]);
    let settings = sections("100ms", "commands = ['forker']").replace("debug", "info");
    let socket = bench.path("web.sock").display().to_string();
    let daemon = Daemon::start(
        &bench,
        &format!("{settings}\n[retention]\nsize = \"1MB\"\n[web]\nlisten = 'unix:{socket}'"),
    );
    let written = || daemon.metric(&socket, "profiler_windows_written_total");
    let resident_kib = || {
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.child.id()));
        let status = status.expect("it lives");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        number
            .and_then(|number| number.parse::<u64>().ok())
            .expect("a number")
    };
    // Between two windows: while one is named, its symbols are in memory, on a busy machine most of the time.
    let floor_kib = || {
        let readings = (0..150).map(|_| {
            sleep(Duration::from_millis(23));
            resident_kib()
        });
        readings.min().unwrap_or_default()
    };
    daemon.until(|| written() >= FIRST);
    let before = floor_kib();
    daemon.until(|| written() >= windows);
    let after = floor_kib();
    println!(
        "{before} KiB after {FIRST} windows, {after} KiB after {}",
        written()
    );
    // What naming symbols has taken is given back in pieces: some 8 MiB are there after one window, 16 after another.
    assert!(
        after < before.max(16384) + 8192,
        "{before} KiB have become {after} KiB"
    );
    daemon.windows(10);
    let kept: u64 = store::list(&daemon.state)
        .expect("it can be read")
        .iter()
        .map(|entry| entry.bytes)
        .sum();
    assert!(kept <= 1_100_000, "{kept} bytes");
}

/// A user without any privilege but some capabilities is enough; root keeps only those.
#[test]
fn few_capabilities_are_enough() {
    const KEPT: &str = "bpf,perfmon,sys_ptrace,dac_read_search,syslog,checkpoint_restore";
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let settings = sections("500ms", &format!("pids = [{}]", target.pid()));
    let effective = |daemon: &Daemon| {
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.child.id()));
        let status = status.expect("it lives");
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:\t"));
        line.expect("a mask").to_owned()
    };
    let daemon = Daemon::start(&bench, &settings);
    let of_root = effective(&daemon);
    daemon.windows(2);
    let state = daemon.state.clone();
    daemon.stop();
    report(&bench, &state, &[]).assert_has("main;seventy;burn");
    // 2, 19, 34, 38, 39, 40: capabilities(7).
    assert_eq!(of_root, "000001c400080004");
    fs::remove_dir_all(&state).expect("it is ours");
    fs::create_dir(&state).expect("a folder");
    std::os::unix::fs::chown(&state, Some(65534), Some(65534)).expect("root may");
    let program = bench.path("profiler");
    fs::copy(env!("CARGO_BIN_EXE_profiler"), &program).expect("it can be copied");
    let mode = || std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&program, mode()).expect("it is ours");
    fs::set_permissions(bench.path(""), mode()).expect("it is ours");
    let caps = format!("+{}", KEPT.replace(',', ",+"));
    let mut setpriv = Command::new("setpriv");
    setpriv
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args([
            format!("--inh-caps={caps}"),
            format!("--ambient-caps={caps}"),
        ])
        .arg(&program);
    let daemon = Daemon::spawn(&bench, &settings, &mut setpriv);
    assert_eq!(effective(&daemon), of_root);
    daemon.windows(2);
    daemon.stop();
    report(&bench, &state, &[]).assert_has("main;seventy;burn");
}

/// Every call of a server is in one window, whatever happens to the configuration meanwhile, and all of them together
/// are what the server has counted.
#[test]
fn queries_are_kept() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    pgbench(&postgres, &["--quiet", "--initialize", "--scale=1"]);
    let socket = bench.path("web.sock");
    let sections = |length: &str| {
        format!(
            "[sampling]\nenabled = false\n[windows]\nlength = '{length}'\n\
             [queries]\ntargets = {{ pids = [{}] }}\n[web]\nlisten = 'unix:{}'\n",
            postgres.server.id(),
            socket.display()
        )
    };
    let daemon = Daemon::start(&bench, &sections("300ms"));
    let load = ["--select-only", "--no-vacuum", "--client=4", "--time=2"];
    let mut calls = pgbench(&postgres, &load);
    daemon.reload(&sections("500ms"));
    calls += pgbench(&postgres, &load);
    wait_for_metrics(
        &socket,
        "SELECT abalance FROM pgbench_accounts WHERE aid = $1",
        calls,
    );
    let state = daemon.state.clone();
    let windows = daemon.stop();
    assert!(windows.len() > 4, "{windows:#?}");
    let state = state.to_str().expect("a path");
    let output = bench.profiler(&["queries", "--since", "1h", "--state", state, "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = Report(serde_json::from_slice(&output.stdout).expect("JSON"));
    let select = report.statement("SELECT abalance FROM pgbench_accounts WHERE aid = $1");
    assert_eq!(select["calls"], calls, "{select:#}");
    assert_eq!(select["rows"], calls);
    assert!(select["p99_ns"].as_u64() > select["p50_ns"].as_u64());
    assert_eq!(report.0["account"]["lost"], serde_json::json!({}));
    let table = bench.profiler(&["queries", "--since", "1h", "--state", state]);
    let table = text(&table.stdout);
    assert!(
        table.contains("SELECT abalance") && table.contains("calls seen: "),
        "{table}"
    );
}

/// Waits until the metrics of a statement, by its fingerprint, tell so many calls, and each of them with its latency.
#[track_caller]
fn wait_for_metrics(socket: &Path, statement: &str, calls: u64) {
    let mut text = String::new();
    for _ in 0..100 {
        sleep(Duration::from_millis(100));
        text = metrics(socket);
        let is_of =
            |line: &&str| line.starts_with("postgres_query_info{") && line.contains(statement);
        let Some(info) = text.lines().find(is_of) else {
            continue;
        };
        let labels = info
            .split('{')
            .nth(1)
            .and_then(|rest| rest.split(",query=").next());
        let labels = labels.expect("it has some");
        let told = |name: &str| text.contains(&format!("{name}{{{labels}}} {calls}\n"));
        if told("postgres_query_calls_total") && told("postgres_query_rows_total") {
            let timed = format!("postgres_query_duration_seconds_count{{{labels}}} ");
            assert!(text.contains(&timed), "{text}");
            return;
        }
    }
    panic!("never {calls} calls of {statement} in\n{text}");
}

fn metrics(socket: &Path) -> String {
    let mut stream = UnixStream::connect(socket).expect("somebody listens");
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).expect("it is read");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    text(&answer)
}
