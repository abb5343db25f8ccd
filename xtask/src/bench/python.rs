//! What profiling costs a Python program: how many rounds of pure Python it gets done, in turns beside nobody, the
//! profiler and `py-spy record`, both at 99 Hz.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Lines},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::recorder::FREQUENCY_HZ;
use crate::{interrupt, postgres::dies_with_us, setup, shell};

/// Calls down 20 frames, loops and allocates; each tenth of a second tells how many rounds there have been, and the
/// time by its own clock.
const PROGRAM: &str = r"
import time

def down(n):
    return leaf() if n == 0 else down(n - 1)

def leaf():
    total = 0
    for i in range(200):
        total += i * i
    return [total] * 10

rounds, told = 0, time.monotonic()
while True:
    down(20)
    rounds += 1
    now = time.monotonic()
    if now - told >= 0.1:
        print(rounds, now, time.process_time(), flush=True)
        told = now
";

/// A turn begins when the recorder has attached.
const SETTLE: Duration = Duration::from_secs(2);
/// And ends before the recorder does, which then writes.
const MARGIN: u32 = 2;

/// py-spy as it was when this was written.
const PY_SPY: &str = "py-spy==0.4.3";

/// Who records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Recorder {
    Nobody,
    Ours,
    PySpy,
}

impl Recorder {
    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Ours => "profiler record",
            Self::PySpy => "py-spy record",
        }
    }

    /// The recording of a process for this many seconds.
    fn command(self, pid: u32, seconds: u32, bench: &Bench) -> Option<Command> {
        let (pid, rate) = (pid.to_string(), FREQUENCY_HZ.to_string());
        let mut command = match self {
            Self::Nobody => return None,
            Self::Ours => {
                let mut ours = Command::new(shell::root().join("target/release/profiler"));
                ours.args(["record", "-p", &pid, "-F", &rate, "-d"]);
                ours.arg(format!("{seconds}s")).args(["-f", "folded"]);
                ours
            }
            Self::PySpy => {
                let mut spy = Command::new(&bench.py_spy);
                spy.args(["record", "--pid", &pid, "-r", &rate, "-d"]);
                spy.arg(seconds.to_string()).args(["-f", "raw"]);
                spy
            }
        };
        command.arg("-o").arg(bench.folder.join("recording"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        dies_with_us(&mut command);
        Some(command)
    }
}

/// What the turns have in common.
struct Bench {
    folder: PathBuf,
    program: PathBuf,
    py_spy: PathBuf,
}

/// Runs the verb.
pub(super) fn run(rounds: u32, seconds: u32) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "recording wants root: `sudo -E env PATH=\"$PATH\" cargo xtask bench python`"
    );
    interrupt::watch()?;
    setup::toolchain()?;
    setup::tests()?;
    super::build()?;
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("rounds.py");
    fs::write(&program, PROGRAM)?;
    let bench = Bench {
        folder: folder.path().to_owned(),
        program,
        py_spy: py_spy()?,
    };
    super::tell_of_company()?;
    let recorders = [Recorder::Nobody, Recorder::Ours, Recorder::PySpy];
    let mut speeds: BTreeMap<Recorder, Vec<Speed>> = BTreeMap::new();
    for round in 0..rounds {
        let mut order = recorders;
        order.rotate_left(round as usize % recorders.len());
        for recorder in order {
            interrupt::check()?;
            let speed = turn(recorder, seconds, &bench)
                .with_context(|| format!("beside {}", recorder.name()))?;
            println!(
                "round {}: {}, {:.0}/s, {:.0} per CPU second",
                round + 1,
                recorder.name(),
                speed.wall,
                speed.cpu
            );
            speeds.entry(recorder).or_default().push(speed);
        }
    }
    print(&speeds);
    Ok(())
}

/// py-spy in a venv of its own below `target`, installed once.
fn py_spy() -> Result<PathBuf> {
    let venv = shell::root().join("target").join(PY_SPY.replace("==", "-"));
    let path = venv.join("bin/py-spy");
    if !path.is_file() {
        let make = ["-m", "venv", "--clear"];
        shell::run(Command::new(PYTHON).args(make).arg(&venv))?;
        let pip = venv.join("bin/pip");
        shell::run(Command::new(pip).args(["-q", "install", PY_SPY]))?;
    }
    Ok(path)
}

/// Debian's, which everybody has.
const PYTHON: &str = "/usr/bin/python3";

/// The program under measurement, ended when dropped.
struct Program {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(path: &Path) -> Result<Self> {
        let mut command = Command::new(PYTHON);
        dies_with_us(&mut command);
        let mut child = command.arg(path).stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("it has an output")?;
        Ok(Self {
            child,
            lines: BufReader::new(output).lines(),
        })
    }

    /// What it tells next.
    fn next(&mut self) -> Result<Told> {
        let line = self.lines.next().context("the program has ended")??;
        let mut words = line.split(' ').map(str::parse);
        match (words.next(), words.next(), words.next()) {
            (Some(Ok(rounds)), Some(Ok(time)), Some(Ok(cpu))) => Ok(Told { rounds, time, cpu }),
            _ => anyhow::bail!("the program told `{line}`"),
        }
    }

    /// What it tells when its clock is at least this.
    fn at(&mut self, time: f64) -> Result<Told> {
        loop {
            let told = self.next()?;
            if told.time >= time {
                return Ok(told);
            }
        }
    }
}

/// A line of the program: rounds so far, its clock and its CPU time, s.
struct Told {
    rounds: f64,
    time: f64,
    cpu: f64,
}

/// Rounds per second, and per second of the program's own CPU time: other programs on the machine change the first
/// and hardly the second, but only the first has the time that a recorder stops the program for.
#[derive(Clone, Copy, Debug)]
struct Speed {
    wall: f64,
    cpu: f64,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Rounds per second beside a recorder that has attached and has not ended.
fn turn(recorder: Recorder, seconds: u32, bench: &Bench) -> Result<Speed> {
    let mut program = Program::start(&bench.program)?;
    sleep(Duration::from_millis(500));
    let attached = SETTLE.as_secs_f64();
    let whole = seconds + MARGIN + u32::try_from(SETTLE.as_secs())?;
    let now = program.next()?.time;
    let command = recorder.command(program.child.id(), whole, bench);
    let mut recording = command.map(|mut it| it.spawn()).transpose()?;
    let measured = (|| {
        let begin = program.at(now + attached)?;
        let end = program.at(begin.time + f64::from(seconds))?;
        if let Some(recording) = &mut recording {
            ensure!(recording.try_wait()?.is_none(), "it ended too early");
        }
        let rounds = end.rounds - begin.rounds;
        Ok(Speed {
            wall: rounds / (end.time - begin.time),
            cpu: rounds / (end.cpu - begin.cpu),
        })
    })();
    if let Some(mut recording) = recording {
        // To its end, so that one that failed is no turn.
        let status = recording.wait()?;
        ensure!(status.success(), "the recording failed: {status}");
        let size = fs::metadata(bench.folder.join("recording"))?.len();
        ensure!(size > 0, "the recording is empty");
    }
    measured
}

/// A unit of speed, and how to get it.
type Kind = (&'static str, fn(&Speed) -> f64);

fn print(speeds: &BTreeMap<Recorder, Vec<Speed>>) {
    let median = |recorder: Recorder, of: fn(&Speed) -> f64| {
        let mut list: Vec<f64> = speeds.get(&recorder)?.iter().map(of).collect();
        list.sort_by(f64::total_cmp);
        list.get(list.len() / 2).copied()
    };
    println!("\nrounds of a Python program, medians of turns; {FREQUENCY_HZ} Hz");
    let kinds: [Kind; 2] = [
        ("second", |speed| speed.wall),
        ("CPU second", |speed| speed.cpu),
    ];
    for (unit, of) in kinds {
        for &recorder in speeds.keys() {
            let (Some(speed), Some(alone)) = (median(recorder, of), median(Recorder::Nobody, of))
            else {
                continue;
            };
            println!(
                "{:<20} {speed:>10.0} per {unit:<10} {:>8.3} x",
                recorder.name(),
                speed / alone
            );
        }
    }
}
