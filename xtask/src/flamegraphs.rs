//! `cargo xtask flamegraphs`: the gallery, which is the renderer's golden test too.

use anyhow::Result;
use clap::Args;

use crate::shell;

/// `cargo xtask flamegraphs`
#[derive(Args)]
pub(crate) struct Options {
    /// Take what the renderer makes now as right
    #[arg(long)]
    bless: bool,
}

/// Runs the verb.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut test = shell::cargo(&["test", "--package", "profiler", "--test", "golden"]);
    if options.bless {
        test.env("PROFILER_BLESS", "1");
    }
    shell::run(&mut test)
}
