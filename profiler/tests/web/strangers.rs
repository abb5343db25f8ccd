//! Connections that are slow, silent or senseless, beside those that are answered.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use super::Site;

/// Two hundred connections that go on with their headers byte by byte keep nobody out: page,
/// metrics and health are answered beside them.
#[test]
fn slow_connections_do_not_stop_it() {
    let site = Site::start();
    let mut slow: Vec<TcpStream> = (0..200).map(|_| slow_header(&site)).collect();
    for path in ["/", "/metrics", "/healthz"] {
        let (head, _) = site.get(path);
        let health = path == "/healthz" && head.starts_with("http/1.1 503");
        assert!(head.starts_with("http/1.1 200") || health, "{path}: {head}");
        for stream in &mut slow {
            // Some of them have given way.
            let _ = stream.write_all(b"a");
        }
    }
}

/// A header that does not come to its end is not waited for, however often something is added to
/// it.
#[test]
fn slow_header_is_cut_off() {
    let site = Site::start();
    let mut slow = slow_header(&site);
    let waits = slow.set_read_timeout(Some(Duration::from_millis(200)));
    waits.expect("it can wait");
    let gone = (0..250).find(|_| {
        let _ = slow.write_all(b"a");
        match slow.read(&mut [0; 64]) {
            Ok(length) => length == 0,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        }
    });
    assert!(gone.is_some(), "it is waited for");
}

/// Answers that nobody reads keep nobody out either.
#[test]
fn unread_answers_do_not_stop_it() {
    let site = Site::start();
    let request = b"GET /flamegraph.svg?since=5m HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let unread: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", site.port())).expect("it listens");
            stream.write_all(request).expect("it is read");
            stream
        })
        .collect();
    assert!(site.get("/metrics").0.starts_with("http/1.1 200"));
    assert!(site.get("/healthz").0.starts_with("http/1.1 503"));
    drop(unread);
}

fn slow_header(site: &Site) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", site.port())).expect("somebody listens");
    let header = b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ";
    stream.write_all(header).expect("it is taken");
    stream
}

/// What is too long or means nothing is refused without a word of it.
#[test]
fn nonsense_is_refused_without_an_echo() {
    let site = Site::start();
    let long = format!("/?unit={}", "a".repeat(3000));
    assert!(site.get(&long).0.starts_with("http/1.1 414"));
    let mut header = vec!["Host: localhost".to_owned()];
    header.extend((0..100).map(|number| format!("X-{number}: a")));
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    assert!(site.ask("GET /", &header).0.starts_with("http/1.1 431"));
    for path in ["/", "/flamegraph.svg", "/queries", "/tcp", "/syscalls"] {
        for query in [
            "since=marker",
            "until=marker",
            "mode=marker",
            "pid=marker",
            "comm=marker-that-is-longer",
            "since=1h&since=marker",
            "since=%ffmarker",
        ] {
            let (head, body) = site.get(&format!("{path}?{query}"));
            assert!(!body.contains("marker"), "{path}?{query}: {body}");
            assert!(
                head.contains("nosniff") && head.contains("no-store"),
                "{head}"
            );
            assert!(head.contains("content-security-policy"), "{head}");
        }
        assert!(
            site.get(&format!("{path}?since=marker"))
                .0
                .starts_with("http/1.1 400")
        );
    }
}
