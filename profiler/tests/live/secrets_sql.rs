//! No value of a statement is shown, in whatever encoding a client speaks, attached before its start or after; names are
//! themselves; and a statement that the server refused shows no more than keywords.

use std::{
    process::{Child, Stdio},
    thread::sleep,
    time::Duration,
};

use crate::{
    bench::{Bench, bench, signal, text, until_watching},
    postgres::Postgres,
    queries::{Report, Watch, sql},
    raw::Raw,
};
use rustix::process::Signal;

/// Databases whose encodings the clients' can be converted to.
const DATABASES: &str =
    "CREATE DATABASE euc ENCODING 'EUC_JP' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
const UNICODE: &str =
    "CREATE DATABASE unicode ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";

/// Encodings whose second bytes may be of ASCII: the client's, the database, a character, and what it is in UTF-8.
const ENCODINGS: [(&str, &str, &[u8], &str); 5] = [
    ("SJIS", "euc", b"\x95\\", "表"),
    ("BIG5", "unicode", b"\xa5\\", "功"),
    ("GBK", "unicode", b"\x81\\", "乗"),
    ("GB18030", "unicode", b"\x81\\", "乗"),
    ("UHC", "unicode", b"\x81A", "갂"),
];

/// A server with these databases.
fn server() -> Postgres {
    let postgres = Postgres::start_with(&[]).expect("a cluster starts");
    sql(&postgres, DATABASES);
    sql(&postgres, UNICODE);
    postgres
}

/// A recording of lines, under way.
struct Events(Child);

impl Events {
    fn start(bench: &Bench, pid: &str) -> Self {
        let mut command = bench.command(&["queries", "--events", "-d", "1h", "-p", pid]);
        let piped = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = piped.spawn().expect("the profiler runs");
        until_watching(&child);
        Self(child)
    }

    fn end(self) -> String {
        signal(&self.0, Signal::INT);
        let output = self.0.wait_with_output().expect("the profiler ends");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    }
}

/// Rows of one side with this text.
fn calls(report: &Report, side: &str, text: &str) -> u64 {
    let rows = report.statements().iter();
    let rows = rows.filter(|row| row["side"] == side && row["statement"] == text);
    rows.map(|row| row["calls"].as_u64().expect("a number"))
        .sum()
}

/// A text with `@` for a character and `%` for a secret.
fn written(template: &str, character: &[u8], secret: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for byte in template.bytes() {
        match byte {
            b'@' => bytes.extend_from_slice(character),
            b'%' => bytes.extend_from_slice(secret.as_bytes()),
            byte => bytes.push(byte),
        }
    }
    bytes
}

/// Statements of which a lexer that takes bytes for characters shows the secret.
const TEMPLATES: [&str; 4] = [
    "SELECT E'@', '%'",
    "SELECT E'@@\\'', '%' AS \"@\"",
    "SELECT $@$%$@$, '%'",
    "SELECT a FROM \"t@\" WHERE b = E'@' OR b = '%'",
];

/// Five encodings, simple and extended protocol, connections from before the recording and from within, seen by the
/// client and by the server: no value is in anything that is shown, and names are what they are.
#[test]
fn values_in_any_encoding_are_never_shown() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    let pid = std::process::id().to_string();
    let connect = |(encoding, database, ..): &(&str, &str, &[u8], &str)| {
        Raw::connect(&postgres, database, &["client_encoding", encoding])
    };
    let mut number = 0;
    let mut secret = || {
        number += 1;
        format!("hUsH{number:03}")
    };
    let mut ask = |client: &mut Raw, character: &[u8]| {
        for template in TEMPLATES {
            let texts = [(); 2].map(|()| written(template, character, &secret()));
            let answers = [client.query(&texts[0]), client.extended(&texts[1], &[])];
            for answer in answers {
                assert!(answer.errors.is_empty(), "{answer:?} to {template}");
            }
        }
    };
    let mut early: Vec<Raw> = ENCODINGS.iter().map(connect).collect();
    for (client, (_, _, character, _)) in early.iter_mut().zip(ENCODINGS) {
        let table = written(
            "CREATE TABLE IF NOT EXISTS \"t@\" (a text, b text)",
            character,
            "",
        );
        assert!(client.query(&table).errors.is_empty());
    }
    let watch = Watch::start(&bench, &["-p", &pid]);
    let events = Events::start(&bench, &pid);
    for (client, (_, _, character, _)) in early.iter_mut().zip(ENCODINGS) {
        ask(client, character);
    }
    for encoding in &ENCODINGS {
        ask(&mut connect(encoding), encoding.2);
    }
    let lines = events.end();
    let report = watch.end();
    for shown in [&lines, &report.0.to_string()] {
        assert!(!shown.contains("hUsH"), "{shown}");
        assert!(!shown.contains('\u{fffd}'), "{shown}");
    }
    for side in ["client", "server"] {
        for (encoding, _, _, character) in ENCODINGS {
            let name = format!("SELECT a FROM \"t{character}\" WHERE b = $1 OR b = $2");
            // GBK and GB18030 have the same table. The first rounds of what was there before may not be trusted.
            assert!(
                calls(&report, side, &name) >= 2,
                "{encoding} {side}: {name}\n{:#}",
                report.0
            );
        }
    }
}

/// In a session of LATIN1 the tables é1 and è1 are two, with their names, whether its beginning was seen or not.
#[test]
fn names_in_latin1_are_two() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    let connect = || Raw::connect(&postgres, "unicode", &["client_encoding", "LATIN1"]);
    let mut early = connect();
    assert!(
        early
            .query(b"CREATE TABLE \xe91 (a int); CREATE TABLE \xe81 (a int)")
            .errors
            .is_empty()
    );
    let watch = Watch::start(&bench, &["-p", &postgres.server.id().to_string()]);
    let mut late = connect();
    for client in [&mut early, &mut late] {
        for table in [b"\xe91", b"\xe81"] {
            for _ in 0..10 {
                let text = [b"SELECT a FROM ", &table[..]].concat();
                assert!(client.query(&text).errors.is_empty());
            }
        }
    }
    let report = watch.end();
    for table in ["é1", "è1"] {
        let calls = calls(&report, "server", &format!("SELECT a FROM {table}"));
        // Of the first rounds of the connection that was there before answers are not trusted.
        assert!((12..=20).contains(&calls), "{table}: {:#}", report.0);
    }
    assert_eq!(report.statements().len(), 2, "{:#}", report.0);
}

/// What a backslash does is what the session says, at its beginning, after a change, and where it was there before.
#[test]
fn backslashes_are_those_of_the_session() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    let mut early = Raw::connect(&postgres, "unicode", &[]);
    let mut old = Raw::connect(
        &postgres,
        "unicode",
        &[
            "options",
            "-c standard_conforming_strings=off -c escape_string_warning=off",
        ],
    );
    let watch = Watch::start(&bench, &["-p", &postgres.server.id().to_string()]);
    let mut late = Raw::connect(&postgres, "unicode", &[]);
    for _ in 0..10 {
        for client in [&mut early, &mut late] {
            assert!(
                client
                    .query(b"SELECT 'C:\\', 'hUsH', 1 AS plain")
                    .errors
                    .is_empty()
            );
        }
        assert!(
            old.query(b"SELECT 'it\\'s', 'hUsH', 1 AS escaped")
                .errors
                .is_empty()
        );
    }
    assert!(
        late.query(b"SET standard_conforming_strings = off")
            .errors
            .is_empty()
    );
    assert!(
        late.query(b"SELECT 'it\\'s hUsH', 1 AS escaped, 'hUsH'")
            .errors
            .is_empty()
    );
    let report = watch.end();
    assert!(!report.0.to_string().contains("hUsH"), "{:#}", report.0);
    assert!(
        calls(&report, "server", "SELECT $1, $2, $3 AS plain") >= 12,
        "{:#}",
        report.0
    );
    assert!(
        calls(&report, "server", "SELECT $1, $2, $3 AS escaped") >= 3,
        "{:#}",
        report.0
    );
    assert_eq!(
        calls(&report, "server", "SELECT $1, $2 AS escaped, $3"),
        1,
        "{:#}",
        report.0
    );
    assert_eq!(report.statements().len(), 4, "{:#}", report.0);
}

/// Waits until the server has slept for longer than it is busy with what it refuses.
fn until_busy(postgres: &Postgres) {
    let script = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60) AS%' AND state = 'active' \
        AND pid <> pg_backend_pid() AND now() - query_start > '300ms'";
    let is_busy = (0..600).any(|_| {
        sleep(Duration::from_millis(20));
        sql(postgres, script).trim() == "1"
    });
    assert!(is_busy, "it does not sleep");
}

/// Statements that the server refuses or does not come to, the code of the error, and what is shown of them.
const REFUSED: [(&str, &str, &str); 7] = [
    (
        "SELECT a FROM t WHERE a = 'O'hUsH x'",
        "42601",
        "SELECT … FROM … WHERE …",
    ),
    ("UPDATE t SET a = hUsH", "42703", "UPDATE … SET …"),
    (
        "DELETE FROM t WHERE a = \"hUsH hUsH\"",
        "42703",
        "DELETE FROM … WHERE …",
    ),
    (
        "SELECT a FROM t WHERE id = 'hUsH'",
        "22P02",
        "SELECT … FROM … WHERE …",
    ),
    ("SELECT hUsH", "42703", "SELECT …"),
    ("SELECT 'hUsH' AS \"hUsH\"", "", "SELECT … AS …"),
    ("SELECT \"hUsH\", hUsH FROM t", "42703", "SELECT … FROM …"),
];

/// Of what the server refused there are keywords, a code and a fingerprint; what it took shows its text, also if it
/// failed for what its data or other sessions are.
#[test]
fn refused_statements_show_keywords() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    let connect = || Raw::connect(&postgres, "unicode", &[]);
    let mut locker = connect();
    let setup = b"CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t VALUES (1, 'x')";
    assert!(locker.query(setup).errors.is_empty());
    let pid = postgres.server.id().to_string();
    let watch = Watch::start(&bench, &["-p", &pid]);
    let events = Events::start(&bench, &pid);
    let mut client = connect();
    for (text, code) in [
        ("SELECT a FROM t WHERE a = 'O'hUsH x'", "42601"),
        ("UPDATE t SET a = hUsH", "42703"),
        ("DELETE FROM t WHERE a = \"hUsH hUsH\"", "42703"),
        ("INSERT INTO t VALUES (1, 'hUsH')", "23505"),
        ("SELECT a FROM t WHERE id = 'hUsH'", "22P02"),
        (
            "SELECT 'a'; SELECT hUsH; SELECT 'hUsH' AS \"hUsH\"",
            "42703",
        ),
        ("SET lock_timeout = '20ms'", ""),
    ] {
        let answer = client.query(text.as_bytes());
        assert_eq!(answer.errors.join(" "), code, "{text}");
    }
    let refused = client.extended(b"SELECT \"hUsH\", hUsH FROM t", &[]);
    assert_eq!(refused.errors, ["42703"]);
    assert!(locker.query(b"BEGIN; LOCK TABLE t").errors.is_empty());
    assert_eq!(client.query(b"TRUNCATE t").errors, ["55P03"]);
    assert!(
        client
            .query(b"SET statement_timeout = '150ms'")
            .errors
            .is_empty()
    );
    assert_eq!(client.query(b"SELECT pg_sleep(60)").errors, ["57014"]);
    assert!(client.query(b"SET statement_timeout = 0").errors.is_empty());
    client.ask(b"SELECT pg_sleep(60) AS \"hUsH\"");
    until_busy(&postgres);
    let lines = events.end();
    let report = watch.end();
    for shown in [&lines, &report.0.to_string()] {
        assert!(!shown.contains("hUsH"), "{shown}");
    }
    for (text, code, keywords) in REFUSED {
        let row = report.refused(text);
        let shown = row["statement"].as_str().expect("a text");
        assert!(shown.ends_with(&format!(": {keywords}>")), "{shown}");
        let errors = [&row["errors"], &row["prepares_failed"]].map(|errors| errors[code] == 1);
        assert!(
            errors.contains(&true) || (code.is_empty() && row["skipped"] == 1),
            "{row:#}"
        );
    }
    for (text, code) in [
        ("INSERT INTO t VALUES ($1, $2)", "23505"),
        ("TRUNCATE t", "55P03"),
        ("SELECT pg_sleep($1)", "57014"),
    ] {
        assert_eq!(report.statement(text)["errors"][code], 1, "{text}");
    }
    assert_eq!(
        report.statement("SELECT pg_sleep($1) AS \"…\"")["unfinished"],
        1
    );
    assert!(lines.contains(", error 42601: <withheld "), "{lines}");
    drop(client);
}

/// A statement that one client is refused is shown once the server took it from anybody, in what the daemon kept too.
#[test]
fn what_was_taken_elsewhere_is_shown() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    let mut first = Raw::connect(&postgres, "unicode", &[]);
    let watch = Watch::start(&bench, &["-p", &postgres.server.id().to_string()]);
    let mut second = Raw::connect(&postgres, "unicode", &[]);
    assert_eq!(
        second.query(b"SELECT a FROM later WHERE a = 'x'").errors,
        ["42P01"]
    );
    assert!(
        first
            .query(b"CREATE TABLE later (a text)")
            .errors
            .is_empty()
    );
    assert!(
        second
            .query(b"SELECT a FROM later WHERE a = 'y'")
            .errors
            .is_empty()
    );
    let report = watch.end();
    let row = report.statement("SELECT a FROM later WHERE a = $1");
    assert_eq!(
        (&row["calls"], &row["errors"]["42P01"]),
        (&1.into(), &1.into())
    );
}
