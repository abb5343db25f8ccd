//! Stacks that are hard to walk: on several stacks, through registers, without section headers, through functions
//! without rules, through a C library without any.

use std::{fs, path::Path, process::Command};

use crate::bench::{Bench, Folded, Target, bench};

/// Nearly all stacks are whole and have these frames.
#[track_caller]
fn assert_whole(folded: &Folded, expected: &str) {
    folded.assert_whole();
    let (named, all) = (folded.samples(expected), folded.total());
    println!("{named} of {all} with `{expected}`");
    assert!(named * 1000 >= all * 990, "{}", folded.text);
}

fn record(bench: &Bench, program: &Path) -> Folded {
    let target = Target::start(program, &[]);
    bench.folded(&["-p", &target.pid(), "-d", "2s", "-F", "199"])
}

/// Works on a stack that lies above the one that it came from, which lies below the thread's own.
const SWITCHED: &str = r#"
#include <stdint.h>
#include <sys/mman.h>
void on_stack(void (*work)(void), char *top);
__asm__(".text\n.globl on_stack\n.type on_stack,@function\non_stack:\n.cfi_startproc\n"
    "push %rbp\n.cfi_def_cfa rbp,16\n.cfi_offset rbp,-16\nmov %rsp,%rbp\nmov %rsi,%rsp\ncall *%rdi\n"
    "mov %rbp,%rsp\npop %rbp\n.cfi_def_cfa rsp,8\nret\n.cfi_endproc\n.size on_stack,.-on_stack\n");
static char *stacks;
volatile uint64_t sink;
__attribute__((noinline)) void leaf(void) { for (int i = 0; i < 100000; i++) sink += i; }
__attribute__((noinline)) void upper(void) { leaf(); sink++; }
__attribute__((noinline)) void lower(void) { on_stack(upper, stacks + (8 << 20)); sink++; }
int main(void) {
    stacks = mmap(0, 8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (;;) on_stack(lower, stacks + (1 << 20));
}
"#;

/// A function that has switched stacks is followed to the other one, wherever that lies.
#[test]
fn switched_stacks_are_followed() {
    let Some(bench) = bench() else { return };
    let program = bench.compile("switched", SWITCHED, &["-O2", "-fomit-frame-pointer"]);
    assert_whole(
        &record(&bench, &program),
        "main;on_stack;lower;on_stack;upper;leaf",
    );
}

/// Three functions, of which `main` is compiled apart.
const WORK: &str = r"
#include <stdint.h>
volatile uint64_t sink;
__attribute__((noinline)) void leaf(void) { for (int i = 0; i < 100000; i++) sink += i; }
__attribute__((noinline)) void work(void) { leaf(); sink++; }
";
const MAIN: &str = "void work(void); int main(void) { for (;;) work(); }";

/// In a stripped file a function without rules lies between those that have them.
#[test]
fn one_function_without_rules_is_walked_through() {
    let Some(bench) = bench() else { return };
    let plain = ["-O2", "-fomit-frame-pointer", "-c"];
    let main = [
        &plain[..],
        &[
            "-fno-asynchronous-unwind-tables",
            "-fno-unwind-tables",
            "-g0",
        ],
    ]
    .concat();
    let objects = [
        bench.compile("work.o", WORK, &plain),
        bench.compile("main.o", MAIN, &main),
        bench.compile(
            "more.o",
            &WORK
                .replace("work", "more")
                .replace("leaf", "more_leaf")
                .replace("sink", "more_sink"),
            &plain,
        ),
    ];
    let program = bench.path("lone");
    let mut gcc = Command::new("gcc");
    gcc.arg("-s").arg("-o").arg(&program).args(objects);
    assert!(gcc.status().expect("gcc runs").success());
    assert_whole(&record(&bench, &program), "lone;");
}

/// A file without section headers has its rules by its program headers.
#[test]
fn a_file_without_section_headers_is_walked() {
    let Some(bench) = bench() else { return };
    let source = format!("{WORK}\n{MAIN}");
    let program = bench.compile("headless", &source, &["-O2", "-fomit-frame-pointer"]);
    let mut bytes = fs::read(&program).expect("it is there");
    // e_shoff; e_shnum and e_shstrndx.
    bytes[0x28..0x30].fill(0);
    bytes[0x3c..0x40].fill(0);
    fs::write(&program, bytes).expect("it can be written");
    assert_whole(&record(&bench, &program), "headless;");
}

/// Sorts, prints, and is interrupted: all through a C library that has no rules.
const SORTS: &str = r"
#include <stdlib.h>
volatile unsigned long sink;
static int compare(const void *a, const void *b) { return *(int *)a - *(int *)b; }
__attribute__((noinline)) static void sort_rows(void) {
    static int rows[20000];
    for (int i = 0; i < 20000; i++) rows[i] = (i * 7919) % 10007;
    qsort(rows, 20000, 4, compare);
    sink++;
}
__attribute__((noinline)) static void handle(void) { sort_rows(); sink++; }
int main(void) { for (;;) handle(); }
";

/// A dynamic C library of musl, stripped and without rules, is walked through, callbacks out of it too.
#[test]
fn a_dynamic_musl_is_walked() {
    let Some(bench) = bench() else { return };
    let (source, program) = (bench.path("sorts.c"), bench.path("sorts"));
    fs::write(&source, SORTS).expect("it can be written");
    let mut gcc = Command::new("musl-gcc");
    gcc.args(["-O2", "-o"]).arg(&program).arg(&source);
    assert!(gcc.status().expect("musl-gcc runs").success());
    let folded = record(&bench, &program);
    assert_whole(&folded, "main;handle;sort_rows");
    // Functions that only the library itself knows are named by where they begin.
    folded.assert_has(";libc.so+0x");
    assert!(!folded.text.contains("[.text]"), "{}", folded.text);
}

/// Signal handlers of a static program without rules: what they return to stands right behind another function.
#[test]
fn handlers_of_a_static_musl_are_walked() {
    let Some(bench) = bench() else { return };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xtask/trees/sorted.c");
    let program = bench.path("sorted");
    let mut gcc = Command::new("musl-gcc");
    gcc.args(["-O2", "-static", "-o"]).arg(&program).arg(source);
    assert!(gcc.status().expect("musl-gcc runs").success());
    let folded = record(&bench, &program);
    assert_whole(&folded, "main;");
    folded.assert_has("handler");
}

/// Assembly that keeps its frame's address in a register that its callee leaves alone.
#[test]
fn a_frame_in_a_register_is_walked() {
    let Some(bench) = bench() else { return };
    for cipher in ["aes-128-gcm", "aes-256-gcm", "sha256", "chacha20-poly1305"] {
        let mut openssl = Command::new("openssl");
        openssl.args(["speed", "-seconds", "60", "-bytes", "16384", "-evp", cipher]);
        let target = Target::spawn(openssl.stderr(std::process::Stdio::null()));
        let folded = bench.folded(&["-p", &target.pid(), "-d", "2s", "-F", "199"]);
        println!("{cipher}");
        assert_whole(&folded, "openssl;");
    }
}

/// Copies itself into memory that has no name in any folder, and goes on from there.
const IN_MEMORY: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>
volatile uint64_t sink;
__attribute__((noinline)) void leaf(void) { for (int i = 0; i < 100000; i++) sink += i; }
__attribute__((noinline)) void work(void) { leaf(); sink++; }
int main(int count, char **words) {
    if (count > 1) for (;;) work();
    int self = open("/proc/self/exe", O_RDONLY), copy = memfd_create("hidden", MFD_CLOEXEC);
    struct stat stat;
    fstat(self, &stat);
    sendfile(copy, self, 0, stat.st_size);
    char *const arguments[] = {"hidden", "again", 0};
    fexecve(copy, arguments, environ);
    return 1;
}
"#;

/// A program in a memfd has its names and rules like any other.
#[test]
fn a_program_in_memory_is_a_file() {
    let Some(bench) = bench() else { return };
    let program = bench.compile("in_memory", IN_MEMORY, &["-O2", "-fomit-frame-pointer"]);
    assert_whole(&record(&bench, &program), "main;work;leaf");
}

/// Copies its code onto other pages and puts these in the place of the first, as programs do that want large ones.
const MOVED: &str = r"
#define _GNU_SOURCE
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
volatile uint64_t sink;
extern char __executable_start, etext;
__attribute__((noinline, aligned(4096))) void leaf(void) { for (int i = 0; i < 100000; i++) sink += i; }
__attribute__((noinline)) void work(void) { leaf(); sink++; }
__attribute__((noinline, aligned(4096))) void behind(void) { sink--; }
int main(void) {
    uintptr_t start = (uintptr_t)leaf & ~4095ul, size = ((uintptr_t)behind & ~4095ul) - start;
    void *copy = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(copy, (void *)start, size);
    mprotect(copy, size, PROT_READ | PROT_EXEC);
    mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)start);
    for (;;) work();
}
";

/// Code that was copied onto pages of its own is still its file's.
#[test]
fn code_on_other_pages_is_its_files() {
    let Some(bench) = bench() else { return };
    let flags = ["-O2", "-fomit-frame-pointer", "-fno-toplevel-reorder"];
    let program = bench.compile("moved", MOVED, &flags);
    assert_whole(&record(&bench, &program), "main;work;leaf");
}

/// Stubs that Python makes for other profilers, one for each function, are walked through.
#[test]
fn stubs_of_python_are_walked() {
    const SPINS: &str = "\
def spin():
    while True:
        for _ in range(1000): pass
def middle(): spin()
def outer(): middle()
outer()";
    let Some(bench) = bench() else { return };
    let has_stubs = |version: &str| version.starts_with("3.12") || version.starts_with("3.13");
    for (version, python) in crate::python::interpreters() {
        if !has_stubs(&version) {
            continue;
        }
        let mut python = Command::new(&python);
        let target = Target::spawn(python.args(["-X", "perf", "-c", SPINS]));
        let folded = bench.folded(&["-p", &target.pid(), "-d", "2s", "-F", "199"]);
        println!("{version}");
        // What the stubs are called, which Python leaves there.
        let _ = fs::remove_file(format!("/tmp/perf-{}.map", target.pid()));
        assert_whole(&folded, "outer");
    }
}
