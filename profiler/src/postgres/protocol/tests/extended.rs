//! Conversations in Parse, Bind and Execute.

use super::{
    conversations::Case,
    wire::{
        Talk, bare, bind, bind_value, close, columns, command, copy, data, describe, error,
        execute, message, parse, query, ready, rows, sync,
    },
};

/// Parse, Bind, Describe, Execute, Close, Sync and Flush.
#[expect(clippy::too_many_lines, reason = "a table")]
pub(super) fn extended() -> Vec<Case> {
    let z = || ready(b'I');
    let talk = Talk::begun;
    let [one, two, three, none] = [b'1', b'2', b'3', b'n'].map(bare);
    let parameters = message(b't', &[0, 0]);
    let call = |text| {
        [
            parse("", text),
            bind("", ""),
            describe(b'P', ""),
            execute("", 0),
        ]
        .concat()
    };
    let answer = |count: usize| {
        [
            one.clone(),
            two.clone(),
            columns(),
            rows(count),
            command(&format!("SELECT {count}")),
        ]
        .concat()
    };
    vec![
        (
            "all in one",
            talk()
                .client(&[call("SELECT $1"), sync()])
                .server(&[answer(3), z()]),
            &["SELECT $1: 3"],
        ),
        (
            "a named statement prepared once",
            talk()
                .client(&[parse("s", "SELECT $1"), describe(b'S', "s"), sync()])
                .server(&[one.clone(), parameters.clone(), columns(), z()])
                .client(&[bind("", "s"), execute("", 0), sync()])
                .server(&[two.clone(), rows(1), command("SELECT 1"), z()])
                .client(&[bind("", "s"), execute("", 0), sync()])
                .server(&[two.clone(), rows(2), command("SELECT 2"), z()])
                .client(&[
                    close(b'S', "s"),
                    sync(),
                    parse("s", "UPDATE t"),
                    describe(b'S', "s"),
                    sync(),
                ])
                .server(&[
                    three.clone(),
                    z(),
                    one.clone(),
                    parameters.clone(),
                    none.clone(),
                    z(),
                ])
                .client(&[bind("", "s"), execute("", 0), close(b'P', ""), sync()])
                .server(&[two.clone(), command("UPDATE 4"), three.clone(), z()]),
            &[
                "Parse SELECT $1",
                "SELECT $1: 1",
                "SELECT $1: 2",
                "Close SELECT $1",
                "Parse UPDATE t",
                "UPDATE t: 4",
            ],
        ),
        (
            "Flush in place of Sync",
            talk()
                .client(&[parse("s", "SELECT $1"), describe(b'S', "s"), bare(b'H')])
                .server(&[one.clone(), parameters.clone(), columns()])
                .client(&[bind("", "s"), execute("", 0), sync()])
                .server(&[two.clone(), rows(1), command("SELECT 1"), z()]),
            &["Parse SELECT $1", "SELECT $1: 1"],
        ),
        (
            "several portals at once",
            talk()
                .client(&[
                    parse("a", "SELECT a"),
                    parse("b", "SELECT b"),
                    bind("p", "a"),
                    bind("q", "b"),
                    execute("q", 0),
                    execute("p", 0),
                    sync(),
                ])
                .server(&[
                    one.clone(),
                    one.clone(),
                    two.clone(),
                    two.clone(),
                    rows(2),
                    command("SELECT 2"),
                    rows(1),
                    command("SELECT 1"),
                    z(),
                ]),
            &["SELECT b: 2", "SELECT a: 1"],
        ),
        (
            "an error passes over what follows up to its Sync",
            talk()
                .client(&[
                    call("SELECT 1"),
                    call("SELECT 2"),
                    call("SELECT 3"),
                    query("SELECT 4"),
                    sync(),
                    call("SELECT 5"),
                    sync(),
                ])
                .server(&[
                    answer(1),
                    one.clone(),
                    two.clone(),
                    columns(),
                    rows(1),
                    error("22012"),
                    z(),
                    answer(5),
                    z(),
                ]),
            &[
                "SELECT 3: Skipped",
                "SELECT 4: Skipped",
                "SELECT 1: 1",
                "SELECT 2: 22012",
                "SELECT 5: 5",
            ],
        ),
        (
            "an error in Parse or Bind prevents its call",
            talk()
                .client(&[call("SELEC"), call("SELECT 2"), sync()])
                .server(&[error("42601"), z()])
                .client(&[
                    parse("s", "SELECT 3"),
                    bind("", "s"),
                    execute("", 0),
                    sync(),
                ])
                .server(&[one.clone(), error("22P02"), z()])
                .client(&[bind("", "s"), execute("", 0), sync()])
                .server(&[two.clone(), command("SELECT 0"), z()])
                .client(&[bind("", "gone"), execute("", 0), sync()])
                .server(&[error("26000"), z()])
                .client(&[bind("", ""), execute("", 0), sync()])
                .server(&[error("26000"), z()]),
            &[
                "SELECT 2: Skipped",
                "SELEC: 42601",
                "SELECT 3: 22P02",
                "SELECT 3: 0",
                "<gone>: 26000",
                "<unknown>: 26000",
            ],
        ),
        (
            "an error before the Sync is sent",
            talk()
                .client(&[call("SELECT 1/0"), bare(b'H')])
                .server(&[one.clone(), two.clone(), columns(), error("22012")])
                .client(&[call("SELECT 2"), query("SELECT 3"), bare(b'H')])
                .client(&[call("SELECT 4"), sync(), call("SELECT 5"), sync()])
                .server(&[z(), answer(5), z()]),
            &[
                "SELECT 2: Skipped",
                "SELECT 3: Skipped",
                "SELECT 4: Skipped",
                "SELECT 1/0: 22012",
                "SELECT 5: 5",
            ],
        ),
        (
            "an error before the call that it prevents is sent",
            talk()
                .client(&[bind("", "gone")])
                .server(&[error("26000")])
                .client(&[execute("", 0), call("SELECT 2"), sync()])
                .server(&[z()])
                .client(&[parse("", "SELEC")])
                .server(&[error("42601")])
                .client(&[bind("", "")])
                .client(&[execute("", 0)])
                .client(&[sync(), call("SELECT 3"), sync()])
                .server(&[z(), answer(3), z()])
                .client(&[parse("", "SELEC")])
                .server(&[error("42601")])
                .client(&[sync()])
                .server(&[z()]),
            &[
                "SELECT 2: Skipped",
                "<gone>: 26000",
                "SELEC: 42601",
                "SELECT 3: 3",
                "Parse SELEC 42601",
            ],
        ),
        (
            "an error in the middle of what is behind it",
            talk()
                .client(&[call("SELECT 1/0"), parse("", "SELECT 2")])
                .server(&[one.clone(), two.clone(), columns(), error("22012")])
                .client(&[bind("", "")])
                .client(&[execute("", 0), sync()])
                .server(&[z()]),
            &["SELECT 2: Skipped", "SELECT 1/0: 22012"],
        ),
        (
            "an error before a call, and no Sync",
            talk()
                .client(&[bind("", "gone")])
                .server(&[error("26000")])
                .client(&[execute("", 0), call("SELECT 2")]),
            &["SELECT 2: Skipped", "<gone>: 26000"],
        ),
        (
            "an error in a statement that is only prepared",
            talk()
                .client(&[parse("s", "SELEC"), describe(b'S', "s"), sync()])
                .server(&[error("42601"), z()])
                .client(&[describe(b'P', "nothing"), sync()])
                .server(&[error("34000"), z()])
                .client(&[
                    parse("s", "SELECT 1"),
                    bind("", "s"),
                    execute("", 0),
                    sync(),
                ])
                .server(&[one.clone(), two.clone(), command("SELECT 0"), z()])
                .client(&[parse("s", "SELECT 2"), sync()])
                .server(&[error("42P05"), z()])
                .client(&[bind("", "s"), execute("", 0), sync()])
                .server(&[two.clone(), command("SELECT 0"), z()]),
            &[
                "Parse SELEC 42601",
                "Describe <unknown> 34000",
                "SELECT 1: 0",
                "Parse SELECT 2 42P05",
                "SELECT 1: 0",
            ],
        ),
        (
            "what cannot be committed at Sync fails",
            talk().client(&[call("INSERT"), sync()]).server(&[
                one.clone(),
                two.clone(),
                none.clone(),
                command("INSERT 0 1"),
                error("23503"),
                z(),
            ]),
            &["INSERT: 23503"],
        ),
        (
            "several Syncs and none in between",
            talk()
                .client(&[sync(), sync(), call("SELECT 1"), bare(b'H')])
                .server(&[z(), z(), answer(1)])
                .client(&[call("SELECT 2")])
                .client(&[sync()])
                .server(&[answer(2), z()]),
            &["SELECT 1: 1", "SELECT 2: 2"],
        ),
        (
            "an empty statement",
            talk()
                .client(&[
                    parse("", ""),
                    bind("", ""),
                    describe(b'P', ""),
                    execute("", 0),
                    sync(),
                ])
                .server(&[one.clone(), two.clone(), none.clone(), bare(b'I'), z()]),
            &["<empty>: 0"],
        ),
        (
            "names given up in SQL",
            talk()
                .client(&[
                    parse("a", "SELECT a"),
                    parse("b", "SELECT b"),
                    parse("c", "SELECT c"),
                    sync(),
                ])
                .server(&[one.clone(), one.clone(), one.clone(), z()])
                .client(&[query("DEALLOCATE a")])
                .server(&[command("DEALLOCATE"), z()])
                .client(&[
                    bind("", "a"),
                    execute("", 0),
                    sync(),
                    bind("", "b"),
                    execute("", 0),
                    sync(),
                ])
                .server(&[
                    error("26000"),
                    z(),
                    two.clone(),
                    rows(1),
                    command("SELECT 1"),
                    z(),
                ])
                .client(&[query("DISCARD ALL")])
                .server(&[command("DISCARD ALL"), z()])
                .client(&[bind("", "b"), execute("", 0), sync()])
                .server(&[error("26000"), z()]),
            &[
                "Parse SELECT a",
                "Parse SELECT b",
                "Parse SELECT c",
                "DEALLOCATE a: 0",
                "<a>: 26000",
                "SELECT b: 1",
                "DISCARD ALL: 0",
                "<b>: 26000",
            ],
        ),
        (
            "what SQL prepares is bound, and what is parsed is run by SQL",
            talk()
                .client(&[
                    query("PREPARE p AS: SELECT p"),
                    parse("q", "SELECT q"),
                    sync(),
                ])
                .server(&[command("PREPARE"), z(), one.clone(), z()])
                .client(&[bind("", "p"), execute("", 0), sync(), query("EXECUTE q")])
                .server(&[two.clone(), rows(1), command("SELECT 1"), z()])
                .server(&[columns(), rows(3), command("SELECT 3"), z()]),
            &[
                "Parse SELECT q",
                "PREPARE p AS: SELECT p: 0",
                "SELECT p: 1",
                "SELECT q: 3",
            ],
        ),
        (
            "a Query gives up the unnamed statement",
            talk()
                .client(&[parse("", "SELECT 1"), sync()])
                .server(&[one.clone(), z()])
                .client(&[query("SELECT 2")])
                .server(&[columns(), command("SELECT 0"), z()])
                .client(&[bind("", ""), execute("", 0), sync()])
                .server(&[error("26000"), z()]),
            &["Parse SELECT 1", "SELECT 2: 0", "<unknown>: 26000"],
        ),
        (
            "COPY in, with a Sync that means nothing",
            talk()
                .client(&[
                    parse("", "COPY t FROM STDIN"),
                    bind("", ""),
                    execute("", 0),
                    sync(),
                ])
                .server(&[one.clone(), two.clone(), copy(b'G')])
                .client(&[data(b"1\n"), bare(b'H'), sync(), data(b"2\n")])
                .client(&[bare(b'c'), sync()])
                .server(&[command("COPY 2"), z()])
                .client(&[call("SELECT 1"), sync()])
                .server(&[answer(1), z()])
                .client(&[
                    parse("", "COPY t TO STDOUT"),
                    bind("", ""),
                    execute("", 0),
                    sync(),
                ])
                .server(&[
                    one.clone(),
                    two.clone(),
                    copy(b'H'),
                    data(b"1\n"),
                    bare(b'c'),
                    command("COPY 1"),
                    z(),
                ]),
            &[
                "COPY t FROM STDIN: 2 in 4 B",
                "SELECT 1: 1",
                "COPY t TO STDOUT: 1 out 2 B",
            ],
        ),
        (
            "COPY in, sent blindly",
            talk()
                .client(&[
                    parse("", "COPY t FROM STDIN"),
                    bind("", ""),
                    execute("", 0),
                    sync(),
                    data(b"1\n"),
                    bare(b'c'),
                    sync(),
                ])
                .server(&[one.clone(), two.clone(), copy(b'G'), command("COPY 1"), z()])
                .client(&[call("SELECT 1"), sync()])
                .server(&[answer(1), z()]),
            &["COPY t FROM STDIN: 1 in 2 B", "SELECT 1: 1"],
        ),
        (
            "a portal in pieces",
            talk()
                .client(&[query("BEGIN")])
                .server(&[command("BEGIN"), ready(b'T')])
                .client(&[
                    parse("", "SELECT g"),
                    bind("C_1", ""),
                    describe(b'P', "C_1"),
                    execute("C_1", 2),
                    sync(),
                ])
                .server(&[
                    one.clone(),
                    two.clone(),
                    columns(),
                    rows(2),
                    bare(b's'),
                    ready(b'T'),
                ])
                .client(&[execute("C_1", 2), sync()])
                .server(&[rows(2), bare(b's'), ready(b'T')])
                .client(&[execute("C_1", 2), sync()])
                .server(&[rows(1), command("SELECT 1"), ready(b'T')])
                .client(&[bind_value("C_2", "", b"2"), execute("C_2", 2), sync()])
                .server(&[two.clone(), rows(2), bare(b's'), ready(b'T')])
                .client(&[close(b'P', "C_2"), sync()])
                .server(&[three.clone(), ready(b'T')])
                .client(&[bind_value("C_3", "", b"3"), execute("C_3", 2), sync()])
                .server(&[two.clone(), rows(2), bare(b's'), ready(b'T')])
                .client(&[query("COMMIT")])
                .server(&[command("COMMIT"), z()]),
            &[
                "BEGIN: 0",
                "SELECT g: 5 in 3",
                "SELECT g: Suspended",
                "SELECT g: Suspended",
                "COMMIT: 0",
            ],
        ),
    ]
}
