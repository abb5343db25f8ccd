//! Queries are counted exactly and timed honestly: against `pg_stat_statements`, pgbench's own count and known sleeps.

use std::{
    collections::BTreeMap,
    env,
    process::{Child, Stdio},
    thread::sleep,
    time::Duration,
};

use profiler::postgres::sql::{Reading, normalise};
use rustix::process::Signal;
use serde_json::Value;

use crate::{
    bench::{Bench, bench, signal, text, until_watching},
    postgres::Postgres,
};

/// A server with statistics.
pub(crate) fn server() -> Postgres {
    server_with(&[])
}

/// Likewise, with more settings.
pub(crate) fn server_with(settings: &[&str]) -> Postgres {
    let settings = [&["shared_preload_libraries=pg_stat_statements"], settings].concat();
    let postgres = Postgres::start_with(&settings).expect("a cluster starts");
    sql(&postgres, "CREATE EXTENSION pg_stat_statements");
    postgres
}

/// Runs SQL through psql, and gives its unadorned output.
pub(crate) fn sql(postgres: &Postgres, script: &str) -> String {
    let mut psql = postgres.client("psql").expect("psql is there");
    let output = psql
        .args([
            "--no-psqlrc",
            "-qAtX",
            "-v",
            "ON_ERROR_STOP=0",
            "-c",
            script,
        ])
        .output()
        .expect("psql runs");
    text(&output.stdout)
}

/// Whether the server is of Postgres 14 or later: since then it numbers statements, counts those that return rows and are
/// no queries, and has its wait events where its symbols say.
pub(crate) fn is_from_14(postgres: &Postgres) -> bool {
    let version = "SELECT current_setting('server_version_num')::int >= 140000";
    sql(postgres, version).trim() == "t"
}

/// A recording under way.
pub(crate) struct Watch(Child);

impl Watch {
    pub(crate) fn start(bench: &Bench, arguments: &[&str]) -> Self {
        let mut command = bench.command(&[&["queries", "--json", "-d", "1h"], arguments].concat());
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the profiler runs");
        until_watching(&child);
        Self(child)
    }

    /// Ends it and gives what it wrote.
    pub(crate) fn end(self) -> Report {
        sleep(Duration::from_millis(200));
        signal(&self.0, Signal::INT);
        let output = self.0.wait_with_output().expect("the profiler ends");
        assert!(output.status.success(), "{}", text(&output.stderr));
        Report(serde_json::from_slice(&output.stdout).expect("JSON"))
    }
}

/// What a recording wrote.
pub(crate) struct Report(pub(crate) Value);

impl Report {
    /// Nothing was lost and nothing is unexplained.
    #[track_caller]
    pub(crate) fn assert_nothing_lost(&self) {
        let account = &self.0["account"];
        assert_eq!(account["lost"], serde_json::json!({}), "{account:#}");
        assert_eq!(account["notes"], serde_json::json!({}), "{account:#}");
        assert_eq!(account["calls"], account["in_rows"]);
    }

    pub(crate) fn statements(&self) -> &[Value] {
        self.0["statements"].as_array().expect("a list")
    }

    /// The statement with this normal form.
    #[track_caller]
    pub(crate) fn statement(&self, text: &str) -> &Value {
        let found = self
            .statements()
            .iter()
            .find(|one| one["statement"] == text);
        found.unwrap_or_else(|| panic!("no `{text}` in {:#}", self.0))
    }

    /// The statement with this text, of which keywords are shown as the server refused it.
    #[track_caller]
    pub(crate) fn refused(&self, text: &str) -> &Value {
        let fingerprint = normalise(text.as_bytes(), Reading::default()).fingerprint;
        let withheld = format!("<withheld {fingerprint}: ");
        let mut rows = self.statements().iter();
        let found = rows.find(|one| {
            let text = one["statement"].as_str();
            text.is_some_and(|text| text.starts_with(&withheld))
        });
        found.unwrap_or_else(|| panic!("no `{withheld}` in {:#}", self.0))
    }

    /// Calls and rows by normal form.
    pub(crate) fn counts(&self) -> BTreeMap<String, (u64, u64)> {
        let mut counts = BTreeMap::new();
        for one in self.statements() {
            let key = folded(one["statement"].as_str().expect("a text"));
            let sum: &mut (u64, u64) = counts.entry(key).or_default();
            sum.0 += one["calls"].as_u64().expect("a number");
            sum.1 += one["rows"].as_u64().expect("a number");
        }
        counts.retain(|_, (calls, _)| *calls > 0);
        counts
    }
}

/// A normal form as both sides write it.
pub(crate) fn folded(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .trim_end_matches(';')
        .to_lowercase()
}

/// What the server counted: calls and rows by normal form, those of the same text together.
pub(crate) fn server_counts(postgres: &Postgres) -> BTreeMap<String, (u64, u64)> {
    let script = "SELECT calls, rows, replace(query, chr(10), ' ') FROM pg_stat_statements WHERE query NOT LIKE '%pg_stat_statements%'";
    let mut counts = BTreeMap::new();
    for line in sql(postgres, script).lines() {
        let mut fields = line.splitn(3, '|');
        let mut next = || fields.next().expect("three fields").to_owned();
        let (calls, rows): (u64, u64) = (
            next().parse().expect("calls"),
            next().parse().expect("rows"),
        );
        let sum: &mut (u64, u64) = counts.entry(folded(&next())).or_default();
        sum.0 += calls;
        sum.1 += rows;
    }
    counts
}

/// Whether the server counts a statement as we do. It takes TRUE for a constant like others, which is in a query of
/// pgbench's start; and Postgres 15 does not count BEGIN and END that were prepared, beyond their first execution.
pub(crate) fn is_comparable(text: &str, mode: &str) -> bool {
    let is_control = matches!(text, "begin" | "end");
    !(text.contains("array_position") || is_control && mode == "prepared")
}

pub(crate) fn pgbench(postgres: &Postgres, arguments: &[&str]) -> u64 {
    let mut client = postgres.client("pgbench").expect("pgbench is there");
    let output = client.args(arguments).output().expect("pgbench runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let output = text(&output.stdout);
    let line = output
        .lines()
        .find_map(|line| line.strip_prefix("number of transactions actually processed: "));
    let number = line.map(|line| line.split('/').next().unwrap_or_default());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// How long pgbench runs where every call is compared: a second, and before a release `PROFILER_EXACT_SECONDS=60`.
pub(crate) fn load_time() -> String {
    let seconds = env::var("PROFILER_EXACT_SECONDS");
    format!("--time={}", seconds.as_deref().unwrap_or("1"))
}

/// pgbench in all its modes at full speed, through unix sockets and TCP: every call and every row is counted, as the
/// server itself counts them, and nothing is lost.
#[test]
fn counts_are_those_of_the_server() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    pgbench(&postgres, &["--quiet", "--initialize", "--scale=2"]);
    let tcp = ["--host=127.0.0.1"];
    let time = load_time();
    for (mode, place) in [
        ("simple", &[][..]),
        ("extended", &[]),
        ("prepared", &[]),
        ("simple", &tcp),
        ("prepared", &tcp),
    ] {
        sql(&postgres, "SELECT pg_stat_statements_reset()");
        let watch = Watch::start(&bench, &["-p", &postgres.server.id().to_string()]);
        let common = ["--protocol", mode, "--client=4", &time, "--no-vacuum"];
        let selects = pgbench(
            &postgres,
            &[&common[..], &["--select-only"], place].concat(),
        );
        let all = pgbench(&postgres, &[&common[..], place].concat());
        let report = watch.end();
        report.assert_nothing_lost();
        let (ours, theirs) = (report.counts(), server_counts(&postgres));
        for (statement, counts) in theirs.iter().filter(|(text, _)| is_comparable(text, mode)) {
            assert_eq!(
                ours.get(statement),
                Some(counts),
                "{mode}: {statement}\n{ours:#?}\n{theirs:#?}"
            );
        }
        let select = "select abalance from pgbench_accounts where aid = $1";
        assert_eq!(ours[select].0, selects + all, "{mode}");
        println!("{mode} {place:?}: {selects} and {all} transactions, all counted");
    }
}

/// Seen from the client, and attached when every statement had been prepared long ago: names stand for texts until these
/// are found, and the calls from then on are all there.
#[test]
fn clients_and_statements_from_before() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    pgbench(&postgres, &["--quiet", "--initialize", "--scale=1"]);
    let mut client = postgres.client("pgbench").expect("pgbench is there");
    client.args([
        "--select-only",
        "--protocol=prepared",
        "--client=2",
        "--time=8",
        "--no-vacuum",
    ]);
    let mut client = client.stdout(Stdio::null()).spawn().expect("pgbench runs");
    sleep(Duration::from_secs(2));
    sql(&postgres, "SELECT pg_stat_statements_reset()");
    let watch = Watch::start(&bench, &["-p", &client.id().to_string()]);
    client.wait().expect("pgbench ends");
    let report = watch.end();
    let text = "SELECT abalance FROM pgbench_accounts WHERE aid = $1";
    let is_it = |row: &&Value| {
        let shown = row["statement"].as_str().unwrap_or_default();
        shown == text || shown.starts_with("<prepared before attach: P_0, ")
    };
    let selects: Vec<&Value> = report.statements().iter().filter(is_it).collect();
    assert!(selects.iter().all(|row| row["side"] == "client"));
    let number = |key: &str| {
        let numbers = selects.iter().map(|row| row[key].as_u64());
        numbers.map(|number| number.expect("a number")).sum::<u64>()
    };
    let (calls, rows) = (number("calls"), number("rows"));
    assert!(
        calls > 1000 && rows - calls <= number("unseen"),
        "{selects:#?}"
    );
    // The server has counted from a moment on that was before the attachment.
    let theirs = server_counts(&postgres);
    let (theirs, _) = theirs["select abalance from pgbench_accounts where aid = $1"];
    assert!(calls <= theirs, "{calls} of {theirs}");
    let peer = selects[0]["peers"][0].as_str().expect("a peer");
    assert!(peer.contains("/.s.PGSQL."), "{peer}");
    // The first moments of each connection are the only ones that may be missing.
    let lost = &report.0["account"]["lost"];
    let only = |key: &str| key.starts_with("under way when the recording began");
    assert!(
        lost.as_object()
            .expect("an object")
            .keys()
            .all(|key| only(key)),
        "{lost:#}"
    );
}

/// A query lasts as long as it sleeps, at both ends; its first row comes when it comes.
#[test]
fn latencies_are_those_of_known_sleeps() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    let at_server = Watch::start(&bench, &["-p", &postgres.server.id().to_string()]);
    let mut psql = postgres.client("psql").expect("psql is there");
    let folder = bench.path("sleeps.sql");
    let script = "SELECT pg_sleep(0.2);\nSELECT 1/0;\nSELECT g, pg_sleep(0.002), repeat('x', 3000) FROM generate_series(1, 100) g;\n";
    std::fs::write(&folder, script).expect("a script");
    let psql = psql.args(["--no-psqlrc", "-qAtX", "-f", "-"]);
    let input = std::fs::File::open(&folder).expect("the script");
    let program = psql.get_program().to_owned();
    let at_client = {
        let environment: Vec<_> = psql
            .get_envs()
            .map(|(key, value)| (key.to_owned(), value.map(ToOwned::to_owned)))
            .collect();
        let mut command = bench.command(&["queries", "--json", "-o", "client.json", "--"]);
        command.arg(program).args(psql.get_args()).stdin(input);
        for (key, value) in environment {
            command.env(key, value.unwrap_or_default());
        }
        command.output().expect("the profiler runs")
    };
    assert!(at_client.status.success(), "{}", text(&at_client.stderr));
    let server = at_server.end();
    let client = std::fs::read(bench.path("client.json")).expect("the result");
    let client = Report(serde_json::from_slice(&client).expect("JSON"));
    for report in [&server, &client] {
        report.assert_nothing_lost();
        let sleep = report.statement("SELECT pg_sleep($1)");
        let ms = |one: &Value, key: &str| one[key].as_u64().expect("a time") / 1_000_000;
        let max = ms(sleep, "max_ns");
        assert!((200..230).contains(&max), "{max} ms: {sleep:#}");
        let failed = report.refused("SELECT 1/0");
        assert_eq!(failed["errors"], serde_json::json!({ "22012": 1 }));
        assert_eq!(failed["calls"], 0);
        let rows = report
            .statement("SELECT g, pg_sleep($1), repeat($2, $3) FROM generate_series($4, $5) g");
        assert_eq!(rows["rows"], 100);
        let (first, all) = (ms(rows, "first_row_ns"), ms(rows, "max_ns"));
        assert!(all >= 200 && first < all / 4, "first {first}, all {all} ms");
    }
    let time = |report: &Report| report.statement("SELECT pg_sleep($1)")["total_ns"].as_u64();
    assert!(
        time(&server) <= time(&client),
        "the client waits for the server"
    );
}

/// Values never come out: neither literals nor parameters, passwords, rows, COPY data or texts of errors.
#[test]
fn nothing_secret_is_kept() {
    const SECRET: &str = "cAnArY77";
    let Some(bench) = bench() else { return };
    let postgres = server();
    let watch = Watch::start(&bench, &["-p", &postgres.server.id().to_string()]);
    let events = bench
        .command(&[
            "queries",
            "--events",
            "-p",
            &postgres.server.id().to_string(),
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the profiler runs");
    until_watching(&events);
    for script in [
        format!("CREATE ROLE someone PASSWORD '{SECRET}'"),
        format!(
            "CREATE TABLE secrets (id int PRIMARY KEY, t text); INSERT INTO secrets VALUES (1, '{SECRET}'), (2, $${SECRET}$$)"
        ),
        format!("INSERT INTO secrets VALUES (1, '{SECRET}')"),
        format!("SELECT '{SECRET}'::int; SELECT t FROM secrets WHERE t = E'{SECRET}\\n'"),
        "SELECT t FROM secrets; COPY secrets TO STDOUT".to_owned(),
        format!(
            "PREPARE p AS SELECT $1::text; EXECUTE p('{SECRET}'); SET application_name = '{SECRET}'"
        ),
        format!("DO $body$ BEGIN RAISE EXCEPTION '{SECRET}'; END $body$; -- {SECRET}"),
    ] {
        sql(&postgres, &script);
    }
    let script = format!("COPY secrets FROM STDIN;\n7\t{SECRET}\n\\.\n");
    let file = bench.path("copy.sql");
    std::fs::write(&file, script).expect("a script");
    let mut psql = postgres.client("psql").expect("psql is there");
    psql.args(["--no-psqlrc", "-qX", "-f"]).arg(&file);
    psql.output().expect("psql runs");
    assert!(sql(&postgres, "SELECT t FROM secrets WHERE id = 7").contains(SECRET));
    signal(&events, Signal::INT);
    let events = events.wait_with_output().expect("the profiler ends");
    let report = watch.end();
    let all = [
        text(&events.stdout),
        text(&events.stderr),
        report.0.to_string(),
    ];
    assert!(all[0].contains("INSERT INTO secrets VALUES"), "{}", all[0]);
    assert!(report.statement("COPY secrets FROM STDIN")["copied_in"].as_u64() > Some(0));
    for text in all {
        assert!(!text.contains(SECRET), "{text}");
    }
}
