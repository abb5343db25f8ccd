//! What targets are called, run with and have planted, in everything that is written of them: targets of `nobody`,
//! the profiler as root.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{
        fs::{PermissionsExt, chown, symlink},
        process::CommandExt,
    },
    path::PathBuf,
    process::{Command, Output},
};

use profiler::printable::is_printable;

use crate::bench::{Bench, SPLIT, Target, bench, text};

const NOBODY: u32 = 65534;

/// Names its process and a thread as no terminal should see it, talks to itself over TCP, and computes.
const HOSTILE: &str = r#"
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>
static volatile unsigned long sink;
static void *thread(void *_) {
    prctl(PR_SET_NAME, "=\n\xe2\x80\xae|cmd\x7f");
    for (;;) { getppid(); for (int i = 0; i < 10000; i++) sink += i; }
}
int main(void) {
    prctl(PR_SET_NAME, "\x1b]0;x\x07=cmd|");
    int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof at;
    bind(server, (void *)&at, size); listen(server, 1); getsockname(server, (void *)&at, &size);
    connect(client, (void *)&at, size);
    int taken = accept(server, 0, 0);
    pthread_t id; pthread_create(&id, 0, thread, 0);
    puts("ready"); fflush(stdout);
    for (char c = 'x';;) { write(client, &c, 1); read(taken, &c, 1); for (int i = 0; i < 10000; i++) sink += i; }
}
"#;

/// A folder that everybody may enter, and whose owner is `nobody` if so asked.
fn open(bench: &Bench, owner: Option<u32>) -> PathBuf {
    let folder = bench.path("");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("it is ours");
    chown(&folder, owner, owner).expect("we are root");
    folder
}

/// A target of `nobody` that has said that it is ready.
fn nobodys(command: &mut Command) -> Target {
    ready(command.uid(NOBODY).gid(NOBODY))
}

fn ready(command: &mut Command) -> Target {
    let mut target = Target::spawn(command);
    let mut line = String::new();
    let stdout = target.0.stdout.as_mut().expect("it is piped");
    BufReader::new(stdout)
        .read_line(&mut line)
        .expect("it talks");
    assert_eq!(line, "ready\n");
    target
}

/// The profiler as `nobody`.
fn as_nobody(bench: &Bench, arguments: &[&str]) -> Output {
    let program = bench.path("profiler");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_profiler"), &program).expect("it can be copied");
    }
    // Some machines close `/proc` to everybody else; a new one is open.
    let mut setpriv = Command::new("unshare");
    setpriv
        .args([
            "-m",
            "sh",
            "-c",
            "mount -t proc proc /proc && exec \"$@\"",
            "sh",
        ])
        .args([
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ])
        .arg(program)
        .args(arguments);
    setpriv.current_dir("/").output().expect("unshare runs")
}

#[track_caller]
fn assert_safe(what: &[&str], bytes: &[u8]) {
    let shown = text(bytes);
    let is_svg = what.contains(&"svg");
    let bad = shown
        .chars()
        .find(|c| !is_printable(*c) && *c != '\n' && !(is_svg && *c == '\t'));
    assert_eq!(bad, None, "{what:?}: {shown:?}");
}

/// A process and a thread that are called so as to write to the terminal, to begin a line, to turn the text around or
/// to be a formula: no verb shows that as it is, in no form.
#[test]
fn hostile_names_reach_no_terminal() {
    let Some(bench) = bench() else { return };
    let program = bench.compile("hostile", HOSTILE, &["-pthread"]);
    open(&bench, None);
    let target = nobodys(&mut Command::new(program));
    let pid = target.pid();
    let run = |arguments: &[&str]| {
        let output = bench.profiler(&[arguments, &["-p", &pid]].concat());
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        assert_safe(arguments, &output.stdout);
        assert_safe(arguments, &output.stderr);
        text(&output.stdout)
    };
    for format in ["folded", "svg", "json", "speedscope", "firefox"] {
        let written = run(&[
            "record",
            "-d",
            "300ms",
            "--threads",
            "-f",
            format,
            "-o",
            "-",
        ]);
        assert!(written.contains("202e"), "{format}: {written}");
    }
    for arguments in [&["dump"][..], &["dump", "--json"]] {
        assert!(run(arguments).contains("202e"));
    }
    let table = run(&["syscalls", "-d", "300ms", "--by-thread"]);
    assert!(
        table.starts_with("System calls of \\x1b]0;x\\x07=cmd| (pid "),
        "{table}"
    );
    assert!(table.contains("=\\n\\u{202e}|cmd\\x7f ("), "{table}");
    let csv = run(&["syscalls", "-d", "300ms", "--by-thread", "--csv"]);
    assert!(csv.contains(",\"'=\\n\\u{202e}|cmd\\x7f\","), "{csv}");
    for form in [
        &[][..],
        &["--by-peer"],
        &["--csv"],
        &["--by-peer", "--csv"],
        &["--json"],
    ] {
        run(&[&["tcp", "-d", "300ms"], form].concat());
    }
    run(&["queries", "-d", "300ms"]);
}

/// A script whose name has a line feed and turns text around: its functions stay one line each.
#[test]
fn hostile_files_stay_in_their_line() {
    let Some(bench) = bench() else { return };
    let folder = open(&bench, None);
    let script = folder.join("a\n\u{202e}b.py");
    fs::write(
        &script,
        "def work():\n    print('ready', flush=True)\n    while True: pass\nwork()\n",
    )
    .expect("there is room");
    let target = nobodys(Command::new("/usr/bin/python3").arg(&script));
    for arguments in [
        &["dump", "-p", &target.pid()][..],
        &[
            "record",
            "-d",
            "500ms",
            "-f",
            "folded",
            "-o",
            "-",
            "-p",
            &target.pid(),
        ],
    ] {
        let output = bench.profiler(arguments);
        assert_safe(arguments, &output.stdout);
        let shown = text(&output.stdout);
        assert!(shown.contains("work (a\\n\\u{202e}b.py:"), "{shown}");
        assert!(!shown.lines().any(|line| line.starts_with('b')), "{shown}");
    }
}

/// A link that stands under the name that a recording gets by default is replaced, not followed.
#[test]
fn planted_links_are_replaced() {
    let Some(bench) = bench() else { return };
    let program = bench.compile("split", SPLIT, &[]);
    let folder = open(&bench, Some(NOBODY));
    let target = Target::spawn(Command::new(program).uid(NOBODY).gid(NOBODY));
    let name = folder.join(format!("profile-split-{}.svg", target.pid()));
    symlink("/dev/null", &name).expect("there is room");
    std::os::unix::fs::lchown(&name, Some(NOBODY), None).expect("we are root");
    let output = bench.profiler(&["record", "-p", &target.pid(), "-d", "300ms"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(name.symlink_metadata().expect("it is there").is_file());
    assert!(text(&fs::read(&name).expect("it is ours")).contains("</svg>"));
    // The same link, typed: it leads to a device, and is not ours.
    fs::remove_file(&name).expect("it is ours");
    symlink("/dev/null", &name).expect("there is room");
    std::os::unix::fs::lchown(&name, Some(NOBODY), None).expect("we are root");
    let typed = name.to_str().expect("it is text");
    let output = bench.profiler(&["record", "-p", &target.pid(), "-d", "1h", "-o", typed]);
    let talk = text(&output.stderr);
    assert!(
        talk.contains("a link of user 65534 leads to a device"),
        "{talk}"
    );
    assert!(name.is_symlink());
}

/// A process of which nothing may be known is refused, and of one that may be known in part nothing is made up.
#[test]
fn dump_tells_only_what_may_be_read() {
    let Some(bench) = bench() else { return };
    let program = bench.compile(
        "parts",
        r#"
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
static void *thread(void *_) {
    syscall(SYS_setresgid, 65534, 65534, 65534);
    syscall(SYS_setresuid, 65534, 65534, 65534);
    prctl(PR_SET_DUMPABLE, 1);
    puts("ready"); fflush(stdout);
    for (;;) pause();
}
int main(void) { pthread_t id; pthread_create(&id, 0, thread, 0); for (;;) pause(); }
"#,
        &["-pthread"],
    );
    open(&bench, None);
    let target = ready(&mut Command::new(&program));
    let own = as_nobody(&bench, &["dump", "-p", &std::process::id().to_string()]);
    let talk = text(&own.stderr);
    assert_eq!(own.status.code(), Some(1), "{talk}");
    assert!(own.stdout.is_empty(), "{}", text(&own.stdout));
    assert!(
        talk.contains("what its threads do may not be read") && talk.contains("setcap"),
        "{talk}"
    );
    let yama = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let part = as_nobody(&bench, &["dump", "-p", &target.pid()]);
    if matches!(yama.trim(), "1" | "2" | "3") {
        assert_eq!(part.status.code(), Some(1), "{}", text(&part.stdout));
        return;
    }
    let shown = text(&part.stdout);
    assert!(part.status.success(), "{}", text(&part.stderr));
    assert_eq!(shown.matches(": not readable").count(), 1, "{shown}");
    assert_eq!(shown.matches("blocked: pause").count(), 1, "{shown}");
    assert!(!shown.contains("page fault"), "{shown}");
    let whole = text(&bench.profiler(&["dump", "-p", &target.pid()]).stdout);
    assert_eq!(whole.matches("blocked: pause").count(), 2, "{whole}");
}

/// A program and its secrets: options stay, values go, in every format and title, unless they are asked for.
#[test]
fn secrets_of_command_lines_are_not_kept() {
    let Some(bench) = bench() else { return };
    let program = bench.compile("split", SPLIT, &[]);
    open(&bench, None);
    let secrets = [
        "--token=S3CRET1",
        "--password",
        "S3CRET2",
        "-pS3CRET3",
        "https://me:S3CRET4@host",
        "KEY=S3CRET5",
    ];
    let target = Target::spawn(Command::new(&program).args(secrets).uid(NOBODY).gid(NOBODY));
    let pid = target.pid();
    let path = program.to_str().expect("it is text");
    let bytes = |arguments: &[&str]| {
        let (succeeded, written) = written(&bench, arguments);
        assert!(succeeded, "{arguments:?}: {written}");
        written
    };
    let shown = format!("{path} --token=… --password … -p… …");
    let formats = ["folded", "svg", "json", "speedscope", "firefox", "pprof"];
    for format in formats {
        let record = ["record", "-d", "200ms", "-f", format, "-o", "-"];
        let command = [&["--", "timeout", "0.3", path][..], &secrets].concat();
        let (_, of_command) = written(&bench, &[&record[..], &command].concat());
        let text = bytes(&[&record[..], &["-p", &pid]].concat());
        for written in [&of_command, &text] {
            assert!(!written.contains("S3CRET"), "{format}: {written}");
        }
        let escaped = shown.replace('…', "\\u2026");
        assert!(
            text.contains(&shown) || text.contains(&escaped),
            "{format}: {text}"
        );
        let full = bytes(&[&record[..], &["-p", &pid, "--full-command"]].concat());
        assert!(
            full.contains("--token=S3CRET1 --password S3CRET2"),
            "{format}: {full}"
        );
    }
    let dump = bytes(&["dump", "-p", &pid]);
    assert!(dump.contains(&shown), "{dump}");
    assert!(bytes(&["dump", "-p", &pid, "--full-command"]).contains("S3CRET5"));
    for verb in ["syscalls", "tcp", "queries"] {
        let command = ["--", "timeout", "0.3", path, "--password", "S3CRET"];
        let (_, title) = written(&bench, &[&[verb][..], &command].concat());
        assert!(
            title.contains("of timeout … --password …") && !title.contains("S3CRET"),
            "{title}"
        );
        let (_, title) = written(&bench, &[&[verb, "--full-command"][..], &command].concat());
        assert!(title.contains("--password S3CRET"), "{title}");
    }
}

/// Whether the profiler succeeded, which it does not of a command that failed, and all that it wrote.
fn written(bench: &Bench, arguments: &[&str]) -> (bool, String) {
    let output = bench.profiler(arguments);
    let plain = if output.stdout.starts_with(&[0x1f, 0x8b]) {
        unpacked(&output.stdout)
    } else {
        text(&output.stdout)
    };
    (output.status.success(), plain + &text(&output.stderr))
}

fn unpacked(bytes: &[u8]) -> String {
    use std::io::Read;
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(bytes)
        .read_to_end(&mut plain)
        .expect("it is gzip");
    text(&plain)
}
