//! What has secrets: programs that hold them, are given them, and say them.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::process::CommandExt,
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread::scope,
};

use crate::{bench::Target, canary_secrets::Secrets, postgres::Postgres, queries::sql, raw::Raw};

/// Whether command lines are shown without what may be secret.
const ARGUMENTS_ARE_HIDDEN: bool = true;

/// What has the secrets: a server of HTTP and one of Postgres, and a client of both that is the test.
pub(crate) struct Targets {
    pub(crate) http: Target,
    port: u16,
    pub(crate) postgres: Postgres,
    pub(crate) secrets: Secrets,
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
    pub(crate) fn start(secrets: Secrets) -> Self {
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

    /// Both servers.
    pub(crate) fn servers(&self) -> String {
        format!("{},{}", self.http.pid(), self.postgres.server.id())
    }

    /// The server of HTTP and the client, from whom that of Postgres descends.
    pub(crate) fn pids(&self) -> String {
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

/// Acts for as long as somebody looks.
pub(crate) fn during<T>(targets: &Targets, look: impl FnOnce() -> T) -> T {
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    let is_over = AtomicBool::new(false);
    scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                targets.act();
            }
        });
        // Also where looking fails.
        let _over = Over(&is_over);
        look()
    })
}
