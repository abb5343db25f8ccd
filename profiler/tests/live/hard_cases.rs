//! Queries where it is hard to see them: attaching to busy connections and leaving them, many connections, a row of
//! 100 MB, backends that are killed in the middle of a call, a pooler in between.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    bench::{Bench, Target, bench, text},
    postgres::Postgres,
    queries::{Report, Watch, pgbench, server, sql},
};

/// What pgbench asks for with `--select-only`.
const SELECT: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = $1";

/// A test waits so long for what should come at once.
const PATIENCE: Duration = Duration::from_secs(20);

fn number(one: &Value, key: &str) -> u64 {
    one[key].as_u64().expect("a number")
}

/// Waits until the query gives anything but an empty answer.
fn wait_for(postgres: &Postgres, query: &str) -> String {
    let step = Duration::from_millis(100);
    for _ in 0..PATIENCE.as_millis() / step.as_millis() {
        let answer = sql(postgres, query).trim().to_owned();
        if !answer.is_empty() {
            return answer;
        }
        sleep(step);
    }
    panic!("`{query}` has no answer");
}

/// Connections that are never idle are entered, left and entered again, those too whose statements were prepared long
/// Whether a row is of pgbench's statement, whose text is not known so far.
fn is_nameless(row: &Value) -> bool {
    let statement = row["statement"].as_str().unwrap_or_default();
    statement.starts_with("<prepared before attach: P_0, ")
}

/// before: what is counted lies between what the server counts within the recording and around it.
#[test]
fn busy_connections_are_entered_and_left() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    pgbench(&postgres, &["--quiet", "--initialize", "--scale=1"]);
    let busy: Vec<Target> = ["extended", "prepared"]
        .map(|mode| {
            let mut client = postgres.client("pgbench").expect("pgbench is there");
            let load = ["--select-only", "--no-vacuum", "--client=2", "--time=60"];
            Target::spawn(client.args(load).args(["--protocol", mode]))
        })
        .into();
    sleep(Duration::from_secs(1));
    let counted = || {
        let script =
            "SELECT sum(calls) FROM pg_stat_statements WHERE query LIKE 'SELECT abalance%'";
        let count = sql(&postgres, script).trim().parse::<u64>();
        count.expect("a count")
    };
    for _ in 0..2 {
        let around = counted();
        let watch = Watch::start(&bench, &["-p", &postgres.server.id().to_string()]);
        let within = counted();
        sleep(Duration::from_secs(1));
        let within = counted() - within;
        let report = watch.end();
        let around = counted() - around;
        let is_it = |row: &&Value| row["statement"] == SELECT || is_nameless(row);
        let rows: Vec<&Value> = report.statements().iter().filter(is_it).collect();
        let calls = |row: &&Value| number(row, "calls") + number(row, "unseen");
        let seen = rows.iter().map(calls).sum::<u64>();
        println!("{around} calls around, {within} within, {seen} seen");
        assert!(
            (within..=around).contains(&seen),
            "{seen}: {within} to {around}"
        );
        for row in rows {
            // A row has up to four connections: those of the other mode too, once the text of what they prepared is
            // read. Of each the times of the first calls are not known: of four, and of up to 64 where an answer was
            // taken for another one's. One is under way at the end.
            let (unseen, rows) = (number(row, "unseen"), number(row, "rows"));
            assert!(unseen <= 4 * 64, "{row:#}");
            assert!(number(row, "unfinished") <= 4, "{row:#}");
            assert!(rows.abs_diff(number(row, "calls")) <= 4 * 64, "{row:#}");
            assert!(number(row, "max_ns") < 1_000_000_000, "{row:#}");
        }
        let lost = report.0["account"]["lost"].as_object().expect("an object");
        // Hooks come one after the other: of some calls only one end is seen.
        let at_begin = |key: &String| {
            key.starts_with("under way when the recording began")
                || key.starts_with("answers to nothing that was seen")
        };
        assert!(lost.keys().all(at_begin), "{lost:#?}");
    }
    drop(busy);
}

/// Statements that were prepared before the recording have their texts soon: at the server, and at clients of a server
/// on the same host, the backend's memory tells it.
#[test]
fn texts_from_before_are_found() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    let script = bench.path("script");
    fs::write(&script, "SELECT pg_sleep(0.02), 'secret', :client_id;\n").expect("it is written");
    let load = [
        "--no-vacuum",
        "--client=2",
        "--time=60",
        "--protocol=prepared",
        "-f",
    ];
    let clients: Vec<Target> = [None, Some("127.0.0.1")]
        .map(|host| {
            let mut client = postgres.client("pgbench").expect("pgbench is there");
            client.envs(host.map(|host| ("PGHOST", host)));
            Target::spawn(client.args(load).arg(&script))
        })
        .into();
    sleep(Duration::from_secs(1));
    let server = postgres.server.id().to_string();
    let pids = [server, clients[0].pid(), clients[1].pid()];
    let watches = pids
        .each_ref()
        .map(|pid| Watch::start(&bench, &["-p", pid]));
    sleep(Duration::from_secs(3));
    for watch in watches {
        let report = watch.end();
        let row = report.statement("SELECT pg_sleep($2), $3, $1");
        let calls = |row: &Value| number(row, "calls") + number(row, "unseen");
        let before = report
            .statements()
            .iter()
            .find(|row| is_nameless(row))
            .map_or(0, calls);
        println!("{} calls with their text, {before} without", calls(row));
        assert!(calls(row) > before, "{row:#}");
    }
}

/// Five hundred connections at once: each is seen from its beginning, and each call of theirs.
#[test]
fn five_hundred_connections_are_seen() {
    let Some(bench) = bench() else { return };
    let postgres = Postgres::start_with(&["max_connections=600"]).expect("a cluster starts");
    pgbench(&postgres, &["--quiet", "--initialize", "--scale=1"]);
    let watch = Watch::start(&bench, &["-p", &postgres.server.id().to_string()]);
    let load = ["--select-only", "--no-vacuum", "--protocol=prepared"];
    let many = [
        "--client=500",
        "--jobs=2",
        "--transactions=10",
        "--host=127.0.0.1",
    ];
    assert_eq!(pgbench(&postgres, &[&load[..], &many].concat()), 5000);
    let report = watch.end();
    report.assert_nothing_lost();
    let select = report.statement(SELECT);
    assert_eq!(
        (number(select, "calls"), number(select, "rows")),
        (5000, 5000)
    );
    // Another one asks pgbench's first questions.
    let account = &report.0["account"]["connections"];
    assert_eq!(report.0["connections"]["opened"], 501, "{account:#}");
    assert_eq!(account["postgres"], 501);
}

/// A row of 100 MB is one row, its bytes are all counted, and it is there in time to the last one.
#[test]
fn a_row_of_100_mb_is_one_row() {
    const BYTES: u64 = 100_000_000;
    let Some(bench) = bench() else { return };
    let postgres = server();
    for host in [None, Some("127.0.0.1")] {
        let at_server = Watch::start(&bench, &["-p", &postgres.server.id().to_string()]);
        let (mut psql, out) = under(&bench, &postgres, "client");
        psql.envs(host.map(|host| ("PGHOST", host)));
        psql.args(["-o", "/dev/null", "-c"]);
        psql.arg(format!("SELECT repeat('x', {BYTES})"));
        psql.arg("-c").arg("SELECT 'afterwards'");
        let output = psql.output().expect("the profiler runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
        for report in [at_server.end(), read(&bench, &out)] {
            let row = report.statement("SELECT repeat($1, $2)");
            let counts = (number(row, "calls"), number(row, "rows"));
            assert_eq!(counts, (1, 1), "{host:?} {row:#}");
            let received = number(row, "received");
            assert!((BYTES..BYTES + 1000).contains(&received), "{row:#}");
            assert!(number(row, "max_ns") > 10_000_000, "{row:#}");
            let next = report.statement("SELECT $1");
            assert_eq!((number(next, "calls"), number(next, "rows")), (1, 1));
            report.assert_nothing_lost();
        }
    }
}

/// psql in a recording of its own, and the name of the file that this one writes.
fn under(bench: &Bench, postgres: &Postgres, name: &str) -> (Command, String) {
    let psql = postgres.client("psql").expect("psql is there");
    let file = format!("{name}.json");
    let mut command = bench.command(&["queries", "--json", "-o", &file, "--"]);
    command
        .arg(psql.get_program())
        .args(["--no-psqlrc", "-qAtX"]);
    command.envs(
        psql.get_envs()
            .filter_map(|(key, value)| Some((key, value?))),
    );
    command.env("PGSSLMODE", "disable");
    (command, file)
}

/// What a recording of a psql wrote.
fn read(bench: &Bench, file: &str) -> Report {
    let written = fs::read(bench.path(file)).expect("the result");
    Report(serde_json::from_slice(&written).expect("JSON"))
}

/// Starts a psql, in a recording of its own, that asks for this, and waits until the server is at it; gives its pid
/// there.
fn start(bench: &Bench, postgres: &Postgres, name: &str) -> (Child, Pid) {
    let (mut psql, _) = under(bench, postgres, name);
    // A column of its own makes it a statement of its own.
    psql.args(["-c", &format!("SELECT pg_sleep(60) AS {name}")]);
    let psql = psql.stdout(Stdio::null()).stderr(Stdio::piped());
    let psql = psql.spawn().expect("the profiler runs");
    let query =
        format!("SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60) AS {name}'");
    let pid = wait_for(postgres, &query).parse().ok();
    (psql, pid.and_then(Pid::from_raw).expect("a pid"))
}

/// A backend that is told to end says so, and its call has failed. One that is killed says nothing, and takes all others
/// with it: their calls are cut short. What comes afterwards is seen as before.
#[test]
fn killed_backends_end_their_calls() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    let watch = Watch::start(&bench, &["-p", &postgres.server.id().to_string()]);
    let (mut told, pid) = start(&bench, &postgres, "told");
    sql(
        &postgres,
        &format!("SELECT pg_terminate_backend({})", pid.as_raw_nonzero()),
    );
    told.wait().expect("psql ends");
    let (mut killed, pid) = start(&bench, &postgres, "killed");
    let (mut bystander, _) = start(&bench, &postgres, "bystander");
    kill_process(pid, Signal::KILL).expect("it lives");
    killed.wait().expect("psql ends");
    bystander.wait().expect("psql ends");
    wait_for(&postgres, "SELECT 'back again' AS word");
    let at_server = watch.end();
    let sleep = |report: &Report, name: &str| {
        let row = report.statement(&format!("SELECT pg_sleep($1) AS {name}"));
        assert_eq!(number(row, "calls"), 0, "{row:#}");
        (row["errors"].clone(), number(row, "aborted"))
    };
    for (name, expected) in [
        ("told", (json!({ "57P01": 1 }), 0)),
        ("killed", (json!({}), 1)),
        ("bystander", (json!({}), 1)),
    ] {
        let at_client = read(&bench, &format!("{name}.json"));
        for report in [&at_server, &at_client] {
            assert_eq!(sleep(report, name), expected, "{name}: {:#}", report.0);
            report.assert_nothing_lost();
        }
    }
    assert_eq!(at_server.0["terminated"]["57P01"], 1);
    let back = at_server.statement("SELECT $1 AS word");
    assert!(number(back, "calls") > 0, "{back:#}");
}

/// Through a pooler each call is seen three times: by the pooler as a server and as a client, and by the server.
#[test]
fn poolers_are_seen_from_both_sides() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    let Ok(mut pooler) = postgres.client("pgbouncer") else {
        let is_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(!is_ci, "no pgbouncer, and CI=true");
        println!("skipped: no pgbouncer: `cargo xtask setup --tests` installs it");
        return;
    };
    pgbench(&postgres, &["--quiet", "--initialize", "--scale=1"]);
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("an address").port().to_string();
    drop(free);
    let setting = |name: &str| {
        let values = pooler.get_envs().find(|(key, _)| *key == name);
        let value = values.and_then(|(_, value)| value).expect("a setting");
        value.to_string_lossy().into_owned()
    };
    let (host, server_port) = (setting("PGHOST"), setting("PGPORT"));
    let settings = format!(
        "[databases]\npostgres = host={host} port={server_port} user=demo\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
         listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n"
    );
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), settings).expect("settings");
    let world = fs::Permissions::from_mode(0o644);
    fs::set_permissions(file.path(), world).expect("settings for everybody");
    pooler.arg("-q").arg(file.path()).stderr(Stdio::null());
    for mode in ["simple", "extended"] {
        let at = Target::spawn(&mut pooler);
        sleep(Duration::from_millis(300));
        let at_pooler = Watch::start(&bench, &["-p", &at.pid()]);
        let at_server = Watch::start(&bench, &["-p", &postgres.server.id().to_string()]);
        let load = [
            "--select-only",
            "--no-vacuum",
            "--client=4",
            "--transactions=500",
        ];
        let place = ["--protocol", mode, "--host=127.0.0.1", "--port", &port];
        assert_eq!(pgbench(&postgres, &[&load[..], &place].concat()), 2000);
        let (at_server, at_pooler) = (at_server.end(), at_pooler.end());
        let counts = |report: &Report, side: &str| {
            let is_it = |one: &&Value| one["statement"] == SELECT && one["side"] == side;
            let found = report.statements().iter().find(is_it).cloned();
            found.map(|row| (number(&row, "calls"), number(&row, "rows")))
        };
        let all = Some((2000, 2000));
        assert_eq!(counts(&at_server, "server"), all, "{mode}: the server");
        assert_eq!(
            counts(&at_pooler, "server"),
            all,
            "{mode}: the pooler's clients"
        );
        assert_eq!(
            counts(&at_pooler, "client"),
            all,
            "{mode}: the pooler's servers"
        );
    }
}
