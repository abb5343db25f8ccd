//! The live tests: one at a time, each in a process of its own, so that each has its time and its
//! bound.

use anyhow::{Result, ensure};

use super::{
    process::{self, Ended},
    programs::Programs,
    tally::{Counts, Tally, skips},
};

/// The test that installs what others run: it waits for the network, and nothing in it is timed.
pub(super) const INSTALLS: &str = "packages::each_set_is_installed_once";

/// Runs the one that installs things.
pub(super) fn install(programs: &Programs) -> Result<Ended> {
    one(programs, INSTALLS)
}

/// Runs them all; one that failed is run once more. What is installed is so by now.
pub(super) fn run(programs: &Programs, tally: &mut Tally) -> Result<()> {
    let names = names(programs)?;
    let mut failed = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let ended = one(programs, name)?;
        let counts = counts(&ended);
        let word = match counts {
            Counts { failed: 1.., .. } => "FAILED",
            Counts { skipped: 1.., .. } => "skipped",
            Counts { .. } => "ok",
        };
        let (number, count) = (number + 1, names.len());
        println!(
            "{number:3}/{count} {:6.1} s  {word:7} {name}",
            ended.time.as_secs_f64()
        );
        skips(&ended.talk).for_each(|line| println!("    {line}"));
        if counts.failed == 0 {
            tally.take(name, counts, ended.time);
        } else {
            println!("{}", ended.talk);
            failed.push(name);
        }
    }
    for name in failed {
        println!("once more: {name}");
        let ended = one(programs, name)?;
        let counts = counts(&ended);
        if counts.failed == 0 {
            tally.take_flaky(name, counts, ended.time);
        } else {
            println!("{}", ended.talk);
            tally.take(name, counts, ended.time);
        }
    }
    Ok(())
}

/// How one test ended: one that was killed has failed, too.
fn counts(ended: &Ended) -> Counts {
    let mut counts = Counts::default();
    if !ended.success {
        counts.failed = 1;
    } else if skips(&ended.talk).next().is_some() {
        counts.skipped = 1;
    } else {
        counts.passed = 1;
    }
    counts
}

fn one(programs: &Programs, name: &str) -> Result<Ended> {
    let arguments = [
        "--exact",
        name,
        "--nocapture",
        "--quiet",
        "--test-threads=1",
    ];
    process::run(&mut programs.command(&programs.live, &arguments))
}

/// The names of all tests.
fn names(programs: &Programs) -> Result<Vec<String>> {
    let list = ["--list", "--format=terse"];
    let output = programs.command(&programs.live, &list).output()?;
    ensure!(output.status.success(), "the live tests cannot be listed");
    let talk = String::from_utf8_lossy(&output.stdout);
    let names = talk.lines().filter_map(|line| line.strip_suffix(": test"));
    let names: Vec<String> = names.map(str::to_owned).collect();
    ensure!(!names.is_empty(), "there are no live tests");
    Ok(names)
}
