//! The live tests, each in a process of its own, so that each has its time and its bound: first those that compare counts
//! and contents, several at a time, then those that measure, one at a time on a quiet machine.

use std::process::Command;

use anyhow::{Result, ensure};

use super::{
    aside::Aside,
    lanes::in_lanes,
    process::{self, Ended},
    programs::Programs,
    tally::{Counts, Tally, skips},
};

/// Files of tests, and single tests, that compare names, contents and exact counts, in their order: no load of another test is their
/// finding. The last one runs what the first one installs.
const SHARED: [&str; 46] = [
    "packages",
    "dumps",
    "hard_stacks",
    "hostile_symbols",
    "hostile_files",
    "hostile_output",
    "hostile_daemon",
    "names",
    "debug_files",
    "golang",
    "canary_secrets",
    "daemon_tables",
    "deep_python",
    "filters",
    "hard_cases",
    "libpq_pipeline",
    "lifecycle",
    "pgproto",
    "probed",
    "raw",
    "refusals",
    "replicas",
    "secrets_sql",
    "sql_names",
    "stopped",
    "tcp_filters",
    "tls",
    "witness",
    "daemon::disks_that_cannot_be_written",
    "daemon::killed_daemon_loses_one_window_at_most",
    "daemon::queries_are_kept",
    "daemon::restarting_targets_are_followed",
    "daemon::units_and_cgroups_are_followed",
    "daemon::windows_are_read_back",
    "middle::disconnecting_ends_a_transaction",
    "middle::inherited_connections_go_on",
    "middle::long_answers_do_not_hide_what_follows",
    "middle::processes_without_postgres_are_named_so",
    "middle::what_is_under_way_is_shown",
    "middle::who_asks_is_known",
    "python::forked_workers_have_python_frames",
    "python::functions_are_one_frame_and_the_interpreter_can_be_shown",
    "python::holders_of_the_gil_are_known",
    "python::python_code_has_its_functions_and_lines",
    "python_tools::dump_shows_every_thread",
    "django",
];

/// Runs them all; one that failed is run once more, alone. Stops if what goes on beside them fails.
pub(super) fn run(programs: &Programs, tally: &mut Tally, beside: &mut Aside) -> Result<()> {
    let names = names(programs)?;
    let all = names.iter().map(String::as_str);
    let (mut shared, quiet): (Vec<_>, Vec<_>) = all.partition(|name| place(name).is_some());
    shared.sort_by_key(|name| place(name));
    let mut failed = Vec::new();
    let mut number = 0;
    let mut take = |name: &str, ended: &Ended| -> Result<()> {
        number += 1;
        let counts = counts(ended);
        println!(
            "{number:3}/{} {:6.1} s  {:7} {name}",
            names.len(),
            ended.time.as_secs_f64(),
            word(counts)
        );
        skips(&ended.talk).for_each(|line| println!("    {line}"));
        if counts.failed == 0 {
            tally.take(name, counts, ended.time);
        } else {
            println!("{}", ended.talk);
            failed.push(name.to_owned());
        }
        beside.check()
    };
    in_lanes(
        shared,
        |name| one(programs, name),
        |name, ended| take(name, &ended?),
    )?;
    for name in quiet {
        take(name, &one(programs, name)?)?;
    }
    for name in &failed {
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

/// The place of a test, or of its file, among those that run side by side; `None` if it runs alone.
fn place(name: &str) -> Option<usize> {
    let file = name.split("::").next();
    let is_it = |shared: &&str| *shared == name || Some(*shared) == file;
    SHARED.iter().position(is_it)
}

/// How one test ended, in a word.
pub(super) fn word(counts: Counts) -> &'static str {
    match counts {
        Counts { failed: 1.., .. } => "FAILED",
        Counts { skipped: 1.., .. } => "skipped",
        Counts { .. } => "ok",
    }
}

/// How one test ended: one that was killed has failed, too.
pub(super) fn counts(ended: &Ended) -> Counts {
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
    process::run(&mut command(programs, name))
}

/// One test, by itself.
pub(super) fn command(programs: &Programs, name: &str) -> Command {
    let arguments = [
        "--exact",
        name,
        "--nocapture",
        "--quiet",
        "--test-threads=1",
    ];
    programs.command(&programs.live, &arguments)
}

/// The names of all tests.
pub(super) fn names(programs: &Programs) -> Result<Vec<String>> {
    let list = ["--list", "--format=terse"];
    let output = programs.command(&programs.live, &list).output()?;
    ensure!(output.status.success(), "the live tests cannot be listed");
    let talk = String::from_utf8_lossy(&output.stdout);
    let names = talk.lines().filter_map(|line| line.strip_suffix(": test"));
    let names: Vec<String> = names.map(str::to_owned).collect();
    ensure!(!names.is_empty(), "there are no live tests");
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::place;

    /// Whole names of files count, and what installs comes first.
    #[test]
    fn files_have_their_places() {
        assert_eq!(place("packages::each_set_is_installed_once"), Some(0));
        assert!(place("names::counts") < place("raw::shares"));
        assert_eq!(place("names_more::counts"), None);
        assert_eq!(place("queries::raw"), None);
        assert!(place("daemon::queries_are_kept").is_some());
        assert_eq!(place("daemon::memory_is_flat"), None);
    }
}
