//! Conversations that are cut, entered in their middle, full of holes or nonsense.

use std::collections::BTreeSet;

use super::{
    super::{Call, Chunk, Connection, Direction, Ending, Event, Side, Statement},
    extended::extended,
    queries::queries,
    wire::{
        Listener, Said, Talk, Told, authentication, bare, bind_value, columns, command, copy, data,
        error, execute, key, message, parse, query, ready, row, rows, startup, sync,
    },
};

/// What must not depend on how bytes were carried.
fn facts(told: &Told) -> BTreeSet<String> {
    let of = |call: &Call| {
        let call = Call {
            latency_ns: None,
            service_ns: 0,
            sharing: 0,
            statement: Statement::Unknown,
            ..call.clone()
        };
        format!("{call:?}")
    };
    let calls = told
        .calls()
        .map(|call| told.text(&call.statement) + &of(call));
    calls.chain(told.lines()).collect()
}

/// Every conversation, and several requests under way all the time.
fn all() -> Vec<(&'static str, Talk)> {
    let ask = |talk: Talk, n: usize| talk.client(&[query(&format!("SELECT {n}"))]);
    let answer = |talk: Talk, n: usize| {
        let tag = format!("SELECT {n}");
        talk.server(&[columns(), rows(n), command(&tag), ready(b'I')])
    };
    let mut window = ask(ask(Talk::begun(), 1), 2);
    for n in 3..6 {
        window = ask(answer(window, n - 2), n);
    }
    let window = answer(answer(window, 4), 5);
    let cases = queries().into_iter().chain(extended());
    let cases = cases.map(|(name, talk, _)| (name, talk));
    cases.chain([("a window of two", window)]).collect()
}

/// The conversation, and then some more, with pauses.
fn continued(mut talk: Talk) -> Talk {
    for n in 50..54 {
        let text = format!("SELECT {n}");
        talk = talk.pause().client(&[query(&text)]).server(&[
            columns(),
            rows(n),
            command(&text),
            ready(b'I'),
        ]);
    }
    talk
}

fn hear(said: impl IntoIterator<Item = Said>, side: Side) -> Told {
    let mut listener = Listener::new(side);
    said.into_iter().for_each(|said| listener.hear(&said));
    listener.end(Ending::Recording)
}

/// Calls with a latency are among the true ones: the same statement, times, rows and outcome.
fn assert_true(told: &Told, truth: &Told, what: &str) {
    for call in told.calls().filter(|call| call.latency_ns.is_some()) {
        let is_it = |real: &Call| {
            let text = told.text(&call.statement);
            let is_known = text == truth.text(&real.statement) || text.starts_with('<');
            is_known
                && (call.end_ns, call.rows.total()) == (real.end_ns, real.rows.total())
                && (call.start_ns, call.outcome) == (real.start_ns, real.outcome)
        };
        assert!(
            truth.calls().any(is_it),
            "{what}: invented {call:?} {}",
            told.text(&call.statement)
        );
    }
}

/// Bytes may be cut anywhere, and in as many pieces as there are bytes.
#[test]
fn cuts_change_nothing() {
    for (name, talk) in all() {
        let truth = facts(&talk.run(Side::Client));
        for (at, said) in talk.said.iter().enumerate() {
            for cut in 1..said.bytes.len() {
                let mut pieces = talk.said.clone();
                pieces.splice(at..=at, said.split(cut));
                assert_eq!(
                    facts(&hear(pieces, Side::Client)),
                    truth,
                    "{name}: {at} at {cut}"
                );
            }
        }
        let single = talk.said.iter().flat_map(|said| {
            (0..said.bytes.len()).map(|at| {
                let [_, rest] = said.split(at);
                let [byte, _] = rest.split(1);
                byte
            })
        });
        assert_eq!(facts(&hear(single, Side::Client)), truth, "{name}");
    }
}

/// A stream may be entered at any byte: no call is invented, and after a pause all of them are told.
#[test]
fn streams_are_entered_anywhere() {
    for (name, talk) in all() {
        let talk = continued(talk);
        for side in [Side::Client, Side::Server] {
            let truth = talk.run(side);
            let later = talk.said.len() - 8;
            for (at, said) in talk.said[..later].iter().enumerate() {
                for cut in 0..said.bytes.len() {
                    let [_, rest] = said.split(cut);
                    let heard = [rest]
                        .into_iter()
                        .chain(talk.said[at + 1..].iter().cloned());
                    let told = hear(heard, side);
                    let what = format!("{name}, {side:?}: {at} at {cut}");
                    assert_true(&told, &truth, &what);
                    let lines = told.lines();
                    let end = ["SELECT 51: 51", "SELECT 52: 52", "SELECT 53: 53"];
                    assert!(
                        lines.ends_with(&end.map(str::to_owned)),
                        "{what}: {lines:?}"
                    );
                }
            }
        }
    }
}

/// Any one or two chunks may be missing: what is told is true, and what is not told is declared.
#[test]
fn missing_chunks_are_declared() {
    for (name, talk) in all() {
        let talk = continued(talk);
        let truth = talk.run(Side::Client);
        let count = talk.said.len() - 8;
        for first in 0..count {
            for second in first..count {
                let left = talk.said.iter().enumerate();
                let left = left.filter(|(at, _)| *at != first && *at != second);
                let told = hear(left.map(|(_, said)| said.clone()), Side::Client);
                let what = format!("{name} without {first} and {second}");
                assert_true(&told, &truth, &what);
                let lost = told
                    .events
                    .iter()
                    .any(|event| matches!(event, Event::Lost(_)));
                assert!(
                    lost || facts(&told) == facts(&truth),
                    "{what}: {:?}",
                    told.lines()
                );
                assert!(
                    told.lines().ends_with(&["SELECT 53: 53".to_owned()]),
                    "{what}"
                );
            }
        }
    }
}

/// Numbers that look random; George Marsaglia's xorshift64.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}

/// Noise is no call, and costs little memory.
#[test]
fn noise_is_no_call() {
    for seed in 1..200 {
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let mut listener = Listener::new(Side::Client);
        let mut positions = [0_u64; 2];
        for entry_ns in 0..100 {
            let bytes: Vec<u8> = (0..numbers.below(400)).map(|_| numbers.byte()).collect();
            let way = numbers.below(2);
            let hole = [0, 0, 0, 5, 100_000][numbers.below(5)];
            let half = numbers.below(bytes.len() + 1);
            let (head, tail) = bytes.split_at(half);
            listener.take(&Chunk {
                direction: [Direction::Frontend, Direction::Backend][way],
                position: positions[way],
                length: bytes.len() as u64 + hole,
                head,
                tail,
                entry_ns,
                exit_ns: entry_ns,
                tid: 1,
            });
            positions[way] += bytes.len() as u64 + hole + [0, 0, 3][numbers.below(3)];
            assert!(listener.connection.memory() < 1 << 20);
        }
        assert_eq!(listener.end(Ending::Closed).calls().count(), 0);
    }
}

/// Damaged conversations neither panic nor grow, and understanding comes back.
#[test]
fn damage_is_survived() {
    let cases = all();
    for seed in 1..3000_u64 {
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let (name, talk) = &cases[numbers.below(cases.len())];
        let mut damaged = talk.clone();
        for _ in 0..=numbers.below(4) {
            let at = numbers.below(damaged.said.len());
            let bytes = &mut damaged.said[at].bytes;
            let byte = numbers.below(bytes.len());
            bytes[byte] = numbers.byte();
        }
        let mut listener = Listener::new(Side::Client);
        for said in &continued(damaged).said {
            listener.hear(said);
            assert!(listener.connection.memory() < 1 << 20, "{name} {seed}");
        }
        listener.end(Ending::Closed);
    }
}

/// Of a long row nothing but its first bytes is needed: while it passes, none of its bytes have to be copied.
#[test]
fn long_rows_may_pass() {
    const PIECE: usize = 8192;
    let talk = Talk::begun()
        .client(&[query("SELECT 1")])
        .server(&[
            columns(),
            row(&vec![b'x'; 1_000_000]),
            command("SELECT 1"),
            ready(b'I'),
        ])
        .client(&[query("SELECT 2")])
        .server(&[columns(), rows(1), command("SELECT 1"), ready(b'I')]);
    let truth = talk.run(Side::Server);
    let mut listener = Listener::new(Side::Server);
    let mut passed = 0;
    for said in &talk.said {
        let mut rest = said.clone();
        while rest.bytes.len() > PIECE {
            let [piece, behind] = rest.split(PIECE);
            let left = listener.connection.passing_bytes(Direction::Backend);
            let mut chunk = piece.chunk();
            if left >= chunk.length {
                chunk.head = b"";
                passed += chunk.length;
            }
            listener.take(&chunk);
            rest = behind;
        }
        listener.hear(&rest);
    }
    let told = listener.end(Ending::Recording);
    assert!(passed > 900_000);
    assert_eq!(told.lines(), truth.lines());
    let received = |told: &Told| {
        told.calls()
            .map(|call| call.received_bytes)
            .collect::<Vec<_>>()
    };
    assert_eq!(received(&told), received(&truth));
}

/// However much is asked or named, memory is bounded, and what was given up is declared.
#[test]
fn memory_is_bounded() {
    let mut listener = Listener::new(Side::Client);
    let mut talk = Talk::begun();
    for n in 0..200 {
        let name = format!("{n}{}", "n".repeat(60_000));
        talk = talk.client(&[
            parse(&name, "SELECT 1"),
            bind_value(&name, &name, b""),
            execute(&name, 1),
        ]);
    }
    for _ in 0..120 {
        talk = talk.client(&[sync().repeat(1000)]);
    }
    let huge = query(&"x".repeat(10_000_000));
    for piece in huge.chunks(16_384) {
        talk = talk.client(&[piece.to_vec()]);
    }
    for said in &talk.said {
        listener.hear(said);
        assert!(listener.connection.memory() < 24 << 20);
    }
    let told = listener.end(Ending::Closed);
    assert!(
        told.events
            .iter()
            .any(|event| matches!(event, Event::Lost(_)))
    );
}

/// Nothing secret is ever in memory that outlives a chunk: passwords, keys, parameters, rows, data, texts of errors.
#[test]
fn secrets_are_not_kept() {
    let canary = b"CANARY-IN-THE-MINE";
    let text = std::str::from_utf8(canary).unwrap();
    let startup = startup(196_608, &["user", "u", "database", "d"]);
    let fields = format!("SERROR\0VERROR\0C22012\0M{text}\0D{text}\0\0");
    let talk = Talk::default()
        .client(&[startup])
        .server(&[authentication(3, b"")])
        .client(&[message(b'p', &[&canary[..], b"\0"].concat())])
        .server(&[authentication(0, b""), key(1, canary), ready(b'I')])
        .client(&[
            parse("", "SELECT $1"),
            bind_value("", "", canary),
            execute("", 0),
            sync(),
        ])
        .server(&[
            bare(b'1'),
            bare(b'2'),
            row(canary),
            command("SELECT 1"),
            ready(b'I'),
        ])
        .client(&[query("COPY t FROM STDIN")])
        .server(&[copy(b'G')])
        .client(&[data(canary), message(b'f', &[&canary[..], b"\0"].concat())])
        .server(&[
            message(b'E', fields.as_bytes()),
            message(b'N', fields.as_bytes()),
            ready(b'I'),
        ])
        .client(&[query("SELECT 1")])
        .server(&[
            error("22012"),
            message(b'A', &[b"\0\0\0\x01c\0", &canary[..], b"\0"].concat()),
            ready(b'I'),
        ]);
    let cancel = super::wire::first(80_877_102, &[b"\0\0\0\x01", &canary[..]].concat());
    // Six bytes of it are one too many.
    let secret = format!("{:?}", &canary[..6]);
    let secret = secret.trim_matches(['[', ']']);
    let assert_clean = |connection: &Connection, events: &[Event]| {
        let shown = format!("{connection:?} {events:?}");
        assert!(
            !shown.contains(secret) && !shown.contains("CANARY"),
            "{shown}"
        );
    };
    for talk in [talk, Talk::default().client(&[cancel])] {
        let mut listener = Listener::new(Side::Client);
        for said in &talk.said {
            for at in 0..said.bytes.len() {
                let [_, rest] = said.split(at);
                let [byte, _] = rest.split(1);
                listener.hear(&byte);
                assert_clean(&listener.connection, &listener.events);
            }
        }
    }
}
