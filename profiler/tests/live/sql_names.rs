//! Names that SQL itself gives: what EXECUTE, FETCH and MOVE run is counted under the statement that the name was given
//! to, and temporary tables of made-up names are one, as the server's own statistics have it.

use crate::{
    bench::bench,
    postgres::Postgres,
    queries::{Report, Watch, is_from_14, server, server_counts, sql},
};

/// What each session does: with a name of its own, in one Query and over several.
const SESSION: &str = "
BEGIN;
DECLARE c_NAME CURSOR FOR SELECT n FROM generate_series(1, 50) n;
FETCH 10 FROM c_NAME; MOVE 5 IN c_NAME; FETCH FORWARD ALL FROM C_NAME; FETCH c_NAME;
CLOSE c_NAME;
DECLARE c_NAME CURSOR WITH HOLD FOR SELECT -n FROM generate_series(1, 5) n WHERE n IN (1, 2, 3);
COMMIT;
FETCH ALL IN c_NAME;
PREPARE p_NAME (int) AS SELECT n + $1 FROM generate_series(1, 3) n;
EXECUTE p_NAME(1); EXECUTE P_NAME(2);
DEALLOCATE p_NAME;
PREPARE p_NAME AS SELECT count(*) FROM generate_series(1, 7);
EXECUTE p_NAME;
CREATE TEMP TABLE import_NAME (a int);
INSERT INTO import_NAME VALUES (1), (2); INSERT INTO IMPORT_NAME VALUES (3);
SELECT import_NAME.a FROM import_NAME WHERE a > 1";

/// Calls and rows of a statement in a session, by its text in the report.
const EXPECTED: [(&str, u64, u64); 8] = [
    (
        "FETCH FROM (SELECT n FROM generate_series($1, $2) n)",
        3,
        10 + 35,
    ),
    ("MOVE FROM (SELECT n FROM generate_series($1, $2) n)", 1, 5),
    (
        "FETCH FROM (SELECT -n FROM generate_series($1, $2) n WHERE n IN ($3 /*, ... */))",
        1,
        3,
    ),
    ("SELECT n + $1 FROM generate_series($2, $3) n", 2, 6),
    ("SELECT count(*) FROM generate_series($1, $2)", 1, 1),
    ("INSERT INTO import_$ VALUES ($1) /*, ... */", 1, 2),
    ("INSERT INTO IMPORT_$ VALUES ($1)", 1, 1),
    ("SELECT import_$.a FROM import_$ WHERE a > $1", 1, 2),
];

/// Sessions, each with a name.
const NAMES: [&str; 4] = ["1", "22", "8f3a2b1c", "77aa01b"];

/// Calls and rows that the server counted of statements that begin so, in lower case.
fn theirs(counts: &std::collections::BTreeMap<String, (u64, u64)>, begins: &[&str]) -> (u64, u64) {
    let of = |text: &&String| begins.iter().any(|begin| text.starts_with(begin));
    let found = counts.iter().filter(|(text, _)| of(text));
    found.fold((0, 0), |sum, (_, one)| (sum.0 + one.0, sum.1 + one.1))
}

/// Calls and rows in a report of statements with these texts.
fn ours(report: &Report, is_it: impl Fn(&str) -> bool) -> (u64, u64) {
    let number = |one: &serde_json::Value, key: &str| one[key].as_u64().expect("a number");
    let text = |one: &&serde_json::Value| one["statement"].as_str().is_some_and(&is_it);
    let found = report.statements().iter().filter(text);
    found.fold((0, 0), |sum, one| {
        (sum.0 + number(one, "calls"), sum.1 + number(one, "rows"))
    })
}

/// Each session once in one Query, and once in one Query for each statement.
fn run_sessions(postgres: &Postgres) {
    for name in NAMES {
        let script = SESSION.replace("NAME", name);
        sql(postgres, &script);
        let mut psql = postgres.client("psql").expect("psql is there");
        psql.args(["--no-psqlrc", "-qAtX"]);
        for statement in script.split(';') {
            psql.args(["-c", statement]);
        }
        let output = psql.output().expect("psql runs");
        assert!(output.status.success(), "{output:?}");
    }
}

/// In a Query, and one by one, each statement is one row whatever the name, and the server counts as many.
#[test]
fn what_names_stand_for_is_counted() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    sql(&postgres, "SELECT pg_stat_statements_reset()");
    let watch = Watch::start(
        &bench,
        &["--limit=1000", "-p", &postgres.server.id().to_string()],
    );
    run_sessions(&postgres);
    let report = watch.end();
    report.assert_nothing_lost();
    let sessions = 2 * NAMES.len() as u64;
    for (text, calls, rows) in EXPECTED {
        // A statement in upper case is the same one.
        let found = ours(&report, |shown| shown.eq_ignore_ascii_case(text));
        let same = EXPECTED.iter().filter(|one| {
            let bare = |text: &str| text.replace(" /*, ... */", "").to_lowercase();
            bare(one.0) == bare(text)
        });
        let expected = same.fold((0, 0), |sum, one| (sum.0 + one.1, sum.1 + one.2));
        if text.starts_with("INSERT") {
            let found = ours(&report, |shown| {
                shown.to_lowercase().starts_with("insert into import_$")
            });
            assert_eq!(
                found,
                (sessions * expected.0, sessions * expected.1),
                "{text}"
            );
        } else {
            assert_eq!(
                found,
                (sessions * calls, sessions * rows),
                "{text}: {:#}",
                report.0
            );
        }
    }
    let counted = server_counts(&postgres);
    for (shown, begins) in [
        ("fetch ", &["fetch "][..]),
        ("move ", &["move "]),
        ("insert into import_", &["insert into import_"]),
        ("select import_", &["select import_"]),
        ("select n + $1", &["prepare p_"]),
    ] {
        let also = if shown == "select n + $1" {
            "select count(*)"
        } else {
            shown
        };
        let found = ours(&report, |text| {
            let text = text.to_lowercase();
            text.starts_with(shown) || text.starts_with(also)
        });
        let mut theirs = theirs(&counted, begins);
        if shown == "move " {
            // The server counts no rows of it.
            theirs.1 = found.1;
        }
        if ["fetch ", "move "].contains(&shown) && !is_from_14(&postgres) {
            // Its rows are not counted.
            theirs.1 = found.1;
        }
        assert_eq!(found, theirs, "{shown}: {counted:#?}");
    }
    // Nothing goes by the name.
    let unnamed = ours(&report, |text| {
        text.starts_with("EXECUTE") || text.contains("FETCH 1")
    });
    assert_eq!(unnamed, (0, 0), "{:#}", report.0);
}
