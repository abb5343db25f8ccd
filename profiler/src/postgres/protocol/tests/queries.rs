//! Conversations in Queries and function calls.

use super::{
    conversations::Case,
    wire::{
        Talk, bare, columns, command, copy, data, error, function, message, notice, notification,
        parameter, query, ready, rows,
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
