//! Files that are made to harm who reads their names: each costs its own names and nothing else.

use std::{
    fs::{self, File, Permissions},
    os::unix::{
        fs::{FileExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread::{sleep, spawn},
    time::Duration,
};

use object::{Object, ObjectSection};
use profiler::store;
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    bench::{Bench, Folded, SPLIT, Target, bench, text},
    bombs::{bombs, library},
    service::{Daemon, report, sections},
};

const NOBODY: u32 = 65_534;
/// The child may use so much memory of its own for a recording, and for the daemon.
const VERB_KIB: u64 = 512 << 10;
const SERVICE_KIB: u64 = 160 << 10;
/// What the program itself takes.
const PROGRAM_KIB: u64 = 64 << 10;

/// Notes of the account.
const MEMORY: &str = "file whose names take too much memory to read";
const ONLY_SYMBOLS: &str = "debug information not usable, only symbols used";
const CUT: &str = "file that was cut while its names were read";
const NOT_REGULAR: &str = "foreign file not opened, it is no regular file";
const PERF_MAP_BEYOND: &str = "perf map longer than is read, the rest not used";

/// Calls a function of each library named, one after the other, for ever: `spin_` and the file's name up to the dot.
const LOADER: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
int main(int count, char **names) {
    void (*spin[64])(void);
    for (int i = 1; i < count; i++) {
        char name[200] = "spin_", *base = strrchr(names[i], '/') + 1;
        strncat(name, base, strcspn(base, "."));
        void *library = dlopen(names[i], RTLD_NOW);
        if (!library || !(spin[i] = dlsym(library, name))) { puts(dlerror()); return 1; }
    }
    for (;;) for (int i = 1; i < count; i++) spin[i]();
}
"#;

/// Makes the folder one that a target of another user may read.
fn open_up(bench: &Bench) {
    fs::set_permissions(bench.path(""), Permissions::from_mode(0o755)).expect("it is ours");
}

/// The loader with these libraries, run by `nobody`.
fn load(bench: &Bench, libraries: &[PathBuf]) -> Target {
    open_up(bench);
    let loader = bench.compile("loader", LOADER, &["-ldl"]);
    for library in libraries {
        chown(library, Some(NOBODY), None).expect("we are root");
    }
    let target = Target::spawn(Command::new(loader).args(libraries).uid(NOBODY).gid(NOBODY));
    let maps = fs::read_to_string(format!("/proc/{}/maps", target.pid())).expect("it lives");
    assert!(!libraries.is_empty() && maps.contains(".so"), "{maps}");
    target
}

/// What became of a recording of several processes.
struct Seen {
    folded: Folded,
    /// The account and the hints.
    told: String,
    /// Most memory of the profiler's own and of its child's, KiB.
    memory: (u64, u64),
}

fn record(bench: &Bench, targets: &[&Target]) -> Seen {
    let mut command = bench.command(&["record", "-d", "2s", "-f", "folded", "-o", "-"]);
    for target in targets {
        command.args(["-p", &target.pid()]);
    }
    let profiler = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let profiler = profiler.expect("the profiler runs");
    let pid = profiler.id();
    let done = std::sync::Arc::new(AtomicBool::new(false));
    let watch = {
        let done = std::sync::Arc::clone(&done);
        spawn(move || {
            let mut most = (0, 0);
            while !done.load(Ordering::Relaxed) {
                most.0 = most.0.max(peak(pid));
                for child in children(pid) {
                    most.1 = most.1.max(peak(child));
                }
                sleep(Duration::from_millis(1));
            }
            most
        })
    };
    let output = profiler.wait_with_output().expect("it ends");
    done.store(true, Ordering::Relaxed);
    let told = text(&output.stderr);
    assert!(output.status.success(), "{told}");
    Seen {
        folded: Folded::parse(&text(&output.stdout)),
        told,
        memory: watch.join().expect("it ends"),
    }
}

/// Most anonymous memory of a process, KiB; pages of files that it maps are not its own.
fn peak(pid: u32) -> u64 {
    figure(pid, "RssAnon")
}

fn figure(pid: u32, name: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let words = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    words.unwrap_or(0)
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten();
    let lists = tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            let pids = list.split_whitespace().filter_map(|pid| pid.parse().ok());
            pids.collect::<Vec<u32>>()
        })
        .collect()
}

#[track_caller]
fn assert_told(told: &str, note: &str) {
    assert!(told.contains(note), "no `{note}` in:\n{told}");
}

/// Debug information that claims 200 GB, or is 3 GB, costs neither the recording nor the names of anything else, and
/// no more memory than is allowed; its file keeps the names of its symbol table.
#[test]
fn bombs_cost_their_own_debug_information() {
    let Some(bench) = bench() else { return };
    let bombs = bombs(&bench);
    let paths: Vec<PathBuf> = bombs.iter().map(|(path, _)| path.clone()).collect();
    let hostile = load(&bench, &paths);
    let ours = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let seen = record(&bench, &[&hostile, &ours]);
    seen.folded.assert_has("main;seventy;burn");
    for (path, has_name) in bombs {
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if has_name {
            seen.folded.assert_has(&format!("spin_{name}"));
        } else {
            seen.folded.assert_has(&format!("main;{name}.so"));
        }
    }
    for note in [MEMORY, ONLY_SYMBOLS] {
        assert_told(&seen.told, note);
    }
    let (own, child) = seen.memory;
    assert!(child > 0 && child < VERB_KIB + PROGRAM_KIB, "{child} KiB");
    assert!(own < VERB_KIB, "{own} KiB");
}

/// A debug link to a pipe is not followed, and said to be none; the library has its own names.
#[test]
fn debug_links_to_pipes_are_not_followed() {
    let Some(bench) = bench() else { return };
    let path = library(&bench, "linked", ".other");
    let link = bench.path("link");
    fs::write(&link, b"linked.debug\0\0\0\0\x01\x02\x03\x04").expect("it can be written");
    // The linker drops a section of this name.
    let mut add = Command::new("objcopy");
    add.arg(format!("--add-section=.gnu_debuglink={}", link.display()));
    assert!(add.arg(&path).status().expect("objcopy runs").success());
    for pipe in [
        bench.path("linked.debug"),
        bench.path(".debug/linked.debug"),
    ] {
        let _ = fs::create_dir(pipe.parent().expect("a folder"));
        let made = Command::new("mkfifo")
            .args(["-m", "666"])
            .arg(&pipe)
            .status();
        assert!(made.expect("mkfifo runs").success());
    }
    let hostile = load(&bench, &[path]);
    let ours = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let seen = record(&bench, &[&hostile, &ours]);
    seen.folded.assert_has("main;seventy;burn");
    seen.folded.assert_has("spin_linked");
    assert_told(&seen.told, NOT_REGULAR);
}

/// Debug information in a file of its own is found where gdb finds it, also in a folder that only the target sees; what
/// another user has put there is not used.
#[test]
fn debug_files_are_found_and_believed_by_their_owner() {
    let Some(bench) = bench() else { return };
    let program = bench.compile("apart", SPLIT, &[]);
    let debug = bench.path(".debug/apart.debug");
    fs::create_dir(debug.parent().expect("a folder")).expect("it is ours");
    for words in [
        vec![
            "--only-keep-debug".into(),
            program.clone().into_os_string(),
            debug.clone().into(),
        ],
        vec!["--strip-all".into(), program.clone().into_os_string()],
        vec![
            format!("--add-gnu-debuglink={}", debug.display()).into(),
            program.clone().into_os_string(),
        ],
    ] {
        let objcopy = Command::new("objcopy").args(words).status();
        assert!(objcopy.expect("objcopy runs").success());
    }
    let target = Target::start(&program, &[]);
    let seen = record(&bench, &[&target]);
    seen.folded.assert_has("main;seventy;burn");
    chown(&debug, Some(NOBODY), None).expect("we are root");
    let seen = record(&bench, &[&target]);
    assert_eq!(seen.folded.samples("seventy"), 0, "{}", seen.folded.text);
    assert_told(&seen.told, "debug file not used, another user owns it");
}

/// A library that is cut again and again while its names are read costs its own names, whether it is by an attacker or
/// by a deployment.
#[test]
fn files_that_are_cut_cost_their_own_names() {
    let Some(bench) = bench() else { return };
    // So many symbols that reading them takes longer than the pause between cuts.
    let line = |index: u32| format!(".set symbol_{index}, spin_cut + {}\\n", index % 7);
    let many = (0..150_000).map(line).collect::<Vec<_>>().concat();
    let source = format!(
        "static volatile long sink;\nvoid spin_cut(void) {{ for (int i = 0; i < 300000; i++) sink += i; }}\n__asm__(\"{many}\");"
    );
    let path = bench.compile("cut.so", &source, &["-shared", "-fPIC", "-g0", "-nostdlib"]);
    let hostile = load(&bench, std::slice::from_ref(&path));
    let ours = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let bytes = fs::read(&path).expect("it is there");
    let object = object::File::parse(bytes.as_slice()).expect("an ELF file");
    let symbols = object.section_by_name(".symtab").expect("it has one");
    let kept = symbols
        .file_range()
        .expect("it is in the file")
        .0
        .next_multiple_of(4096);
    let done = std::sync::Arc::new(AtomicBool::new(false));
    let cutter = {
        let (done, path, bytes) = (std::sync::Arc::clone(&done), path.clone(), bytes.clone());
        spawn(move || {
            let file = File::options().write(true).open(path).expect("it is ours");
            while !done.load(Ordering::Relaxed) {
                file.set_len(kept).expect("it is ours");
                let rest = &bytes[usize::try_from(kept).expect("small")..];
                file.write_all_at(rest, kept).expect("it is ours");
                sleep(Duration::from_millis(15));
            }
        })
    };
    // Each recording meets a cut, or reads all of it between two.
    let seen = (0..10).find_map(|_| {
        let seen = record(&bench, &[&hostile, &ours]);
        seen.folded.assert_has("main;seventy;burn");
        seen.told.contains(CUT).then_some(seen)
    });
    done.store(true, Ordering::Relaxed);
    cutter.join().expect("it ends");
    assert!(seen.is_some(), "no recording has met a cut");
}

/// Makes a loop without end at a fixed address, and a perf map of 256 MB that names it first.
const LONG_MAP: &str = r#"
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
int main(void) {
    unsigned char code[] = {0x55, 0x48, 0x89, 0xe5, 0xeb, 0xfe};
    void *page = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(page, code, sizeof code);
    char path[64]; sprintf(path, "/tmp/perf-%d.map", getpid());
    FILE *map = fopen(path, "w");
    fprintf(map, "%lx %lx first\n", (unsigned long)page, sizeof code);
    static char block[6 * 10000];
    for (int i = 0; i < 10000; i++) memcpy(block + 6 * i, "1 1 a\n", 6);
    for (long written = 0; written < 256L << 20; written += sizeof block) fwrite(block, sizeof block, 1, map);
    fclose(map); puts("ready"); fflush(stdout);
    ((void (*)(void))page)();
}
"#;

fn long_map(bench: &Bench) -> (Target, PathBuf) {
    open_up(bench);
    let program = bench.compile("long-map", LONG_MAP, &[]);
    let mut target = Target::spawn(Command::new(program).uid(NOBODY).gid(NOBODY));
    let mut ready = [0; 6];
    let output = target.0.stdout.as_mut().expect("it is piped");
    std::io::Read::read_exact(output, &mut ready).expect("it writes its map");
    let map = PathBuf::from(format!("/tmp/perf-{}.map", target.pid()));
    (target, map)
}

/// A perf map of 256 MB takes bounded memory; what is read of it names code, and the rest is said not to be used.
#[test]
fn long_perf_maps_take_bounded_memory() {
    const MIB: u64 = 1 << 10;
    let Some(bench) = bench() else { return };
    let (hostile, map) = long_map(&bench);
    let ours = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let seen = record(&bench, &[&hostile, &ours]);
    let _ = fs::remove_file(map);
    seen.folded.assert_has("main;seventy;burn");
    seen.folded.assert_has("main;first_[j]");
    assert_told(&seen.told, PERF_MAP_BEYOND);
    let (own, child) = seen.memory;
    // Three times the 32 MiB that are read.
    assert!(child > 0 && child < 96 * MIB, "{child} KiB");
    assert!(own < 256 * MIB, "{own} KiB");
}

/// The child of the daemon, which lives on between windows.
fn child_of(daemon: &Child) -> u32 {
    let found = (0..600).find_map(|_| {
        sleep(Duration::from_millis(100));
        children(daemon.id()).first().copied()
    });
    found.expect("it has a child")
}

/// Beside bombs and long perf maps the daemon goes on writing windows, within its memory; its child has no privileges
/// and no descriptor but the socket, and where it is killed another one takes its place; the end comes at once.
#[test]
fn the_daemon_goes_on_beside_hostile_files() {
    let Some(bench) = bench() else { return };
    let bombs: Vec<PathBuf> = bombs(&bench).into_iter().map(|(path, _)| path).collect();
    let hostile = load(&bench, &bombs);
    let (jit, map) = long_map(&bench);
    let ours = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let pids = format!("pids = [{}, {}, {}]", hostile.pid(), jit.pid(), ours.pid());
    let daemon = Daemon::start(&bench, &whole_host_or(&pids));
    daemon.windows(2);
    let child = child_of(&daemon.child);
    let status = fs::read_to_string(format!("/proc/{child}/status")).expect("it lives");
    for line in [
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "no {line} in:\n{status}");
    }
    let descriptors = fs::read_dir(format!("/proc/{child}/fd")).expect("it lives");
    let links: Vec<String> = descriptors
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .map(|link| link.display().to_string())
        .collect();
    let sockets = links
        .iter()
        .filter(|link| link.starts_with("socket:"))
        .count();
    let others = links
        .iter()
        .filter(|link| !link.starts_with("socket:") && *link != "/dev/null");
    // In the middle of an answer it has the files that the answer is about.
    let strange: Vec<&String> = others
        .filter(|link| link.starts_with("anon_inode"))
        .collect();
    assert!(sockets == 1 && strange.is_empty(), "{links:?}");
    kill_process(
        Pid::from_raw(child.cast_signed()).expect("a pid"),
        Signal::KILL,
    )
    .expect("it lives");
    let before = daemon.windows(2).len();
    daemon.until(|| {
        let count = store::list(&daemon.state).unwrap_or_default().len();
        for child in children(daemon.child.id()) {
            assert!(peak(child) < SERVICE_KIB + PROGRAM_KIB);
        }
        count >= before + 4
    });
    let most = peak(daemon.child.id());
    assert!(most < 192 << 10, "{most} KiB");
    let state = daemon.state.clone();
    let entries = daemon.stop();
    let _ = fs::remove_file(map);
    let folded = report(&bench, &state, &[]);
    folded.assert_has("main;seventy;burn");
    folded.assert_has("spin_claim_zlib");
    assert!(folded.text.contains(MEMORY), "{}", folded.text);
    // The windows behind the kill have names of their own.
    let last = entries.last().expect("there are some");
    let bytes = store::open(&state, &last.name).expect("it is there");
    let profile = profiler::report::read(&bytes).expect("a profile");
    let frames = profile
        .locations
        .iter()
        .flat_map(|location| &location.frames);
    assert!(frames.into_iter().any(|frame| frame.name == "burn"));
}

/// What the daemon samples: in a machine of its own, `PROFILER_HOST_WIDE=1`, the whole host.
fn whole_host_or(targets: &str) -> String {
    if std::env::var_os("PROFILER_HOST_WIDE").is_none() {
        return sections("1s", targets);
    }
    // It is emulated, and takes twenty times as long for everything.
    let sections = sections("20s", targets);
    let lines = sections.lines().filter(|line| !line.starts_with("targets"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Asked to end while it reads a bomb, the daemon ends.
#[test]
fn the_daemon_ends_while_it_reads() {
    let Some(bench) = bench() else { return };
    let bombs: Vec<PathBuf> = bombs(&bench).into_iter().map(|(path, _)| path).collect();
    let hostile = load(&bench, &bombs);
    let daemon = Daemon::start(
        &bench,
        &sections("1s", &format!("pids = [{}]", hostile.pid())),
    );
    child_of(&daemon.child);
    daemon.stop();
}
