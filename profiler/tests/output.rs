//! What verbs that need no privileges write where nobody reads, where there is no room, and of hostile recordings.

#![expect(
    clippy::expect_used,
    reason = "a test stops where its ground gives way"
)]

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use flate2::{Compression, write::GzEncoder};
use profiler::{
    output::{self, Format, Options},
    printable::is_printable,
    report,
    store::{Capability, Store, WindowName},
};
use tempfile::TempDir;

/// Names as a target may choose them: of a process, a thread, a function.
const HOSTILE: &[u8] = b"=\x1b]0;x\x07cmd|A1;\xe2\x80\xaemain\x7f;\xc2\x9b31mleaf\r;plain 3\n\
                         ok;\xe2\x80\x8btail 1\n";

fn profiler(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_profiler"));
    command
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A child that lives as long as it is held.
struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder with a recording, a configuration and a daemon's windows.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    fs::write(at("app.folded"), "app;main;leaf 7\n").expect("there is room");
    fs::write(at("hostile.folded"), HOSTILE).expect("there is room");
    fs::write(
        at("off.toml"),
        "[state]\ndirectory = \"state\"\n[sampling]\nenabled = false\n",
    )
    .expect("there is room");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is later");
    let now_ms = u64::try_from(now.as_millis()).expect("it is sooner");
    let store = Store::open(&at("state")).expect("it is ours");
    let mut profile = report::read(HOSTILE).expect("they are stacks");
    profile.meta.frequency_hz = 19;
    profile.meta.duration = Duration::from_secs(60);
    let window = output::render(&profile, Format::Pprof, &Options::default()).expect("it is drawn");
    let span = (now_ms - 60_000, now_ms);
    let write = |capability, bytes: &[u8]| {
        let name = WindowName::new(capability, span, "host");
        store.write(name, bytes).expect("there is room");
    };
    write(Capability::Sampling, &window);
    for (capability, json) in [
        (Capability::Queries, include_str!("window-queries.json")),
        (Capability::Tcp, include_str!("window-tcp.json")),
        (Capability::Syscalls, include_str!("window-syscalls.json")),
    ] {
        let mut bytes = GzEncoder::new(Vec::new(), Compression::fast());
        bytes.write_all(json.as_bytes()).expect("there is room");
        write(capability, &bytes.finish().expect("there is room"));
    }
    folder
}

/// Every verb that needs no privileges, as text and for programs. `PID` is a process of ours.
const VERBS: [&[&str]; 17] = [
    &["report", "app.folded", "--top", "10"],
    &["report", "app.folded", "-f", "folded", "-o", "-"],
    &["report", "app.folded", "-f", "svg", "-o", "-", "--top", "1"],
    &["report", "--since", "1h", "--state", "state", "--top", "3"],
    &["queries", "--since", "1h", "--state", "state"],
    &["queries", "--since", "1h", "--state", "state", "--csv"],
    &["tcp", "--since", "1h", "--state", "state"],
    &["tcp", "--since", "1h", "--state", "state", "--json"],
    &["syscalls", "--since", "1h", "--state", "state"],
    &["syscalls", "--since", "1h", "--state", "state", "--csv"],
    &["daemon", "--check", "--config", "off.toml"],
    &["doctor"],
    &["doctor", "--json"],
    &["dump", "-p", "PID"],
    &["dump", "-p", "PID", "--json"],
    &["help"],
    &["--version"],
];

/// Runs each verb, with standard output as usual and as a test wants it.
fn each(folder: &Path, stdout: impl Fn() -> Stdio, check: impl Fn(&str, &Output, &Output)) {
    let sleeper = Command::new("sleep").arg("1000").spawn();
    let sleeper = Sleeper(sleeper.expect("it starts"));
    let pid = sleeper.0.id().to_string();
    for verb in VERBS {
        let arguments: Vec<&str> = verb
            .iter()
            .map(|word| if *word == "PID" { &pid } else { *word })
            .collect();
        let usual = profiler(folder, &arguments).output().expect("it runs");
        let mut command = profiler(folder, &arguments);
        let child = command.stdout(stdout()).stderr(Stdio::piped()).spawn();
        drop(command);
        let output = child.and_then(Child::wait_with_output).expect("it runs");
        let talk = text(&output.stderr);
        assert!(!talk.contains("panicked"), "{verb:?}: {talk}");
        check(&verb.join(" "), &usual, &output);
    }
}

/// Where nobody reads any more, every verb ends quietly, with the status that it would have had.
#[test]
fn a_closed_pipe_is_no_panic() {
    let folder = folder();
    let closed = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        Stdio::from(writer)
    };
    each(folder.path(), closed, |verb, usual, output| {
        assert_eq!(output.status, usual.status, "{verb}");
        assert_eq!(text(&output.stderr), text(&usual.stderr), "{verb}");
    });
}

/// Talk that nobody hears is no panic either.
#[test]
fn a_closed_standard_error_is_no_panic() {
    let folder = folder();
    for arguments in [
        &["report", "app.folded", "-o", "app.svg"][..],
        &["report", "nothing.folded", "--top", "1"],
        &["report", "--nonsense"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let usual = profiler(folder.path(), arguments).output();
        let mut command = profiler(folder.path(), arguments);
        let status = command.stdout(Stdio::null()).stderr(writer).status();
        assert_eq!(
            status.expect("it runs"),
            usual.expect("it runs").status,
            "{arguments:?}"
        );
    }
}

/// Where there is no room, every verb says so and fails.
#[test]
fn a_full_disk_is_an_error() {
    let folder = folder();
    let full = || {
        Stdio::from(
            File::options()
                .write(true)
                .open("/dev/full")
                .expect("it is there"),
        )
    };
    each(folder.path(), full, |verb, usual, output| {
        let talk = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{verb}: {talk}");
        if usual.stdout.is_empty() {
            return;
        }
        assert!(
            talk.contains("profiler: error: cannot write"),
            "{verb}: {talk}"
        );
        assert!(talk.contains("No space left on device"), "{verb}: {talk}");
    });
}

/// Names in a recording reach neither a terminal nor a spreadsheet as what they are, in any text that is made of it.
#[test]
fn hostile_names_are_shown_escaped() {
    let folder = folder();
    for arguments in [
        &["report", "hostile.folded", "--top", "10"][..],
        &["report", "hostile.folded", "-f", "folded", "-o", "-"],
        &["report", "hostile.folded", "-f", "svg", "-o", "-"],
        &["report", "hostile.folded", "-f", "json", "-o", "-"],
        &["report", "hostile.folded", "-f", "speedscope", "-o", "-"],
        &["report", "hostile.folded", "-f", "firefox", "-o", "-"],
        &["report", "--since", "1h", "--state", "state", "--top", "10"],
    ] {
        let output = profiler(folder.path(), arguments)
            .output()
            .expect("it runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
        for bytes in [output.stdout, output.stderr] {
            let shown = String::from_utf8(bytes).expect("it is text");
            let bad = shown.chars().find(|c| *c != '\n' && !is_printable(*c));
            // The renderer of flamegraphs writes its script with tabs.
            let bad = bad.filter(|c| *c != '\t' || !arguments.contains(&"svg"));
            assert_eq!(bad, None, "{arguments:?}: {shown}");
        }
    }
    let top = profiler(folder.path(), &["report", "hostile.folded", "--top", "10"]).output();
    let top = text(&top.expect("it runs").stdout);
    assert!(
        top.contains("\\u{202e}main\\x7f") && top.contains("\\u{200b}tail"),
        "{top}"
    );
    assert_eq!(top.lines().count(), 6, "{top}");
}

/// Files that others have named are named in errors so that no terminal obeys them, also by the parser of arguments.
#[test]
fn hostile_files_are_named_escaped() {
    let folder = folder();
    for (argument, shown) in [
        (
            "\x1b]0;x\x07\u{202e}",
            "cannot read \\x1b]0;x\\x07\\u{202e}",
        ),
        (
            "a\nprofiler: error: b",
            "cannot read a\\nprofiler: error: b",
        ),
        ("--\u{202e}", "--\\u{202e}"),
    ] {
        let output = profiler(folder.path(), &["report", argument, "--top", "1"]).output();
        let talk = text(&output.expect("it runs").stderr);
        assert!(talk.contains(shown), "{talk:?}");
        assert!(
            talk.chars().all(|c| c == '\n' || is_printable(c)),
            "{talk:?}"
        );
    }
}

/// A profile of 52 million empty locations is 100 kB: it is refused before it is unpacked. As many as the limit lets
/// through take next to no memory.
#[test]
fn empty_messages_fill_no_memory() {
    let folder = folder();
    let bomb = |locations: usize| {
        // A kind of values, the empty string, and locations without anything.
        [&b"\x0a\x00\x32\x00"[..], &b"\x22\x00".repeat(locations)].concat()
    };
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&bomb(52_000_000)).expect("there is room");
    let packed = packed.finish().expect("there is room");
    assert!(packed.len() < 120_000, "{}", packed.len());
    fs::write(folder.path().join("bomb.pb.gz"), packed).expect("there is room");
    fs::write(folder.path().join("bomb.pb"), bomb(8_000_000)).expect("there is room");
    let bounded = |file: &str| {
        let script = format!(
            "ulimit -d 200000; exec {} report {file} --top 1",
            env!("CARGO_BIN_EXE_profiler")
        );
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).current_dir(folder.path());
        shell.output().expect("a shell runs")
    };
    let output = bounded("bomb.pb.gz");
    let talk = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{talk}");
    assert!(
        talk.contains("unpacks to more than 64 MiB") && talk.contains("hint: "),
        "{talk}"
    );
    let output = bounded("bomb.pb");
    assert!(output.status.success(), "{}", text(&output.stderr));
}
