//! Files for other programs, judged by those programs: `go tool pprof` reads the pprof file, and the
//! speedscope file is checked against the schema in the npm package of speedscope. Where a program
//! is missing the test says that it was skipped, and fails in CI (`CI=true`).

#![expect(
    clippy::expect_used,
    reason = "a test stops where its ground gives way"
)]
#![expect(clippy::print_stderr, reason = "a skipped test says so")]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use profiler::{
    output::{self, Format, Options},
    profile::{
        Account, Frame, FrameKind, Gil, Location, LocationId, Lost, Meta, Module, ModuleId,
        Process, ProcessId, Profile, Sample, Stack, StackId, Thread, ThreadId,
    },
};
use serde_json::Value;

fn frame(name: &str, line: Option<u32>) -> Frame {
    let file = line.map(|_| "/src/worker.c".to_owned());
    Frame {
        name: name.to_owned(),
        file,
        line,
        ..Frame::default()
    }
}

fn location(kind: FrameKind, module: Option<u32>, address: u64, frames: Vec<Frame>) -> Location {
    Location {
        kind,
        module: module.map(ModuleId),
        address,
        frames,
    }
}

fn process() -> Process {
    Process {
        pid: 4711,
        comm: "worker".to_owned(),
        ..Process::default()
    }
}

/// A kernel stack on an inlined function on `main`, and a stack cut above `main`.
fn profile() -> Profile {
    let worker = Module {
        path: "/usr/bin/worker".to_owned(),
        build_id: vec![0xde, 0xad, 0xbe, 0xef],
        start: 0x40_0000,
        end: 0x41_0000,
        file_offset: 0x1000,
    };
    let kernel = Module {
        path: "[kernel.kallsyms]".to_owned(),
        ..Module::default()
    };
    let stack = |ids: &[u32]| Stack {
        locations: ids.iter().copied().map(LocationId).collect(),
    };
    let sample = |stack, count| Sample {
        thread: ThreadId(0),
        stack: StackId(stack),
        gil: Gil::Unknown,
        count,
    };
    Profile {
        meta: Meta {
            title: "worker (pid 4711)".to_owned(),
            command_line: "worker --threads 1".to_owned(),
            frequency_hz: 100,
            started: Duration::from_secs(1_763_700_000),
            duration: Duration::from_secs(1),
            ..Meta::default()
        },
        processes: vec![process()],
        threads: vec![Thread {
            process: ProcessId(0),
            tid: 4712,
            name: "pool 1".to_owned(),
        }],
        modules: vec![kernel, worker],
        locations: vec![
            location(
                FrameKind::Kernel,
                Some(0),
                0xffff_ffff_8100_0000,
                vec![frame("do_syscall_64", None)],
            ),
            location(
                FrameKind::Native,
                Some(1),
                0x40_1000,
                vec![frame("inner", Some(30)), frame("main", Some(12))],
            ),
            location(
                FrameKind::Marker,
                None,
                0,
                vec![frame("no frame pointer", None)],
            ),
        ],
        stacks: vec![stack(&[0, 1]), stack(&[1, 2])],
        samples: vec![sample(0, 70), sample(1, 30)],
        times: Vec::new(),
        timeline: Vec::new(),
        account: Account {
            taken: 103,
            shown: 100,
            lost: BTreeMap::from([(Lost::RingFull, 3)]),
            ..Account::default()
        },
    }
}

fn write(format: Format, name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let file = output::render(&profile(), format, &Options::default()).expect("it can be written");
    fs::write(&path, file).expect("the directory can be written");
    path
}

/// What a program said, `None` where it is missing or (as `npm` without network) cannot do its work.
fn run(command: &mut Command) -> Option<Output> {
    let program = command.get_program().to_string_lossy().into_owned();
    let reason = match command.output() {
        Ok(output) if output.status.success() => return Some(output),
        Ok(output) => format!(
            "`{program}` failed: {}",
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => format!("`{program}` cannot be run: {error}"),
    };
    assert!(
        env::var_os("CI").is_none_or(|value| value != "true"),
        "{reason}"
    );
    eprintln!("skipped: {reason}");
    None
}

/// The pprof file is valid for pprof itself, with every convention in place.
#[test]
fn go_tool_pprof_reads_the_profile() {
    let path = write(Format::Pprof, "profile.pb.gz");
    let Some(_) = run(Command::new("go").arg("version")) else {
        return;
    };
    let output = Command::new("go")
        .args(["tool", "pprof", "-symbolize=none", "-raw"])
        .arg(&path)
        .output();
    let output = output.expect("go runs");
    let raw = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for expected in [
        "PeriodType: cpu nanoseconds",
        "Period: 10000000",
        "Duration: 1s",
        "samples/count cpu/nanoseconds",
        "70  700000000: 1 2",
        "30  300000000: 2 3",
        "comm:[worker] thread:[pool 1]",
        "pid:[4711] tid:[4712]",
        "1: 0xffffffff81000000 M=2 do_syscall_64",
        "2: 0x401000 M=1 inner /src/worker.c:30",
        "main /src/worker.c:12",
        "[no frame pointer]",
        "1: 0x400000/0x410000/0x1000 /usr/bin/worker deadbeef [FN][FL][LN][IN]",
        "[kernel.kallsyms]  [FN]",
        "lost, ring buffer full: 3 samples",
    ] {
        assert!(raw.contains(expected), "`{expected}` is not in\n{raw}");
    }
}

/// Validates a file with a JSON schema; prints what is wrong and exits with 1.
const VALIDATE: &str = "
    const { readFileSync } = require('fs');
    const json = path => JSON.parse(readFileSync(path, 'utf8'));
    const Ajv = require('ajv');
    const ajv = new (Ajv.default || Ajv)({ strict: false, allErrors: true });
    const validate = ajv.compile(json(process.argv[1]));
    const results = process.argv.slice(2).map(path => validate(json(path)) ? 'valid' : 'invalid');
    console.log(results.join(' '));
";

/// The speedscope file validates against speedscope's own schema, and a broken one does not.
#[test]
fn speedscope_file_validates_against_its_schema() {
    let path = write(Format::Speedscope, "profile.speedscope.json");
    let Some(modules) = schema_modules() else {
        return;
    };
    let mut broken: Value =
        serde_json::from_slice(&fs::read(&path).expect("it is there")).expect("it is JSON");
    broken["profiles"][0]["unit"] = Value::from("fortnights");
    let broken_path = path.with_file_name("broken.speedscope.json");
    fs::write(&broken_path, broken.to_string()).expect("the directory can be written");
    let schema = modules.join("speedscope/dist/release/file-format-schema.json");
    let mut node = Command::new("node");
    node.arg("-e")
        .arg(VALIDATE)
        .arg(schema)
        .args([&path, &broken_path])
        .env("NODE_PATH", &modules);
    let Some(output) = run(&mut node) else { return };
    assert_eq!(
        String::from_utf8_lossy(&output.stdout).trim(),
        "valid invalid"
    );
}

/// Directory with speedscope's schema and a validator, installed once.
fn schema_modules() -> Option<PathBuf> {
    let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join("speedscope-1.25.0");
    let modules = prefix.join("node_modules");
    let is_there = |path: &str| modules.join(path).exists();
    if is_there("speedscope/dist/release/file-format-schema.json") && is_there("ajv/package.json") {
        return Some(modules);
    }
    fs::create_dir_all(&prefix).expect("the directory can be made");
    let mut npm = Command::new("npm");
    npm.args([
        "install",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--no-save",
        "--prefix",
    ]);
    run(npm.arg(&prefix).args(["speedscope@1.25.0", "ajv@8.17.1"])).map(|_| modules)
}
