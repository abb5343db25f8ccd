//! What reading the queries of a busy Postgres costs it, in turns with the server's own means: transactions of `pgbench -S`,
//! prepared, over TCP, with several numbers of clients.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{child, turns::Turns};
use crate::{
    postgres::{Postgres, dies_with_us},
    shell,
};

/// Numbers of clients.
const CLIENTS: [u32; 3] = [1, 4, 16];
/// Seconds of a turn, and until whoever watches has begun.
const SECONDS: u32 = 5;
const BEGINNING: Duration = Duration::from_millis(1500);

/// Who else looks at the queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watcher {
    Nobody,
    /// The profiler, at the server.
    Server,
    /// The profiler, at the client.
    Client,
    /// `pg_stat_statements`, which is loaded all along and switched off else.
    Statements,
    /// `log_min_duration_statement = 0`
    Log,
}

const WATCHERS: [Watcher; 5] = [
    Watcher::Nobody,
    Watcher::Server,
    Watcher::Client,
    Watcher::Statements,
    Watcher::Log,
];

impl Watcher {
    const fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Server => "profiler queries, server",
            Self::Client => "profiler queries, client",
            Self::Statements => "pg_stat_statements",
            Self::Log => "log_min_duration_statement = 0",
        }
    }

    /// The server's settings.
    fn settings(self) -> [String; 2] {
        let statements = if self == Self::Statements {
            "top"
        } else {
            "none"
        };
        let log = if self == Self::Log { "0" } else { "-1" };
        [
            format!("ALTER SYSTEM SET pg_stat_statements.track = {statements}"),
            format!("ALTER SYSTEM SET log_min_duration_statement = {log}"),
        ]
    }
}

/// Runs the bench.
pub(super) fn run(rounds: u32) -> Result<()> {
    super::build()?;
    let folder = tempfile::tempdir()?;
    let server = Postgres::start_with(&["shared_preload_libraries=pg_stat_statements"])?;
    let mut init = server.client("pgbench")?;
    init.args(["--initialize", "--scale=5", "--quiet"]);
    shell::run(init.stderr(Stdio::null()))?;
    for clients in CLIENTS {
        let mut turns = Turns::new(WATCHERS.iter().map(|watcher| watcher.name()).collect());
        let mut costs = Vec::new();
        for round in 0..rounds {
            turns.round(round, |index| {
                let watcher = WATCHERS.get(index).context("a name too many")?;
                turn(*watcher, &server, clients, folder.path(), &mut costs)
            })?;
        }
        turns.print(&format!(
            "pgbench -S -M prepared -c {clients}, TCP, transactions per second"
        ));
        for cost in costs {
            println!("  {cost}");
        }
    }
    Ok(())
}

/// One turn: transactions per second.
fn turn(
    watcher: Watcher,
    server: &Postgres,
    clients: u32,
    folder: &Path,
    costs: &mut Vec<String>,
) -> Result<f64> {
    for setting in watcher.settings() {
        psql(server, &setting)?;
    }
    psql(server, "SELECT pg_reload_conf()")?;
    sleep(Duration::from_millis(200));
    let mut pgbench = server.client("pgbench")?;
    pgbench
        .args([
            "--select-only",
            "--protocol=prepared",
            "--no-vacuum",
            "--host=127.0.0.1",
        ])
        .arg(format!("--client={clients}"))
        .arg(format!("--time={SECONDS}"))
        .stdout(fs::File::create(folder.join("pgbench"))?)
        .stderr(Stdio::null());
    let table = folder.join("table");
    let watching = match watcher {
        Watcher::Server => Some(watch(server.server.id(), &table)?),
        // Begun with it, so that every statement is seen to be prepared.
        Watcher::Client => {
            let mut profiler = profiler(&table);
            profiler
                .arg("--")
                .arg(pgbench.get_program())
                .args(pgbench.get_args());
            for (key, value) in pgbench.get_envs() {
                profiler.env(key, value.unwrap_or_default());
            }
            profiler.stdout(fs::File::create(folder.join("pgbench"))?);
            pgbench = profiler;
            None
        }
        _ => None,
    };
    let status = pgbench.status()?;
    ensure!(status.success(), "pgbench failed: {status}");
    let mut memory = String::new();
    if let Some(mut watching) = watching {
        let pid = watching.id();
        memory = format!(
            ", {} MiB resident, {} MiB of maps",
            child::resident_kib(pid).unwrap_or(0) >> 10,
            child::maps_bytes(pid) >> 20
        );
        kill_process(Pid::from_child(&watching), Signal::INT)?;
        watching.wait()?;
    }
    if matches!(watcher, Watcher::Server | Watcher::Client) {
        costs.push(format!("{}: {}{memory}", watcher.name(), cost(&table)?));
    }
    let text = fs::read_to_string(folder.join("pgbench"))?;
    let rate = text.lines().find_map(|line| {
        let (rate, _) = line.strip_prefix("tps = ")?.split_once(' ')?;
        rate.parse().ok()
    });
    rate.context("pgbench told no rate")
}

fn profiler(table: &Path) -> Command {
    let mut profiler = Command::new(shell::root().join("target/release/profiler"));
    profiler
        .args(["queries", "--json", "-o"])
        .arg(table)
        .stderr(Stdio::null());
    dies_with_us(&mut profiler);
    profiler
}

fn watch(pid: u32, table: &Path) -> Result<Child> {
    let mut profiler = profiler(table);
    let child = profiler.args(["-d1h", "-p"]).arg(pid.to_string()).spawn()?;
    sleep(BEGINNING);
    Ok(child)
}

/// What a recording cost: its CPU time for each call, and what it lost.
fn cost(table: &Path) -> Result<String> {
    let report: Value = serde_json::from_slice(&fs::read(table)?)?;
    let account = &report["account"];
    let calls = account["calls"].as_u64().context("no calls")?;
    let cpu_ns = account["cost"]["process_ns"].as_u64().context("no cost")?;
    let ns_each = cpu_ns.checked_div(calls).context("it saw nothing")?;
    Ok(format!(
        "{calls} calls, {ns_each} ns of the profiler's CPU each, lost: {}",
        account["lost"]
    ))
}

fn psql(server: &Postgres, command: &str) -> Result<()> {
    let mut psql = server.client("psql")?;
    psql.args(["--no-psqlrc", "-qX", "-c", command])
        .stdout(Stdio::null());
    let status = psql.status()?;
    ensure!(status.success(), "psql failed: {command}");
    Ok(())
}
