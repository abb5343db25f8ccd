//! Postgres's own tests of pipelines: seen live, they are what their reference traces say, and those traces as bytes
//! are understood however they are cut and wherever they are entered.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use profiler::postgres::protocol::{
    Chunk, Connection, Deed, Direction, Ending, Event, Outcome, Part, Side, Statement, StatementId,
    Statements, Text,
};
use serde_json::Value;

use crate::{
    bench::{Bench, bench, text},
    postgres::Postgres,
    queries::{Report, Watch, sql},
    traces::{Sums, lines, sums},
};

/// A folder with the program and the traces, made once from Debian's source package. `None` where there is none.
fn built() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("libpq_pipeline-15");
    fs::create_dir_all(&folder).expect("a folder");
    // Tests run side by side: the first one makes it, the others wait.
    let lock = fs::File::create(folder.join("lock")).expect("a file");
    lock.lock().expect("it is ours");
    if !folder.join("libpq_pipeline").is_file() {
        let recipe = "tests/live/drivers/libpq_pipeline.sh";
        let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join(recipe);
        let output = Command::new("sh").arg(recipe).arg(&folder).output();
        let output = output.expect("a shell runs");
        if !output.status.success() {
            println!("skipped: {}", text(&output.stderr));
            return None;
        }
    }
    Some(folder)
}

/// The reference traces, by name.
fn traces(folder: &Path) -> Vec<(String, String)> {
    let files = fs::read_dir(folder.join("traces")).expect("traces");
    let read = files.map(|file| {
        let path = file.expect("a file").path();
        let name = path
            .file_stem()
            .map(|name| name.to_string_lossy().into_owned());
        (
            name.expect("a name"),
            fs::read_to_string(path).expect("a trace"),
        )
    });
    let mut traces: Vec<_> = read.collect();
    traces.sort();
    assert!(traces.len() >= 8, "{}", traces.len());
    traces
}

/// What a recording says, without the settings that the program makes before it traces.
fn seen(report: &Report) -> Sums {
    let mut sums = Sums::default();
    let of_test = |one: &&Value| {
        one["statement"]
            .as_str()
            .is_some_and(|text| !text.starts_with("SET "))
    };
    for one in report.statements().iter().filter(of_test) {
        let number = |name: &str| one[name].as_u64().expect("a number");
        sums.calls += number("calls");
        sums.rows += number("rows");
        sums.skipped += number("skipped");
        for (code, count) in one["errors"].as_object().expect("an object") {
            *sums.errors.entry(code.clone()).or_default() += count.as_u64().expect("a number");
        }
        assert_eq!(
            number("aborted") + number("unseen") + number("unfinished"),
            0,
            "{one:#}"
        );
    }
    sums
}

/// Runs one of the program's tests, watched; gives what was seen and the trace that it wrote.
fn run(bench: &Bench, postgres: &Postgres, program: &Path, name: &str) -> (Report, String) {
    let trace = bench.path(&format!("{name}.trace"));
    let mut command =
        bench.command(&["queries", "--json", "--limit=1000", "-o", "at-client", "--"]);
    command
        .arg(program)
        .args(["-r", "700", "-t"])
        .arg(&trace)
        .args([name, ""]);
    let client = postgres.client("psql").expect("psql is there");
    command.envs(
        client
            .get_envs()
            .filter_map(|(key, value)| Some((key, value?))),
    );
    let output = command.output().expect("the profiler runs");
    assert!(output.status.success(), "{name}: {}", text(&output.stderr));
    let written = fs::read(bench.path("at-client")).expect("the result");
    let report = Report(serde_json::from_slice(&written).expect("JSON"));
    (report, fs::read_to_string(trace).unwrap_or_default())
}

/// Every call, row, error and call behind an error is seen at both ends as the reference traces have it.
#[test]
fn pipelines_are_as_their_traces_say() {
    let Some(bench) = bench() else { return };
    let Some(folder) = built() else { return };
    let program = folder.join("libpq_pipeline");
    let postgres = Postgres::start_with(&[]).expect("a cluster starts");
    let list = Command::new(&program)
        .arg("tests")
        .output()
        .expect("it runs");
    let references = traces(&folder);
    let mut total = Sums::default();
    let at_server = Watch::start(
        &bench,
        &["--limit=1000", "-p", &postgres.server.id().to_string()],
    );
    for name in text(&list.stdout).split_whitespace() {
        let (report, trace) = run(&bench, &postgres, &program, name);
        let told = sums(&trace);
        report.assert_nothing_lost();
        let seen = seen(&report);
        assert_eq!(seen, told, "{name}: seen and traced\n{trace}");
        if let Some((_, reference)) = references.iter().find(|(known, _)| known == name) {
            assert_eq!(seen, sums(reference), "{name}: seen and in its reference");
        }
        println!("{name}: {told:?}");
        total.calls += told.calls;
        total.rows += told.rows;
        total.skipped += told.skipped;
        for (code, count) in told.errors {
            *total.errors.entry(code).or_default() += count;
        }
    }
    sql(&postgres, "SET application_name = 'the end'");
    let at_server = at_server.end();
    at_server.assert_nothing_lost();
    assert_eq!(seen(&at_server), total, "all of them at the server");
}

/// Texts by their number.
#[derive(Default)]
struct Texts(Vec<String>);

impl Statements for Texts {
    fn simple(&mut self, text: Text<'_>, ids: &mut Vec<StatementId>) {
        ids.push(self.prepared(text));
    }

    fn prepared(&mut self, text: Text<'_>) -> StatementId {
        self.0
            .push(String::from_utf8_lossy(text.bytes).into_owned());
        StatementId(self.0.len() as u64 - 1)
    }

    fn deed(&mut self, _: StatementId) -> Option<Arc<Deed>> {
        None
    }

    fn part(&mut self, _: StatementId, _: Part) -> Option<StatementId> {
        None
    }

    fn parameter(&mut self, _: &[u8], _: &[u8]) {}

    fn accepted(&mut self, _: StatementId, _: bool) {}

    fn answered(&mut self) {}
}

/// What goes one way before something goes the other way, and how much went there before.
type Said = (Direction, u64, Vec<u8>);

/// A trace as bytes, on a connection that begins as they do and goes on for so many statements more.
fn said(trace: &str, statements: usize) -> Vec<Said> {
    let startup = [
        &19_u32.to_be_bytes()[..],
        &196_608_u32.to_be_bytes(),
        b"user\0demo\0\0",
    ]
    .concat();
    let accepted = [&b"R\0\0\0\x08\0\0\0\0"[..], b"Z\0\0\0\x05I"].concat();
    let more = "F\t0\tQuery\t \"SELECT 'more'\"\nB\t0\tRowDescription\t\nB\t0\tDataRow\t\nB\t0\tCommandComplete\t \"SELECT 1\"\nB\t0\tReadyForQuery\t I\n";
    let trace = trace.replace("F\t4\tTerminate\n", "") + &more.repeat(statements);
    let messages = lines(&trace).map(|line| (line.direction, line.bytes()));
    let begin = [
        (Direction::Frontend, startup),
        (Direction::Backend, accepted),
    ];
    let mut said: Vec<Said> = Vec::new();
    let mut positions = [0, 0];
    for (direction, bytes) in begin.into_iter().chain(messages) {
        let position = &mut positions[usize::from(direction == Direction::Backend)];
        match said.last_mut() {
            Some((last, _, before)) if *last == direction => before.extend(&bytes),
            _ => said.push((direction, *position, bytes.clone())),
        }
        *position += bytes.len() as u64;
    }
    said
}

/// What a connection tells when it hears this.
fn told(said: &[Said]) -> Vec<String> {
    let (mut connection, mut texts, mut events) =
        (Connection::new(Side::Client), Texts::default(), Vec::new());
    for ((direction, position, bytes), time_ns) in said.iter().zip(1..) {
        let chunk = Chunk {
            direction: *direction,
            position: *position,
            length: bytes.len() as u64,
            head: bytes,
            tail: b"",
            entry_ns: time_ns * 1000,
            exit_ns: time_ns * 1000,
            tid: 1,
        };
        connection.take(&chunk, &mut texts, &mut events);
    }
    connection.end(Ending::Closed, 1 << 40, &mut events);
    let calls = events.iter().filter_map(|event| match event {
        Event::Call(call) => Some(call),
        _ => None,
    });
    let lines = calls.map(|call| {
        let what = match &call.statement {
            Statement::Known(StatementId(id)) => &texts.0[usize::try_from(*id).expect("a number")],
            _ => "?",
        };
        let how = match call.outcome {
            Outcome::Completed => "done".to_owned(),
            Outcome::Failed(failure) => format!("failed {}", failure.sqlstate),
            other => format!("{other:?}"),
        };
        format!("{how}, {} rows: {what}", call.rows.total())
    });
    lines.collect()
}

/// In any order: those that an error skips are told before those that ended in the same chunk.
fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

/// Cut anywhere, a trace tells the same; it is what the trace says.
#[test]
fn traces_are_understood_however_they_are_cut() {
    let Some(folder) = built() else { return };
    for (name, trace) in traces(&folder) {
        let said = said(&trace, 1);
        let truth = sorted(told(&said));
        let mut expected = sums(&trace);
        expected.calls += 1;
        let count = |how: &str| truth.iter().filter(|line| line.starts_with(how)).count() as u64;
        let counts = (count("done"), count("failed"), count("Skipped"));
        let errors = expected.errors.values().sum();
        assert_eq!(
            counts,
            (expected.calls, errors, expected.skipped),
            "{name}: {truth:#?}"
        );
        let mut cuts = 0;
        for (index, (direction, position, bytes)) in said.iter().enumerate() {
            for at in 1..bytes.len() {
                let (before, after) = bytes.split_at(at);
                let mut cut = said.clone();
                cut[index] = (*direction, *position, before.to_vec());
                cut.insert(
                    index + 1,
                    (*direction, position + at as u64, after.to_vec()),
                );
                assert_eq!(sorted(told(&cut)), truth, "{name}: {index} cut at {at}");
                cuts += 1;
            }
        }
        println!(
            "{name}: {} calls, the same with each of {cuts} cuts",
            truth.len()
        );
    }
}

/// So many turns after it was entered a connection is understood.
const TURNS_MAX: usize = 15;

/// Entered anywhere, a trace tells nothing that is not true: what is told with its end is what happened, in that order,
/// and sooner or later everything is.
#[test]
fn traces_are_understood_wherever_they_are_entered() {
    let Some(folder) = built() else { return };
    for (name, trace) in traces(&folder) {
        let said = said(&trace, 8);
        let truth = told(&said);
        let mut entries = 0;
        let early = said.len() - TURNS_MAX;
        for (index, (direction, position, bytes)) in said[..early].iter().enumerate() {
            for at in 0..bytes.len() {
                let first = (*direction, position + at as u64, bytes[at..].to_vec());
                let rest = said[index + 1..].iter().cloned();
                let entered = told(&std::iter::once(first).chain(rest).collect::<Vec<_>>());
                let mut ahead = truth.iter();
                for line in entered.iter().filter(|line| !line.starts_with("Unseen")) {
                    let (how, what) = line.split_once(": ").expect("a line");
                    let is_it = |one: &&String| *one == line || what == "?" && one.starts_with(how);
                    assert!(
                        ahead.any(|one| is_it(&one)),
                        "{name}: {index} from {at}: {line} of {entered:#?}"
                    );
                }
                assert_eq!(
                    entered.last(),
                    truth.last(),
                    "{name}: {index} from {at}: {entered:#?}"
                );
                entries += 1;
            }
        }
        println!("{name}: nothing false with each of {entries} entries");
    }
}
