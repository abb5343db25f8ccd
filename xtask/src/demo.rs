//! `cargo xtask demo`: what the profiler shows of a busy Postgres and a busy Python program.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    interrupt,
    postgres::{Postgres, dies_with_us},
    setup,
    shell::{self, cargo, output},
};

const PYTHON: &str = "\
import json, zlib

def render(rows):
    return json.dumps(rows, indent=1)

def compress(text):
    return zlib.compress(text.encode(), 9)

def collatz(n):
    return n if n == 1 else collatz(n // 2 if n % 2 == 0 else 3 * n + 1)

while True:
    rows = [{'n': n, 'end': collatz(n)} for n in range(1, 400)]
    compress(render(rows))
";

/// A backend that takes longer to appear will not.
const BACKEND_WAIT: Duration = Duration::from_secs(20);

/// Runs the verb. Everything it starts is gone when it returns, also after Ctrl-C.
pub(crate) fn run() -> Result<()> {
    interrupt::watch()?;
    setup::toolchain()?;
    setup::tests()?;
    shell::run(&mut cargo(&["build", "--release", "--package", "profiler"]))?;
    interrupt::check()?;
    let folder = shell::root().join("flamegraphs/demo");
    fs::create_dir_all(&folder)?;
    let python = python(&folder)?;
    let pythons = python.0.id();
    record("python", pythons, &folder)?;
    drop(python);
    let server = Postgres::start()?;
    let load = load(&server)?;
    let backend = backend(&server)?;
    record("postgres-backend", backend, &folder)?;
    drop(load);
    Ok(())
}

/// A program that is ended and waited for when dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(command: &mut Command) -> Result<Running> {
    dies_with_us(command);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Ok(Running(child.with_context(|| {
        format!("cannot start {}", command.get_program().display())
    })?))
}

fn python(folder: &Path) -> Result<Running> {
    let program = folder.join("busy.py");
    fs::write(&program, PYTHON)?;
    // A shim such as pyenv's is a shell script that would be recorded instead.
    let python = output(&mut shell::command(
        "python3",
        &["-c", "import sys; print(sys.executable)"],
    ));
    spawn(Command::new(python.context("no python3")?).arg(program))
}

fn load(server: &Postgres) -> Result<Running> {
    let mut init = server.client("pgbench")?;
    shell::run(
        init.args(["--initialize", "--scale=5", "--quiet"])
            .stderr(Stdio::null()),
    )?;
    interrupt::check()?;
    spawn(server.client("pgbench")?.args(["--client=2", "--time=120"]))
}

/// The process id of one of pgbench's connections.
fn backend(server: &Postgres) -> Result<u32> {
    // pgbench's first connection only looks at the tables, and is gone in an instant.
    let query = "select pid from pg_stat_activity where application_name = 'pgbench' \
                 and backend_start < now() - interval '1 second' limit 1";
    let started = Instant::now();
    while started.elapsed() < BACKEND_WAIT {
        interrupt::check()?;
        let answer = output(server.client("psql")?.args(["-AtXc", query]));
        if let Some(pid) = answer.and_then(|text| text.parse().ok()) {
            return Ok(pid);
        }
        sleep(Duration::from_millis(100));
    }
    bail!("pgbench does not connect")
}

/// Records five seconds, draws them, prints the top five functions.
fn record(name: &str, pid: u32, folder: &Path) -> Result<()> {
    let profiler = shell::root().join("target/release/profiler");
    let recording = folder.join(format!("{name}.pb.gz"));
    let picture = folder.join(format!("{name}.svg"));
    println!("\n== {name}: recording PID {pid} for 5 s");
    let mut record = elevated(&profiler);
    record
        .args(["record", "-p", &pid.to_string(), "-d", "5s", "-o"])
        .arg(&recording);
    shell::run(&mut record)?;
    interrupt::check()?;
    let mut report = Command::new(&profiler);
    report
        .arg("report")
        .arg(&recording)
        .args(["--top", "5", "-o"])
        .arg(&picture);
    shell::run(&mut report)?;
    println!("flamegraph: {}", picture.display());
    Ok(())
}

/// Recording wants root; so does nothing else here.
fn elevated(program: &PathBuf) -> Command {
    if rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    command
}
