//! Drivers: what each of them did by its own count is what is seen at the server and at the client, and what the server
//! counted. The scripts in `drivers/` do the same twelve things: parameters, prepared statements, batches or pipelines,
//! cursors, COPY, errors, notices, LISTEN and NOTIFY, a rollback, a cancelled query, a large row, several statements in
//! one text. Each tells by a line of JSON what its driver answered to each statement; what the driver executes of its
//! own accord is in it.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Output,
};

use profiler::postgres::sql::{Reading, normalise};
use serde_json::Value;

use crate::{
    bench::{Bench, bench, text},
    packages::{node_modules, rust_program, venv},
    postgres::Postgres,
    queries::{Report, Watch, folded, server, server_counts, sql},
};

/// Drivers for Python.
pub(crate) const PYTHON: [&str; 3] = [
    "psycopg2-binary==2.9.13",
    "psycopg[binary]==3.3.9",
    "asyncpg==0.32.0",
];
/// node-postgres, with what makes cursors and COPY of it.
pub(crate) const NODE: [&str; 3] = ["pg@8.23.1", "pg-cursor@2.22.0", "pg-copy-streams@7.0.0"];
/// tokio-postgres, with what it is used with.
pub(crate) const RUST: [&str; 5] = [
    "tokio-postgres = '=0.7.18'",
    "tokio = { version = '1', features = ['macros', 'rt-multi-thread', 'time'] }",
    "futures-util = { version = '0.3', default-features = false, features = ['alloc', 'sink'] }",
    "bytes = '1'",
    "serde_json = '1'",
];
/// The script for it.
pub(crate) const TOKIO: &str = "with_tokio_postgres.rs";
/// Where Debian has JDBC's driver, with what it needs.
const JARS: &str = "/usr/share/java/postgresql.jar";

/// What the scripts find.
const TABLES: &str = "
DROP TABLE IF EXISTS items;
CREATE TABLE items (id int PRIMARY KEY, name text, note text);
INSERT INTO items SELECT n, 'item ' || n FROM generate_series(1, 100) n;
CREATE OR REPLACE FUNCTION loud(n int) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN RAISE NOTICE 'item %', n; RETURN n; END $$;
";

/// What became of a statement.
#[derive(Debug, Default, PartialEq, Eq)]
struct Deed {
    calls: u64,
    rows: u64,
    /// By their code.
    errors: BTreeMap<String, u64>,
    skipped: u64,
}

/// By normal form.
type Deeds = BTreeMap<String, Deed>;

/// The name of a statement in all counts.
fn key(statement: &str) -> String {
    folded(&normalise(statement.as_bytes(), Reading::default()).text)
}

/// Normal forms by fingerprint: of what the server refuses a report has no more.
type Names = BTreeMap<String, String>;

/// What a script tells.
fn told(output: &Output) -> (Deeds, Names) {
    let (mut deeds, mut names) = (Deeds::new(), Names::new());
    for line in text(&output.stdout).lines() {
        let value: Value = serde_json::from_str(line).expect("a line of JSON");
        let statement = value["statement"].as_str().expect("a statement");
        let fingerprint = normalise(statement.as_bytes(), Reading::default()).fingerprint;
        names.insert(fingerprint.to_string(), key(statement));
        let deed = deeds.entry(key(statement)).or_default();
        match (value["rows"].as_u64(), value["error"].as_str()) {
            (Some(rows), _) => {
                deed.calls += 1;
                deed.rows += rows;
            }
            (None, Some(code)) => *deed.errors.entry(code.to_owned()).or_default() += 1,
            (None, None) => deed.skipped += u64::from(value["skipped"] == true),
        }
    }
    (deeds, names)
}

/// What was seen, without statements that were only prepared.
fn seen(report: &Report, names: &Names) -> Deeds {
    let mut deeds = Deeds::new();
    for one in report.statements() {
        let number = |name: &str| one[name].as_u64().expect("a number");
        let statement = one["statement"].as_str().expect("a text");
        let fingerprint = one["fingerprint"].as_str();
        let name = fingerprint.and_then(|fingerprint| names.get(fingerprint));
        let name = name.filter(|_| statement.starts_with("<withheld "));
        let name = name.cloned().unwrap_or_else(|| folded(statement));
        let deed = deeds.entry(name).or_default();
        deed.calls += number("calls");
        deed.rows += number("rows");
        deed.skipped += number("skipped");
        // To a driver it is one whether a call failed or what prepared it.
        for errors in ["errors", "prepares_failed"] {
            for (code, count) in one[errors].as_object().expect("an object") {
                *deed.errors.entry(code.clone()).or_default() += count.as_u64().expect("a number");
            }
        }
    }
    deeds.retain(|_, deed| *deed != Deed::default());
    deeds
}

/// Both tell the same.
#[track_caller]
fn assert_same(told: &Deeds, seen: &Deeds, whose: &str) {
    for statement in told.keys().chain(seen.keys()) {
        let (one, other) = (told.get(statement), seen.get(statement));
        assert_eq!(
            one, other,
            "told and seen by {whose}: `{statement}`\n{seen:#?}"
        );
    }
}

/// The server's statistics tell the same of what did not fail. They count EXECUTE under the text of PREPARE, and FETCH
/// under its own; and of rows that come in several fetches Postgres 15 counts those of the last one.
#[track_caller]
fn assert_counted(postgres: &Postgres, report: &Report, whose: &str) {
    let mut theirs: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (statement, (calls, rows)) in server_counts(postgres) {
        let prepared = statement.strip_prefix("prepare ");
        let prepared = prepared.and_then(|rest| rest.split_once(" as "));
        let sum = theirs
            .entry(key(
                prepared.map_or(statement.as_str(), |(_, prepared)| prepared)
            ))
            .or_default();
        *sum = (sum.0 + calls, sum.1 + rows);
    }
    let fetched = |statement: &str| {
        let is_it =
            |one: &&Value| one["statement"].as_str().map(folded).as_deref() == Some(statement);
        let found = report.statements().iter().find(is_it);
        found.is_some_and(|one| one["fetches"] != 0)
    };
    let is_of_sql = |statement: &str| {
        let words = ["prepare ", "deallocate "];
        words.iter().any(|word| statement.starts_with(word))
    };
    let mut ours = report.counts();
    for counts in [&mut ours, &mut theirs] {
        counts.retain(|statement, _| !is_of_sql(statement));
        let is_fetch = |statement: &str| statement.starts_with("fetch ");
        let fetches = (counts.clone().into_iter()).filter(|(statement, _)| is_fetch(statement));
        let (calls, rows) = fetches.fold((0, 0), |sum, (_, one)| (sum.0 + one.0, sum.1 + one.1));
        counts.retain(|statement, _| !is_fetch(statement));
        counts.insert("every fetch".to_owned(), (calls, rows));
        for (statement, (_, rows)) in counts {
            *rows = if fetched(statement) { 0 } else { *rows };
        }
    }
    assert_eq!(ours, theirs, "{whose}: ours and the server's");
}

/// How a script is run.
struct Script {
    name: &'static str,
    command: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
}

/// Where a script is.
pub(crate) fn path(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/live/drivers");
    folder.join(name)
}

impl Script {
    fn new(interpreter: impl Into<OsString>, name: &'static str) -> Self {
        Self {
            name,
            command: vec![interpreter.into(), path(name).into()],
            environment: vec![("PYTHONDONTWRITEBYTECODE", "1".into())],
        }
    }

    /// Runs it, watched, with the server there.
    fn run(&self, bench: &Bench, postgres: &Postgres, host: Option<&str>) -> (Output, Report) {
        let mut command =
            bench.command(&["queries", "--json", "--limit=1000", "-o", "at-client", "--"]);
        command.args(&self.command);
        let client = postgres.client("psql").expect("psql is there");
        let settings = client.get_envs();
        command.envs(settings.filter_map(|(key, value)| Some((key, value?))));
        command.envs(host.map(|host| ("PGHOST", host)));
        command.env("PGSSLMODE", "disable");
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        let output = command.output().expect("the profiler runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let written = std::fs::read(bench.path("at-client")).expect("the result");
        let report = serde_json::from_slice(&written).expect("JSON");
        (output, Report(report))
    }

    /// Runs it once at each of the hosts: its own count, what is seen at both ends and what the server counted are one.
    fn assert_seen(&self, hosts: &[Option<&str>]) {
        let Some(bench) = bench() else { return };
        let postgres = server();
        for host in hosts {
            sql(&postgres, TABLES);
            sql(&postgres, "SELECT pg_stat_statements_reset()");
            let pid = postgres.server.id().to_string();
            let at_server = Watch::start(&bench, &["--limit=1000", "-p", &pid]);
            let (output, at_client) = self.run(&bench, &postgres, *host);
            let at_server = at_server.end();
            let (told, names) = told(&output);
            for (side, report) in [("server", &at_server), ("client", &at_client)] {
                let whose = format!("{} at the {side}, {host:?}", self.name);
                report.assert_nothing_lost();
                assert_same(&told, &seen(report, &names), &whose);
                assert_counted(&postgres, report, &whose);
                assert_eq!(report.0["cancels"], 1, "{whose}");
                let calls: u64 = told.values().map(|deed| deed.calls).sum();
                println!("{whose}: {calls} calls of {} statements", told.len());
            }
        }
    }
}

/// What can be imported of [`PYTHON`].
pub(crate) const PYTHON_MODULES: &str = "psycopg2, psycopg, psycopg_binary, asyncpg";

/// The unix socket, and TCP.
const HOSTS: [Option<&str>; 2] = [None, Some("127.0.0.1")];

/// JDBC's driver.
pub(crate) fn jars() -> Option<&'static str> {
    if PathBuf::from(JARS).exists() {
        return Some(JARS);
    }
    let is_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(!is_ci, "no {JARS}, and CI=true");
    println!("skipped: no {JARS}: `cargo xtask setup --tests` installs it");
    None
}

/// Runs one of the scripts for Python.
fn python(name: &'static str) {
    let Some(venv) = venv(&PYTHON, PYTHON_MODULES) else {
        println!("skipped: the drivers for Python could not be installed");
        return;
    };
    Script::new(venv.join("bin/python"), name).assert_seen(&HOSTS);
}

/// psycopg2 writes values into texts: these are one statement each.
#[test]
fn psycopg2_is_counted_exactly() {
    python("with_psycopg2.py");
}

/// psycopg 3 prepares what comes often, and has pipelines whose calls come without Sync.
#[test]
fn psycopg_is_counted_exactly() {
    python("with_psycopg.py");
}

/// asyncpg prepares everything, in round trips that end in Flush.
#[test]
fn asyncpg_is_counted_exactly() {
    python("with_asyncpg.py");
}

/// node-postgres sends each message in a buffer of its own.
#[test]
fn node_postgres_is_counted_exactly() {
    let Some(modules) = node_modules(&NODE) else {
        println!("skipped: the driver for Node could not be installed");
        return;
    };
    let mut script = Script::new("node", "with_pg.js");
    script.environment.push(("NODE_PATH", modules.into()));
    script.assert_seen(&HOSTS);
}

/// tokio-postgres sends on one thread and receives on another.
#[test]
fn tokio_postgres_is_counted_exactly() {
    let Some(program) = rust_program(&path(TOKIO), &RUST) else {
        println!("skipped: the driver for Rust could not be built");
        return;
    };
    let script = Script {
        name: TOKIO,
        command: vec![program.into()],
        environment: Vec::new(),
    };
    script.assert_seen(&HOSTS);
}

/// JDBC sends BEGIN with what follows it, names statements from the fifth time on, and takes texts apart.
#[test]
fn jdbc_is_counted_exactly() {
    let Some(jars) = jars() else { return };
    let mut script = Script::new("java", "WithJdbc.java");
    script.environment.push(("CLASSPATH", jars.into()));
    script.assert_seen(&HOSTS[1..]);
}
