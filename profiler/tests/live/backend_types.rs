//! What runs without a client is shown too, with its kind, and statements have the server's own numbers.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use crate::{
    bench::bench,
    queries::{Watch, is_from_14, server, sql},
};

/// Waits until the server says so.
fn wait_until(postgres: &crate::postgres::Postgres, what: &str) {
    let begun = Instant::now();
    while sql(postgres, what).trim() != "t" {
        assert!(begun.elapsed() < Duration::from_secs(60), "never: {what}");
    }
}

/// A parallel worker is shown beside its leader. Kinds and numbers are those of `pg_stat_activity`, and the number of a
/// statement that ran before is that of `pg_stat_statements`.
#[test]
fn kinds_and_numbers_are_the_servers() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    if !is_from_14(&postgres) {
        println!("skipped: Postgres has numbers for statements from 14 on");
        return;
    }
    sql(&postgres, "ALTER SYSTEM SET compute_query_id = on");
    sql(&postgres, "SELECT pg_reload_conf()");
    wait_until(
        &postgres,
        "SELECT current_setting('compute_query_id') = 'on'",
    );
    let watch = Watch::start(&bench, &["-p", &postgres.server.id().to_string()]);
    sql(&postgres, "SELECT pg_sleep(0)");
    let mut leader = postgres.client("psql").expect("psql is there");
    let mut leader = leader
        .args(["--no-psqlrc", "-qAtX"])
        // The one is Postgres 15's name for it, the other is that of later versions.
        .args(["-c", "SET force_parallel_mode = on"])
        .args(["-c", "SET debug_parallel_query = on"])
        .args(["-c", "SELECT pg_sleep(600)"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("psql runs");
    wait_until(
        &postgres,
        "SELECT count(*) = 2 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(600)' AND wait_event IS NOT NULL",
    );
    let report = watch.end();
    let theirs = sql(
        &postgres,
        "SELECT pid, backend_type, query_id FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(600)'",
    );
    let counted = sql(
        &postgres,
        "SELECT queryid FROM pg_stat_statements WHERE query LIKE 'SELECT pg_sleep($1)'",
    );
    sql(
        &postgres,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(600)' AND backend_type = 'client backend'",
    );
    leader.wait().expect("it ends");
    let mut kinds = Vec::new();
    for line in theirs.lines() {
        let mut fields = line.split('|');
        let mut next = || fields.next().expect("three fields");
        let (pid, kind, query_id) = (next(), next(), next());
        let under_way = report.0["under_way"].as_array().expect("a list");
        let found = under_way
            .iter()
            .find(|one| one["backend"].as_u64() == pid.parse().ok());
        let found = found.unwrap_or_else(|| panic!("no {line} in {:#}", report.0));
        assert_eq!(found["backend_type"], kind, "{found:#}");
        assert_eq!(found["queryid"].to_string(), query_id, "{found:#}");
        assert_eq!(found["statement"], "SELECT pg_sleep($1)", "{found:#}");
        assert_eq!(query_id, counted.trim(), "the server's two accounts");
        kinds.push(kind.to_owned());
    }
    kinds.sort();
    assert_eq!(kinds, ["client backend", "parallel worker"], "{theirs}");
    let row = report.statement("SELECT pg_sleep($1)");
    assert_eq!(row["queryid"].to_string(), counted.trim(), "{row:#}");
}
