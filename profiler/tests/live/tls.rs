//! What passes through OpenSSL is read before it is encrypted, at servers and clients, in whatever file OpenSSL is.

use std::{process::Stdio, thread::sleep, time::Duration};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    bench::{Bench, Target, bench, signal, text, until_watching},
    drivers::{NODE, PYTHON, PYTHON_MODULES},
    packages::{node_modules, venv},
    postgres::Postgres,
    queries::{Report, Watch, is_comparable, load_time, pgbench, server_counts, server_with, sql},
};

const SELECT: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = $1";

/// A server that takes encrypted connections, with pgbench's tables.
fn server() -> Postgres {
    let postgres = server_with(&["ssl=on"]);
    pgbench(&postgres, &["--quiet", "--initialize", "--scale=2"]);
    postgres
}

/// Where it is reached so.
const CONNECTION: &str = "host=127.0.0.1 sslmode=require";

/// pgbench on encrypted connections.
fn pgbench_encrypted(postgres: &Postgres, arguments: &[&str]) -> u64 {
    pgbench(
        postgres,
        &[arguments, &["--no-vacuum", CONNECTION]].concat(),
    )
}

/// What both programs below execute 50 times.
const DRIVER_SELECT: &str = "select $1::int + $2";
const PSYCOPG: &str = "
import psycopg
with psycopg.connect('host=127.0.0.1 sslmode=require', autocommit=True) as connection:
    for number in range(50):
        connection.execute('select %s::int + 1', (number,)).fetchall()
";
const NODE_SCRIPT: &str = "
const { Client } = require('pg');
(async () => {
    const client = new Client({ host: '127.0.0.1', ssl: { rejectUnauthorized: false } });
    await client.connect();
    for (let number = 0; number < 50; number++) await client.query('select $1::int + 1', [number]);
    await client.end();
})();
";

impl Report {
    fn account(&self, pointer: &str) -> &Value {
        let account = &self.0["account"];
        let found = account.pointer(pointer);
        found.unwrap_or_else(|| panic!("no {pointer} in {account:#}"))
    }
}

/// At the server every call and row of encrypted pgbench is counted as the server itself counts them, and nothing is
/// lost or opaque.
#[test]
fn servers_count_what_is_encrypted() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    for mode in ["simple", "prepared"] {
        sql(&postgres, "SELECT pg_stat_statements_reset()");
        let pid = postgres.server.id().to_string();
        let watch = Watch::start(&bench, &["--tls", "on", "-p", &pid]);
        let common = ["--protocol", mode, "--client=4", &load_time()];
        let selects = pgbench_encrypted(&postgres, &[&common[..], &["--select-only"]].concat());
        let all = pgbench_encrypted(&postgres, &common);
        let report = watch.end();
        report.assert_nothing_lost();
        assert_eq!(report.account("/opaque"), &serde_json::json!({}));
        let (ours, theirs) = (report.counts(), server_counts(&postgres));
        for (statement, counts) in theirs.iter().filter(|(text, _)| is_comparable(text, mode)) {
            assert_eq!(
                ours.get(statement),
                Some(counts),
                "{mode}: {statement}\n{ours:#?}\n{theirs:#?}"
            );
        }
        assert_eq!(ours[&SELECT.to_lowercase()].0, selects + all, "{mode}");
        let select = report.statement(SELECT);
        assert_eq!(select["via"], serde_json::json!(["tls"]), "{select:#}");
        assert_eq!(select["peers"], serde_json::json!(["127.0.0.1"]));
        assert_eq!(select["users"], serde_json::json!(["demo"]));
        println!("{mode}: {selects} and {all} transactions, all counted");
    }
}

impl Bench {
    /// What a program asks a server for, seen from its first instruction to its end.
    fn watch_command(&self, postgres: &Postgres, command: &[&str]) -> Report {
        let client = postgres.client("psql").expect("psql is there");
        let arguments = [
            "queries",
            "--json",
            "--tls",
            "on",
            "-o",
            "client.json",
            "--",
        ];
        let mut profiler = self.command(&[&arguments[..], command].concat());
        for (key, value) in client.get_envs() {
            profiler.env(key, value.unwrap_or_default());
        }
        let output = profiler.output().expect("the profiler runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let report = std::fs::read(self.path("client.json")).expect("the result");
        Report(serde_json::from_slice(&report).expect("JSON"))
    }
}

/// Clients are read from their start-up message on: psql, whose OpenSSL is the system's; psycopg, which brings one along
/// under a name of its own; node, which has one within and moves what is encrypted itself.
#[test]
fn clients_are_read_whatever_file_openssl_is_in() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    let psql = crate::postgres::find("psql").expect("psql is there");
    let psql = psql.to_string_lossy();
    let select = "select 1::int + 1";
    let mut arguments = vec![&*psql, "--no-psqlrc", "-qAtX", CONNECTION];
    arguments.extend(std::iter::repeat_n(["-c", select], 50).flatten());
    let mut reports = vec![(
        "psql",
        "127.0.0.1:",
        bench.watch_command(&postgres, &arguments),
    )];
    if let Some(venv) = venv(&PYTHON, PYTHON_MODULES) {
        let python = venv.join("bin/python");
        let command = [&*python.to_string_lossy(), "-c", PSYCOPG];
        let report = bench.watch_command(&postgres, &command);
        reports.push(("psycopg", "127.0.0.1:", report));
    } else {
        println!("skipped: psycopg, as PyPI cannot be reached");
    }
    if let Some(modules) = node_modules(&NODE) {
        let script = modules.join("../select.js");
        std::fs::write(&script, NODE_SCRIPT).expect("the script can be written");
        let command = ["node", &*script.to_string_lossy()];
        let report = bench.watch_command(&postgres, &command);
        reports.push(("node", "unknown", report));
    } else {
        println!("skipped: node, as npm cannot be reached");
    }
    for (name, peer, report) in reports {
        report.assert_nothing_lost();
        let account = &report.0["account"];
        assert_eq!(
            account["opaque"],
            serde_json::json!({}),
            "{name}: {account:#}"
        );
        assert_eq!(
            account["connections"]["decrypted"], 1,
            "{name}: {account:#}"
        );
        let select = report.statement(DRIVER_SELECT);
        assert_eq!(select["calls"], 50, "{name}: {select:#}");
        assert_eq!(select["via"], serde_json::json!(["tls"]), "{name}");
        assert_eq!(select["users"], serde_json::json!(["demo"]), "{name}");
        let found = select["peers"][0].as_str().expect("a peer");
        assert!(found.starts_with(peer), "{name}: {found}");
        println!("{name}: all counted");
    }
}

/// A client that opens a connection for each transaction gets the same address of OpenSSL's again and again: each is a
/// connection of its own, and each call is counted.
#[test]
fn connections_at_one_address_are_told_apart() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    let pgbench = crate::postgres::find("pgbench").expect("pgbench is there");
    let pgbench = pgbench.to_string_lossy();
    let load = [
        "--no-vacuum",
        "--select-only",
        "--connect",
        "--transactions=100",
    ];
    let arguments = [&[&*pgbench], &load[..], &["--client=2", CONNECTION]].concat();
    let report = bench.watch_command(&postgres, &arguments);
    report.assert_nothing_lost();
    assert_eq!(report.statement(SELECT)["calls"], 200);
    // One more looks at the tables first.
    assert_eq!(report.0["connections"]["opened"], 201);
    assert_eq!(report.account("/connections/decrypted"), 201);
}

/// `off` reads nothing of what is encrypted, says so and what would; `auto` begins with the first encrypted connection,
/// be it new or there from before.
#[test]
fn encrypted_connections_turn_it_on() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    let pid = postgres.server.id().to_string();
    let load = ["--select-only", "--client=2", "--time=2"];

    let off = Watch::start(&bench, &["-p", &pid]);
    pgbench_encrypted(&postgres, &load);
    let off = off.end();
    off.assert_nothing_lost();
    assert_eq!(off.statements(), &[] as &[Value]);
    assert!(off.account("/opaque/encrypted (TLS)").as_u64() >= Some(3));
    let table = bench.profiler(&["queries", "-p", &pid, "-d", "100ms"]);
    assert!(
        !text(&table.stdout).contains("--tls auto"),
        "nothing to hint at"
    );

    let auto = Watch::start(&bench, &["--tls", "auto", "-p", &pid]);
    pgbench_encrypted(
        &postgres,
        &["--select-only", "--client=1", "--transactions=1"],
    );
    // The probes come some moments after the connection that turns them on.
    sleep(Duration::from_millis(1500));
    sql(&postgres, "SELECT pg_stat_statements_reset()");
    let transactions = pgbench_encrypted(&postgres, &load);
    let auto = auto.end();
    let calls = auto.statement(SELECT)["calls"].as_u64();
    assert!(
        calls == Some(transactions) || calls == Some(transactions + 1),
        "{calls:?} of {transactions}"
    );
    // Those that turn it on may be over before the probes are there.
    let opaque = auto.account("/opaque")["encrypted (TLS)"].as_u64();
    assert!(opaque.unwrap_or(0) <= 2, "{opaque:?} connections");

    let mut client = postgres.client("pgbench").expect("pgbench is there");
    client.args([
        "--select-only",
        "--client=2",
        "--time=6",
        "--no-vacuum",
        CONNECTION,
    ]);
    let mut client = client.stdout(Stdio::null()).spawn().expect("pgbench runs");
    sleep(Duration::from_secs(1));
    let late = Watch::start(&bench, &["--tls", "auto", "-p", &pid]);
    client.wait().expect("pgbench ends");
    let late = late.end();
    let select = late.statement(SELECT);
    assert!(select["calls"].as_u64() > Some(1000), "{select:#}");
    assert_eq!(
        select["users"],
        serde_json::json!(["demo"]),
        "by the backend's title"
    );
    assert_eq!(late.account("/opaque"), &serde_json::json!({}));
}

/// Probes that come and go ten times under load cost the server and its clients nothing but time.
#[test]
fn probes_come_and_go_under_load() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    let pid = postgres.server.id().to_string();
    let mut client = postgres.client("pgbench").expect("pgbench is there");
    client.args([
        "--select-only",
        "--client=4",
        "--rate=1000",
        "--time=20",
        "--no-vacuum",
        CONNECTION,
    ]);
    let client = client.stdout(Stdio::piped()).stderr(Stdio::piped());
    let client = client.spawn().expect("pgbench runs");
    sleep(Duration::from_millis(500));
    let mut seen = 0;
    for _ in 0..10 {
        let arguments = [
            "queries", "--json", "--tls", "on", "-d", "700ms", "-p", &pid,
        ];
        let output = bench.profiler(&arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let report = Report(serde_json::from_slice(&output.stdout).expect("JSON"));
        seen += report.account("/calls").as_u64().expect("a number");
    }
    let output = client.wait_with_output().expect("pgbench ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let output = text(&output.stdout);
    assert!(
        output.contains("number of failed transactions: 0 "),
        "{output}"
    );
    let tps = output.lines().find_map(|line| line.strip_prefix("tps = "));
    println!("tps {tps:?}; calls seen meanwhile: {seen}");
    assert!(seen > 1000, "{seen}");
    assert_eq!(sql(&postgres, "SELECT 1"), "1\n");
}

/// Of what is encrypted neither passwords nor values come out.
#[test]
fn nothing_secret_is_kept_of_what_is_encrypted() {
    const SECRET: &str = "cAnArY78";
    let Some(bench) = bench() else { return };
    let postgres = server();
    sql(
        &postgres,
        &format!("CREATE ROLE someone LOGIN PASSWORD '{SECRET}'"),
    );
    let pid = postgres.server.id().to_string();
    let watch = Watch::start(&bench, &["--tls", "on", "-p", &pid]);
    let mut events = bench.command(&["queries", "--events", "--tls", "on", "-p", &pid]);
    let events = events.stdout(Stdio::piped()).stderr(Stdio::piped());
    let events = events.spawn().expect("the profiler runs");
    until_watching(&events);
    let mut psql = postgres.client("psql").expect("psql is there");
    let script = format!("SELECT '{SECRET}', E'{SECRET}\\n'; SELECT '{SECRET}'::int");
    psql.args(["--no-psqlrc", "-qAtX", CONNECTION, "-c", &script])
        .env("PGUSER", "someone")
        .env("PGPASSWORD", SECRET);
    let output = psql.output().expect("psql runs");
    assert!(
        text(&output.stderr).contains(SECRET),
        "the server complains"
    );
    signal(&events, Signal::INT);
    let events = events.wait_with_output().expect("the profiler ends");
    let report = watch.end();
    assert_eq!(
        report.statement("SELECT $1, $2")["users"],
        serde_json::json!(["someone"])
    );
    for text in [
        text(&events.stdout),
        text(&events.stderr),
        report.0.to_string(),
    ] {
        assert!(text.contains("SELECT $1") || text.is_empty(), "{text}");
        assert!(!text.contains(SECRET), "{text}");
    }
}

/// A function whose code cannot be followed is left out and told, the others of its file are not.
#[test]
fn functions_that_cannot_be_followed_are_told() {
    const LIBRARY: &str = r#"
    #include <unistd.h>
    int elsewhere(void *ssl, void *buffer, int size);
    __attribute__((naked)) int SSL_read(void *ssl, void *buffer, int size) { __asm__("jmp *%rax"); }
    __attribute__((naked)) int SSL_write(void *ssl, void *buffer, int size) { __asm__("jmp elsewhere"); }
    int elsewhere(void *ssl, void *buffer, int size) { return size; }
    int SSL_write_ex(void *ssl, void *buffer, size_t size, size_t *written) { *written = size; return 1; }
    int main(void) { pause(); }
    "#;
    let Some(bench) = bench() else { return };
    let program = bench.compile("strange", LIBRARY, &["-rdynamic"]);
    let target = Target::start(&program, &[]);
    let watch = Watch::start(&bench, &["--tls", "on", "-p", &target.pid()]);
    let report = watch.end();
    let notes = report.account("/notes").as_object().expect("an object");
    let notes: Vec<&String> = notes.keys().collect();
    let path = program.display();
    let expected = [
        format!("SSL_read of {path} left out, it jumps to where a register says"),
        format!("SSL_write of {path} left out, it goes on in another function"),
    ];
    assert_eq!(notes, expected.iter().collect::<Vec<_>>());
}
