//! The verbs of working on `profiler`: `cargo xtask VERB`. One file a verb.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "xtask talks to the developer"
)]

mod bench;
mod check;
#[path = "../../profiler/build/compile.rs"]
mod compile;
mod demo;
mod flamegraphs;
mod foreign;
mod fuzz;
mod guest;
mod interpreters;
mod interrupt;
mod package;
mod postgres;
mod setup;
mod shell;
mod test;
#[path = "../../profiler/build/toolchain.rs"]
mod toolchain;
mod trees;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The verbs of working on profiler
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Find or install what building needs
    Setup(setup::Options),
    /// Record a throw-away Postgres and a Python program, and show the flamegraphs
    Demo,
    /// Run the whole test ladder; what CI runs
    Test,
    /// What `test` runs beside its other rungs
    #[command(hide = true)]
    Aside { rungs: test::Rungs },
    /// Run the quick rungs: format, lints, docs, budgets, unit tests
    Check,
    /// Measure what profiling costs, beside perf
    #[command(subcommand)]
    Bench(bench::What),
    /// Throw bytes at the readers of foreign bytes, for a limited time
    Fuzz(fuzz::Options),
    /// Make a .deb and an .rpm of a release build, and check them
    Package,
    /// Try the package on Debian's kernels, each in an emulated machine
    TestKernel(guest::Options),
    /// Record programs of many versions, of newer systems too: names and whole stacks, in percent
    TestTrees(trees::Options),
    /// Run the live tests of queries beside Postgres 12 to 18
    TestServers(test::servers::Options),
    /// Compare the gallery with what the renderer makes of its stacks
    Flamegraphs(flamegraphs::Options),
}

fn main() -> ExitCode {
    let result = match Cli::parse().verb {
        Verb::Setup(options) => setup::run(&options),
        Verb::Demo => demo::run(),
        Verb::Test => test::run(),
        Verb::Aside { rungs } => test::aside(rungs),
        Verb::Check => check::run(),
        Verb::Bench(what) => bench::run(&what),
        Verb::Fuzz(options) => fuzz::run(&options),
        Verb::Package => package::run(),
        Verb::TestKernel(options) => guest::run(&options),
        Verb::TestTrees(options) => trees::run(&options),
        Verb::TestServers(options) => test::servers::run(&options),
        Verb::Flamegraphs(options) => flamegraphs::run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
