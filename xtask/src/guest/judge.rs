//! Whether what came out of a machine shows what ran in it. Pure, but for reading the files.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{live, steps::Step};

/// Samples below which a processor that was busy for seconds was not seen: at 99 Hz a third of a second.
const SAMPLES_MIN: u64 = 33;

/// What a step leaves, and who judges it: an error, or what to say of it.
type Judge = (&'static str, &'static str, fn(&str) -> Result<String>);

const JUDGES: &[Judge] = &[
    ("record", "busy.folded", shell_on_cpu),
    ("record", "busy.svg", flamegraph),
    ("wall", "wall.folded", shell_on_cpu),
    ("syscalls", "syscalls.json", reads),
    ("queries", "queries.json", updates),
    ("tcp", "tcp.json", connections),
    ("tls", "tls.json", updates),
    ("tracefs", "bare-syscalls.json", reads),
    ("tracefs", "bare-queries.json", updates),
    ("windows", "windows.folded", shell_on_cpu),
    ("windows", "windows.svg", flamegraph),
    ("table", "table.json", known),
    ("clock", "ahead.json", ahead),
    ("clock", "back.json", back),
    ("preemption", "canaries.txt", canaries),
    ("preemption", "kernel.txt", quiet),
    ("live", "tests.txt", tests),
];

/// Judges what the steps that ran have left.
pub(super) fn artifacts(out: &Path, steps: &[&Step]) -> Result<()> {
    for (step, name, judge) in JUDGES {
        if steps.iter().any(|ran| ran.name == *step) {
            let file = out.join(name);
            let text = fs::read_to_string(&file)
                .with_context(|| format!("step {step} left no {}", file.display()))?;
            let verdict = judge(&text).with_context(|| file.display().to_string())?;
            println!("{name}: {verdict}");
        }
    }
    Ok(())
}

/// The shell that was busy is there, with samples, and most of them are of it.
fn shell_on_cpu(folded: &str) -> Result<String> {
    let stacks = folded.lines().filter_map(|line| line.rsplit_once(' '));
    let stacks: Vec<(&str, u64)> = stacks
        .filter_map(|(stack, count)| Some((stack, count.parse().ok()?)))
        .collect();
    let all: u64 = stacks.iter().map(|(_, count)| count).sum();
    let of_shell = stacks.iter().filter(|(stack, _)| stack.starts_with("sh;"));
    let of_shell: u64 = of_shell.map(|(_, count)| count).sum();
    ensure!(
        of_shell >= SAMPLES_MIN && of_shell * 2 > all,
        "{of_shell} of {all} are of the shell"
    );
    Ok(format!("{of_shell} of {all} are of the shell"))
}

fn flamegraph(svg: &str) -> Result<String> {
    let frames = svg.matches("<title>").count();
    ensure!(
        svg.contains("</svg>") && frames > 1,
        "no flamegraph: {frames} frames"
    );
    Ok(format!("{frames} frames"))
}

/// `dd` reads and writes byte by byte: as often, give or take the one that is under way.
fn reads(json: &str) -> Result<String> {
    let report: Value = serde_json::from_str(json)?;
    let returned = |name: &str| {
        let rows = list(&report["calls"]);
        let row = rows.iter().find(|row| row["call"] == name);
        row.and_then(|row| row["returned"].as_u64())
            .unwrap_or_default()
    };
    let (reads, writes) = (returned("read"), returned("write"));
    ensure!(
        reads > 0 && reads.abs_diff(writes) <= 1,
        "{reads} reads, {writes} writes of a program that reads and writes in turns"
    );
    Ok(format!("{reads} reads, {writes} writes"))
}

/// pgbench updates three tables once in each of its transactions.
fn updates(json: &str) -> Result<String> {
    let report: Value = serde_json::from_str(json)?;
    let calls = |table: &str| {
        let rows = list(&report["statements"]);
        let wanted = |row: &&Value| {
            row["statement"]
                .as_str()
                .is_some_and(|text| text.starts_with(&format!("UPDATE {table}")))
        };
        rows.iter()
            .filter(wanted)
            .filter_map(|row| row["calls"].as_u64())
            .sum::<u64>()
    };
    let (accounts, tellers) = (calls("pgbench_accounts"), calls("pgbench_tellers"));
    ensure!(
        accounts > 0 && accounts.abs_diff(tellers) <= 4,
        "{accounts} updates of accounts, {tellers} of tellers, which pgbench does in turns; lost: {}",
        report["account"]["lost"]
    );
    Ok(format!(
        "{accounts} updates of accounts, {tellers} of tellers; lost: {}",
        report["account"]["lost"]
    ))
}

/// Calls of the step `table`.
const KNOWN: u64 = 200;

/// Every call is there once, with its end.
fn known(json: &str) -> Result<String> {
    let report: Value = serde_json::from_str(json)?;
    let rows = list(&report["statements"]).iter();
    let rows: Vec<&Value> = rows
        .filter(|row| {
            row["statement"]
                .as_str()
                .is_some_and(|text| text.contains("AS known"))
        })
        .collect();
    let sum = |name: &str| {
        let counts = rows.iter().filter_map(|row| row[name].as_u64());
        counts.sum::<u64>()
    };
    let (calls, others) = (
        sum("calls"),
        ["skipped", "aborted", "unfinished", "unseen"].map(sum),
    );
    let account = &report["account"];
    let said = format!(
        "{calls} calls of {KNOWN}; lost: {}; notes: {}",
        account["lost"], account["notes"]
    );
    ensure!(
        calls == KNOWN && rows.len() == 1 && others == [0; 4],
        "{said}; {} rows, skipped, aborted, unfinished and unseen: {others:?}",
        rows.len()
    );
    Ok(said)
}

/// Windows from before and after a step ahead, which is told.
fn ahead(json: &str) -> Result<String> {
    set(json, "wall clock set ahead by ", "no window from ")
}

/// Windows from before and after a step back, which is told, and those that lie ahead now.
fn back(json: &str) -> Result<String> {
    set(json, "wall clock set back by ", "window of a time to come")
}

/// Ten days, give or take what a second is rounded to.
const DAYS_S: std::ops::RangeInclusive<u64> = 863_998..=864_002;

fn set(json: &str, step: &str, with: &str) -> Result<String> {
    let report: Value = serde_json::from_str(json)?;
    let notes = report["account"]["notes"].as_object();
    let notes: Vec<&str> = notes
        .into_iter()
        .flatten()
        .map(|(note, _)| note.as_str())
        .collect();
    let by = notes.iter().find_map(|note| note.strip_prefix(step));
    let by = by.and_then(|rest| rest.strip_suffix(" s")?.parse().ok());
    ensure!(
        by.is_some_and(|seconds| DAYS_S.contains(&seconds))
            && notes.iter().any(|note| note.starts_with(with)),
        "the step is not told: {notes:?}"
    );
    Ok(format!("{notes:?}"))
}

/// The test passed, and says what it saw.
fn canaries(printed: &str) -> Result<String> {
    let passed = "test preemption::no_record_holds_another_processs_bytes ... ok\n";
    let said = printed.lines().find(|line| line.starts_with("preempt "));
    let said = said.filter(|_| printed.contains(passed));
    said.map(ToOwned::to_owned)
        .context("the test of the canaries did not pass")
}

/// What a kernel prints when something in it went wrong.
const TROUBLE: [&str; 9] = [
    "WARNING: ",
    "BUG: ",
    "Oops",
    "Call Trace:",
    "general protection fault",
    "unable to handle",
    "detected stalls",
    "self-detected stall",
    "stack guard page was hit",
];

/// A kernel's log without trouble.
fn quiet(log: &str) -> Result<String> {
    let is_trouble = |line: &&str| TROUBLE.iter().any(|sign| line.contains(sign));
    let trouble: Vec<&str> = log.lines().filter(is_trouble).collect();
    ensure!(
        trouble.is_empty() && log.contains("Linux version "),
        "the kernel's log has {trouble:#?}"
    );
    Ok(format!("{} lines, none of trouble", log.lines().count()))
}

/// All that were to run have passed, and none was skipped.
fn tests(printed: &str) -> Result<String> {
    let passed = |name: &&&str| printed.contains(&format!("test {name} ... ok\n"));
    let failed: Vec<_> = live::TESTS.iter().filter(|name| !passed(name)).collect();
    ensure!(failed.is_empty(), "not passed: {failed:?}");
    ensure!(
        !printed.contains("skipped: "),
        "a test says that it was skipped"
    );
    Ok(format!("{} tests passed", live::TESTS.len()))
}

/// `pgbench -C` connects anew for each transaction.
fn connections(json: &str) -> Result<String> {
    let report: Value = serde_json::from_str(json)?;
    let rows = list(&report["connections"]);
    let ended = rows
        .iter()
        .filter(|row| row["open"] == false && row["role"] == "server")
        .count();
    let received: u64 = rows.iter().filter_map(|row| row["received"].as_u64()).sum();
    ensure!(
        ended > 0 && received > 0,
        "{} connections, {ended} of them ended, {received} bytes, of a client that connects anew each time",
        rows.len()
    );
    Ok(format!(
        "{} connections, {ended} of them ended, {received} bytes received",
        rows.len()
    ))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::{
        ahead, back, canaries, connections, flamegraph, known, live, quiet, reads, shell_on_cpu,
        tests, updates,
    };

    /// A recording of something else, or of next to nothing, is not one of the shell.
    #[test]
    fn a_recording_has_to_be_of_the_shell() {
        assert!(shell_on_cpu("sh;main;evalloop 300\nsh;main 20\nswapper;idle 5\n").is_ok());
        assert!(shell_on_cpu("sh;main 20\n").is_err());
        assert!(shell_on_cpu("sh;main 40\ndd;read 400\n").is_err());
        assert!(shell_on_cpu("").is_err());
        assert!(flamegraph("<svg></svg>").is_err());
    }

    /// A call too few or too many, or without its end, is not what was made.
    #[test]
    fn known_calls_are_counted_exactly() {
        let row = |calls: u64, unseen: u64| {
            format!(
                r#"{{"statements":[{{"statement":"SELECT count(*) AS known","calls":{calls},"unseen":{unseen}}},
                    {{"statement":"SELECT $1","calls":7}}],"account":{{"lost":{{}}}}}}"#
            )
        };
        assert!(known(&row(200, 0)).is_ok());
        assert!(known(&row(199, 0)).is_err() && known(&row(201, 0)).is_err());
        assert!(known(&row(200, 1)).is_err() && known("{}").is_err());
    }

    /// A step of the clock is told with its size, and with what it does to windows.
    #[test]
    fn a_clock_that_was_set_is_told() {
        let notes = |one: &str, other: &str| {
            format!(r#"{{"account":{{"notes":{{"{one}":1,"{other}":3}}}}}}"#)
        };
        let gap = "no window from 1 to 2";
        assert!(ahead(&notes("wall clock set ahead by 863999 s", gap)).is_ok());
        assert!(ahead(&notes("wall clock set ahead by 8639 s", gap)).is_err());
        assert!(ahead(&notes("wall clock set back by 864000 s", gap)).is_err());
        let later = "window of a time to come, not shown";
        assert!(back(&notes("wall clock set back by 864000 s", later)).is_ok());
        assert!(back(&notes("wall clock set back by 864000 s", gap)).is_err());
        assert!(back("{}").is_err());
    }

    /// A test that failed, was skipped or said nothing shows nothing, nor does a log with trouble in it, or without its
    /// beginning.
    #[test]
    fn canaries_live_in_a_quiet_kernel() {
        let said = "preempt (full); records: 3 wire\n";
        let passed = "test preemption::no_record_holds_another_processs_bytes ... ok\n";
        assert!(canaries(&format!("{passed}{said}")).is_ok());
        assert!(canaries(said).is_err() && canaries(passed).is_err());
        let log = "[0.0] Linux version 7.2.1\n";
        assert!(quiet(log).is_ok() && quiet("").is_err());
        for trouble in [
            "WARNING: CPU: 1 at x.c:3",
            "BUG: unable to handle page fault",
        ] {
            assert!(quiet(&format!("{log}[9.1] {trouble}\n")).is_err());
        }
    }

    /// A test that did not run has not passed, nor has one that was skipped.
    #[test]
    fn every_test_has_to_pass() {
        let names = live::TESTS.iter();
        let lines = names.flat_map(|name| ["test ", name, " ... ok\n"]);
        let all: String = lines.collect();
        assert!(tests(&all).is_ok());
        assert!(tests(&format!("{all}skipped: no cgroup\n")).is_err());
        assert!(tests(&all.replacen("... ok", "... FAILED", 1)).is_err());
        assert!(tests("").is_err());
    }

    /// Counts that do not fit each other are as wrong as none.
    #[test]
    fn a_table_has_to_fit_the_program() {
        let calls = |reads: u64, writes: u64| {
            format!(
                r#"{{"calls":[{{"call":"read","returned":{reads}}},{{"call":"write","returned":{writes}}}]}}"#
            )
        };
        assert!(reads(&calls(7, 8)).is_ok());
        assert!(
            reads(&calls(7, 5)).is_err() && reads(&calls(0, 0)).is_err() && reads("{}").is_err()
        );
        let statements = r#"{"statements":[{"statement":"UPDATE pgbench_accounts SET x","calls":9},
            {"statement":"UPDATE pgbench_tellers SET x","calls":8}]}"#;
        assert!(updates(statements).is_ok());
        assert!(updates(&statements.replace("tellers", "others")).is_err());
        assert!(updates("{}").is_err());
        let ended = r#"{"connections":[{"open":false,"role":"server","received":80}]}"#;
        assert!(connections(ended).is_ok());
        assert!(connections(&ended.replace("false", "true")).is_err());
    }
}
