//! Conversations in Queries and function calls.

use super::{
    super::{Ending, Side},
    conversations::Case,
    wire::{
        Listener, Talk, bare, bind, columns, command, copy, data, error, execute, function,
        message, notice, notification, parameter, parse, query, ready, rows, sync,
    },
};

/// Queries.
#[expect(clippy::too_many_lines, reason = "a table")]
pub(super) fn queries() -> Vec<Case> {
    let z = || ready(b'I');
    let talk = Talk::begun;
    vec![
        (
            "one statement",
            talk().client(&[query("SELECT 1")]).server(&[
                columns(),
                rows(2),
                command("SELECT 2"),
                z(),
            ]),
            &["SELECT 1: 2"],
        ),
        (
            "several statements and empty pieces",
            talk()
                .client(&[query("SELECT 1; ;UPDATE t; CREATE TABLE")])
                .server(&[
                    columns(),
                    rows(1),
                    command("SELECT 1"),
                    command("UPDATE 5"),
                    command("CREATE TABLE"),
                    z(),
                ]),
            &["SELECT 1: 1", "UPDATE t: 5", "CREATE TABLE: 0"],
        ),
        (
            "an empty query",
            talk().client(&[query(" ; ")]).server(&[bare(b'I'), z()]),
            &["<empty>: 0"],
        ),
        (
            "EXECUTE and FETCH are of what was given the name, DEALLOCATE and COMMIT end that",
            talk()
                .client(&[query(
                    "EXECUTE p;PREPARE p AS: SELECT p;EXECUTE p;DEALLOCATE p",
                )])
                .server(&[
                    columns(),
                    rows(1),
                    command("SELECT 1"),
                    command("PREPARE"),
                    columns(),
                    rows(2),
                    command("SELECT 2"),
                    command("DEALLOCATE"),
                    z(),
                ])
                .client(&[query("EXECUTE p;FETCH 9 c")])
                .server(&[error("26000"), z()])
                .client(&[query(
                    "BEGIN;DECLARE c FOR: SELECT c;DECLARE h WITH HOLD: SELECT h",
                )])
                .server(&[
                    command("BEGIN"),
                    command("DECLARE CURSOR"),
                    command("DECLARE CURSOR"),
                    ready(b'T'),
                ])
                .client(&[query("FETCH 9 c;FETCH 5 c;MOVE 1 h;FETCH 1/0 c")])
                .server(&[
                    columns(),
                    rows(2),
                    command("FETCH 2"),
                    columns(),
                    rows(1),
                    command("FETCH 1"),
                    command("MOVE 1"),
                    error("22012"),
                    ready(b'E'),
                ])
                .client(&[query("COMMIT")])
                .server(&[command("ROLLBACK"), z()])
                .client(&[query("FETCH 9 h;FETCH 9 c")])
                .server(&[columns(), rows(1), command("FETCH 1"), error("34000"), z()])
                .client(&[query("CLOSE h;FETCH 9 h")])
                .server(&[command("CLOSE CURSOR"), error("34000"), z()]),
            &[
                "EXECUTE p: 1",
                "PREPARE p AS: SELECT p: 0",
                "SELECT p: 2",
                "DEALLOCATE p: 0",
                "FETCH 9 c: Skipped",
                "EXECUTE p: 26000",
                "BEGIN: 0",
                "DECLARE c FOR: SELECT c: 0",
                "DECLARE h WITH HOLD: SELECT h: 0",
                "fetch of SELECT c: 2",
                "fetch of SELECT c: 1",
                "move of SELECT h: 1",
                "fetch of SELECT c: 22012",
                "COMMIT: 0",
                "fetch of SELECT h: 1",
                "FETCH 9 c: 34000",
                "CLOSE h: 0",
                "FETCH 9 h: 34000",
            ],
        ),
        (
            "an error stops the rest, and its ReadyForQuery comes apart",
            talk()
                .client(&[query("SELECT 1;SELECT 1/0;SELECT 3")])
                .server(&[columns(), rows(1), command("SELECT 1"), error("22012")])
                .server(&[z()])
                .client(&[query("SELECT 4")])
                .server(&[columns(), command("SELECT 0"), z()]),
            &[
                "SELECT 3: Skipped",
                "SELECT 1: 1",
                "SELECT 1/0: 22012",
                "SELECT 4: 0",
            ],
        ),
        (
            "messages that come at any time",
            talk()
                .server(&[notice()])
                .client(&[query("SELECT 1")])
                .server(&[
                    parameter(),
                    columns(),
                    notice(),
                    rows(1),
                    notification(),
                    rows(1),
                    command("SELECT 2"),
                    notice(),
                    z(),
                ])
                .server(&[notification(), parameter()])
                .client(&[query("SELECT 2")])
                .server(&[columns(), command("SELECT 0"), z()]),
            &["SELECT 1: 2", "SELECT 2: 0"],
        ),
        (
            "queries one behind the other",
            talk()
                .client(&[query("SELECT 1"), query("SELECT 2")])
                .client(&[query("SELECT 3")])
                .server(&[
                    columns(),
                    rows(1),
                    command("SELECT 1"),
                    z(),
                    columns(),
                    rows(2),
                    command("SELECT 2"),
                    z(),
                ])
                .server(&[columns(), rows(3), command("SELECT 3"), z()]),
            &["SELECT 1: 1", "SELECT 2: 2", "SELECT 3: 3"],
        ),
        (
            "a function",
            talk()
                .client(&[function(1598)])
                .server(&[message(b'V', &[0, 0, 0, 1, 7]), z()])
                .client(&[function(1599)])
                .server(&[error("42883"), z()]),
            &["<function 1598>: 0", "<function 1599>: 42883"],
        ),
        (
            "COPY in both directions",
            talk()
                .client(&[query("COPY t FROM STDIN")])
                .server(&[copy(b'G')])
                .client(&[data(b"1\n"), data(b"22\n")])
                .client(&[bare(b'c')])
                .server(&[command("COPY 2"), z()])
                .client(&[query("COPY t TO STDOUT")])
                .server(&[
                    copy(b'H'),
                    data(b"1\n"),
                    notice(),
                    data(b"22\n"),
                    bare(b'c'),
                    command("COPY 2"),
                    z(),
                ]),
            &["COPY t FROM STDIN: 2 in 5 B", "COPY t TO STDOUT: 2 out 5 B"],
        ),
        (
            "COPY that fails at the server, the client or not at all",
            talk()
                .client(&[query("COPY t FROM STDIN")])
                .server(&[copy(b'G')])
                .client(&[data(b"x\n")])
                .server(&[error("22P02"), z()])
                .client(&[data(b"y\n"), bare(b'c')])
                .client(&[query("COPY u FROM STDIN")])
                .server(&[copy(b'G')])
                .client(&[message(b'f', b"no\0")])
                .server(&[error("57014"), z()])
                .client(&[
                    query("COPY v FROM STDIN; SELECT 1"),
                    data(b"1\n"),
                    bare(b'c'),
                ])
                .server(&[
                    copy(b'G'),
                    command("COPY 1"),
                    columns(),
                    rows(1),
                    command("SELECT 1"),
                    z(),
                ]),
            &[
                "COPY t FROM STDIN: 22P02 in 2 B",
                "COPY u FROM STDIN: 57014 in 2 B",
                "COPY v FROM STDIN: 1 in 2 B",
                "SELECT 1: 1",
            ],
        ),
    ]
}

/// A list of megabytes is read to its end in little memory, however it is cut, in a Query and in a Parse.
#[test]
fn long_lists_are_read_to_their_end() {
    let numbers: Vec<String> = (0..300_000).map(|number| number.to_string()).collect();
    let text = format!("SELECT a IN ({}) AND b", numbers.join(", "));
    let answer = [columns(), rows(1), command("SELECT 1"), ready(b'I')];
    let prepared = [parse("a", &text), bind("", "a"), execute("", 0), sync()];
    let parsed = [
        bare(b'1'),
        bare(b'2'),
        rows(1),
        command("SELECT 1"),
        ready(b'I'),
    ];
    let talk = Talk::begun()
        .client(&[query(&text)])
        .server(&answer)
        .client(&prepared)
        .server(&parsed);
    for step in [1 << 20, 16_384, 1000] {
        let mut listener = Listener::new(Side::Client);
        for said in &talk.said {
            let mut rest = said.clone();
            while rest.bytes.len() > step {
                let [first, behind] = rest.split(step);
                listener.hear(&first);
                rest = behind;
                assert!(listener.connection.memory() < 400_000);
            }
            listener.hear(&rest);
        }
        let told = listener.end(Ending::Recording);
        assert_eq!(told.lines().len(), 2, "{step}");
        for sent in &told.texts.sent {
            assert!(
                sent.starts_with("SELECT a IN (0 /*, ... */, "),
                "{sent:.80}"
            );
            assert!(sent.ends_with(", 299999) AND b") && sent.len() < 100_000);
        }
    }
}
