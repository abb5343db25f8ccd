//! Files of targets that are not what they seem: pipes and devices in the place of libraries, forged build ids, files
//! that claim to be larger than the machine. The targets run as `nobody`.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread::sleep,
    time::Duration,
};

use crate::{
    bench::{Bench, Folded, SPLIT, Target, bench, text},
    service::{Daemon, report, sections},
};

/// The user that targets run as.
const NOBODY: u32 = 65_534;
/// Far longer than anything here takes.
const LOOKS_MAX: u32 = 3000;
/// What the daemon may use by its unit, kB.
pub(crate) const MEMORY_MAX_KB: u64 = 384 << 10;

/// A folder that `nobody` can enter, and one in it that is theirs.
pub(crate) fn open_to_nobody(bench: &Bench) -> PathBuf {
    let theirs = bench.path("theirs");
    fs::create_dir(&theirs).expect("a folder");
    fs::set_permissions(bench.path(""), PermissionsExt::from_mode(0o755)).expect("it is ours");
    chown(&theirs, Some(NOBODY), Some(NOBODY)).expect("we are root");
    theirs
}

/// A program that runs as `nobody`.
pub(crate) fn as_nobody(program: &Path, arguments: &[&Path]) -> Target {
    Target::spawn(
        Command::new(program)
            .args(arguments)
            .uid(NOBODY)
            .gid(NOBODY),
    )
}

/// What the profiler said and the most memory it had, kB, once it has ended by itself.
pub(crate) fn ended(bench: &Bench, arguments: &[&str]) -> (Output, u64) {
    let (out, err) = (bench.path("out"), bench.path("err"));
    let file = |path: &Path| Stdio::from(fs::File::create(path).expect("a file"));
    let mut command = bench.command(arguments);
    let mut child = command
        .stdout(file(&out))
        .stderr(file(&err))
        .spawn()
        .expect("it starts");
    let mut most_kb = 0;
    for _ in 0..LOOKS_MAX {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let most = most.and_then(|most| most.trim().strip_suffix(" kB")?.parse().ok());
        most_kb = most_kb.max(most.unwrap_or(0));
        if let Some(status) = child.try_wait().expect("it is ours") {
            let read = |path| fs::read(path).expect("it was written");
            let output = Output {
                status,
                stdout: read(&out),
                stderr: read(&err),
            };
            return (output, most_kb);
        }
        sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    panic!("{arguments:?} does not end");
}

/// Records these processes, and gives the folded stacks and the most memory, kB.
pub(crate) fn recorded(bench: &Bench, pids: &[String], more: &[&str]) -> (Folded, u64) {
    let pids = pids.join(",");
    let common = ["record", "-f", "folded", "-o", "-", "-d", "2s", "-p", &pids];
    let (output, most_kb) = ended(bench, &[&common[..], more].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    (Folded::parse(&text(&output.stdout)), most_kb)
}

/// Maps files that are unlinked and replaced by whatever is asked for, over and over, and runs code of its own.
const REPLACED: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/socket.h>
#include <unistd.h>
#define N 100
static int fds[N];
static void *churn(void *unused) {
    void *maps[N];
    for (;;) {
        for (int i = 0; i < N; i++) maps[i] = mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fds[i], 0);
        for (int i = 0; i < N; i++) munmap(maps[i], 4096);
    }
    return unused;
}
int main(int count, char **words) {
    char page[4096] = {0};
    static unsigned char code[] = {0x31, 0xc0, 0xff, 0xc0, 0x3d, 0, 0x10, 0, 0, 0x75, 0xf7, 0xc3};
    if (count < 2 || chdir(words[1])) return 1;
    for (int i = 0; i < N; i++) {
        struct sockaddr_un name = {AF_UNIX};
        sprintf(name.sun_path, "f%d", i);
        fds[i] = open(name.sun_path, O_RDWR | O_CREAT | O_TRUNC, 0755);
        if (write(fds[i], page, 4096) != 4096) return 1;
        unlink(name.sun_path);
        switch (i % 4) {
        case 0: mkfifo(name.sun_path, 0644); break;
        case 1: if (symlink("/dev/tty", name.sun_path)) return 1; break;
        case 2: if (symlink("/etc/hostname", name.sun_path)) return 1; break;
        case 3: bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&name, sizeof name); break;
        }
    }
    pthread_t thread;
    pthread_create(&thread, 0, churn, 0);
    for (;;) {
        void *own = mmap(0, 4096, 7, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        memcpy(own, code, sizeof code);
        for (int i = 0; i < 2000; i++) ((void (*)(void))own)();
        munmap(own, 4096);
    }
}
"#;

/// Pipes, devices, sockets and links in the place of mapped files hang no verb, and are counted.
#[test]
fn pipes_in_the_place_of_mapped_files_stop_nothing() {
    let Some(bench) = bench() else { return };
    let theirs = open_to_nobody(&bench);
    let program = bench.compile("replaced", REPLACED, &["-pthread"]);
    let target = as_nobody(&program, &[&theirs]);
    let pid = target.pid();
    let causes = ["it is no regular file", "another file stands in its place"];
    let mut missing = causes
        .map(|cause| format!("# note, foreign file not opened, {cause}: "))
        .to_vec();
    // A file is looked for by its name only if its mapping ends while it is opened.
    for _ in 0..20 {
        let (folded, most_kb) = recorded(&bench, std::slice::from_ref(&pid), &["-F", "999"]);
        folded.assert_has("replaced;");
        assert!(most_kb < MEMORY_MAX_KB, "{most_kb} kB");
        missing.retain(|note| !folded.text.contains(note));
        if missing.is_empty() {
            break;
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
    for verb in [
        &["record", "--off-cpu", "-o", "-", "-f", "folded"][..],
        &["syscalls", "--by-fd"],
        &["tcp"],
        &["queries"],
    ] {
        let (output, _) = ended(&bench, &[verb, &["-d", "1s", "-p", &pid]].concat());
        assert!(
            output.status.success(),
            "{verb:?}: {}",
            text(&output.stderr)
        );
    }
    let (output, _) = ended(&bench, &["dump", "-p", &pid]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// The daemon keeps writing windows of it and of others, and ends when it is told to.
#[test]
fn pipes_in_the_place_of_mapped_files_do_not_stop_the_daemon() {
    let Some(bench) = bench() else { return };
    let theirs = open_to_nobody(&bench);
    let program = bench.compile("replaced", REPLACED, &["-pthread"]);
    let hostile = as_nobody(&program, &[&theirs]);
    let honest = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let pids = format!("pids = [{}, {}]", hostile.pid(), honest.pid());
    let daemon = Daemon::start(&bench, &sections("1s", &pids));
    daemon.windows(3);
    let state = daemon.state.clone();
    daemon.stop();
    let folded = report(&bench, &state, &["--pid", &honest.pid()]);
    folded.assert_has("main;seventy;burn");
}

/// Two libraries of one code; where `FORGED`, the rules of one say that its stacks end in it.
const FORGED: &str = r"
.text
.macro begin name
.globl \name
.type \name, @function
\name:
.cfi_startproc
.endm
.macro end name
.cfi_endproc
.size \name, . - \name
.endm
begin leaf
    mov $200000, %rcx
1:  dec %rcx
    jnz 1b
    ret
end leaf
begin middle
    sub $40, %rsp
#ifdef FORGED
    .cfi_undefined %rip
#else
    .cfi_adjust_cfa_offset 40
#endif
    call leaf
    add $40, %rsp
#ifndef FORGED
    .cfi_adjust_cfa_offset -40
#endif
    ret
end middle
begin spin
    sub $24, %rsp
    .cfi_adjust_cfa_offset 24
    call middle
    add $24, %rsp
    .cfi_adjust_cfa_offset -24
    ret
end spin
.section .note.GNU-stack
";

/// Runs a library's code.
const LOAD: &str = r"
#include <dlfcn.h>
int main(int count, char **words) {
    void *library = dlopen(words[count - 1], RTLD_NOW);
    if (!library) return 1;
    void (*spin)(void) = (void (*)(void))dlsym(library, words[0][0] ? ¨spin¨ : 0);
    for (;;) spin();
}
";

fn library(bench: &Bench, name: &str, more: &[&str]) -> PathBuf {
    let (source, library) = (bench.path("code.S"), bench.path(name));
    fs::write(&source, FORGED).expect("it is written");
    let mut gcc = Command::new("gcc");
    gcc.args([
        "-shared",
        "-nostdlib",
        "-Wl,--build-id=0x0123456789abcdef0123456789abcdef01234567",
    ])
    .args(more)
    .arg("-o")
    .arg(&library)
    .arg(&source);
    assert!(gcc.status().expect("gcc runs").success());
    library
}

fn loader(bench: &Bench, name: &str) -> PathBuf {
    bench.compile(name, &LOAD.replace('¨', "\""), &[])
}

/// A file of somebody else's with the build id of an honest one, and seen before it, has its own stacks cut by its bad
/// rules, and those of nobody else.
#[test]
fn a_forged_build_id_forges_nobody_elses_stacks() {
    let Some(bench) = bench() else { return };
    open_to_nobody(&bench);
    let forged = library(&bench, "forged.so", &["-DFORGED"]);
    chown(&forged, Some(NOBODY), Some(NOBODY)).expect("we are root");
    let honest = library(&bench, "honest.so", &[]);
    let first = as_nobody(&loader(&bench, "hostile"), &[&forged]);
    let second = Target::start(
        &loader(&bench, "harmless"),
        &[honest.to_str().expect("text")],
    );
    let (folded, _) = recorded(&bench, &[first.pid(), second.pid()], &["-F", "499"]);
    let stacks = |program: &str, leaf: &str| {
        let is_it =
            |(stack, _): &&(String, u64)| stack.starts_with(program) && stack.contains(leaf);
        let found: Vec<String> = folded
            .stacks
            .iter()
            .filter(is_it)
            .map(|(stack, _)| stack.clone())
            .collect();
        assert!(!found.is_empty(), "{program} {leaf}: {}", folded.text);
        found
    };
    for stack in stacks("harmless", "middle;leaf") {
        assert!(stack.contains(";main;spin;middle;leaf"), "{stack}");
    }
    for stack in stacks("hostile", "middle;leaf") {
        assert!(!stack.contains(";main;"), "{stack}");
    }
}

/// Two files that the kernel's list of mappings calls by one device and inode number, on an overlay of two file systems,
/// are two files.
#[test]
fn equal_numbers_do_not_make_one_file() {
    let Some(bench) = bench() else { return };
    let one = bench.compile("first", SPLIT, &[]);
    let other = SPLIT.replace("seventy", "septante");
    let two = bench.compile("second", &other, &[]);
    let place = bench.path("layers");
    fs::create_dir(&place).expect("a folder");
    let script = format!(
        "set -e; cd {}; mkdir a b all; mount -t tmpfs -o inode64 a a; mount -t tmpfs -o inode64 b b
         cp {} a/first; cp {} b/second; mount -t overlay -o lowerdir=a:b,xino=off all all
         all/first & all/second & wait",
        place.display(),
        one.display(),
        two.display()
    );
    let shell = Target::spawn(Command::new("unshare").args([
        "-m",
        // The end of the first process of its namespace is the end of all in it.
        "--pid",
        "--kill-child",
        "--fork",
        "sh",
        "-c",
        &script,
    ]));
    let (first, second) = (until_runs("first"), until_runs("second"));
    let numbers = |pid: &str| {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("it lives");
        let line = maps
            .lines()
            .find(|line| line.contains("layers/all/"))
            .expect("it is mapped")
            .to_owned();
        let words: Vec<&str> = line.split_whitespace().collect();
        (words[3].to_owned(), words[4].to_owned())
    };
    assert_eq!(
        numbers(&first),
        numbers(&second),
        "this kernel tells them apart"
    );
    let (folded, _) = recorded(&bench, &[first, second], &[]);
    folded.assert_has("main;seventy;burn");
    folded.assert_has("main;septante;burn");
    for (stack, _) in &folded.stacks {
        assert!(
            !(stack.starts_with("first") && stack.contains("septante")),
            "{stack}"
        );
        assert!(
            !(stack.starts_with("second") && stack.contains("seventy")),
            "{stack}"
        );
    }
    drop(shell);
}

/// The process that has such a name, once it is there.
fn until_runs(name: &str) -> String {
    let found = (0..600).find_map(|_| {
        sleep(Duration::from_millis(50));
        let output = Command::new("pgrep").args(["-n", "-x", name]).output();
        let pid = text(&output.expect("pgrep runs").stdout).trim().to_owned();
        (!pid.is_empty()).then_some(pid)
    });
    found.expect("it runs")
}

/// Makes a section of an ELF file claim a size.
fn claim(file: &Path, section: &str, bytes: u64) {
    let mut data = fs::read(file).expect("it is there");
    let word = |data: &[u8], at: usize| {
        usize::try_from(u64::from_le_bytes(data[at..at + 8].try_into().expect("8")))
            .expect("it fits")
    };
    let half = |data: &[u8], at: usize| {
        usize::from(u16::from_le_bytes(data[at..at + 2].try_into().expect("2")))
    };
    let headers = word(&data, 0x28);
    let names = word(&data, headers + 64 * half(&data, 0x3e) + 24);
    let found = (0..half(&data, 0x3c))
        .map(|index| headers + 64 * index)
        .find(|header| {
            let name = u32::from_le_bytes(data[*header..header + 4].try_into().expect("4"));
            let name = &data[names + usize::try_from(name).expect("it fits")..];
            name.starts_with(section.as_bytes()) && name[section.len()] == 0
        });
    let header = found.expect("it has such a section");
    data[header + 32..header + 40].copy_from_slice(&bytes.to_le_bytes());
    fs::write(file, data).expect("it is ours");
}

/// A library that claims gigabytes, which a sparse file has, costs neither memory nor the names of others; it is counted.
#[test]
fn sparse_giants_are_refused() {
    const GIANT: u64 = 3 << 30;
    let Some(bench) = bench() else { return };
    open_to_nobody(&bench);
    let giant = library(&bench, "giant.so", &[]);
    claim(&giant, ".eh_frame", GIANT);
    fs::File::options()
        .write(true)
        .open(&giant)
        .and_then(|file| file.set_len(2 * GIANT))
        .expect("a sparse file");
    chown(&giant, Some(NOBODY), Some(NOBODY)).expect("we are root");
    let first = as_nobody(&loader(&bench, "hostile"), &[&giant]);
    let second = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let (folded, most_kb) = recorded(&bench, &[first.pid(), second.pid()], &[]);
    assert!(most_kb < MEMORY_MAX_KB, "{most_kb} kB");
    folded.assert_has("main;seventy;burn");
    folded.assert_has("hostile;");
    let note = "# note, file with more to read than is read of one, its rest left out: ";
    assert!(folded.text.contains(note), "{}", folded.text);
}

/// A process with as many mappings as it may have costs a bounded part of our time, and those of others are known.
#[test]
fn countless_mappings_leave_others_known() {
    const COUNTLESS: &str = r"
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>
int main(int count, char **words) {
    int fd = open(words[0], O_RDONLY);
    for (int i = 0; i < 60000; i++)
        if (mmap(0, 4096, i % 2 ? PROT_READ | PROT_EXEC : PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED) break;
    for (volatile long i = 0;; i++) if (i % 1000 == 0) {
        void *m = mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 4096);
        munmap(m, 4096);
    }
}
";
    let Some(bench) = bench() else { return };
    open_to_nobody(&bench);
    let program = bench.compile("countless", COUNTLESS, &[]);
    let first = as_nobody(&program, &[]);
    let second = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let (folded, most_kb) = recorded(&bench, &[first.pid(), second.pid()], &["-F", "499"]);
    assert!(most_kb < MEMORY_MAX_KB, "{most_kb} kB");
    folded.assert_has("main;seventy;burn");
    let note = "# note, list of mappings too long, its end left out: ";
    assert!(folded.text.contains(note), "{}", folded.text);
}
