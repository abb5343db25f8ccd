//! Servers and clients that are no ordinary ones: a standby that is fed and asked, and `pg_dump`.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use profiler::postgres::sql::{Reading, normalise};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    bench::{bench, text},
    postgres::Postgres,
    queries::{Report, Watch, folded, server, server_with, sql},
};

/// A server that follows another one. It is in the other one's folder, and goes with it.
struct Standby {
    server: Child,
    port: String,
}

impl Standby {
    /// Copies an idle server, and starts the copy.
    fn start(primary: &Postgres) -> Self {
        let data = sql(primary, "SHOW data_directory").trim().to_owned();
        sql(primary, "CHECKPOINT");
        let copy = "set -e; echo 'local replication all trust' >> $0/pg_hba.conf; cp -a $0 $1; \
            rm $1/postmaster.pid; touch $1/standby.signal; kill -HUP $(head -1 $0/postmaster.pid)";
        let theirs = format!("{data}-standby");
        let mut shell = primary.client("sh").expect("a shell");
        let copied = shell.args(["-c", copy, &data, &theirs]).status();
        assert!(copied.is_ok_and(|status| status.success()));
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = free.local_addr().expect("it has one").port().to_string();
        let folder = data.trim_end_matches("/data").to_owned();
        let from = sql(primary, "SHOW port").trim().to_owned();
        let from = format!("primary_conninfo=host={folder} port={from} user=demo");
        let sockets = format!("unix_socket_directories={folder}");
        let mut server = primary.client("postgres").expect("postgres is there");
        server.args([
            "-D",
            &theirs,
            "-p",
            &port,
            "-c",
            "listen_addresses=",
            "-c",
            &from,
        ]);
        server.args([
            "-c",
            &sockets,
            "-c",
            "shared_preload_libraries=pg_stat_statements",
        ]);
        server.stdout(Stdio::null()).stderr(Stdio::null());
        Self {
            server: server.spawn().expect("the standby starts"),
            port,
        }
    }

    /// Runs SQL through psql.
    fn sql(&self, primary: &Postgres, script: &str) -> String {
        let mut psql = primary.client("psql").expect("psql is there");
        psql.env("PGPORT", &self.port);
        let output = psql.args(["--no-psqlrc", "-qAtX", "-c", script]).output();
        text(&output.expect("psql runs").stdout).trim().to_owned()
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.server), Signal::INT);
        let _ = self.server.wait();
    }
}

/// Waits until there is this answer.
fn until(answer: &str, ask: impl Fn() -> String) {
    let begun = Instant::now();
    while ask().trim() != answer {
        assert!(begun.elapsed() < Duration::from_secs(100), "no {answer}");
    }
}

/// Of a server that feeds another one, and of that one, each statement is counted as they count; what flows between them is
/// none.
#[test]
fn standbys_are_exact() {
    let Some(bench) = bench() else { return };
    let primary = server();
    sql(&primary, "CREATE TABLE items (id int)");
    let at_primary = Watch::start(&bench, &["-p", &primary.server.id().to_string()]);
    let standby = Standby::start(&primary);
    until("1", || {
        sql(&primary, "SELECT count(*) FROM pg_stat_replication")
    });
    until("0", || standby.sql(&primary, "SELECT count(*) FROM items"));
    standby.sql(&primary, "SELECT pg_stat_statements_reset()");
    let at_standby = Watch::start(&bench, &["-p", &standby.server.id().to_string()]);
    for key in 1..=10 {
        sql(&primary, &format!("INSERT INTO items VALUES ({key})"));
        let count = key.to_string();
        until(&count, || {
            standby.sql(&primary, "SELECT count(*) FROM items")
        });
        standby.sql(&primary, &format!("SELECT id FROM items WHERE id < {key}"));
    }
    let theirs = standby.sql(
        &primary,
        "SELECT calls FROM pg_stat_statements WHERE query = 'SELECT count(*) FROM items'",
    );
    let (at_primary, at_standby) = (at_primary.end(), at_standby.end());
    at_standby.assert_nothing_lost();
    let calls = |report: &Report, text: &str| {
        let row = report.statement(text);
        (row["calls"].clone(), row["rows"].clone())
    };
    assert_eq!(
        calls(&at_primary, "INSERT INTO items VALUES ($1)"),
        (10.into(), 10.into())
    );
    assert_eq!(
        calls(&at_standby, "SELECT id FROM items WHERE id < $1"),
        (10.into(), 45.into())
    );
    assert_eq!(
        calls(&at_standby, "SELECT count(*) FROM items")
            .0
            .to_string(),
        theirs
    );
    for report in [&at_primary, &at_standby] {
        let account = &report.0["account"];
        assert_eq!(account["connections"]["other"], 0, "{account:#}");
        assert_eq!(account["lost"], serde_json::json!({}), "{account:#}");
    }
}

/// Each statement of `pg_dump` is counted, as the server writes them into its log.
#[test]
fn dumps_of_databases_are_exact() {
    let Some(bench) = bench() else { return };
    let postgres = server_with(&["log_statement=all"]);
    sql(
        &postgres,
        "CREATE TABLE items (id int PRIMARY KEY, name text); CREATE VIEW names AS SELECT name FROM items;
         INSERT INTO items SELECT n, 'item ' || n FROM generate_series(1, 1000) n;
         CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    );
    let data = sql(&postgres, "SHOW data_directory").trim().to_owned();
    let log = Path::new(&data).with_file_name("log");
    let before = fs::read_to_string(&log).expect("a log").len();
    let watch = Watch::start(&bench, &["-p", &postgres.server.id().to_string()]);
    let mut dump = postgres.client("pg_dump").expect("pg_dump is there");
    let dump = dump.output().expect("it runs");
    if !dump.status.success() && text(&dump.stderr).contains("server version mismatch") {
        println!("skipped: this pg_dump is older than the server");
        return;
    }
    assert!(dump.status.success(), "{}", text(&dump.stderr));
    let report = watch.end();
    report.assert_nothing_lost();
    let log = fs::read_to_string(&log).expect("a log");
    let mut theirs = BTreeMap::<String, u64>::new();
    // Further lines of a statement begin with a tab.
    for entry in log[before..].replace("\n\t", " ").lines() {
        if let Some((_, text)) = entry.split_once("LOG:  statement: ") {
            let form = normalise(text.as_bytes(), Reading::default()).text;
            *theirs.entry(folded(&form)).or_default() += 1;
        }
    }
    let counts = report.counts();
    assert_eq!(
        counts.values().map(|(calls, _)| calls).sum::<u64>(),
        theirs.values().sum::<u64>(),
    );
    let is_of_prepared = |text: &String| text.starts_with("execute");
    for (text, calls) in theirs.iter().filter(|(text, _)| !is_of_prepared(text)) {
        assert_eq!(
            counts.get(text).map(|(calls, _)| calls),
            Some(calls),
            "{text}"
        );
    }
    let copy = folded("COPY public.items (id, name) TO stdout");
    assert_eq!(counts.get(&copy), Some(&(1, 1000)), "{counts:#?}");
}
