//! What the times and counts of a call mean.

use super::{
    super::{
        Chunk, Direction, Event, Outcome, Side, Transaction, TransactionEnd, TransactionState,
    },
    wire::{
        Listener, Said, Talk, Told, bare, bind, columns, command, copy, data, describe, error,
        execute, parse, query, ready, rows, sync,
    },
};

fn call_text() -> Vec<u8> {
    [
        parse("", "SELECT $1"),
        bind("", ""),
        describe(b'P', ""),
        execute("", 0),
    ]
    .concat()
}

fn answer(count: usize) -> Vec<u8> {
    let tag = format!("SELECT {count}");
    [
        bare(b'1'),
        bare(b'2'),
        columns(),
        rows(count),
        command(&tag),
    ]
    .concat()
}

/// A call lasts from its first byte to its last one at the client, and from its last byte read to its last one
/// written at the server; the first row and `ReadyForQuery` have times of their own.
#[test]
fn calls_have_the_times_of_their_side() {
    let [parse, rest] = [
        parse("", "SELECT $1"),
        [bind("", ""), execute("", 0), sync()].concat(),
    ];
    // 200 and 300: two sends. 400, 500, 600: three answers. System calls take 50.
    let talk = Talk::begun()
        .client(&[parse])
        .client(&[rest])
        .server(&[bare(b'1'), bare(b'2'), rows(1)])
        .server(&[rows(1), command("SELECT 2")])
        .server(&[ready(b'I')]);
    let times = |side| {
        let told = talk.run(side);
        let call = told.call().clone();
        assert_eq!(call.transaction, Some(TransactionState::Idle));
        let end_ns = call.end_ns.unwrap();
        assert_eq!(call.latency_ns, Some(end_ns - call.start_ns));
        (call.start_ns, call.first_row_ns, end_ns, call.ready_ns)
    };
    assert_eq!(times(Side::Client), (200, Some(450), 550, Some(650)));
    assert_eq!(times(Side::Server), (350, Some(400), 500, Some(600)));
}

/// A Parse whose answer was awaited is not part of the call; its own round trip has its time.
#[test]
fn prepared_round_trips_have_times() {
    let talk = Talk::begun()
        .client(&[parse("s", "SELECT $1"), describe(b'S', "s"), bare(b'H')])
        .server(&[bare(b'1'), super::wire::message(b't', &[0, 0]), columns()])
        .client(&[bind("", "s"), execute("", 0), sync()])
        .server(&[bare(b'2'), rows(1), command("SELECT 1"), ready(b'I')]);
    let told = talk.run(Side::Client);
    let prepared = told.events.iter().find_map(|event| match event {
        Event::Prepared(prepared) => Some((prepared.start_ns, prepared.end_ns)),
        _ => None,
    });
    assert_eq!(prepared, Some((200, 350)));
    assert_eq!((told.call().start_ns, told.call().end_ns), (400, Some(550)));
}

/// Calls in a pipeline wait for those before them; those whose ends came together share the time, which adds up.
#[test]
fn pipelines_share_time() {
    let talk = Talk::begun()
        .client(&[call_text(), call_text()])
        .client(&[call_text(), sync()])
        .server(&[answer(1)])
        .server(&[answer(1), answer(1), ready(b'I')]);
    let told = talk.run(Side::Client);
    let calls: Vec<_> = told
        .calls()
        .map(|call| {
            (
                call.start_ns,
                call.wait_ns(),
                call.latency_ns.unwrap(),
                call.sharing,
            )
        })
        .collect();
    // The first ended at 450; the others came together at 550 and were begun at 200 and 300.
    assert_eq!(
        calls,
        [(200, 0, 250, 1), (200, 250, 50, 2), (300, 150, 50, 2)]
    );
    let ready: Vec<_> = told.calls().map(|call| call.ready_ns).collect();
    assert_eq!(ready, [None, None, Some(550)]);
}

/// A portal's call takes the time of its fetches, without the time between them.
#[test]
fn fetches_add_up() {
    let talk = Talk::begun()
        .client(&[
            parse("", "SELECT g"),
            bind("p", ""),
            execute("p", 1),
            bare(b'H'),
        ])
        .server(&[bare(b'1'), bare(b'2'), rows(1), bare(b's')])
        .pause()
        .client(&[execute("p", 1), sync()])
        .server(&[rows(1), command("SELECT 1"), ready(b'I')]);
    let told = talk.run(Side::Client);
    let call = told.call();
    assert_eq!(
        (call.latency_ns, call.fetches, call.rows.total()),
        (Some(300), 2, 2)
    );
    assert_eq!(call.first_row_ns, Some(350));
    assert_eq!(call.end_ns, Some(2_000_000_550));
}

/// Bytes of a call are those of its messages, whole, both ways.
#[test]
fn bytes_are_counted() {
    let extended = Talk::begun()
        .client(&[call_text(), sync()])
        .server(&[answer(2), ready(b'I')])
        .run(Side::Client);
    let bytes = (call_text().len() as u64, answer(2).len() as u64);
    let call = extended.call();
    assert_eq!((call.sent_bytes, call.received_bytes), bytes);
    let text = query("SELECT 1");
    let result = [columns(), rows(3), command("SELECT 3")].concat();
    let simple = Talk::begun()
        .client(std::slice::from_ref(&text))
        .server(&[result.clone(), ready(b'I')])
        .run(Side::Server);
    let call = simple.call();
    assert_eq!(call.sent_bytes, text.len() as u64);
    assert_eq!(call.received_bytes, result.len() as u64);
}

fn transactions(told: &Told) -> Vec<Transaction> {
    let transaction = |event: &Event| match event {
        Event::Transaction(transaction) => Some(*transaction),
        _ => None,
    };
    told.events.iter().filter_map(transaction).collect()
}

/// A transaction lasts from the call that begins it to the `ReadyForQuery` that ends it; in it the server may wait.
#[test]
fn transactions_have_idle_times() {
    let say = |talk: Talk, text: &str, state: u8| {
        talk.client(&[query(text)])
            .server(&[command(text), ready(state)])
    };
    let mut talk = say(Talk::begun(), "BEGIN", b'T');
    talk = say(talk.pause(), "UPDATE", b'T');
    talk = say(talk, "COMMIT", b'I');
    let talk = say(talk, "BEGIN", b'T');
    let talk = talk
        .client(&[query("UPDATE")])
        .server(&[error("40001"), ready(b'E')]);
    let talk = say(say(talk, "ROLLBACK", b'I'), "BEGIN", b'T');
    let told = talk.run(Side::Client);
    let [first, second, third] = transactions(&told).try_into().unwrap();
    let expected = Transaction {
        begin_ns: Some(200),
        end_ns: 2_000_000_750,
        idle_ns: 2_000_000_050 + 50,
        idle_spells: 2,
        longest_idle_ns: 2_000_000_050,
        end: TransactionEnd::Committed,
    };
    assert_eq!(first, expected);
    assert_eq!(second.end, TransactionEnd::RolledBack);
    assert_eq!(
        (third.end, third.begin_ns),
        (TransactionEnd::Open, Some(2_000_001_400))
    );
}

/// Hears a chunk of which only the ends were copied.
fn hear_ends(listener: &mut Listener, said: &Said, head: usize, tail: usize) {
    let chunk = said.chunk();
    let (head, tail) = if said.bytes.len() > head + tail {
        (&said.bytes[..head], &said.bytes[said.bytes.len() - tail..])
    } else {
        (&said.bytes[..], &b""[..])
    };
    listener.take(&Chunk {
        head,
        tail,
        ..chunk
    });
}

/// An answer that was not copied whole ends where it ends, with the rows that its tag tells.
#[test]
fn long_answers_need_their_ends_only() {
    let result = [columns(), rows(5_000), command("SELECT 5000")].concat();
    let mut talk = Talk::begun().client(&[call_text(), sync()]);
    let bytes = [bare(b'1'), bare(b'2'), result.clone(), ready(b'I')].concat();
    for piece in bytes.chunks(8192) {
        talk = talk.server(&[piece.to_vec()]);
    }
    let end_ns = talk.said.last().unwrap().entry_ns + 50;
    let talk = talk.client(&[query("SELECT 1")]).server(&[
        columns(),
        rows(1),
        command("SELECT 1"),
        ready(b'I'),
    ]);
    let mut listener = Listener::new(Side::Client);
    for said in &talk.said {
        hear_ends(&mut listener, said, 64, 256);
    }
    let told = listener.end(super::super::Ending::Recording);
    assert_eq!(told.lines(), ["SELECT $1: 5000", "SELECT 1: 1"]);
    let call = told.calls().next().unwrap();
    assert_eq!(
        (call.end_ns, call.latency_ns),
        (Some(end_ns), Some(end_ns - 200))
    );
    assert_eq!(
        (call.ready_ns, call.first_row_ns),
        (Some(end_ns), Some(350))
    );
    assert_eq!(call.received_bytes, 10 + result.len() as u64);
    assert!(
        !told
            .events
            .iter()
            .any(|event| matches!(event, Event::Lost(_)))
    );
}

/// Where a request is missing too, such an answer is nobody's.
#[test]
fn long_answers_are_not_of_requests_before_missing_ones() {
    let result = [columns(), rows(5_000), command("SELECT 5000"), ready(b'I')].concat();
    let talk = Talk::begun()
        .client(&[query("SELECT 1")])
        .client(&[query("SELECT 2")])
        .server(&[columns(), rows(1), command("SELECT 1"), ready(b'I'), result])
        .client(&[query("SELECT 3")]);
    let mut listener = Listener::new(Side::Client);
    for (at, said) in talk.said.iter().enumerate() {
        if at != 3 {
            hear_ends(&mut listener, said, 20, 256);
        }
    }
    let told = listener.end(super::super::Ending::Recording);
    assert!(
        told.calls().all(|call| call.latency_ns.is_none()),
        "{:?}",
        told.events
    );
    assert_eq!(told.calls().next().unwrap().outcome, Outcome::Unseen);
}

/// Texts, parameters and data that were not copied whole cost nothing but the end of the text.
#[test]
fn long_requests_need_their_beginnings_only() {
    let long = "x".repeat(20_000);
    let talk = Talk::begun()
        .client(&[query(&format!("INSERT {long}"))])
        .server(&[command("INSERT 0 1"), ready(b'I')])
        .client(&[
            parse("", "SELECT $1"),
            super::wire::bind_value("", "", long.as_bytes()),
            execute("", 0),
            sync(),
        ])
        .server(&[
            bare(b'1'),
            bare(b'2'),
            rows(1),
            command("SELECT 1"),
            ready(b'I'),
        ])
        .client(&[query("COPY t FROM STDIN")])
        .server(&[copy(b'G')])
        .client(&[data(b"row\n").repeat(3000), bare(b'c')])
        .server(&[command("COPY 3000"), ready(b'I')])
        .pause()
        .client(&[query("SELECT 1")])
        .server(&[columns(), rows(1), command("SELECT 1"), ready(b'I')]);
    let mut listener = Listener::new(Side::Server);
    for said in &talk.said {
        hear_ends(&mut listener, said, 60, 64);
    }
    let told = listener.end(super::super::Ending::Recording);
    let lines = told.lines();
    assert_eq!(lines[0], format!("INSERT {}...: 1", &long[..60 - 12]));
    assert_eq!(lines[1], "SELECT $1: 1");
    assert!(
        lines[2].starts_with("COPY t FROM STDIN: 3000 in "),
        "{lines:?}"
    );
    assert_eq!(lines[3], "SELECT 1: 1");
}

/// Each direction has its own positions, and what was seen twice is taken once.
#[test]
fn repeated_bytes_are_taken_once() {
    let talk = Talk::begun().client(&[query("SELECT 1")]).server(&[
        columns(),
        rows(1),
        command("SELECT 1"),
        ready(b'I'),
    ]);
    let mut listener = Listener::new(Side::Client);
    for said in &talk.said {
        let [first, _] = said.split(said.bytes.len() / 2);
        listener.hear(&first);
        listener.hear(said);
        listener.hear(said);
    }
    assert!(
        talk.said
            .iter()
            .any(|said| said.direction == Direction::Backend)
    );
    let told = listener.end(super::super::Ending::Recording);
    assert_eq!(told.lines(), ["SELECT 1: 1"]);
}
