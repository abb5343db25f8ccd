//! One secret of each kind that a target has, sought in everything that the profiler makes: no output, window, log,
//! metric, page or export has one, in no notation.

use std::{
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Stdio},
    sync::{Arc, Mutex},
};

use crate::{
    bench::{Bench, bench, text},
    canary_secrets::Secrets,
    canary_targets::{Targets, during},
    service::Daemon,
};

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
    let pids = targets.servers();
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
    // On a busy machine it may have no sample in a second, but it waits in each.
    let waits = files
        .iter()
        .find(|(name, _)| name.ends_with("off-cpu.folded"));
    assert!(waits.is_some_and(|(_, bytes)| text(bytes).contains("python3")));
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

/// What is shown of what the daemon kept, in all forms.
fn kept(bench: &Bench, state: &str) -> Vec<(String, Vec<u8>)> {
    let mut outputs = Vec::new();
    for verb in ["queries", "tcp", "syscalls"] {
        for form in [&["--json"][..], &["--csv"], &[]] {
            let since = [verb, "--since", "1h", "--state", state];
            outputs.extend(Running(vec![Running::start(bench, &[&since, form].concat())]).end());
        }
    }
    for format in ["svg", "folded", "pprof", "speedscope", "firefox", "json"] {
        let report = [
            "report", "--since", "1h", "--state", state, "-f", format, "-o",
        ];
        let file = format!("kept.{format}");
        let started = Running::start(bench, &[&report[..], &[&file]].concat());
        outputs.extend(Running(vec![started]).end());
    }
    outputs
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
    let sampled = format!("targets = {{ pids = [{}] }}", targets.servers());
    let sections = format!(
        "[windows]\nlength = '1s'\n[overhead]\nmax = '100%'\n[log]\nlevel = 'debug'\n\
         [sampling]\nfrequency = 99\n{sampled}\n[queries]\n{whom}\n[tcp]\n{whom}\n[syscalls]\n{whom}\n\
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
    let state = daemon.state.display().to_string();
    daemon.stop();
    outputs.extend(kept(&bench, &state));
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
