//! Beginnings and ends of connections.

use super::{
    super::{
        Authentication, Ending, Event, Flow, Opaque, Recognition, Replication, Session, Side,
        recognise,
    },
    wire::{
        Listener, Talk, authentication, bind, columns, command, copy, data, error_of, execute,
        first, key, message, parameter, parse, query, ready, row, rows, startup, sync,
    },
};

fn session(talk: &Talk) -> Session {
    let told = talk.run(Side::Client);
    let sessions = told.events.into_iter().find_map(|event| match event {
        Event::Session(session) => Some(*session),
        _ => None,
    });
    sessions.unwrap()
}

/// A start-up tells who connects to what, and how long it took; every method of authentication is passed over.
#[test]
fn sessions_are_told() {
    let parameters = [
        "user",
        "alice",
        "database",
        "shop",
        "options",
        "-c x=y",
        "application_name",
        "web",
    ];
    let asked = [
        (Authentication::Password, 3, &b""[..]),
        (Authentication::Md5, 5, b"salt"),
        (Authentication::Gss, 7, b""),
        (Authentication::Sspi, 9, b""),
        (Authentication::Kerberos, 2, b""),
        (Authentication::Scram, 10, b"SCRAM-SHA-256\0\0"),
        (Authentication::OAuth, 10, b"OAUTHBEARER\0\0"),
        (Authentication::Other(99), 99, b""),
    ];
    for (method, kind, rest) in asked {
        let talk = Talk::default()
            .client(&[first(80_877_104, b"")])
            .server(&[b"N".to_vec()])
            .client(&[first(80_877_103, b"")])
            .server(&[b"N".to_vec()])
            .client(&[startup(196_610, &parameters)])
            .server(&[authentication(kind, rest)])
            .client(&[message(b'p', b"secret\0")])
            .server(&[authentication(11, b"continue")])
            .client(&[message(b'p', b"secret")])
            .server(&[authentication(12, b"final"), authentication(0, b"")])
            .server(&[
                message(b'v', &[0, 3, 0, 0, 0, 0, 0, 0]),
                parameter(),
                key(77, &[7; 32]),
                ready(b'I'),
            ])
            .client(&[query("SELECT 1")])
            .server(&[columns(), rows(1), command("SELECT 1"), ready(b'I')]);
        assert_eq!(talk.run(Side::Client).lines(), ["SELECT 1: 1"]);
        let expected = Session {
            user: "alice".to_owned(),
            database: "shop".to_owned(),
            application_name: "web".to_owned(),
            replication: Replication::None,
            minor_version: 0,
            backend_pid: Some(77),
            authentication: Some(method),
            start_ns: 400,
            end_ns: 1050,
            failure: None,
        };
        assert_eq!(session(&talk), expected);
    }
    let trusted = session(&Talk::begun());
    assert_eq!(
        (trusted.minor_version, trusted.authentication),
        (0, Some(Authentication::None))
    );
    let refused = Talk::default()
        .client(&[startup(196_608, &["user", "eve"])])
        .server(&[error_of("FATAL", "28P01")]);
    let refused = session(&refused);
    assert_eq!(refused.failure.unwrap().sqlstate.to_string(), "28P01");
    assert_eq!(refused.database, "eve");
}

/// What cannot be read says why, once, and nothing is told of it.
#[test]
fn opaque_streams_are_named() {
    let hello = [&[0x16, 3, 1, 1, 0, 1, 0, 0, 0xfc][..], &[3; 300]].concat();
    let later = |talk: Talk| {
        talk.client(&[query("SELECT 1")])
            .server(&[command("SELECT 0"), ready(b'I')])
    };
    let logical = startup(
        196_608,
        &["user", "r", "database", "d", "replication", "database"],
    );
    let cases = [
        (
            Talk::default()
                .client(&[first(80_877_103, b"")])
                .server(&[b"S".to_vec()]),
            Opaque::Tls,
        ),
        (
            Talk::default()
                .client(&[first(80_877_104, b"")])
                .server(&[b"G".to_vec()]),
            Opaque::Gss,
        ),
        (Talk::default().client(&[hello]), Opaque::DirectTls),
        (
            Talk::default()
                .client(&[logical])
                .server(&[authentication(0, b""), ready(b'I')])
                .client(&[query("START_REPLICATION")])
                .server(&[copy(b'W'), data(b"w")]),
            Opaque::Replication,
        ),
    ];
    for (talk, opaque) in cases {
        let told = later(talk).run(Side::Client);
        let named = told
            .events
            .iter()
            .filter(|event| **event == Event::Opaque(opaque));
        assert_eq!(named.count(), 1, "{opaque:?}: {:?}", told.events);
        assert!(
            told.lines()
                .iter()
                .all(|line| line == "START_REPLICATION: Unfinished")
        );
    }
    let replicates = Talk::default()
        .client(&[startup(196_608, &["user", "r", "replication", "true"])])
        .server(&[authentication(0, b""), ready(b'I')]);
    assert_eq!(session(&replicates).replication, Replication::Physical);
}

/// A request to cancel is counted, with a key of any length.
#[test]
fn cancels_are_counted() {
    for key in [4, 32, 256] {
        let talk = Talk::default().client(&[first(80_877_102, &vec![9; 4 + key])]);
        assert_eq!(
            talk.run(Side::Client).events,
            [Event::Cancel { time_ns: 0 }]
        );
    }
}

/// The end of a connection ends what is under way; what the server says of it is told.
#[test]
fn ends_are_told() {
    let talk = Talk::begun()
        .client(&[
            query("SELECT 1;SELECT 2"),
            parse("", "SELECT $1"),
            bind("", ""),
            execute("", 0),
            sync(),
        ])
        .server(&[columns(), rows(1), command("SELECT 1"), columns(), rows(7)]);
    let end = |ending| {
        let mut listener = Listener::new(Side::Client);
        talk.said.iter().for_each(|said| listener.hear(said));
        let told = listener.end(ending);
        let ends = told
            .calls()
            .map(|call| (call.latency_ns.is_some(), call.end_ns))
            .collect::<Vec<_>>();
        (told.lines(), ends)
    };
    let (lines, ends) = end(Ending::Closed);
    assert_eq!(
        lines,
        ["SELECT 1: 1", "SELECT 2: Aborted", "SELECT $1: Aborted"]
    );
    assert_eq!(
        ends,
        [(true, Some(350)), (false, Some(400)), (false, Some(400))]
    );
    let (lines, _) = end(Ending::Recording);
    assert_eq!(
        lines,
        [
            "SELECT 1: 1",
            "SELECT 2: Unfinished",
            "SELECT $1: Unfinished"
        ]
    );

    let terminated = |talk: Talk| {
        let told = talk.run(Side::Client);
        let codes = told.events.iter().filter_map(|event| match event {
            Event::Terminated { failure, .. } => Some(failure.sqlstate.to_string()),
            _ => None,
        });
        (told.lines(), codes.collect::<Vec<_>>())
    };
    let idle = Talk::begun().server(&[error_of("FATAL", "57P01")]);
    assert_eq!(terminated(idle), (vec![], vec!["57P01".to_owned()]));
    let busy = Talk::begun()
        .client(&[query("SELECT 1")])
        .server(&[error_of("FATAL", "57P01")]);
    assert_eq!(
        terminated(busy),
        (vec!["SELECT 1: 57P01".to_owned()], vec!["57P01".to_owned()])
    );
}

/// A socket is recognised by a start-up packet or by messages in the right direction, from either end.
#[test]
fn sockets_are_recognised() {
    let begin = startup(196_610, &["user", "u"]);
    let request = query("SELECT 1");
    let pipeline = [parse("", "SELECT 1"), bind("", ""), execute("", 0), sync()].concat();
    let answer = [columns(), row(b"1"), command("SELECT 1"), ready(b'I')].concat();
    let long = query(&"x".repeat(30_000));
    let cases: [(&[u8], &[u8], bool); 9] = [
        (&begin, b"", true),
        (&first(80_877_103, b""), b"", true),
        (&first(80_877_102, &[1; 8]), b"", true),
        (&request, &answer, true),
        (&pipeline, b"", true),
        (b"", &answer[..answer.len() - 20], true),
        (&answer[9..], &answer, true),
        (&long[..16_384], b"S", false),
        (b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", false),
    ];
    for (to_server, from_server, is_postgres) in cases {
        let speaks = |side| {
            if is_postgres {
                Recognition::Postgres(side)
            } else {
                Recognition::Undecided
            }
        };
        let client = [(Flow::Sent, to_server), (Flow::Received, from_server)];
        assert_eq!(recognise(&client), speaks(Side::Client), "{to_server:?}");
        let server = [(Flow::Received, to_server), (Flow::Sent, from_server)];
        assert_eq!(recognise(&server), speaks(Side::Server), "{to_server:?}");
    }
    assert_eq!(
        recognise(&[(Flow::Sent, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc][..])]),
        Recognition::Tls
    );
}

/// What was encrypted before it was seen is known by its records: whole ones, or the header of one, which is read alone.
#[test]
fn records_of_tls_are_recognised() {
    let record = [23, 3, 3, 0, 2, 0xaa, 0xbb];
    let two = [&record[..], &[21, 3, 3, 0, 1, 0]].concat();
    for bytes in [&record[..], &two, &record[..5]] {
        assert_eq!(
            recognise(&[(Flow::Received, bytes)]),
            Recognition::Tls,
            "{bytes:?}"
        );
    }
    let too_long = [23, 3, 3, 0xff, 0xff];
    let no_version = [23, 3, 9, 0, 2, 0xaa, 0xbb];
    for bytes in [
        &record[..4],
        &record[..6],
        &two[..9],
        &too_long,
        &no_version,
        &[],
    ] {
        assert_eq!(
            recognise(&[(Flow::Received, bytes)]),
            Recognition::Undecided,
            "{bytes:?}"
        );
    }
}
