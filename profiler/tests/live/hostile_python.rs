//! Programs that look like a `CPython` and lie: what they say of their frames goes round in circles, is as long as the
//! memory, changes whenever it is read, or never answers. They run as `nobody`, beside a process that is honest.

use std::{fs, path::Path};

use profiler_common::python::Version;

use crate::{
    bench::{Bench, Folded, SPLIT, Target, bench, text},
    hostile_files::{MEMORY_MAX_KB, as_nobody, ended, open_to_nobody, recorded},
    python::interpreters,
};

/// A forged interpreter of 3.11; where its members lie is defined by us. The first word is what it lies about.
const FORGED: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#define FRAMES 120
char _PyRuntime[65536] __attribute__((aligned(64)));
const unsigned Py_Version = 0x030b07f0;
static char interpreter[1 << 17], thread[4096], c_frame[256];
static char frames[FRAMES][256], codes[FRAMES][512], names[FRAMES][5000], file[256], lines[64];
static void put(char *object, unsigned at, uint64_t value) { memcpy(object + at, &value, 8); }
static void string(char *object, uint64_t length, const char *text) {
    put(object, TEXT_LENGTH, length);
    uint32_t state = (1 | 8 | 16) << TEXT_KIND_BIT;
    memcpy(object + TEXT_STATE, &state, 4);
    strcpy(object + TEXT_ASCII, text);
}
__attribute__((noinline)) void burn(void) { for (volatile int i = 0; i < 100000; i++); }
static volatile unsigned turn;
static int is(const char *lie, const char *what) { return !strcmp(lie, what); }
static void change(void) {
    turn++;
    for (int i = 0; i < FRAMES; i++) {
        uint32_t line = turn;
        memcpy(codes[i] + CODE_FIRST_LINE, &line, 4);
        for (int at = 0; at < 3900; at += 13) sprintf(names[i] + TEXT_ASCII + at, "%04d%08u_", i, turn + at);
        put(names[i], TEXT_LENGTH, 3900);
    }
}
__attribute__((noinline)) void _PyEval_EvalFrameDefault(const char *lie) {
    char *wild = mmap(0, 1l << 34, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (;;) {
        burn();
        if (is(lie, "changing")) change();
        if (is(lie, "wild"))
            for (int i = 0; i < FRAMES; i++)
                put(frames[i], FRAME_CODE, (uint64_t)wild + ((uint64_t)rand() * 4096 + rand() % 4096 * 8) % (1l << 34));
    }
}
int main(int count, char **words) {
    const char *lie = words[count - 1];
    put(_PyRuntime, INTERPRETERS, (uint64_t)interpreter);
    put(_PyRuntime, CURRENT_THREAD, (uint64_t)thread);
    put(interpreter, INTERPRETER_THREADS, (uint64_t)thread);
    put(thread, THREAD_INTERPRETER, (uint64_t)interpreter);
    put(thread, THREAD_ID, (uint64_t)pthread_self());
    put(thread, THREAD_FRAME, (uint64_t)c_frame);
    put(c_frame, C_FRAME, (uint64_t)frames[0]);
    string(file, 6, "lie.py");
    for (int i = 0; i < FRAMES; i++) {
        sprintf(names[i] + TEXT_ASCII, "function_%d", i);
        string(names[i], strlen(names[i] + TEXT_ASCII), names[i] + TEXT_ASCII);
        put(codes[i], CODE_NAME, (uint64_t)names[i]);
        put(codes[i], CODE_FILENAME, (uint64_t)file);
        put(codes[i], CODE_LINES, (uint64_t)lines);
        put(frames[i], FRAME_CODE, (uint64_t)codes[i]);
        put(frames[i], FRAME_INSTRUCTION, (uint64_t)codes[i] + CODE_BYTES);
        put(frames[i], FRAME_BACK, i + 1 < FRAMES ? (uint64_t)frames[i + 1] : 0);
    }
    if (is(lie, "circle")) put(frames[FRAMES - 1], FRAME_BACK, (uint64_t)frames[0]);
    if (is(lie, "threads")) {
        put(thread, THREAD_ID, 1);
        put(thread, THREAD_NEXT, (uint64_t)thread);
        put(interpreter, INTERPRETER_NEXT, (uint64_t)interpreter);
    }
    if (is(lie, "giant")) for (int i = 0; i < FRAMES; i++) put(names[i], TEXT_LENGTH, 1ul << 40);
    if (is(lie, "lines")) put(lines, BYTES_LENGTH, 1ul << 40);
    if (is(lie, "silent")) {
        int fault = syscall(SYS_userfaultfd, O_CLOEXEC);
        struct uffdio_api api = {UFFD_API};
        char *never = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        struct uffdio_register range = {{(uint64_t)never, 8192}, UFFDIO_REGISTER_MODE_MISSING};
        if (fault < 0 || ioctl(fault, UFFDIO_API, &api) || ioctl(fault, UFFDIO_REGISTER, &range)) return 2;
        for (int i = 0; i < FRAMES; i++) put(codes[i], CODE_NAME, (uint64_t)never);
    }
    if (getuid() == 0 && (setgid(65534) || setuid(65534))) return 3;
    _PyEval_EvalFrameDefault(lie);
}
"#;

/// What it lies about.
const LIES: [&str; 7] = [
    "truth", "circle", "threads", "giant", "lines", "wild", "changing",
];

/// The forged interpreter, compiled for the places where we look.
fn forged(bench: &Bench) -> std::path::PathBuf {
    let versioned = Version { minor: 11 }.known().expect("it is known");
    let (layout, code) = (versioned.layout, versioned.code);
    let defines = [
        ("INTERPRETERS", layout.interpreters),
        ("CURRENT_THREAD", layout.current_thread),
        ("INTERPRETER_NEXT", layout.interpreter_next),
        ("INTERPRETER_THREADS", layout.interpreter_threads),
        ("THREAD_NEXT", layout.thread_next),
        ("THREAD_INTERPRETER", layout.thread_interpreter),
        ("THREAD_ID", layout.thread_id),
        ("THREAD_FRAME", layout.thread_frame),
        ("C_FRAME", layout.c_frame),
        ("FRAME_CODE", layout.frame_code),
        ("FRAME_BACK", layout.frame_back),
        ("FRAME_INSTRUCTION", layout.frame_instruction),
        ("CODE_BYTES", layout.code_bytes),
        ("CODE_FIRST_LINE", code.first_line),
        ("CODE_FILENAME", code.filename),
        ("CODE_NAME", code.name),
        ("CODE_LINES", code.lines),
        ("TEXT_LENGTH", code.text_length),
        ("TEXT_STATE", code.text_state),
        ("TEXT_KIND_BIT", code.text_kind_bit),
        ("TEXT_ASCII", code.text_ascii),
        ("BYTES_LENGTH", code.bytes_length),
    ];
    let defines = defines.map(|(name, value)| format!("-D{name}={value}"));
    let mut arguments: Vec<&str> = defines.iter().map(String::as_str).collect();
    arguments.push("-rdynamic");
    bench.compile("forged", FORGED, &arguments)
}

/// The number behind a note of an account.
fn noted(folded: &Folded, text: &str) -> u64 {
    let line = folded.text.lines().find(|line| line.contains(text));
    let digits: String = line
        .and_then(|line| line.rsplit_once(": "))
        .map(|(_, number)| number.chars().filter(char::is_ascii_digit).collect())
        .unwrap_or_default();
    digits.parse().unwrap_or(0)
}

/// Every lie at once: memory is bounded, what could not be read is counted, and an honest process has its stacks.
#[test]
fn forged_interpreters_cost_no_one_else() {
    let Some(bench) = bench() else { return };
    open_to_nobody(&bench);
    let program = forged(&bench);
    let lies = LIES.map(|lie| as_nobody(&program, &[Path::new(lie)]));
    let honest = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let mut pids: Vec<String> = lies.iter().map(Target::pid).collect();
    pids.push(honest.pid());
    let (folded, most_kb) = recorded(&bench, &pids, &["-F", "999"]);
    println!("{most_kb} kB");
    assert!(most_kb < MEMORY_MAX_KB, "{most_kb} kB");
    folded.assert_has("main;seventy;burn");
    folded.assert_has("lie.function_0");
    assert!(
        noted(&folded, "code object malformed") > 0,
        "{}",
        folded.text
    );
    let gone = noted(&folded, "code object gone before it was read");
    let malformed = noted(&folded, "code object malformed");
    assert!(gone + malformed > 100, "{}", folded.text);
    for lie in &lies {
        let (output, most_kb) = ended(&bench, &["dump", "-p", &lie.pid()]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(most_kb < MEMORY_MAX_KB, "{most_kb} kB");
    }
}

/// Memory that never answers is asked once: the recording ends, the process keeps its native stacks, others have all
/// of theirs.
#[test]
fn memory_that_never_answers_is_left_alone() {
    let Some(bench) = bench() else { return };
    open_to_nobody(&bench);
    let program = forged(&bench);
    // Only root may have page faults of others wait; it becomes nobody then.
    let silent = Target::start(&program, &["silent"]);
    let truth = as_nobody(&program, &[Path::new("truth")]);
    let (folded, _) = recorded(&bench, &[silent.pid(), truth.pid()], &["-F", "199"]);
    folded.assert_has("lie.function_0");
    // Some kernels refuse such a read at once; others make it wait.
    let notes = [
        "process did not let itself be looked at in time",
        "Python frame without a name, code object gone before it was read",
    ];
    let counted: u64 = notes.iter().map(|note| noted(&folded, note)).sum();
    assert!(counted > 0, "{}", folded.text);
    let (output, _) = ended(&bench, &["dump", "-p", &silent.pid()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// A real interpreter that forges its own code objects: a name of a terabyte, first lines that change all the time.
#[test]
fn real_interpreters_that_forge_themselves_are_bounded() {
    const PROGRAM: &str = r#"
import ctypes, random, threading

def giant():
    while True: pass

def changing():
    while True: pass

def name(code):
    return getattr(code, "co_qualname", code.co_name)

def change(at):
    while True: at.value = random.randrange(1 << 30)

for target in (giant, changing):
    threading.Thread(target=target, daemon=True).start()
code = changing.__code__
at = id(code) + next(i for i in range(16, 200, 4) if ctypes.c_int.from_address(id(code) + i).value == code.co_firstlineno)
threading.Thread(target=change, args=(ctypes.c_int.from_address(at),), daemon=True).start()
ctypes.c_ssize_t.from_address(id(name(giant.__code__)) + 16).value = 1 << 40
giant()
"#;
    let Some(bench) = bench() else { return };
    open_to_nobody(&bench);
    let path = bench.path("forge.py");
    fs::write(&path, PROGRAM).expect("it is written");
    let honest = Target::start(&bench.compile("split", SPLIT, &[]), &[]);
    let system: Vec<_> = interpreters()
        .into_iter()
        .filter(|(name, _)| name == "system")
        .collect();
    for (name, python) in system {
        let target = as_nobody(&python, &[&path]);
        let (folded, most_kb) = recorded(&bench, &[target.pid(), honest.pid()], &["-F", "999"]);
        println!("{name}: {most_kb} kB");
        assert!(most_kb < MEMORY_MAX_KB, "{name}: {most_kb} kB");
        folded.assert_has("main;seventy;burn");
        assert!(
            noted(&folded, "code object malformed") > 0,
            "{name}: {}",
            folded.text
        );
        let (output, _) = ended(&bench, &["dump", "-p", &target.pid()]);
        assert!(output.status.success(), "{name}: {}", text(&output.stderr));
    }
}
