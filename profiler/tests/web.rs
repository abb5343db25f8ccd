//! The page as others see it: a server of the test's own over a store of the test's own, asked over a socket, judged
//! by promtool and Chromium where they are.

#![expect(
    clippy::expect_used,
    reason = "a test stops where its ground gives way"
)]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

mod browser;
#[path = "web/strangers.rs"]
mod strangers;

use std::{
    env,
    io::{Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use flate2::{Compression, write::GzEncoder};
use profiler::{
    daemon::status::Status,
    export::Exports,
    output::{self, Format, Options},
    report,
    store::{Capability, Store, WindowName},
    web::{Listen, Server, Sources, Web},
};
use serde_json::json;
use tempfile::TempDir;

use crate::browser::Browser;

/// A server over two windows that end now.
struct Site {
    server: Server,
    state: TempDir,
}

impl Site {
    fn start() -> Self {
        Self::with(&[])
    }

    /// Likewise, with windows of tables.
    fn with(tables: &[(Capability, &str)]) -> Self {
        let state = tempfile::tempdir().expect("a folder");
        fill(state.path(), tables);
        let listen = "127.0.0.1:0".parse().expect("it is an address");
        Self::serve(state, listen, None)
    }

    fn serve(state: TempDir, listen: Listen, token: Option<&str>) -> Self {
        let token_file = token.map(|token| {
            let path = state.path().join("token");
            std::fs::write(&path, token).expect("it can be written");
            path
        });
        let sources = Sources {
            state: state.path().to_owned(),
            status: Arc::<Status>::default(),
            exports: Exports::default(),
        };
        let web = Web {
            listen,
            token_file,
            top_queries: 50,
        };
        let server = Server::start(&web, sources).expect("it listens");
        Self { server, state }
    }

    fn port(&self) -> u16 {
        self.server.address().expect("it has one").port()
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port())
    }

    /// The answer to a request with these headers: head and body.
    fn ask(&self, request: &str, headers: &[&str]) -> (String, String) {
        let stream = TcpStream::connect(("127.0.0.1", self.port())).expect("somebody listens");
        ask(stream, request, headers)
    }

    fn get(&self, path: &str) -> (String, String) {
        self.ask(&format!("GET {path}"), &["Host: localhost"])
    }
}

fn ask(mut stream: impl Read + Write, request: &str, headers: &[&str]) -> (String, String) {
    let lines = [headers, &[""]].concat().join("\r\n");
    let request = format!("{request} HTTP/1.1\r\n{lines}\r\n");
    stream.write_all(request.as_bytes()).expect("it is read");
    let mut answer = Vec::new();
    // Nothing is said after `Connection: close`.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").expect("it is HTTP");
    (head.to_ascii_lowercase(), body.to_owned())
}

/// Two windows of a minute, the last of which ends now, and such of tables.
fn fill(state: &Path, tables: &[(Capability, &str)]) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is later");
    let now_ms = u64::try_from(now.as_millis()).expect("it is sooner");
    let text = b"nginx;main;serve_request;read_[k] 700\nnginx;main;parse_headers 150\n\
        <b>evil</b>;main;work 100\ncron;main;poll 50\n";
    let store = Store::open(state).expect("it is ours");
    for minutes in [2, 1] {
        let mut profile = report::read(text).expect("they are stacks");
        profile.meta.frequency_hz = 19;
        "host".clone_into(&mut profile.meta.title);
        profile.meta.duration = Duration::from_secs(60);
        let bytes = output::render(&profile, Format::Pprof, &Options::default());
        let begin_ms = now_ms - minutes * 60_000;
        let name = WindowName::new(Capability::Sampling, (begin_ms, begin_ms + 60_000), "host");
        store
            .write(name, &bytes.expect("it can be written"))
            .expect("there is room");
    }
    for (capability, window) in tables {
        let mut bytes = GzEncoder::new(Vec::new(), Compression::fast());
        bytes.write_all(window.as_bytes()).expect("there is room");
        let bytes = bytes.finish().expect("there is room");
        let name = WindowName::new(*capability, (now_ms - 60_000, now_ms), "host");
        store.write(name, &bytes).expect("there is room");
    }
}

/// Every answer forbids what it does not need, and the page holds the windows.
#[test]
fn page_holds_the_windows() {
    let site = Site::start();
    let (head, body) = site.get("/?since=5m");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    for header in [
        "content-security-policy: default-src 'none'; script-src 'self'",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
    ] {
        assert!(head.contains(header), "no {header} in {head}");
    }
    assert!(!head.contains("unsafe"), "{head}");
    assert!(body.contains("1,700") && body.contains("85.0 %"), "{body}");
    assert!(!body.contains("<b>evil"), "names are text");
    for path in ["/style.css", "/page.js"] {
        assert!(site.get(path).0.starts_with("http/1.1 200"));
    }
    assert!(site.get("/?since=nonsense").0.starts_with("http/1.1 400"));
    assert!(
        site.get("/?since=2020-01-01&until=2020-01-02")
            .1
            .contains("No samples")
    );
}

/// The picture is of the store, narrowed down as asked, and nothing runs in it but its own script.
#[test]
fn picture_is_of_the_store() {
    let site = Site::start();
    let (head, body) = site.get("/flamegraph.svg?since=5m");
    assert!(
        head.contains("image/svg+xml") && !head.contains("unsafe-inline"),
        "{head}"
    );
    let nonce = head
        .split("'nonce-")
        .nth(1)
        .and_then(|rest| rest.split('\'').next());
    // The head is in lower case by now.
    let nonce = nonce.expect("there is one");
    assert!(
        body.to_ascii_lowercase()
            .contains(&format!("<script nonce=\"{nonce}\""))
    );
    assert!(body.contains("serve_request") && body.contains("poll"));
    let (_, nginx) = site.get("/flamegraph.svg?since=5m&comm=ngin*");
    assert!(nginx.contains("serve_request") && !nginx.contains("poll"));
    assert!(
        site.get("/flamegraph.svg?since=2020-01-01&until=2020-01-02")
            .0
            .starts_with("http/1.1 404")
    );
    let other = site.get("/flamegraph.svg?since=5m").0;
    assert!(!other.contains(nonce), "a nonce is used once");
}

/// The tables of connections and system calls are linked from the page, say what turns them on, and refuse nonsense.
#[test]
fn tables_have_pages() {
    let site = Site::start();
    let (_, overview) = site.get("/?since=1h&comm=nginx");
    for path in ["/tcp", "/syscalls"] {
        let link = format!("href=\"{path}?since=1h&amp;until=&amp;comm=nginx");
        assert!(overview.contains(&link), "{overview}");
        let (head, body) = site.get(&format!("{path}?since=1h&comm=nginx"));
        assert!(head.starts_with("http/1.1 200"), "{head}");
        assert!(body.contains("Nothing of this time was kept"), "{body}");
        let (head, _) = site.get(&format!("{path}?pid=x"));
        assert!(head.starts_with("http/1.1 400"), "{head}");
    }
}

/// Other names, other methods and other paths get nothing.
#[test]
fn strangers_get_nothing() {
    let site = Site::start();
    for headers in [
        &["Host: evil.example"][..],
        &["Host: 10.0.0.1"],
        &["Host: localhost.evil.example"],
        &["Host: localhost:99@evil.example"],
        &["Host: localhost", "Host: evil.example"],
        &[],
    ] {
        let (head, body) = site.ask("GET /", headers);
        assert!(
            head.starts_with("http/1.1 421") && !body.contains("nginx"),
            "{head}"
        );
    }
    let whole = site.ask("GET http://evil.example/", &["Host: localhost"]);
    assert!(whole.0.starts_with("http/1.1 421"), "{}", whole.0);
    assert!(
        site.ask("POST /", &["Host: localhost", "Content-Length: 0"])
            .0
            .starts_with("http/1.1 405")
    );
    assert!(
        site.ask("DELETE /metrics", &["Host: localhost"])
            .0
            .starts_with("http/1.1 405")
    );
    assert!(site.get("/../etc/passwd").0.starts_with("http/1.1 404"));
}

/// A unix socket is for owner and group, and gone with the server.
#[test]
fn unix_socket_answers() {
    let state = tempfile::tempdir().expect("a folder");
    let path = state.path().join("web.sock");
    let site = Site::serve(state, Listen::Unix(path.clone()), None);
    let mode = std::fs::metadata(&path)
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    let stream = UnixStream::connect(&path).expect("somebody listens");
    let (head, _) = ask(stream, "GET /metrics", &["Host: whatever"]);
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let Site { server, state } = site;
    drop(server);
    assert!(!path.exists());
    drop(state);
}

/// With a token nobody without it gets anything, by any name.
#[test]
fn token_is_wanted() {
    let state = tempfile::tempdir().expect("a folder");
    let listen = "127.0.0.1:0".parse().expect("it is an address");
    let site = Site::serve(state, listen, Some("0123456789abcdef\n"));
    assert!(site.get("/metrics").0.starts_with("http/1.1 401"));
    let shown = [
        "Host: prometheus.example",
        "Authorization: Bearer 0123456789abcdef",
    ];
    assert!(
        site.ask("GET /metrics", &shown)
            .0
            .starts_with("http/1.1 200")
    );
}

/// A daemon whose main loop has not said anything is not healthy.
#[test]
fn silence_is_not_healthy() {
    let (head, body) = Site::start().get("/healthz");
    assert!(head.starts_with("http/1.1 503"), "{head}");
    assert_eq!(body, "starting\n");
}

/// What a program said; `None` where it is missing, which is a failure in CI if it must not be.
fn run(command: &mut Command, must_be: bool) -> Option<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.output() {
        Ok(output) => Some(output),
        Err(error) => {
            let ci = env::var("CI").is_ok_and(|value| value == "true");
            assert!(!(ci && must_be), "`{program}` cannot be run: {error}");
            eprintln!("skipped: `{program}` cannot be run: {error}");
            None
        }
    }
}

/// Prometheus' own tool finds nothing to complain of, and the default answer is `OpenMetrics` to its end.
#[test]
fn promtool_accepts_the_metrics() {
    let site = Site::start();
    let (head, body) = site.get("/metrics");
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(body.ends_with("# EOF\n"), "{body}");
    let (head, text) = site.ask("GET /metrics", &["Host: localhost", "Accept: text/plain"]);
    assert!(
        head.contains("content-type: text/plain; version=0.0.4"),
        "{head}"
    );
    if run(Command::new("promtool").arg("--version"), true).is_none() {
        return;
    }
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut input = promtool.stdin.take().expect("it has one");
    input.write_all(text.as_bytes()).expect("it reads");
    drop(input);
    let output = promtool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.is_empty(),
        "{said}\nof\n{text}"
    );
}

/// A page of the site in a browser, where there is one.
fn browse(site: &Site) -> Option<Browser> {
    Browser::start(&site.state.path().join("chromium"))
}

/// Its policy forbade nothing that it wants, and it came from here only.
#[track_caller]
fn assert_at_home(browser: &Browser, site: &Site) {
    assert_eq!(browser.complaints(), [""; 0]);
    let home = site.url("/");
    let fetched = browser.fetched();
    assert!(!fetched.is_empty());
    assert!(
        fetched.iter().all(|url| url.starts_with(&home)),
        "{fetched:?}"
    );
}

/// In a browser the page's tables are sorted by a click, and back, under its policy.
#[test]
fn tables_are_sorted_by_a_click() {
    const PROCESSES: &str = "Array.from(document.querySelector('table.sortable').tBodies[0].rows, row => row.cells[1].textContent)";
    const HEAD: &str = "document.querySelectorAll('table.sortable th button')[1]";
    let site = Site::start();
    let Some(mut browser) = browse(&site) else {
        return;
    };
    browser.open(&site.url("/?since=5m"));
    assert_eq!(
        browser.ask(PROCESSES),
        json!(["nginx", "<b>evil</b>", "cron"]),
        "by samples"
    );
    browser.click(HEAD);
    assert_eq!(
        browser.ask(PROCESSES),
        json!(["nginx", "cron", "<b>evil</b>"]),
        "by name, downwards"
    );
    browser.click(HEAD);
    assert_eq!(
        browser.ask(PROCESSES),
        json!(["<b>evil</b>", "cron", "nginx"]),
        "upwards"
    );
    assert_at_home(&browser, &site);
}

/// So are those of connections and system calls, by figures of which the page has short forms.
#[test]
fn kept_tables_are_sorted_by_a_click() {
    const LAST: &str = "Array.from(document.querySelector('table.sortable').tBodies[0].rows, row => row.cells[row.cells.length - 1].textContent)";
    let site = Site::with(&[
        (Capability::Tcp, include_str!("window-tcp.json")),
        (Capability::Syscalls, include_str!("window-syscalls.json")),
    ]);
    let Some(mut browser) = browse(&site) else {
        return;
    };
    let (client, server) = ("127.0.0.1:41785", "127.0.0.1 -> our 41785");
    for (path, head, unsorted, sorted) in [
        (
            "/tcp",
            "sent",
            [client, server].to_vec(),
            [server, client].to_vec(),
        ),
        (
            "/syscalls",
            "mean",
            ["recvfrom", "close", "sendto"].to_vec(),
            ["close", "recvfrom", "sendto"].to_vec(),
        ),
    ] {
        browser.open(&site.url(&format!("{path}?since=5m")));
        assert_eq!(browser.ask(LAST), json!(unsorted), "{path}");
        let head = format!(
            "Array.from(document.querySelectorAll('table.sortable th button')).find(button => button.textContent.startsWith('{head}'))"
        );
        browser.click(&head);
        assert_eq!(browser.ask(LAST), json!(sorted), "{path}, downwards");
        browser.click(&head);
        let upwards: Vec<_> = sorted.into_iter().rev().collect();
        assert_eq!(browser.ask(LAST), json!(upwards), "{path}, upwards");
        assert_at_home(&browser, &site);
    }
}

/// In a browser a click on a frame of the flamegraph makes it as wide as all, a search marks what it finds.
#[test]
fn frames_are_zoomed_by_a_click() {
    const FRAME: &str = "Array.from(document.querySelectorAll('#frames g')).find(frame => \
        frame.querySelector('title').textContent.startsWith('parse_headers')).querySelector('rect')";
    let site = Site::start();
    let Some(mut browser) = browse(&site) else {
        return;
    };
    browser.open(&site.url("/flamegraph.svg?since=5m&s=serve_request"));
    let marked = browser.ask("document.querySelectorAll('[fill=\"rgb(230,0,230)\"]').length");
    assert_eq!(marked, 1, "what was searched for is marked");
    let mut share = || {
        let share = format!(
            "{FRAME}.getBoundingClientRect().width / document.querySelector('#frames').getBoundingClientRect().width"
        );
        browser.ask(&share).as_f64().expect("a number")
    };
    let before = share();
    assert!((0.1..0.2).contains(&before), "{before}");
    browser.click(FRAME);
    let mut share = || {
        let share = format!("{FRAME}.getBoundingClientRect().width / innerWidth");
        browser.ask(&share).as_f64().expect("a number")
    };
    let zoomed = share();
    assert!(zoomed > 0.9, "{before} of all, then {zoomed}");
    assert_at_home(&browser, &site);
}
