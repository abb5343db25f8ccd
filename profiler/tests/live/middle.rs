//! Recordings that begin in the middle of things: pools that are idle, statements that run, answers that flow.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStdin, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    bench::{Target, bench, text},
    drivers::{self, NODE, PYTHON, PYTHON_MODULES},
    packages::{node_modules, venv},
    postgres::Postgres,
    queries::{Report, Watch, is_from_14, server, sql},
};

/// What clients find.
const TABLES: &str = "CREATE TABLE items (id int PRIMARY KEY, name text, note text);
    INSERT INTO items SELECT n, 'item ' || n FROM generate_series(1, 100) n;";

/// A client that waits for a line between its parts.
pub(crate) struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Client {
    fn start(command: &mut Command, postgres: &Postgres, host: Option<&str>) -> Self {
        let client = postgres.client("psql").expect("psql is there");
        let settings = client.get_envs();
        command.envs(settings.filter_map(|(key, value)| Some((key, value?))));
        command.envs(host.map(|host| ("PGHOST", host)));
        command
            .env("PGSSLMODE", "disable")
            .env("PYTHONDONTWRITEBYTECODE", "1");
        let mut child = (command.stdin(Stdio::piped()).stdout(Stdio::piped()))
            .spawn()
            .expect("the client runs");
        Self {
            input: child.stdin.take().expect("a pipe"),
            output: BufReader::new(child.stdout.take().expect("a pipe")),
            child,
        }
    }

    /// A program of Python for psycopg2, as a text.
    pub(crate) fn python(program: &str, postgres: &Postgres) -> Option<Self> {
        let Some(venv) = venv(&PYTHON, PYTHON_MODULES) else {
            println!("skipped: the drivers for Python could not be installed");
            return None;
        };
        let mut command = Command::new(venv.join("bin/python"));
        Some(Self::start(command.args(["-c", program]), postgres, None))
    }

    pub(crate) fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// The next line that it writes.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    /// Lets it go on, up to its next line.
    pub(crate) fn go_on(&mut self) -> String {
        writeln!(self.input, "go on").expect("it listens");
        self.line()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn number(row: &Value, key: &str) -> u64 {
    row[key]
        .as_u64()
        .unwrap_or_else(|| panic!("{key} of {row:#}"))
}

/// Sums over all rows of a report.
fn sum(report: &Report, key: &str) -> u64 {
    report.statements().iter().map(|row| number(row, key)).sum()
}

/// Every call of a pool of connections from before is counted under its text, and timed, from the first one on.
fn pools_are_exact(command: &mut Command, host: Option<&str>) {
    let Some(bench) = bench() else { return };
    let postgres = server();
    sql(&postgres, TABLES);
    let mut pool = Client::start(command, &postgres, host);
    assert_eq!(pool.line(), "ready");
    sql(&postgres, "SELECT pg_stat_statements_reset()");
    let at_client = Watch::start(&bench, &["-p", &pool.pid()]);
    let at_server = Watch::start(&bench, &["-p", &postgres.server.id().to_string()]);
    assert_eq!(pool.go_on(), "done");
    for (side, watch) in [("client", at_client), ("server", at_server)] {
        let report = watch.end();
        report.assert_nothing_lost();
        for text in [
            "SELECT name FROM items WHERE id = $1",
            "SELECT note, id FROM items WHERE id = $1",
        ] {
            let row = report.statement(text);
            let counts = ["calls", "rows", "unseen"].map(|key| number(row, key));
            assert_eq!(counts, [250, 250, 0], "at the {side}: {row:#}");
        }
        let failed = |row: &Value| row["errors"]["22012"].as_u64().unwrap_or(0);
        let errors: u64 = report.statements().iter().map(failed).sum();
        assert_eq!(errors, 10, "at the {side}: {:#}", report.0);
        assert_eq!(sum(&report, "unseen"), 0, "at the {side}: {:#}", report.0);
    }
}

fn python_pool(driver: &str) {
    let Some(venv) = venv(&PYTHON, PYTHON_MODULES) else {
        println!("skipped: the drivers for Python could not be installed");
        return;
    };
    for host in [None, Some("127.0.0.1")] {
        let mut command = Command::new(venv.join("bin/python"));
        pools_are_exact(command.arg(drivers::path("pool.py")).arg(driver), host);
    }
}

/// psycopg2 sends texts.
#[test]
fn pools_of_psycopg2_are_exact() {
    python_pool("psycopg2");
}

/// psycopg 3 has prepared `_pg3_0` on each connection.
#[test]
fn pools_of_psycopg_are_exact() {
    python_pool("psycopg");
}

/// asyncpg has prepared `__asyncpg_stmt_1__` on each connection.
#[test]
fn pools_of_asyncpg_are_exact() {
    python_pool("asyncpg");
}

/// node-postgres has prepared what the program calls it.
#[test]
fn pools_of_node_postgres_are_exact() {
    let Some(modules) = node_modules(&NODE) else {
        println!("skipped: the driver for Node could not be installed");
        return;
    };
    let mut command = Command::new("node");
    command
        .arg(drivers::path("pool.js"))
        .env("NODE_PATH", modules);
    pools_are_exact(&mut command, Some("127.0.0.1"));
}

/// JDBC has prepared `S_1` on each connection.
#[test]
fn pools_of_jdbc_are_exact() {
    let Some(jars) = drivers::jars() else { return };
    let mut command = Command::new("java");
    command
        .arg(drivers::path("Pool.java"))
        .env("CLASSPATH", jars);
    pools_are_exact(&mut command, Some("127.0.0.1"));
}

/// A recording that begins within a long answer counts what comes behind it, at both ends, however much of the answer is
/// to come.
#[test]
fn long_answers_do_not_hide_what_follows() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    let mut psql = postgres.client("psql").expect("psql is there");
    let mut psql = (psql.args(["--no-psqlrc", "-qAtX"]).stdin(Stdio::piped()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("psql runs");
    let mut input = psql.stdin.take().expect("a pipe");
    writeln!(
        input,
        "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 30000)) TO STDOUT;"
    )
    .expect("it listens");
    for _ in 0..100 {
        writeln!(input, "SELECT 'behind';").expect("it listens");
    }
    drop(input);
    let mut output = psql.stdout.take().expect("a pipe");
    // It waits for us to read what it writes.
    output.read_exact(&mut [0; 1001]).expect("the first row");
    let pid = postgres.server.id().to_string();
    let at_client = Watch::start(&bench, &["-p", &psql.id().to_string()]);
    let at_server = Watch::start(&bench, &["-p", &pid]);
    let mut rest = String::new();
    output.read_to_string(&mut rest).expect("all of it");
    psql.wait().expect("psql ends");
    assert_eq!(rest.lines().filter(|line| *line == "behind").count(), 100);
    for (side, watch) in [("client", at_client), ("server", at_server)] {
        let report = watch.end();
        let row = report.statement("SELECT $1");
        let calls = number(row, "calls") + number(row, "unseen");
        // Where it is not known where the answer ended, nothing is known of the next one either.
        assert!(
            calls >= 99 && number(row, "calls") >= 95,
            "at the {side}: {:#}",
            report.0
        );
        assert_eq!(
            report.0["account"]["connections"]["other"], 0,
            "at the {side}"
        );
    }
}

/// What runs when a recording begins and when it ends is shown with its text, its age and what it waits for; what ends
/// in between is a call.
#[test]
fn what_is_under_way_is_shown() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    sql(&postgres, TABLES);
    let program = "import psycopg2, sys, threading
def connect():
    return psycopg2.connect('')
holder, blocked, ending = connect(), connect(), connect()
holder.cursor().execute('UPDATE items SET note = %s WHERE id = 1', ('mine',))
def wait():
    blocked.cursor().execute('UPDATE items SET name = %s WHERE id = 1', ('other',))
def end():
    ending.cursor().execute('SELECT pg_advisory_lock(7)')
gate = connect()
gate.cursor().execute('SELECT pg_advisory_lock(7)')
for work in (wait, end):
    threading.Thread(target=work, daemon=True).start()
print('ready', flush=True)
sys.stdin.readline()
gate.cursor().execute('SELECT pg_advisory_unlock(7)')
gate.commit()
print('done', flush=True)
sys.stdin.readline()
";
    let Some(mut client) = Client::python(program, &postgres) else {
        return;
    };
    assert_eq!(client.line(), "ready");
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    let begun = Instant::now();
    while sql(&postgres, waits).trim() != "2" {
        assert!(begun.elapsed() < Duration::from_secs(60), "they never wait");
    }
    // Older servers keep them where only their debug information says.
    let has_waits = is_from_14(&postgres);
    let at_client = Watch::start(&bench, &["-p", &client.pid()]);
    let at_server = Watch::start(&bench, &["-p", &postgres.server.id().to_string()]);
    sleep(Duration::from_millis(300));
    assert_eq!(client.go_on(), "done");
    let theirs = "SELECT extract(epoch FROM clock_timestamp() - query_start) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    for (side, watch) in [("client", at_client), ("server", at_server)] {
        let report = watch.end();
        let seconds: f64 = sql(&postgres, theirs).trim().parse().expect("an age");
        let under_way = report.0["under_way"].as_array().expect("a list");
        let of = |text: &str| {
            let found = under_way.iter().find(|one| one["statement"] == text);
            found.unwrap_or_else(|| panic!("no `{text}` at the {side} in {:#}", report.0))
        };
        let blocked = of("UPDATE items SET name = $1 WHERE id = $2");
        assert_eq!(blocked["state"], "active");
        assert_eq!(blocked["wait"].as_str(), has_waits.then_some("Lock"));
        assert_eq!(blocked["at_least"], false);
        // The server's age was taken a moment later.
        let age = blocked["age_ns"].as_f64().expect("a time") / 1e9;
        assert!(
            age <= seconds && age > 0.3,
            "{age} s and {seconds} s by the server"
        );
        let holder = of("UPDATE items SET note = $1 WHERE id = $2");
        assert_eq!(holder["state"], "idle in transaction");
        assert!(number(holder, "transaction_ns") > number(holder, "age_ns") / 2);
        assert_ne!(holder["backend"], blocked["backend"]);
        let ended = report.statement("SELECT pg_advisory_lock($1)");
        assert_eq!(number(ended, "calls"), 1, "at the {side}: {:#}", report.0);
        assert!(
            number(ended, "max_ns") > 300_000_000,
            "it took longer: {ended:#}"
        );
    }
}

/// A transaction that ends with its connection has ended then.
#[test]
fn disconnecting_ends_a_transaction() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    sql(&postgres, TABLES);
    let program = "import psycopg2, sys, time
connection = psycopg2.connect('')
print('ready', flush=True)
sys.stdin.readline()
began = time.monotonic()
connection.cursor().execute('UPDATE items SET note = %s WHERE id = 1', ('mine',))
time.sleep(0.5)
connection.close()
print(time.monotonic() - began, flush=True)
sys.stdin.readline()
";
    let Some(mut client) = Client::python(program, &postgres) else {
        return;
    };
    assert_eq!(client.line(), "ready");
    let at_client = Watch::start(&bench, &["-p", &client.pid()]);
    let at_server = Watch::start(&bench, &["-p", &postgres.server.id().to_string()]);
    let seconds: f64 = client.go_on().parse().expect("a time");
    sleep(Duration::from_secs(1));
    for (side, watch) in [("client", at_client), ("server", at_server)] {
        let report = watch.end();
        let all = &report.0["transactions"];
        let ends = ["disconnected", "open", "committed"].map(|key| number(all, key));
        assert_eq!(ends, [1, 0, 0], "at the {side}: {all:#}");
        let mean = all["mean_ns"].as_f64().expect("a time") / 1e9;
        // The server reads of the end later than the client has it, and long before the table ends.
        assert!(
            (0.5..seconds + 0.5).contains(&mean),
            "at the {side}: {mean} s, {seconds} s by the client"
        );
    }
}

/// A connection that workers have inherited and use in turn is one, until the last of them has closed it.
#[test]
fn inherited_connections_go_on() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    sql(&postgres, TABLES);
    let program = "import os, psycopg2, sys
connection = psycopg2.connect('')
connection.autocommit = True
print('ready', flush=True)
sys.stdin.readline()
for worker in range(4):
    if os.fork() == 0:
        cursor = connection.cursor()
        for key in range(10):
            cursor.execute('SELECT name FROM items WHERE id = %s', (key + 1,))
            cursor.fetchall()
        os._exit(0)
    os.wait()
print('done', flush=True)
sys.stdin.readline()
";
    let Some(mut client) = Client::python(program, &postgres) else {
        return;
    };
    assert_eq!(client.line(), "ready");
    let watch = Watch::start(&bench, &["--descendants", "-p", &client.pid()]);
    assert_eq!(client.go_on(), "done");
    let report = watch.end();
    report.assert_nothing_lost();
    let row = report.statement("SELECT name FROM items WHERE id = $1");
    let counts = ["calls", "rows", "unseen"].map(|key| number(row, key));
    assert_eq!(counts, [40, 40, 0], "{row:#}");
    assert!(
        row["databases"][0].is_string() && row["users"][0].is_string(),
        "{row:#}"
    );
    assert_eq!(number(&report.0["account"]["connections"], "postgres"), 1);
}

/// Who asks is known of a connection from before, at both ends, by the backend's own account.
#[test]
fn who_asks_is_known() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    sql(&postgres, TABLES);
    let program = "import psycopg2, sys
connection = psycopg2.connect('', application_name='shop')
connection.autocommit = True
print('ready', flush=True)
sys.stdin.readline()
for key in range(5):
    connection.cursor().execute('SELECT name FROM items WHERE id = %s', (key,))
print('done', flush=True)
sys.stdin.readline()
";
    let Some(mut client) = Client::python(program, &postgres) else {
        return;
    };
    assert_eq!(client.line(), "ready");
    let by = ["--by", "application", "-p"];
    let watch = |pid: String| Watch::start(&bench, &[&by[..], &[pid.as_str()]].concat());
    let watches = [watch(client.pid()), watch(postgres.server.id().to_string())];
    assert_eq!(client.go_on(), "done");
    for watch in watches {
        let report = watch.end();
        let row = report.statement("SELECT name FROM items WHERE id = $1");
        assert_eq!((&row["by"], number(row, "calls")), (&"shop".into(), 5));
        let known = ["databases", "users", "applications"].map(|key| row[key][0].is_string());
        assert_eq!(known, [true; 3], "{row:#}");
    }
}

/// Where there is no Postgres, it is said what there was and what to try.
#[test]
fn processes_without_postgres_are_named_so() {
    let Some(bench) = bench() else { return };
    let target = Target::spawn(Command::new("sleep").arg("60"));
    let output = bench.profiler(&["queries", "-p", &target.pid(), "-d", "200ms"]);
    let table = text(&output.stdout);
    assert!(
        table.contains("hint: nothing was sent or received: name the process"),
        "{table}"
    );
}
