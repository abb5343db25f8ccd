//! Which statements the server is seen to take, and by what it reads their texts.

use super::{
    super::{Ending, Side, Statement},
    wire::{
        Listener, Talk, Told, bare, bind, columns, command, copy, data, describe, error, error_of,
        execute, message, parse, query, ready, row, rows, startup, sync,
    },
};

/// Texts of what was taken, each once, in order.
fn accepted(told: &Told, is_certain: bool) -> Vec<&str> {
    let mut texts: Vec<&str> = Vec::new();
    for (id, certain) in &told.texts.accepted {
        let text = told.texts.sent[usize::try_from(id.0).unwrap()].as_str();
        if *certain == is_certain && !texts.contains(&text) {
            texts.push(text);
        }
    }
    texts
}

/// A statement of a Query was taken by its rows' description, its completion, the begin of COPY, or an error that comes
/// to right ones; each by its own answer, and none behind an error.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn queries_are_taken_by_their_answers() {
    let z = || ready(b'I');
    for (name, text, answer, expected) in [
        ("completed", "A", vec![command("UPDATE 1"), z()], vec!["A"]),
        (
            "each its own",
            "A;B;C",
            vec![columns(), rows(1), command("SELECT 1"), error("42703"), z()],
            vec!["A"],
        ),
        (
            "rows first",
            "A",
            vec![columns(), rows(1), error("22012"), z()],
            vec!["A"],
        ),
        ("refused", "A", vec![error("42601"), z()], vec![]),
        (
            "a mistake in the second",
            "A;B",
            vec![error("42601"), z()],
            vec![],
        ),
        (
            "unique violation",
            "A",
            vec![error("23505"), z()],
            vec!["A"],
        ),
        ("deadlock", "A", vec![error("40P01"), z()], vec!["A"]),
        (
            "lock timeout",
            "A;B",
            vec![command("SET"), error("55P03"), z()],
            vec!["A", "B"],
        ),
        ("cancelled", "A", vec![error("57014"), z()], vec!["A"]),
        (
            "shut down",
            "A",
            vec![error_of("FATAL", "57P01")],
            vec!["A"],
        ),
        ("division by zero", "A", vec![error("22012"), z()], vec![]),
        (
            "in a failed transaction",
            "A",
            vec![error("25P02"), ready(b'E')],
            vec![],
        ),
        (
            "COPY of bad data",
            "A",
            vec![copy(b'G'), error("22P02"), z()],
            vec!["A"],
        ),
        (
            "COPY out",
            "A",
            vec![copy(b'H'), data(b"x\n"), error("22012"), z()],
            vec!["A"],
        ),
        ("no answer", "A", vec![], vec![]),
    ] {
        for side in [Side::Client, Side::Server] {
            let mut talk = Talk::begun().client(&[query(text)]);
            if !answer.is_empty() {
                talk = talk.server(&answer);
            }
            let told = talk.run(side);
            assert_eq!(accepted(&told, true), expected, "{name}");
            assert_eq!(accepted(&told, false), Vec::<&str>::new(), "{name}");
        }
    }
}

/// What is prepared was taken with `ParseComplete`, also if its call fails; what the server passes over was not.
#[test]
fn prepared_ones_are_taken_by_parse_complete() {
    let all = |name: &str, text: &str| {
        vec![
            parse(name, text),
            bind("", name),
            describe(b'P', ""),
            execute("", 0),
            sync(),
        ]
    };
    let z = || ready(b'I');
    let told = Talk::begun()
        .client(&all("", "A"))
        .server(&[bare(b'1'), bare(b'2'), columns(), error("22012"), z()])
        .client(&all("s", "B"))
        .server(&[error("42601"), z()])
        .client(&[
            parse("", "C"),
            bind("", ""),
            execute("", 0),
            parse("", "D"),
            sync(),
        ])
        .server(&[bare(b'1'), error("22P02"), z()])
        .client(&all("t", "E"))
        .server(&[error("57014"), z()])
        .run(Side::Server);
    assert_eq!(accepted(&told, true), ["A", "C", "E"]);
}

/// Where pairing is not trusted, what seems to be taken may be another one; what is answered by a command that was not
/// copied is taken in any case only if it is.
#[test]
fn doubtful_answers_take_nothing() {
    let mut talk = Talk::default().server(&[row(b"x"), command("SELECT 1"), ready(b'I')]);
    for text in ["A", "B", "C", "D", "E", "F"] {
        let answer = [columns(), command("SELECT 0"), ready(b'I')];
        talk = talk.client(&[query(text)]).server(&answer);
    }
    let told = talk.run(Side::Server);
    assert_eq!(accepted(&told, false), ["A", "B", "C", "D"]);
    assert_eq!(accepted(&told, true), ["E", "F"]);
}

/// Parameters are heard whenever they come, and a text is read by them if nothing was run since.
#[test]
fn parameters_are_heard() {
    let report = |name: &str, value: &str| message(b'S', format!("{name}\0{value}\0").as_bytes());
    let z = || ready(b'I');
    let talk = Talk::default()
        .client(&[startup(196_608, &["user", "u"])])
        .server(&[
            super::wire::authentication(0, b""),
            report("client_encoding", "SJIS"),
            z(),
        ])
        .client(&[query("A")])
        .server(&[command("SET"), report("client_encoding", "UTF8"), z()])
        // One behind the other: what the first one changes is reported with the end of both.
        .client(&[
            parse("", "B"),
            bind("", ""),
            execute("", 0),
            parse("", "C"),
            sync(),
        ])
        .server(&[bare(b'1'), bare(b'2'), command("SET"), bare(b'1'), z()])
        .client(&[query("D"), query("E")])
        .server(&[command("SET"), z()])
        .server(&[command("SET"), z()])
        .client(&[query("F")]);
    for side in [Side::Client, Side::Server] {
        // In pieces of any size too.
        for size in [usize::MAX, 7] {
            let mut listener = Listener::new(side);
            for said in &talk.said {
                let mut rest = Some(said.clone());
                while let Some(piece) = rest.take() {
                    if piece.bytes.len() > size {
                        let [first, second] = piece.split(size);
                        listener.hear(&first);
                        rest = Some(second);
                    } else {
                        listener.hear(&piece);
                    }
                }
            }
            let told = listener.end(Ending::Recording);
            let texts = &told.texts;
            assert_eq!(
                texts.parameters,
                ["client_encoding=SJIS", "client_encoding=UTF8"]
            );
            let settled: Vec<_> = texts
                .settled
                .iter()
                .map(|id| &texts.sent[usize::try_from(id.0).unwrap()])
                .collect();
            assert_eq!(settled, ["A", "B", "D", "F"]);
            assert_eq!(texts.answered, 4);
        }
    }
}

/// What a server is busy with is told after a while: that of the first request, not of those behind it.
#[test]
fn what_is_under_way_is_told() {
    let talk = Talk::begun()
        .client(&[query("A;B"), query("C")])
        .server(&[command("SET")]);
    let mut listener = Listener::new(Side::Server);
    talk.said.iter().for_each(|said| listener.hear(said));
    let last_ns = talk.said.last().unwrap().entry_ns;
    let of = |listener: &Listener, after_ns: u64| {
        let id = listener.connection.under_way(last_ns + after_ns)?;
        Some(listener.texts.sent[usize::try_from(id.0).unwrap()].clone())
    };
    assert_eq!(of(&listener, 99_000_000), None);
    assert_eq!(of(&listener, 101_000_000).as_deref(), Some("B"));
    let answered = talk.server(&[command("SET"), ready(b'I')]);
    listener.hear(answered.said.last().unwrap());
    assert_eq!(of(&listener, 101_000_000).as_deref(), Some("C"));
    let told = listener.end(Ending::Closed);
    assert!(matches!(
        told.calls().last().unwrap().statement,
        Statement::Known(_)
    ));
}
