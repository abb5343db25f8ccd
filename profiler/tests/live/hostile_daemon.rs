//! What ends however much hangs, what nobody else may read, and a health that tells of trouble.

use std::{
    fs::{self, File, Permissions},
    io::{Read, Write},
    os::unix::{
        fs::{MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink},
        net::UnixStream,
        process::ExitStatusExt,
    },
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::Duration,
};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::Signal,
};

use crate::{
    bench::{Bench, SPLIT, Target, bench, signal, text, until_watching},
    service::{Daemon, report, sections},
};

/// Nobody.
const NOBODY: u32 = 65534;
/// Bytes that a new pipe takes before its writer waits.
const PIPE_BYTES: usize = 1 << 16;

/// Ten times what an end may take. A child that goes on is killed.
#[track_caller]
fn ended(child: &mut Child) -> ExitStatus {
    let status = (0..500).find_map(|_| {
        sleep(Duration::from_millis(100));
        child.try_wait().expect("it is ours")
    });
    let _ = child.kill();
    status.expect("it goes on for ever")
}

/// Waits until the main thread of a child waits for room in its standard output.
#[track_caller]
fn until_writing(child: &Child) {
    let call = format!("/proc/{}/syscall", child.id());
    let writes = (0..600).find(|_| {
        sleep(Duration::from_millis(50));
        let call = fs::read_to_string(&call).unwrap_or_default();
        // write(1, …, by its number on x86-64 and on aarch64.
        call.starts_with("1 0x1 ") || call.starts_with("64 0x1 ")
    });
    assert!(writes.is_some(), "it does not write");
}

/// A program by a shell that says something first.
fn shell(first: &str) -> Command {
    let mut command = Command::new("sh");
    let script = format!("{first}; exec \"$0\" \"$@\"");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_profiler")]);
    command
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
}

/// Status line and words of `/healthz`.
fn health(socket: &Path) -> String {
    let mut stream = UnixStream::connect(socket).expect("somebody listens");
    let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request).expect("it is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it is answered");
    answer
}

/// Waits until health says this.
#[track_caller]
fn until_health(socket: &Path, wanted: &str) {
    let mut said = String::new();
    let found = (0..600).find(|_| {
        sleep(Duration::from_millis(100));
        said = health(socket);
        said.contains(wanted)
    });
    assert!(found.is_some(), "never {wanted}: {said}");
}

fn with_page(bench: &Bench, length: &str, target: &Target) -> String {
    let socket = bench.path("web.sock");
    let pids = format!("pids = [{}]", target.pid());
    let web = format!("[web]\nlisten = 'unix:{}'", socket.display());
    format!("{}\n{web}", sections(length, &pids))
}

/// A second signal ends each verb whose result nobody reads, under the number of that signal.
#[test]
fn second_signal_ends_every_verb() {
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let pid = target.pid();
    for verb in ["record", "syscalls", "tcp", "queries"] {
        let (_unread, mut full) = std::io::pipe().expect("a pipe");
        full.write_all(&vec![b' '; PIPE_BYTES])
            .expect("there is room");
        let arguments = [verb, "-p", &pid, "-d", "1h", "-o", "-"];
        let mut child = bench
            .command(&arguments)
            .stdout(full)
            .spawn()
            .expect("the profiler runs");
        until_watching(&child);
        // Until there is something to write.
        sleep(Duration::from_millis(500));
        signal(&child, Signal::TERM);
        until_writing(&child);
        signal(&child, Signal::INT);
        assert_eq!(ended(&mut child).code(), Some(130), "{verb}");
    }
}

/// A daemon whose log nobody reads has threads that stand still: its health names them, the service
/// manager does not hear from it, and SIGTERM ends it within its time, with the windows that are
/// whole.
#[test]
fn standstill_is_named_and_ended() {
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let (log, socket) = (bench.path("blocked"), bench.path("web.sock"));
    let mode = Mode::RUSR | Mode::WUSR;
    mknodat(CWD, &log, FileType::Fifo, mode, 0).expect("a pipe");
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits();
    let pipe = File::options()
        .read(true)
        .write(true)
        .custom_flags(nonblocking.cast_signed())
        .open(&log);
    let mut pipe = pipe.expect("a pipe");
    let sections = with_page(&bench, "200ms", &target);
    let mut command = shell(&format!("exec 2<>'{}'", log.display()));
    let mut daemon = Daemon::spawn(&bench, &sections, &mut command);
    daemon.windows(2);
    assert!(health(&socket).starts_with("HTTP/1.1 200"));
    while pipe.write(&[b' '; 512]).is_ok() {}
    until_health(&socket, "stands still for");
    signal(&daemon.child, Signal::TERM);
    assert_eq!(ended(&mut daemon.child).code(), Some(143));
    report(&bench, &daemon.state, &[]).assert_has("main;seventy;burn");
}

/// Windows that are lost one after the other are trouble, to health and to the service manager,
/// until one is written.
#[test]
fn lost_windows_are_trouble() {
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let socket = bench.path("web.sock");
    let daemon = Daemon::start(&bench, &with_page(&bench, "200ms", &target));
    daemon.windows(1);
    daemon.told("WATCHDOG=1");
    let (windows, away) = (daemon.state.join("windows"), daemon.state.join("away"));
    fs::rename(&windows, &away).expect("it is ours");
    until_health(&socket, "windows in a row lost: could not be written");
    daemon.logged("the watchdog of the service manager gets no answer");
    fs::rename(&away, &windows).expect("it is ours");
    until_health(&socket, "\r\n\r\nok\n");
    daemon.told("WATCHDOG=1");
    daemon.stop();
}

/// Whatever the umask is: what the daemon keeps is for its owner and group, a recording for its
/// owner, unless a file of the owner's has another mode already.
#[test]
fn modes_do_not_depend_on_the_umask() {
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let pids = format!("pids = [{}]", target.pid());
    let export = "[[export]]\nkind = 'parca'\nurl = 'http://127.0.0.1:9'";
    let settings = format!("{}\n{export}", sections("200ms", &pids));
    for umask in ["000", "077"] {
        let state = bench.path("state");
        let _ = fs::remove_dir_all(&state);
        let command = &mut shell(&format!("umask {umask}"));
        let daemon = Daemon::spawn(&bench, &settings, command);
        let entries = daemon.windows(2);
        let queues = fs::read_dir(state.join("export")).expect("it is there");
        let queue = queues.flatten().next().expect("there is one").path();
        let folders = [state.clone(), state.join("windows"), state.join("export")];
        for folder in folders.iter().chain([&queue]) {
            assert_eq!(mode(folder), 0o750, "{} under {umask}", folder.display());
        }
        let window = state.join("windows").join(entries[0].name.to_string());
        assert_eq!(mode(&window), 0o640, "under {umask}");
        let waiting = (0..100).find_map(|_| {
            sleep(Duration::from_millis(50));
            fs::read_dir(&queue).ok()?.flatten().next()
        });
        let waiting = waiting.expect("nobody takes it").path();
        assert_eq!(mode(&waiting), 0o640, "under {umask}");
        daemon.stop();
        let out = bench.path("out.folded");
        let record = || {
            let pid = target.pid();
            let arguments = ["record", "-p", &pid, "-d", "300ms", "-o", "out.folded"];
            let mut command = shell(&format!("umask {umask}"));
            let command = command.args(arguments).current_dir(bench.path(""));
            let output = command.output().expect("the profiler runs");
            assert!(output.status.success(), "{}", text(&output.stderr));
            mode(&out)
        };
        assert_eq!(record(), 0o600, "under {umask}");
        chmod(&out, 0o644);
        assert_eq!(record(), 0o644, "under {umask}");
        fs::remove_file(&out).expect("it is ours");
    }
}

/// What an older daemon has kept for everybody to read is tightened, which is logged with the group
/// to join.
#[test]
fn older_state_is_tightened() {
    let Some(bench) = bench() else { return };
    let target = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let settings = sections("200ms", &format!("pids = [{}]", target.pid()));
    let daemon = Daemon::start(&bench, &settings);
    let entries = daemon.windows(2);
    let state = daemon.state.clone();
    daemon.stop();
    let windows = state.join("windows");
    let window = windows.join(entries[0].name.to_string());
    for folder in [&state, &windows] {
        chmod(folder, 0o755);
    }
    chmod(&window, 0o644);
    let daemon = Daemon::start(&bench, &settings);
    let modes = [mode(&state), mode(&windows), mode(&window)];
    assert_eq!(modes, [0o750, 0o750, 0o640]);
    daemon.logged("joins the group root");
    daemon.stop();
    report(&bench, &state, &[]).assert_has("main;seventy;burn");
}

/// A state directory that others could exchange is refused, and nothing of it is touched.
#[test]
fn exposed_state_is_refused() {
    let Some(bench) = bench() else { return };
    let (open, others) = (bench.path("open"), bench.path("others"));
    let link = bench.path("link");
    for folder in [&open, &others] {
        fs::create_dir(folder).expect("a folder");
    }
    chmod(&open, 0o777);
    lchown(&others, Some(NOBODY), None).expect("root may");
    symlink("/etc", &link).expect("a link");
    lchown(&link, Some(NOBODY), None).expect("root may");
    let config = bench.path("exposed.toml");
    for (state, why) in [
        (open.join("state"), "everybody may write to"),
        (others.join("state"), "belongs to user 65534"),
        (link.join("state"), "belongs to user 65534"),
    ] {
        let text_of = format!("[state]\ndirectory = '{}'\n", state.display());
        fs::write(&config, text_of).expect("it is ours");
        let output = bench.profiler(&["daemon", "--config", config.to_str().expect("text")]);
        let said = text(&output.stderr);
        assert!(!output.status.success() && said.contains(why), "{said}");
        assert!(said.contains("cannot trust the state directory"), "{said}");
        assert!(!state.exists());
    }
}

/// Neither a recording nor the daemon leaves a core dump where another program would, and a
/// recorded command keeps the limit that it was given.
#[test]
fn nothing_of_it_is_dumped() {
    let Some(bench) = bench() else { return };
    let dumped = |status: ExitStatus| {
        assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()));
        status.core_dumped()
    };
    let other = Command::new("sh")
        .args(["-c", "ulimit -c unlimited; kill -ABRT $$"])
        .current_dir(bench.path(""))
        .status();
    assert!(
        dumped(other.expect("sh runs")),
        "this machine dumps nothing"
    );
    let target = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let recording = shell("ulimit -c unlimited")
        .args(["record", "-p", &target.pid(), "-d", "1h"])
        .current_dir(bench.path(""))
        .stdin(Stdio::null())
        .spawn();
    let mut recording = recording.expect("the profiler runs");
    until_watching(&recording);
    signal(&recording, Signal::ABORT);
    assert!(!dumped(ended(&mut recording)));
    let settings = sections("200ms", &format!("pids = [{}]", target.pid()));
    let command = &mut shell("ulimit -c unlimited");
    let mut daemon = Daemon::spawn(&bench, &settings, command.current_dir(bench.path("")));
    signal(&daemon.child, Signal::ABORT);
    assert!(!dumped(ended(&mut daemon.child)));
    let limit = shell("ulimit -S -c 77")
        .args(["record", "-F", "999", "-o", "out.svg", "--"])
        .args([
            "sh",
            "-c",
            "ulimit -S -c; i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done",
        ])
        .current_dir(bench.path(""))
        .output()
        .expect("the profiler runs");
    assert_eq!(text(&limit.stdout), "77\n", "{}", text(&limit.stderr));
}
