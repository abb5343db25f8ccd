//! Whether what came out of a machine shows what ran in it. Pure, but for reading the files.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::steps::Step;

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
    ("windows", "windows.folded", shell_on_cpu),
    ("windows", "windows.svg", flamegraph),
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
    use super::{connections, flamegraph, reads, shell_on_cpu, updates};

    /// A recording of something else, or of next to nothing, is not one of the shell.
    #[test]
    fn a_recording_has_to_be_of_the_shell() {
        assert!(shell_on_cpu("sh;main;evalloop 300\nsh;main 20\nswapper;idle 5\n").is_ok());
        assert!(shell_on_cpu("sh;main 20\n").is_err());
        assert!(shell_on_cpu("sh;main 40\ndd;read 400\n").is_err());
        assert!(shell_on_cpu("").is_err());
        assert!(flamegraph("<svg></svg>").is_err());
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
