//! Texts beside their normal forms. They were compared with what the server itself takes for one literal, and with the
//! texts that its `pg_stat_statements` shows.

use super::{Extent, Reading, Strings, normalise};

/// What the server would run, and what would be shown.
const EXAMPLES: &[(&str, &str)] = &[
    // Strings in all notations.
    ("SELECT 'a'", "SELECT $1"),
    ("SELECT 'it''s', ''", "SELECT $1, $2"),
    ("SELECT 'two'\n  'lines'", "SELECT $1"),
    ("SELECT 'two' -- not one\n, 'b'", "SELECT $1, $2"),
    (
        "SELECT E'two' -- is\n -- one\n 'li\\'nes', b",
        "SELECT $1, b",
    ),
    ("SELECT 'two' /* no */\n 'b'", "SELECT $1 $2"),
    ("SELECT 'two'\n -- between\n 'lines'", "SELECT $1"),
    (r"SELECT E'a\'b', e'\\', b", "SELECT $1, $2, b"),
    ("SELECT E'two'\n'li\\'nes', b", "SELECT $1, b"),
    (r"SELECT U&'d!0061t\zz' UESCAPE '!'", "SELECT $1 UESCAPE $2"),
    ("SELECT B'101', x'1F', N'n'", "SELECT $1, $2, $3"),
    ("SELECT $$a$$, $t$ $$ $u$ $t$", "SELECT $1, $2"),
    ("SELECT $é$a$é$", "SELECT $1"),
    ("SELECT a$1, b$$c FROM t$x$", "SELECT a$1, b$$c FROM t$x$"),
    ("SELECT'a'AS b", "SELECT $1 AS b"),
    ("SELECT 'open, b FROM t", "SELECT $1"),
    ("SELECT $q$ open $$, b FROM t", "SELECT $1"),
    ("SELECT $q open", "SELECT $1 open"),
    ("SELECT $ $", "SELECT $1 $2"),
    // A backslash before a quote.
    (r"SELECT 'it\'s secret', b", "SELECT $1"),
    (r"SELECT 'C:\', 'b' FROM t", "SELECT $1"),
    (r"SELECT 'a\\', b, 'c\d'", "SELECT $1, b, $2"),
    (
        r"SELECT a LIKE 'b\_c' ESCAPE '\' AND d",
        "SELECT a LIKE $1 ESCAPE $2 AND d",
    ),
    // Numbers and signs.
    (
        "SELECT 1, 1.5, .5, 1., 1e5, 1.5E-3, 1e+3",
        "SELECT $1, $2, $3, $4, $5, $6, $7",
    ),
    (
        "SELECT 0xFF, 0b101, 0o17, 1_000, 0x1e-5",
        "SELECT $1, $2, $3, $4, $5-$6",
    ),
    ("SELECT 12ab, 1_a", "SELECT $1, $2"),
    (
        "SELECT -1, +1, - 1, (-1), -.5",
        "SELECT $1, $2, $3, ($4), $5",
    ),
    (
        "SELECT a-1, a -1, a - 1, 1-1, (a)-1, b[1]-1",
        "SELECT a-$1, a -$2, a - $3, $4-$5, (a)-$6, b[$7]-$8",
    ),
    (
        "SELECT a=-1, a<-1, a*-1, a- -1, @-1, 2 * - 3",
        "SELECT a=$1, a<$2, a*$3, a- $4, @-$5, $6 * $7",
    ),
    ("SELECT -a, -$1, - -1", "SELECT -a, -$1, - $2"),
    ("SELECT a[-1:-2], f(b => -1)", "SELECT a[$1:$2], f(b => $3)"),
    (
        "SELECT a FROM t WHERE b BETWEEN -1 AND +2 LIMIT -1",
        "SELECT a FROM t WHERE b BETWEEN $1 AND $2 LIMIT $3",
    ),
    (
        "SELECT c3po, r2d2 FROM covid19 WHERE n1h1=1234",
        "SELECT c3po, r2d2 FROM covid19 WHERE n1h1=$1",
    ),
    // Constants that stay.
    (
        "SELECT TRUE, false, NULL, a IS NULL",
        "SELECT TRUE, false, NULL, a IS NULL",
    ),
    (
        "SELECT CURRENT_DATE, localtimestamp(0)",
        "SELECT CURRENT_DATE, localtimestamp($1)",
    ),
    // Parameters.
    ("SELECT $1, $2", "SELECT $1, $2"),
    ("SELECT 'a', $2, 5, $1", "SELECT $3, $2, $4, $1"),
    ("SELECT $07, $65535, 1", "SELECT $7, $65535, $65536"),
    ("SELECT $65536, $1", "SELECT $2, $1"),
    ("SELECT $1abc, $1'x'", "SELECT $1 abc, $1 $2"),
    // Types.
    (
        "SELECT '2020-01-01'::date, 5::text",
        "SELECT $1::date, $2::text",
    ),
    (
        "SELECT DATE '2020-01-01', timestamp with time zone 'now'",
        "SELECT DATE $1, timestamp with time zone $2",
    ),
    (
        "SELECT INTERVAL '1 day', INTERVAL '1' YEAR, interval(3) '1 s'",
        "SELECT INTERVAL $1, INTERVAL $2 YEAR, interval($3) $4",
    ),
    (
        "SELECT CAST('1' AS numeric(10, 2))",
        "SELECT CAST($1 AS numeric($2, $3))",
    ),
    // Blanks, comments, the end.
    ("  SELECT\t1\r\n ,\n\n2 ;", "SELECT $1, $2"),
    ("SELECT (\n  1,\n  2\n)", "SELECT ($1, $2)"),
    ("SELECT/* 'a' */1--b\n+2 -- c", "SELECT $1 +$2"),
    ("SELECT /* a /* 5 */ 'b */ 1", "SELECT $1"),
    ("/* user=42 */ SELECT 1 /*, ... */", "SELECT $1"),
    ("SELECT 1 /* open 5", "SELECT $1"),
    ("SELECT 1;;", "SELECT $1"),
    ("SELECT 1; SELECT 2", "SELECT $1; SELECT $2"),
    ("", ""),
    ("-- nothing", ""),
    // Identifiers and operators.
    (
        "SELECT \"A\", \"a\"\"b 1\", U&\"d\\0061t\", \"c\" FROM s.\"T\"",
        "SELECT \"A\", \"a\"\"b 1\", U&\"d\\0061t\", \"c\" FROM s.\"T\"",
    ),
    ("SELECT \"open 1", "SELECT \"open 1\""),
    ("SELECT \"a\nb\u{1b}\"", "SELECT \"a␊b␛\""),
    ("SELECT é, 你, a\u{1}b", "SELECT é, 你, a␁b"),
    (
        "SELECT a ? 'b', a ?| b, a ?& b, a?'c'",
        "SELECT a ? $1, a ?| b, a ?& b, a?$2",
    ),
    (
        "SELECT a @> '{}' AND b->>'c' = 'd' AND e#>>'{f}' ~* 'g'",
        "SELECT a @> $1 AND b->>$2 = $3 AND e#>>$4 ~* $5",
    ),
    (
        "SELECT a <-> -1, a*<>b, |/ 25, a !~~ 'b%'",
        "SELECT a <-> $1, a*<>b, |/ $2, a !~~ $3",
    ),
    (
        "SELECT a OPERATOR(pg_catalog.=) 1, x:=2",
        "SELECT a OPERATOR(pg_catalog.=) $1, x:=$2",
    ),
    ("SELECT { guid '01234567' }", "SELECT { guid $1 }"),
    // Lists.
    (
        "SELECT * FROM t WHERE a IN (1)",
        "SELECT * FROM t WHERE a IN ($1)",
    ),
    (
        "SELECT * FROM t WHERE a IN (1, 2, 3) AND b = 4",
        "SELECT * FROM t WHERE a IN ($1 /*, ... */) AND b = $2",
    ),
    (
        "SELECT * FROM t WHERE a IN ($1, $2, $3) AND b = 4",
        "SELECT * FROM t WHERE a IN ($1 /*, ... */) AND b = $4",
    ),
    (
        "SELECT a NOT IN ('b', NULL, -1, true)",
        "SELECT a NOT IN ($1 /*, ... */)",
    ),
    (
        "SELECT a IN ('b'::text, 'c'::pg_catalog.text)",
        "SELECT a IN ($1::text /*, ... */)",
    ),
    (
        "SELECT a IN (DATE '2020-01-01', DATE '2020-01-02')",
        "SELECT a IN (DATE $1 /*, ... */)",
    ),
    (
        "SELECT (a, b) IN ((1, 2), (3, 4))",
        "SELECT (a, b) IN (($1, $2) /*, ... */)",
    ),
    ("SELECT a IN (1, b, 2)", "SELECT a IN ($1, b, $2)"),
    (
        "SELECT a IN (SELECT 1 FROM b WHERE c IN (1, 2))",
        "SELECT a IN (SELECT $1 FROM b WHERE c IN ($2 /*, ... */))",
    ),
    (
        "SELECT a = ANY(ARRAY[1, 2]), b = ALL (array['x'::t, 'y'::t]::u[])",
        "SELECT a = ANY(ARRAY[$1 /*, ... */]), b = ALL (array[$2::t /*, ... */]::u[])",
    ),
    (
        "SELECT ARRAY[[1, 2], [3, 4]], ARRAY[a, 1], '{1,2}'::int[]",
        "SELECT ARRAY[[$1, $2] /*, ... */], ARRAY[a, $3], $4::int[]",
    ),
    ("SELECT a IN (1 /*, ... */)", "SELECT a IN ($1 /*, ... */)"),
    (
        "SELECT a IN /*, ... */ (/* x */ 1, 2) /*, ... */ AND b /*, ... */",
        "SELECT a IN ($1 /*, ... */) AND b",
    ),
    ("SELECT a IN (1, 2, 3", "SELECT a IN ($1 /*, ... */"),
    ("SELECT a IN (1::b + c, 2)", "SELECT a IN ($1::b + c, $2)"),
    (
        "SELECT ARRAY[DATE /*, ... */ 'x', 1]",
        "SELECT ARRAY[DATE $1 /*, ... */]",
    ),
    ("SELECT f(1, 2, 3)", "SELECT f($1, $2, $3)"),
    // Rows.
    (
        "INSERT INTO t VALUES (1, 'a')",
        "INSERT INTO t VALUES ($1, $2)",
    ),
    (
        "INSERT INTO t (a, b) VALUES (1, 'a'), (2, NULL), (-3, DEFAULT) RETURNING id",
        "INSERT INTO t (a, b) VALUES ($1, $2) /*, ... */ RETURNING id",
    ),
    (
        "INSERT INTO t VALUES ($1, now()), ($2, NOW());",
        "INSERT INTO t VALUES ($1, now()) /*, ... */",
    ),
    (
        "INSERT INTO t VALUES (1, a), (2, b)",
        "INSERT INTO t VALUES ($1, a), ($2, b)",
    ),
    (
        "INSERT INTO t VALUES (1), ((SELECT 2 FROM u))",
        "INSERT INTO t VALUES ($1), ((SELECT $2 FROM u))",
    ),
    (
        "INSERT INTO t VALUES ((SELECT a FROM pg_temp.t1)), ((SELECT a FROM pg_temp.t2))",
        "INSERT INTO t VALUES ((SELECT a FROM pg_temp.t$)), ((SELECT a FROM pg_temp.t$))",
    ),
    ("SET IN (TO 1, a, b", "SET IN (TO $1, $2, $3"),
    (
        "INSERT INTO t VALUES (1, a), (2, a + b)",
        "INSERT INTO t VALUES ($1, a), ($2, a + b)",
    ),
    (
        "INSERT INTO t VALUES (1), (2), (",
        "INSERT INTO t VALUES ($1) /*, ... */",
    ),
    (
        "INSERT INTO t VALUES ((SELECT a IN (1, 2)), 3), (4, 5)",
        "INSERT INTO t VALUES ((SELECT a IN ($1 /*, ... */)), $2) /*, ... */",
    ),
    (
        "SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS t (c, d) WHERE c > 5",
        "SELECT * FROM (VALUES ($1, $2) /*, ... */) AS t (c, d) WHERE c > $3",
    ),
    ("VALUES (1, 2)", "VALUES ($1, $2)"),
    // Names made up for each use.
    ("SAVEPOINT sp_1", "SAVEPOINT sp_$"),
    (
        "RELEASE SAVEPOINT \"s140_x12\"",
        "RELEASE SAVEPOINT \"s$_x$\"",
    ),
    (
        "SAVEPOINT __asyncpg_savepoint_1f__",
        "SAVEPOINT __asyncpg_savepoint_$__",
    ),
    (
        "RELEASE SAVEPOINT __asyncpg_savepoint_ab__",
        "RELEASE SAVEPOINT __asyncpg_savepoint_$__",
    ),
    (
        "SELECT * FROM app_db.t1 JOIN t_1a.t1",
        "SELECT * FROM app_db.t1 JOIN t_$a.t1",
    ),
    (
        "ROLLBACK TO SAVEPOINT active_record_1",
        "ROLLBACK TO SAVEPOINT active_record_$",
    ),
    (
        "DECLARE c_12 CURSOR WITH HOLD FOR SELECT c1 FROM t2 WHERE a = 1",
        "DECLARE c_$ CURSOR WITH HOLD FOR SELECT c1 FROM t2 WHERE a = $1",
    ),
    (
        "FETCH FORWARD 100 FROM \"c_12\"",
        "FETCH FORWARD $1 FROM \"c_$\"",
    ),
    ("FETCH -5 c_12", "FETCH $1 c_$"),
    ("CLOSE c_12", "CLOSE c_$"),
    (
        "DELETE FROM t1 WHERE CURRENT OF c_12",
        "DELETE FROM t1 WHERE CURRENT OF c_$",
    ),
    ("DEALLOCATE pdo_stmt_00000001", "DEALLOCATE pdo_stmt_$"),
    (
        "CREATE TEMP TABLE IF NOT EXISTS tmp_12 (c1 int)",
        "CREATE TEMP TABLE IF NOT EXISTS tmp_$ (c1 int)",
    ),
    (
        "CREATE LOCAL TEMPORARY VIEW v12 AS SELECT c1 FROM t1",
        "CREATE LOCAL TEMPORARY VIEW v$ AS SELECT c1 FROM t1",
    ),
    (
        "SELECT c1 INTO TEMP t12 FROM t2",
        "SELECT c1 INTO TEMP t$ FROM t2",
    ),
    (
        "SELECT * FROM pg_temp.t12, t1",
        "SELECT * FROM pg_temp.t$, t1",
    ),
    (
        "CREATE TEMP TABLE /*, ... */ t1 (c1 int)",
        "CREATE TEMP TABLE t$ (c1 int)",
    ),
    ("CREATE TABLE temp (c1 int)", "CREATE TABLE temp (c1 int)"),
    (
        "CREATE TABLE t12 (c1 varchar(255) DEFAULT 'x')",
        "CREATE TABLE t12 (c1 varchar($1) DEFAULT $2)",
    ),
    // Settings and secrets.
    ("SET x = 'y'", "SET x = $1"),
    (
        "SET search_path TO a, \"b\", 'c'",
        "SET search_path TO $1, $2, $3",
    ),
    ("SET LOCAL app.user=alice", "SET LOCAL app.user=$1"),
    ("SET x TO DEFAULT", "SET x TO DEFAULT"),
    ("SET enable_seqscan = true; ", "SET enable_seqscan = true"),
    ("SET x = -5", "SET x = $1"),
    ("SET app.token = s3cr3t!xyz", "SET app.token = $1!$2"),
    ("SET TIME ZONE utc", "SET TIME ZONE $1"),
    (
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    ),
    (
        "UPDATE t SET a = b, c = 'd' WHERE e",
        "UPDATE t SET a = b, c = $1 WHERE e",
    ),
    ("ALTER SYSTEM SET x = y", "ALTER SYSTEM SET x = $1"),
    (
        "ALTER DATABASE d SET search_path TO a, b",
        "ALTER DATABASE d SET search_path TO $1, $2",
    ),
    ("ALTER ROLE bob SET x TO y", "ALTER ROLE bob SET x TO $1"),
    (
        "ALTER ROLE bob WITH LOGIN PASSWORD 'hunter2' VALID UNTIL '2030-01-01'",
        "ALTER ROLE bob WITH LOGIN PASSWORD $1 VALID UNTIL $2",
    ),
    (
        "CREATE USER bob ENCRYPTED PASSWORD 'md5abc' CREATEDB",
        "CREATE USER bob ENCRYPTED PASSWORD $1 CREATEDB",
    ),
    (
        "ALTER USER bob PASSWORD NULL CREATEDB",
        "ALTER USER bob PASSWORD NULL CREATEDB",
    ),
    (
        "ALTER USER bob PASSWORD hunter2",
        "ALTER USER bob PASSWORD $1",
    ),
    (
        "ALTER USER bob PASSWORD \"hunter2\" CREATEDB",
        "ALTER USER bob PASSWORD $1 $2",
    ),
    (
        "ALTER TABLE users ALTER password SET DEFAULT 'x'",
        "ALTER TABLE users ALTER password SET DEFAULT $1",
    ),
    (
        "CREATE USER MAPPING FOR a SERVER b OPTIONS (user 'c', password 'd')",
        "CREATE USER MAPPING FOR a SERVER b OPTIONS (user $1, password $2)",
    ),
    (
        "CREATE SUBSCRIPTION s CONNECTION 'host=h password=p' PUBLICATION q",
        "CREATE SUBSCRIPTION s CONNECTION $1 PUBLICATION q",
    ),
    (
        "CREATE FUNCTION f() RETURNS int SET work_mem TO foo LANGUAGE sql AS $b$SELECT 1$b$",
        "CREATE FUNCTION f() RETURNS int SET work_mem TO $1 LANGUAGE sql AS $2",
    ),
    (
        "CREATE FUNCTION f() RETURNS int SET x TO y BEGIN ATOMIC UPDATE t SET a = b; SELECT 1; END",
        "CREATE FUNCTION f() RETURNS int SET x TO $1 BEGIN ATOMIC UPDATE t SET a = b; SELECT $2; END",
    ),
    ("DO $$ BEGIN PERFORM 'x'; END $$", "DO $1"),
    // Other statements with values.
    ("NOTIFY c, 'payload'", "NOTIFY c, $1"),
    ("LISTEN \"c 1\"", "LISTEN \"c $\""),
    ("COMMENT ON TABLE t IS 'x'", "COMMENT ON TABLE t IS $1"),
    ("EXECUTE q1 (1, 'a')", "EXECUTE q1 ($1, $2)"),
    (
        "PREPARE q1 (int) AS SELECT $1, 2",
        "PREPARE q$ (int) AS SELECT $1, $2",
    ),
    (
        "COPY t (a) FROM '/tmp/x' WITH (FORMAT csv, DELIMITER ';', NULL 'n')",
        "COPY t (a) FROM $1 WITH (FORMAT csv, DELIMITER $2, NULL $3)",
    ),
    (
        "COPY t FROM STDIN CSV QUOTE AS E'\\''",
        "COPY t FROM STDIN CSV QUOTE AS $1",
    ),
    ("COMMIT PREPARED 'gid-1'", "COMMIT PREPARED $1"),
    (
        "EXPLAIN (ANALYZE, BUFFERS off) SELECT 1",
        "EXPLAIN (ANALYZE, BUFFERS off) SELECT $1",
    ),
    ("CALL p(1, x => 'y')", "CALL p($1, x => $2)"),
    ("BEGIN", "BEGIN"),
];

/// Beginnings of texts beside theirs.
const CUT: &[(&str, &str)] = &[
    ("", "…"),
    ("SELECT a FR", "SELECT a FR …"),
    ("SELECT 'sec", "SELECT $1 …"),
    ("SELECT 12", "SELECT $1 …"),
    ("SELECT a -", "SELECT a - …"),
    ("SELECT \"a b", "SELECT \"a b\" …"),
    ("SELECT $ta", "SELECT $1 …"),
    ("SELECT $tag$ x $ta", "SELECT $1 …"),
    ("SELECT $", "SELECT $1 …"),
    ("SELECT 1 /* x", "SELECT $1 …"),
    ("SELECT 1;", "SELECT $1 …"),
    ("SELECT a IN (1, 2, 'x", "SELECT a IN ($1 /*, ... */ …"),
    ("SELECT a IN (1, 2, NUL", "SELECT a IN ($1 /*, ... */ …"),
    (
        "INSERT INTO t VALUES (1, now()), (2, no",
        "INSERT INTO t VALUES ($1, now()) /*, ... */ …",
    ),
    (
        "INSERT INTO t VALUES (1, now()),",
        "INSERT INTO t VALUES ($1, now()) /*, ... */ …",
    ),
    ("SET x TO sec", "SET x TO $1 …"),
    ("ALTER USER a PASSWORD 'x", "ALTER USER a PASSWORD $1 …"),
];

fn reading(extent: Extent) -> Reading {
    Reading {
        extent,
        strings: Strings::Unknown,
    }
}

/// Every text has the normal form beside it, and that is its own.
#[test]
fn normal_forms_are_as_expected() {
    let whole = EXAMPLES.iter().map(|example| (example, Extent::Whole));
    let cut = CUT.iter().map(|example| (example, Extent::Cut));
    for ((text, expected), extent) in whole.chain(cut) {
        let normal = normalise(text.as_bytes(), reading(extent));
        assert_eq!(normal.text, *expected, "of {text}");
        let again = normalise(normal.text.as_bytes(), reading(Extent::Whole));
        assert_eq!(
            (again.text, again.fingerprint),
            (normal.text, normal.fingerprint),
            "of the normal form of {text}"
        );
    }
}

/// A cut text never has the fingerprint of a whole one.
#[test]
fn cut_texts_are_apart() {
    for (text, _) in EXAMPLES {
        let [whole, cut] = [Extent::Whole, Extent::Cut]
            .map(|extent| normalise(text.as_bytes(), reading(extent)).fingerprint);
        assert_ne!(whole, cut, "{text}");
    }
}

/// What the session says of backslashes decides what a string is.
#[test]
fn known_backslashes_are_obeyed() {
    let of = |text: &str, strings| {
        let extent = Extent::Whole;
        normalise(text.as_bytes(), Reading { extent, strings }).text
    };
    let path = r"SELECT 'C:\', b, 'c'";
    assert_eq!(of(path, Strings::Conforming), "SELECT $1, b, $2");
    assert_eq!(of(path, Strings::Escaping), "SELECT $1 c $2");
    let escaped = r"SELECT 'it\'s', b, U&'\', N'\''";
    assert_eq!(of(escaped, Strings::Escaping), "SELECT $1, b, $2, $3");
}

/// Bytes that are no UTF-8 are shown as U+FFFD in names and not at all in literals.
#[test]
fn foreign_bytes_are_replaced() {
    let normal = normalise(
        b"SELECT a\xff, \"\xc3\", '\xff' FROM \xe4b",
        Reading::default(),
    );
    assert_eq!(
        normal.text,
        "SELECT a\u{fffd}, \"\u{fffd}\", $1 FROM \u{fffd}b"
    );
}
