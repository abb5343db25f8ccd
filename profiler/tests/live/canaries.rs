//! One secret of each kind that a target has, sought in everything that the profiler makes: no output, window, log,
//! metric, page or export has one, in no notation.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::{net::UnixStream, process::CommandExt},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::scope,
};

use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use flate2::read::MultiGzDecoder;

use crate::{
    bench::{Bench, Target, bench, text},
    postgres::Postgres,
    queries::sql,
    raw::Raw,
    service::Daemon,
};

/// Kinds of secrets, with what makes a secret of them that cannot be there by chance.
const KINDS: [&str; 24] = [
    "environment",
    "HTTP header",
    "HTTP authorization",
    "HTTP body",
    "literal in UTF-8",
    "literal in SJIS",
    "literal in BIG5",
    "literal in GBK",
    "literal in GB18030",
    "literal, prepared",
    "parameter as text",
    "parameter in binary",
    "password at the start",
    "password of a role",
    "value of a setting",
    "COPY data",
    "row",
    "text of an error",
    "detail of an error",
    "refused word",
    "refused name",
    "comment",
    "payload of a notification",
    "argument",
];

/// Secrets by their kind.
struct Secrets(BTreeMap<&'static str, String>);

impl Secrets {
    fn draw() -> Self {
        let mut random = [0; 16 * KINDS.len()];
        let mut source = File::open("/dev/urandom").expect("it is there");
        source.read_exact(&mut random).expect("it has enough");
        // Letters only: a word of SQL, a value of HTTP, an option.
        let word = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|byte| char::from(b'a' + byte % 26))
                .collect()
        };
        let words = random.chunks(16).map(word);
        Self(KINDS.into_iter().zip(words).collect())
    }

    fn of(&self, kind: &str) -> &str {
        &self.0[kind]
    }

    /// Fails where one of them is in these bytes, or in what they are packed from.
    #[track_caller]
    fn assert_none_in(&self, name: &str, bytes: &[u8]) {
        let mut plain = Vec::new();
        // What is not packed fails at its first bytes.
        let _ = MultiGzDecoder::new(bytes).read_to_end(&mut plain);
        for bytes in [bytes, &plain] {
            for (kind, secret) in &self.0 {
                for (notation, form) in notations(secret) {
                    let found = bytes.windows(form.len()).position(|part| part == form);
                    let near = found.map(|at| {
                        let (begin, end) = (at.saturating_sub(200), (at + 200).min(bytes.len()));
                        text(&bytes[begin..end])
                    });
                    assert!(
                        near.is_none(),
                        "{kind}, {notation}, in {name}:\n{}",
                        near.unwrap_or_default()
                    );
                }
            }
        }
    }
}

/// A secret as it may be written.
fn notations(secret: &str) -> Vec<(&'static str, Vec<u8>)> {
    let bytes = secret.as_bytes();
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    let digits = digits.filter_map(|digit| char::from_digit(u32::from(digit), 16));
    let hexadecimal: String = digits.collect();
    let wide = |bytes: fn(u16) -> [u8; 2]| secret.encode_utf16().flat_map(bytes).collect();
    let mut notations = vec![
        ("as it is", bytes.to_vec()),
        ("upper case", secret.to_ascii_uppercase().into_bytes()),
        ("HEX", hexadecimal.to_ascii_uppercase().into_bytes()),
        ("hexadecimal", hexadecimal.into_bytes()),
        ("UTF-16", wide(u16::to_le_bytes)),
        ("UTF-16, big-endian", wide(u16::to_be_bytes)),
    ];
    for offset in 0..3 {
        // What comes before and behind decides about the first and the last characters.
        let encoded = BASE64_STANDARD_NO_PAD.encode([&vec![0; offset][..], bytes].concat());
        let own = encoded.get(if offset == 0 { 0 } else { 4 }..encoded.len() - 2);
        notations.push(("base64", own.unwrap_or_default().as_bytes().to_vec()));
    }
    notations
}

/// What has the secrets: a server of HTTP and one of Postgres, and a client of both that is the test.
struct Targets {
    http: Target,
    port: u16,
    postgres: Postgres,
    secrets: Secrets,
}

/// A server of HTTP that reads its script from its input, so that it is not in its command line.
const SERVER: &str = r"
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers['Content-Length']))
        sum(i * i for i in range(20000))
        self.send_response(200); self.send_header('X-Token', self.headers['X-Token']); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
";

const TABLES: &str = "CREATE TABLE canaries (id int PRIMARY KEY, a text); CREATE ROLE canary; \
    CREATE DATABASE euc ENCODING 'EUC_JP' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";
const UNICODE: &str =
    "CREATE DATABASE unicode ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0";

impl Targets {
    fn start(secrets: Secrets) -> Self {
        let mut python = Command::new("python3");
        python.arg("-").uid(65_534).gid(65_534).current_dir("/");
        python.env("CANARY_KEY", secrets.of("environment"));
        if ARGUMENTS_ARE_HIDDEN {
            let secret = secrets.of("argument");
            python.args([
                &format!("--password={secret}"),
                secret,
                &format!("-p{secret}"),
                "--key",
                secret,
            ]);
            python
                .arg(format!("https://user:{secret}@example.com/"))
                .arg(format!("KEY={secret}"));
        }
        let mut http = Target::spawn(&mut python);
        let mut input = http.0.stdin.take().expect("a pipe");
        input.write_all(SERVER.as_bytes()).expect("it reads");
        drop(input);
        let mut line = String::new();
        let output = http.0.stdout.take().expect("a pipe");
        BufReader::new(output)
            .read_line(&mut line)
            .expect("it talks");
        let postgres = Postgres::start_with(&[]).expect("a cluster starts");
        for script in [TABLES, UNICODE]
            .iter()
            .flat_map(|script| script.split("; "))
        {
            sql(&postgres, script);
        }
        Self {
            http,
            port: line.trim().parse().expect("a port"),
            postgres,
            secrets,
        }
    }

    /// All of them.
    fn pids(&self) -> String {
        format!("{},{}", self.http.pid(), std::process::id())
    }

    /// Does everything that has a secret in it, once.
    fn act(&self) {
        let of = |kind| self.secrets.of(kind);
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("it listens");
        let body = of("HTTP body");
        let request = format!(
            "POST /path HTTP/1.0\r\nX-Token: {}\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{body}",
            of("HTTP header"),
            of("HTTP authorization"),
            body.len()
        );
        stream.write_all(request.as_bytes()).expect("it listens");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        assert!(answer.ends_with(body), "{answer}");
        Raw::refused(&self.postgres, of("password at the start"));
        for (encoding, database, character) in [
            ("UTF8", "unicode", "é".as_bytes()),
            ("SJIS", "euc", b"\x95\\"),
            ("BIG5", "unicode", b"\xa5\\"),
            ("GBK", "unicode", b"\x81\\"),
            ("GB18030", "unicode", b"\x81\\"),
        ] {
            let name = encoding.replace("UTF8", "UTF-8");
            let kind = format!("literal in {name}");
            let secret = self.secrets.of(&kind);
            let mut client = Raw::connect(&self.postgres, database, &["client_encoding", encoding]);
            let text = [b"SELECT E'", character, b"', '", secret.as_bytes(), b"'"].concat();
            assert!(client.query(&text).errors.is_empty());
            assert!(client.extended(&text, &[]).errors.is_empty());
        }
        self.ask();
    }

    /// The statements.
    fn ask(&self) {
        let of = |kind| self.secrets.of(kind);
        let mut client = Raw::connect(&self.postgres, "postgres", &[]);
        let binary = of("parameter in binary").as_bytes();
        let parameters = [(of("parameter as text").as_bytes(), false), (binary, true)];
        let answer = client.extended(b"SELECT $1::text, $2::bytea", &parameters);
        assert!(answer.errors.is_empty(), "{answer:?}");
        for (statement, code) in [
            (
                format!(
                    "PREPARE p AS SELECT '{}', $1::text",
                    of("literal, prepared")
                ),
                "",
            ),
            ("EXECUTE p('x')".to_owned(), ""),
            (
                format!("ALTER ROLE canary PASSWORD '{}'", of("password of a role")),
                "",
            ),
            (format!("SET canary.x = '{}'", of("value of a setting")), ""),
            (
                format!(
                    "SELECT '{}' FROM generate_series(1, 10) /* {} */",
                    of("row"),
                    of("comment")
                ),
                "",
            ),
            (format!("SELECT '{}'::int", of("text of an error")), "22P02"),
            (format!("SELECT 'O'{} x'", of("refused word")), "42601"),
            (format!("SELECT {}", of("refused word")), "42703"),
            (
                format!("SELECT \"{}\" FROM canaries", of("refused name")),
                "42703",
            ),
            (
                format!("NOTIFY canary, '{}'", of("payload of a notification")),
                "",
            ),
            (
                format!(
                    "DO $x$ BEGIN RAISE EXCEPTION '{}'; END $x$",
                    of("text of an error")
                ),
                "P0001",
            ),
            ("DELETE FROM canaries".to_owned(), ""),
        ] {
            let answer = client.query(statement.as_bytes());
            assert_eq!(answer.errors.join(" "), code, "{statement}");
        }
        client.ask(b"COPY canaries FROM STDIN");
        let row = format!("1\t{}\n", of("COPY data"));
        assert_eq!(client.copy(row.as_bytes()).completed, ["COPY 1"]);
        let again = format!(
            "INSERT INTO canaries VALUES (1, '{}')",
            of("detail of an error")
        );
        assert_eq!(client.query(again.as_bytes()).errors, ["23505"]);
        assert!(client.query(b"COPY canaries TO STDOUT").errors.is_empty());
    }
}

/// Whether command lines are shown without what may be secret.
const ARGUMENTS_ARE_HIDDEN: bool = false;

/// Runs until told to stop.
fn during<T>(targets: &Targets, look: impl FnOnce() -> T) -> T {
    let is_over = AtomicBool::new(false);
    scope(|scope| {
        let acting = scope.spawn(|| {
            while !is_over.load(Relaxed) {
                targets.act();
            }
        });
        let looked = look();
        is_over.store(true, Relaxed);
        acting.join().expect("everything is done");
        looked
    })
}

/// Profilers under way, with what they were asked for.
struct Running(Vec<(String, Child)>);

impl Running {
    fn start(bench: &Bench, arguments: &[&str]) -> (String, Child) {
        let mut command = bench.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        (
            arguments.join(" "),
            command.spawn().expect("the profiler runs"),
        )
    }

    /// Waits for all; gives what each wrote, its outputs and its notes.
    fn end(self) -> Vec<(String, Vec<u8>)> {
        let wait = |(name, child): (String, Child)| {
            let output = child.wait_with_output().expect("the profiler ends");
            assert!(output.status.success(), "{name}: {}", text(&output.stderr));
            (name, [output.stdout, output.stderr].concat())
        };
        self.0.into_iter().map(wait).collect()
    }
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("it has one"));
        if kind.is_dir() {
            found.extend(files(&path));
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            found.push((path.display().to_string(), bytes));
        }
    }
    found
}

/// What `record` writes in each of its formats, for each of its modes, `report` of it, and `dump`.
#[test]
fn recordings_have_no_secret() {
    let Some(bench) = bench() else { return };
    let targets = Targets::start(Secrets::draw());
    let pids = targets.pids();
    let outputs = during(&targets, || {
        let record = |more: &[&str]| {
            let common = ["record", "-p", &pids, "--descendants", "-d", "1s"];
            Running::start(&bench, &[&common, more].concat())
        };
        let mut outputs = Vec::new();
        for formats in [
            ["svg", "folded", "pprof"],
            ["speedscope", "firefox", "json"],
        ] {
            let all = formats.map(|format| record(&["-f", format, "-o", &format!("out.{format}")]));
            outputs.extend(Running(all.into()).end());
        }
        let modes = [
            record(&[
                "--off-cpu",
                "--threads",
                "-f",
                "folded",
                "-o",
                "off-cpu.folded",
            ]),
            record(&["--wall", "-f", "json", "-o", "wall.json"]),
            record(&[]),
        ];
        outputs.extend(Running(modes.into()).end());
        for pid in [targets.http.pid(), targets.postgres.server.id().to_string()] {
            let dumps = [&["dump", "-p", &pid][..], &["dump", "--json", "-p", &pid]];
            let dumps = dumps.map(|arguments| Running::start(&bench, arguments));
            outputs.extend(Running(dumps.into()).end());
        }
        let report = ["report", "out.pprof", "--top", "50"];
        outputs.extend(Running(vec![Running::start(&bench, &report)]).end());
        outputs
    });
    let files = files(&bench.path(""));
    assert!(
        files.len() >= 9,
        "{:?}",
        files.iter().map(|(name, _)| name).collect::<Vec<_>>()
    );
    let folded = files.iter().find(|(name, _)| name.ends_with("out.folded"));
    assert!(folded.is_some_and(|(_, bytes)| text(bytes).contains("python3")));
    for (name, bytes) in outputs.iter().chain(&files) {
        assert!(!name.contains("/core"), "{name}");
        targets.secrets.assert_none_in(name, bytes);
    }
}

/// What `queries`, `tcp` and `syscalls` write in each of their forms.
#[test]
fn tables_have_no_secret() {
    let Some(bench) = bench() else { return };
    let targets = Targets::start(Secrets::draw());
    let pids = targets.pids();
    let outputs = during(&targets, || {
        let mut outputs = Vec::new();
        for (verb, forms) in [
            (
                "queries",
                &[
                    &["--events"][..],
                    &["--json"],
                    &["--csv"],
                    &["--by", "user", "--interval", "300ms"],
                ][..],
            ),
            ("tcp", &[&["--json"], &["--csv"], &[]]),
            ("syscalls", &[&["--json"], &["--csv"], &[]]),
        ] {
            let start = |form: &&[&str]| {
                Running::start(&bench, &[&[verb, "-p", &pids, "-d", "2s"], *form].concat())
            };
            outputs.extend(Running(forms.iter().map(start).collect()).end());
        }
        outputs
    });
    let is_seen = |form: &str, what: &str| {
        let found = outputs.iter().find(|(name, _)| name.contains(form));
        found.is_some_and(|(_, bytes)| text(bytes).contains(what))
    };
    for form in ["--events", "queries -p", "--csv", "--interval"] {
        for what in [
            "INSERT INTO canaries VALUES",
            "<withheld ",
            "COPY canaries FROM STDIN",
        ] {
            assert!(is_seen(form, what), "{form}: {what}");
        }
    }
    for (name, bytes) in &outputs {
        targets.secrets.assert_none_in(name, bytes);
    }
}

/// A receiver of exports, which keeps the bodies of all requests.
struct Receiver {
    bodies: Arc<Mutex<Vec<Vec<u8>>>>,
    url: String,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("it has one"));
        let bodies = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let kept = Arc::clone(&bodies);
        // It ends with the test.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Ok(body) = take(stream) {
                    kept.lock().expect("nobody panics").push(body);
                }
            }
        });
        Self { bodies, url }
    }

    fn got(&self) -> Vec<Vec<u8>> {
        self.bodies.lock().expect("nobody panics").clone()
    }
}

/// The body of a request, which is answered.
fn take(stream: TcpStream) -> io::Result<Vec<u8>> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length: ") {
            length = value.parse().unwrap_or(0);
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    reader.get_mut().write_all(answer)?;
    Ok(body)
}

/// A page of the daemon, with its headers.
fn page(socket: &Path, route: &str) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).expect("it listens");
    let request = format!("GET {route} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it listens");
    let mut page = Vec::new();
    stream.read_to_end(&mut page).expect("it answers");
    assert!(
        page.starts_with(b"HTTP/1.1 200"),
        "{route}: {}",
        text(&page)
    );
    page
}

/// What the daemon keeps, logs, tells its manager, shows and sends, and what is shown of that afterwards.
#[test]
fn daemon_has_no_secret() {
    let Some(bench) = bench() else { return };
    let targets = Targets::start(Secrets::draw());
    let receiver = Receiver::start();
    let pids = targets.pids();
    let socket = bench.path("web.sock");
    let whom = format!("targets = {{ pids = [{pids}] }}");
    let sections = format!(
        "[windows]\nlength = '1s'\n[overhead]\nmax = '100%'\n[log]\nlevel = 'debug'\n\
         [sampling]\nfrequency = 99\n{whom}\n[queries]\n{whom}\n[tcp]\n{whom}\n[syscalls]\n{whom}\n\
         [web]\nlisten = 'unix:{}'\n[[export]]\nkind = 'otlp'\nurl = '{}'\n",
        socket.display(),
        receiver.url
    );
    let mut outputs = Vec::new();
    let daemon = during(&targets, || {
        let daemon = Daemon::start(&bench, &sections);
        daemon.windows(12);
        for route in [
            "/",
            "/flamegraph.svg",
            "/queries",
            "/tcp",
            "/syscalls",
            "/metrics",
            "/healthz",
        ] {
            outputs.push((route.to_owned(), page(&socket, route)));
        }
        outputs.push(("status".to_owned(), daemon.told("STATUS=").into_bytes()));
        daemon
    });
    outputs.push(("log".to_owned(), daemon.log().into_bytes()));
    let state = daemon.state.clone();
    daemon.stop();
    let state_name = state.display().to_string();
    for verb in ["queries", "tcp", "syscalls"] {
        for form in [&["--json"][..], &["--csv"], &[]] {
            let since = [verb, "--since", "1h", "--state", &state_name];
            outputs.extend(Running(vec![Running::start(&bench, &[&since, form].concat())]).end());
        }
    }
    for format in ["svg", "folded", "pprof", "speedscope", "firefox", "json"] {
        let report = [
            "report",
            "--since",
            "1h",
            "--state",
            &state_name,
            "-f",
            format,
            "-o",
        ];
        let file = format!("kept.{format}");
        let started = Running::start(&bench, &[&report[..], &[&file]].concat());
        outputs.extend(Running(vec![started]).end());
    }
    let seen = |name: &str| {
        let found = outputs.iter().find(|(output, _)| output.starts_with(name));
        found.map(|(_, bytes)| text(bytes)).unwrap_or_default()
    };
    for output in ["/queries", "/metrics", "queries --since"] {
        for what in ["INSERT INTO canaries VALUES", "withheld "] {
            assert!(
                seen(output).contains(what),
                "{output}: {what}\n{}",
                seen(output)
            );
        }
    }
    let bodies = receiver.got();
    assert!(bodies.len() >= 2, "{}", bodies.len());
    let bodies = bodies
        .into_iter()
        .map(|body| ("an export".to_owned(), body));
    for (name, bytes) in outputs
        .into_iter()
        .chain(bodies)
        .chain(files(&bench.path("")))
    {
        assert!(!name.contains("/core"), "{name}");
        targets.secrets.assert_none_in(&name, &bytes);
    }
}

/// Every notation of a secret is found, also in what is packed: otherwise finding none says nothing.
#[test]
fn secrets_would_be_found() {
    let secrets = Secrets::draw();
    let secret = secrets.of("row");
    let hides = |bytes: &[u8]| {
        let asserted = std::panic::AssertUnwindSafe(|| secrets.assert_none_in("", bytes));
        std::panic::catch_unwind(asserted).is_ok()
    };
    for (notation, form) in notations(secret) {
        assert!(!hides(&[b"xy", &form[..], b"z"].concat()), "{notation}");
    }
    for offset in 0..5 {
        let encoded = BASE64_STANDARD_NO_PAD.encode(format!("{}{secret}more", "z".repeat(offset)));
        assert!(!hides(encoded.as_bytes()), "{offset}: {encoded}");
    }
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(secret.as_bytes()).expect("it is memory");
    assert!(!hides(&packer.finish().expect("it is memory")));
    assert!(hides(b"nothing of this"));
}
