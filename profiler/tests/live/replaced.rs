//! Code that takes the place of other code: a plug-in that is loaded again, at the addresses of the last one.

use std::{collections::BTreeSet, io::Read, process::Command};

use crate::bench::{Bench, Target, bench};

/// What a library does; the name and the number of rounds come from the compiler's command line.
const LIBRARY: &str = r"
volatile unsigned long sink;
__attribute__((noinline)) static void NAME(void) { for (unsigned long i = 0; i < ROUNDS; i++) sink += i * i; }
void run(void) { NAME(); sink++; }
";

/// Loads one library after the other, each in the place of the one before, and prints where they lie.
const LOADER: &str = r#"
#include <dlfcn.h>
#include <stdio.h>
int main(int count, char **names) {
    for (int i = 0; ; i++) {
        void *library = dlopen(names[1 + i % 2], RTLD_NOW);
        void (*run)(void) = (void (*)(void))dlsym(library, "run");
        if (i < 20) { printf("%p\n", (void *)run); fflush(stdout); }
        run();
        dlclose(library);
    }
}
"#;

fn library(bench: &Bench, name: &str, rounds: u64) -> String {
    let flags = [
        "-O2".to_owned(),
        "-fPIC".to_owned(),
        "-shared".to_owned(),
        format!("-DNAME={name}"),
        format!("-DROUNDS={rounds}UL"),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let path = bench.compile(name, LIBRARY, &flags);
    path.to_string_lossy().into_owned()
}

/// Two libraries that have the same addresses in turn have their own names, in the share that each of them works; what is
/// walked with the tables of the other one is cut and said so.
#[test]
fn a_library_in_anothers_place_has_its_own_names() {
    let Some(bench) = bench() else { return };
    // Two thirds and one third; some 50 ms each.
    let libraries = [
        library(&bench, "work_of_alpha", 80_000_000),
        library(&bench, "work_of_beta", 40_000_000),
    ];
    let loader = bench.compile("loader", LOADER, &["-ldl"]);
    let mut target = Target::spawn(Command::new(loader).args(libraries));
    let folded = bench.folded(&["-p", &target.pid(), "-d", "4s"]);
    let mut addresses = [0; 60];
    let stdout = target.0.stdout.as_mut().expect("it is piped");
    stdout
        .read_exact(&mut addresses)
        .expect("it has printed some");
    let printed = String::from_utf8_lossy(&addresses).into_owned();
    let distinct: BTreeSet<&str> = printed.lines().take(3).collect();
    assert_eq!(distinct.len(), 1, "one place for both: {printed}");
    let [alpha, beta] = ["work_of_alpha", "work_of_beta"].map(|name| folded.samples(name));
    println!("{alpha} alpha, {beta} beta of {}", folded.total());
    #[expect(clippy::cast_precision_loss, reason = "a few hundred samples")]
    let (alpha, both) = (alpha as f64, (alpha + beta) as f64);
    let sigma = (both * 2.0 / 9.0).sqrt();
    assert!(both > 100.0, "{}", folded.text);
    // The first and the last turn are cut.
    let turns = both / 40.0;
    assert!(
        (alpha - both * 2.0 / 3.0).abs() < 5.0 * sigma + turns,
        "{}",
        folded.text
    );
}
