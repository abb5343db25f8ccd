//! What watching costs a server: transactions of `pgbench -S` while its system calls are counted, and of `pgbench -C -S`,
//! which connects anew for each one, while its connections are watched. In a network namespace of our own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{child::Running, syscalls::BPFTRACE, turns::Turns};
use crate::{
    postgres::{Postgres, dies_with_us},
    shell::{self, has},
};

/// Until the connections of pgbench are there.
const WARM_UP: Duration = Duration::from_secs(1);
/// Seconds from pgbench's start until whoever watches has begun; bpftrace compiles first.
const SETTLED_S: u32 = 4;
/// Seconds that count, of each turn.
const COUNTED_S: u32 = 4;

/// Who watches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watcher {
    Nobody,
    Syscalls,
    /// System calls of a process that does nothing.
    Elsewhere,
    Tcp,
    Strace,
    PerfTrace,
    Bpftrace,
}

/// A workload: what pgbench does, and who watches in turns.
struct Load {
    what: &'static str,
    arguments: &'static [&'static str],
    watchers: Vec<Watcher>,
}

impl Watcher {
    const fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Syscalls => "profiler syscalls",
            Self::Elsewhere => "profiler syscalls of another process",
            Self::Tcp => "profiler tcp",
            Self::Strace => "strace -c",
            Self::PerfTrace => "perf trace -s",
            Self::Bpftrace => "bpftrace",
        }
    }

    /// Watches until it gets SIGINT, then writes `table`.
    fn command(
        self,
        server: &Postgres,
        bystander: &Child,
        table: &Path,
    ) -> Result<Option<Command>> {
        let postmaster = server.server.id().to_string();
        let pids = server
            .pids()?
            .iter()
            .map(u32::to_string)
            .collect::<Vec<_>>();
        let (program, arguments) = match self {
            Self::Nobody => return Ok(None),
            Self::Syscalls => (
                "",
                vec!["syscalls", "-d1h", "--descendants", "-p", &postmaster],
            ),
            Self::Elsewhere => ("", vec!["syscalls", "-d1h", "-p"]),
            Self::Tcp => ("", vec!["tcp", "-d1h", "--descendants", "-p", &postmaster]),
            Self::Strace => ("strace", vec!["-c", "-f"]),
            Self::PerfTrace => ("perf", vec!["trace", "-s", "-p"]),
            Self::Bpftrace => ("bpftrace", vec!["-e"]),
        };
        let ours = shell::root().join("target/release/profiler");
        let mut command = if program.is_empty() {
            Command::new(ours)
        } else {
            Command::new(program)
        };
        command.args(arguments);
        match self {
            Self::Elsewhere => {
                command.arg(bystander.id().to_string());
            }
            Self::Strace => {
                command.args(pids.iter().flat_map(|pid| ["-p", pid]));
            }
            Self::PerfTrace => {
                command.arg(pids.join(","));
            }
            Self::Bpftrace => {
                let who: Vec<String> = pids.iter().map(|pid| format!("pid == {pid}")).collect();
                command.arg(BPFTRACE.replace("{who}", &who.join(" || ")));
            }
            _ => {}
        }
        command.arg("-o").arg(table).stdout(Stdio::null());
        Ok(Some(command))
    }
}

/// Both workloads, in turns.
pub(super) fn run(rounds: u32, folder: &Path) -> Result<()> {
    own_network()?;
    let server = Postgres::start_at("127.0.0.1")?;
    let mut init = server.client("pgbench")?;
    shell::run(
        init.args(["--initialize", "--scale=5", "--quiet"])
            .stderr(Stdio::null()),
    )?;
    let mut sleeper = Command::new("sleep");
    dies_with_us(&mut sleeper);
    let bystander = Running(sleeper.arg("infinity").spawn()?);
    let mut watchers = vec![Watcher::Nobody, Watcher::Syscalls, Watcher::Elsewhere];
    watchers.extend(has("strace").then_some(Watcher::Strace));
    watchers.extend(has("perf").then_some(Watcher::PerfTrace));
    watchers.extend(has("bpftrace").then_some(Watcher::Bpftrace));
    let loads = [
        Load {
            what: "pgbench -S, transactions per second",
            arguments: &[],
            watchers,
        },
        Load {
            what: "pgbench -C -S over TCP, transactions per second",
            arguments: &["--connect", "--host=127.0.0.1"],
            watchers: vec![Watcher::Nobody, Watcher::Tcp],
        },
    ];
    for load in loads {
        let names = load.watchers.iter().map(|watcher| watcher.name()).collect();
        let mut turns = Turns::new(names);
        for round in 0..rounds {
            turns.round(round, |index| {
                let watcher = load.watchers.get(index).context("a name too many")?;
                let pgbench = pgbench(&server, load.arguments, folder)?;
                sleep(WARM_UP);
                let command = watcher.command(&server, &bystander.0, &folder.join("table"))?;
                turn(command, pgbench, folder)
            })?;
        }
        turns.print(load.what);
    }
    Ok(())
}

/// The server trusts whoever reaches it: only we do in a namespace that is empty but for us. It is ours, and that
/// of what this thread starts, to the end.
fn own_network() -> Result<()> {
    // SAFETY: the call takes a number and concerns nothing in memory.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    ensure!(
        result == 0,
        "no network namespace: {}",
        std::io::Error::last_os_error()
    );
    shell::run(&mut shell::command("ip", &["link", "set", "lo", "up"]))
}

fn pgbench(server: &Postgres, arguments: &[&str], folder: &Path) -> Result<Running> {
    let mut command = server.client("pgbench")?;
    command
        .args(["--select-only", "--client=2", "--progress=1"])
        .arg(format!("--time={}", SETTLED_S + COUNTED_S + 1))
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(fs::File::create(progress(folder))?);
    Ok(Running(command.spawn().context("cannot start pgbench")?))
}

fn progress(folder: &Path) -> PathBuf {
    folder.join("progress")
}

/// Watches a pgbench that runs already, from its middle to after its end: transactions per second.
fn turn(command: Option<Command>, mut pgbench: Running, folder: &Path) -> Result<f64> {
    let table = folder.join("table");
    fs::write(&table, "")?;
    let mut watching = None;
    if let Some(mut command) = command {
        dies_with_us(&mut command);
        let talk = fs::File::create(folder.join("talk"))?;
        watching = Some(Running(command.stderr(talk).spawn()?));
    }
    let status = pgbench.0.wait()?;
    ensure!(status.success(), "pgbench failed: {status}");
    if let Some(mut watching) = watching {
        let talk = || fs::read_to_string(folder.join("talk")).unwrap_or_default();
        if let Some(status) = watching.0.try_wait()? {
            bail!("it ended early: {status}: {}", talk());
        }
        kill_process(Pid::from_child(&watching.0), Signal::INT)?;
        watching.0.wait()?;
        // One that saw nothing costs nothing.
        ensure!(
            fs::metadata(&table)?.len() > 100,
            "it saw nothing: {}",
            talk()
        );
    }
    transactions(&fs::read_to_string(progress(folder))?).context("pgbench told no progress")
}

/// Transactions per second once settled, of lines such as `progress: 5.0 s, 25000.1 tps, …`.
fn transactions(progress: &str) -> Option<f64> {
    let counted = f64::from(SETTLED_S) + 0.5..f64::from(SETTLED_S + COUNTED_S) + 0.5;
    let rates: Vec<f64> = progress
        .lines()
        .filter_map(|line| {
            let (time, rest) = line.strip_prefix("progress: ")?.split_once(" s, ")?;
            let (rate, _) = rest.split_once(" tps")?;
            let time: f64 = time.parse().ok()?;
            counted.contains(&time).then(|| rate.parse().ok())?
        })
        .collect();
    let count = u32::try_from(rates.len()).ok().filter(|count| *count > 0)?;
    Some(rates.iter().sum::<f64>() / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::transactions;

    /// Seconds before the watcher has begun do not count.
    #[test]
    fn the_beginning_does_not_count() {
        let lines = "pgbench (15)\nprogress: 4.0 s, 900.0 tps, lat 0.1 ms\nprogress: 5.0 s, 100.0 tps, lat\n\
                     progress: 8.0 s, 200.0 tps, lat\nprogress: 9.0 s, 900.0 tps, lat\n";
        assert_eq!(transactions(lines), Some(150.0));
        assert_eq!(transactions(""), None);
    }
}
