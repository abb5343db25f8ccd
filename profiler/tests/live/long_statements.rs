//! Statements of megabytes are read to their end: what follows a long list tells them apart, as the server's own
//! statistics have it.

use crate::{
    bench::bench,
    middle::Client,
    queries::{Watch, server, server_counts, sql},
};

/// Sends each statement in a Query and as a prepared one, with lists that have never the same length.
const PROGRAM: &str = r"
import psycopg, psycopg2, sys, time
simple = psycopg2.connect('')
simple.autocommit = True
prepared = psycopg.connect('', autocommit=True)
def run(text):
    for execute in (simple.cursor().execute, lambda text: prepared.execute(text, prepare=True)):
        execute(text)
        # A profiler that is not optimized has read it by then.
        time.sleep(0.05)
print('ready', flush=True)
sys.stdin.readline()
run('CREATE TABLE IF NOT EXISTS long (a int, b text)')
for turn, count in enumerate((20000, 100000, 250000)):
    numbers = ', '.join(str(n) for n in range(count))
    run(f'SELECT a FROM long WHERE a IN ({numbers}) AND b = $$x$$')
    run(f'SELECT a FROM long WHERE a IN ({numbers}) AND b > $$x$$')
    rows = ', '.join(f'({n}, $${n}$$)' for n in range(count // 10))
    run(f'INSERT INTO long VALUES {rows} ON CONFLICT DO NOTHING')
    run(f'INSERT INTO long VALUES {rows} RETURNING a')
    blob = 'x' * count * 3
    run(f'''INSERT INTO long SELECT 1, '{blob}' ''')
    run(f'''INSERT INTO long SELECT 2, '{blob}' WHERE false''')
print('done', flush=True)
sys.stdin.readline()
";

/// Statements that differ behind 0.1 to 1.7 MB have rows of their own, however long they are, at both ends.
#[test]
fn what_follows_long_lists_counts() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    let Some(mut client) = Client::python(PROGRAM, &postgres) else {
        return;
    };
    assert_eq!(client.line(), "ready");
    let at_client = Watch::start(&bench, &["-p", &client.pid()]);
    let at_server = Watch::start(&bench, &["-p", &postgres.server.id().to_string()]);
    sql(&postgres, "SELECT pg_stat_statements_reset()");
    assert_eq!(client.go_on(), "done");
    let counted = server_counts(&postgres);
    for (side, watch) in [("client", at_client), ("server", at_server)] {
        let report = watch.end();
        report.assert_nothing_lost();
        let of = |begin: &str, end: &str| {
            let is_it = |text: &str| text.starts_with(begin) && text.ends_with(end);
            let mut ours = report.statements().iter();
            let found = ours.find(|one| one["statement"].as_str().is_some_and(is_it));
            let found = found.unwrap_or_else(|| panic!("no `{begin}…{end}` in {:#}", report.0));
            (found["calls"].as_u64(), found["rows"].as_u64())
        };
        let rows = 2 * (2_000 + 10_000 + 25_000);
        let selects = "SELECT a FROM long WHERE a IN ($1 /*, ... */) AND b ";
        let inserts = "INSERT INTO long VALUES ($1, $2) /*, ... */ ";
        for (begin, end, expected) in [
            (selects, "= $2", Some(6)),
            (selects, "> $2", Some(6)),
            (inserts, "ON CONFLICT DO NOTHING", Some(6)),
            (inserts, "RETURNING a", Some(6)),
            ("INSERT INTO long SELECT $1, $2", "$2", Some(6)),
            ("INSERT INTO long SELECT $1, $2", "WHERE false", Some(6)),
        ] {
            let (calls, found) = of(begin, end);
            assert_eq!(
                calls, expected,
                "`{begin}{end}` at the {side} in {:#}",
                report.0
            );
            if begin == inserts {
                assert_eq!(found, Some(rows), "`{begin}{end}` at the {side}");
            }
        }
    }
    // The server takes each length of a list for a statement of its own before version 18: all of them together.
    let theirs = |begin: &str, end: &str| {
        let is_it = |text: &&String| text.starts_with(begin) && text.ends_with(end);
        let found = counted.iter().filter(|(text, _)| is_it(text));
        found.map(|(_, (calls, _))| calls).sum::<u64>()
    };
    assert_eq!(
        theirs("insert into long values", "returning a"),
        6,
        "{counted:?}"
    );
}
