//! Sequences of messages that no driver sends, or seldom, by `pgproto` of pgpool-II: suspended portals, COPY that the
//! client gives up, `FunctionCall`, empty statements, Flush without Sync.

use std::path::Path;

use serde_json::{Value, json};

use crate::{
    bench::{bench, text},
    queries::{Report, Watch, server, sql},
};

/// Statements with their calls, rows, errors, calls that were skipped, and fetches beyond the first.
fn expected() -> Value {
    let none = json!({});
    json!({
        "SELECT g FROM generate_series($1, $2) g": [1, 5, none, 0, 2],
        "BEGIN": [1, 0, none, 0, 0],
        "SELECT h FROM generate_series($1, $2) h": [1, 2, none, 0, 0],
        "COMMIT": [1, 0, none, 0, 0],
        "COPY things FROM STDIN": [2, 2, { "57014": 2 }, 0, 0],
        "<function call oid 957>": [1, 0, none, 0, 0],
        "<function call oid 4294967>": [0, 0, { "42883": 1 }, 0, 0],
        "<empty query>": [3, 0, none, 0, 0],
        "SELECT $1 / $2": [0, 0, { "22012": 1 }, 0, 0],
        "SELECT $1": [1, 1, none, 1, 0],
        "SELECT $1, $2": [1, 1, none, 0, 0],
        "<statement not seen>": [0, 0, { "26000": 1 }, 0, 0],
        // Of a name that was never given; closing it is a round trip all the same.
        "<prepared before attach: nothing, connection 1>": [0, 0, none, 0, 0],
    })
}

/// Every message is understood: what is seen at both ends is what the protocol says of these.
#[test]
fn unusual_sequences_are_understood() {
    let Some(bench) = bench() else { return };
    let postgres = server();
    let Ok(pgproto) = postgres.client("pgproto") else {
        let is_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(!is_ci, "no pgproto, and CI=true");
        println!("skipped: no pgproto: `cargo xtask setup --tests` installs it");
        return;
    };
    sql(&postgres, "CREATE TABLE things (name text)");
    let setting = |name: &str| {
        let found = pgproto.get_envs().find(|(key, _)| *key == name);
        found
            .and_then(|(_, value)| value)
            .expect("a setting")
            .to_owned()
    };
    let at_server = Watch::start(&bench, &["-p", &postgres.server.id().to_string()]);
    let mut command = bench.command(&["queries", "--json", "-o", "at-client", "--"]);
    command
        .arg(pgproto.get_program())
        .arg("-h")
        .arg(setting("PGHOST"));
    command.arg("-p").arg(setting("PGPORT"));
    command.args(["-u", "demo", "-d", "postgres", "-f"]);
    let file = "tests/live/drivers/messages.pgproto";
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(file));
    let output = command.output().expect("the profiler runs");
    let talk = text(&output.stderr) + &text(&output.stdout);
    assert!(output.status.success(), "{talk}");
    let written = std::fs::read(bench.path("at-client")).expect("the result");
    let at_client = Report(serde_json::from_slice(&written).expect("JSON"));
    for report in [&at_server.end(), &at_client] {
        let mut seen = json!({});
        for one in report.statements() {
            let keys = ["calls", "rows", "errors", "skipped", "fetches"];
            let figures: Vec<&Value> = keys.iter().map(|key| &one[*key]).collect();
            let text = one["statement"].as_str().expect("a text");
            seen[text] = json!(figures);
        }
        let expected = expected();
        assert_eq!(seen, expected, "{seen:#}\n{talk}");
        report.assert_nothing_lost();
    }
}
