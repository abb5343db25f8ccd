//! Functions that another tracer looks at: their return addresses are not where they were.

use std::io::Read;

use crate::bench::{Target, bench};

/// Puts a uretprobe on two of its own functions, as any tracer would, and works below them.
const PROBED: &str = r#"
#define _GNU_SOURCE
#include <linux/perf_event.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
extern char __executable_start;
volatile uint64_t sink;
__attribute__((noinline)) void leaf(void) { for (int i = 0; i < 100000; i++) sink += i; }
__attribute__((noinline)) void middle(void) { leaf(); sink++; }
__attribute__((noinline)) void between(void) { middle(); sink++; }
__attribute__((noinline)) void outer(void) { between(); sink++; }
static int probe(void *function, const char *path) {
    struct perf_event_attr attr = {0};
    int type = 0;
    FILE *file = fopen("/sys/bus/event_source/devices/uprobe/type", "r");
    if (!file || fscanf(file, "%d", &type) != 1) return -1;
    attr.type = type;
    attr.size = sizeof attr;
    attr.config = 1;
    attr.config1 = (uint64_t)path;
    attr.config2 = (char *)function - &__executable_start;
    return syscall(SYS_perf_event_open, &attr, getpid(), -1, -1, 0);
}
int main(int count, char **names) {
    int first = probe(middle, names[0]), second = probe(outer, names[0]);
    printf("%s\n", first >= 0 && second >= 0 ? "probed" : "failed");
    fflush(stdout);
    for (;;) outer();
}
"#;

/// A stack goes on at the addresses that the probes have taken away, as if there were none.
#[test]
fn stacks_go_on_behind_a_uretprobe() {
    let Some(bench) = bench() else { return };
    let program = bench.compile("probed", PROBED, &["-O0"]);
    let mut target = Target::start(&program, &[]);
    let mut said = [0; 7];
    let stdout = target.0.stdout.as_mut().expect("it is piped");
    stdout.read_exact(&mut said).expect("it has begun");
    assert_eq!(&said, b"probed\n");
    let folded = bench.folded(&["-p", &target.pid(), "-d", "2s"]);
    let (whole, all) = (
        folded.samples(
            "_start;__libc_start_main_impl;__libc_start_call_main;main;outer;between;middle;leaf",
        ),
        folded.samples("leaf"),
    );
    println!("{whole} of {all}");
    assert!(all > 50 && whole * 100 >= all * 99, "{}", folded.text);
}
