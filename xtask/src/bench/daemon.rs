//! What the daemon costs: its CPU time and memory while it samples the whole host with its default settings, first with
//! nothing besides, then with pgbench and a Python program that keep the processors busy. What it keeps of other
//! processes is thrown away unread.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::child::{self, Running};
use crate::{
    interrupt,
    postgres::{Postgres, dies_with_us},
    shell,
};

/// Between two looks at the daemon's metrics.
const LOOK: Duration = Duration::from_secs(1);
/// Much longer than a window.
const PATIENCE: Duration = Duration::from_secs(200);
const BUSY_PYTHON: &str = "\
def leaf(n): return sum(i * i for i in range(n))
def middle(n): return leaf(n) + leaf(n // 2)
while True: middle(1000)
";

/// What the daemon has used and seen so far.
#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    cpu: Duration,
    bpf_s: f64,
    windows: f64,
    samples: f64,
    lost: f64,
}

/// Starts a program that is not heard.
fn start(command: &mut Command) -> Result<Running> {
    dies_with_us(command);
    let name = command.get_program().display().to_string();
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Ok(Running(
        child.with_context(|| format!("cannot run {name}"))?,
    ))
}

/// Runs the bench: so many windows of each kind count.
pub(super) fn run(windows: u32, profiler: Option<&Path>) -> Result<()> {
    let ours = shell::root().join("target/release/profiler");
    if profiler.is_none() {
        super::build()?;
    }
    let folder = tempfile::tempdir()?;
    let server = Postgres::start()?;
    let mut init = server.client("pgbench")?;
    init.args(["--initialize", "--scale=5", "--quiet"]);
    shell::run(init.stderr(Stdio::null()))?;
    let daemon = daemon(profiler.unwrap_or(&ours), folder.path())?;
    let socket = folder.path().join("web.sock");
    let pid = daemon.0.id();
    let alone = measure(pid, &socket, windows)?;
    tell("with nothing besides", alone);
    let mut pgbench = server.client("pgbench")?;
    pgbench.args([
        "--select-only",
        "--no-vacuum",
        "--client=4",
        "--time=100000",
    ]);
    let loads = [
        start(&mut pgbench)?,
        start(Command::new("python3").args(["-c", BUSY_PYTHON]))?,
    ];
    let busy = measure(pid, &socket, windows)?;
    drop(loads);
    tell("with pgbench and Python", busy);
    let more = |of: fn((Reading, Reading)) -> f64| of(busy) - of(alone);
    println!(
        "each sample more: {:.1} us",
        more(|marks| rates(marks).0) / more(|marks| rates(marks).1) * 1e6
    );
    println!(
        "memory: {} MiB resident now, {} MiB at most with what it has mapped of files, {} MiB of maps",
        child::resident_kib(pid).unwrap_or(0) >> 10,
        peak_kib(pid)? >> 10,
        child::maps_bytes(pid) >> 20,
    );
    Ok(())
}

/// Starts it, for the whole host and without a budget that would slow it down.
fn daemon(profiler: &Path, folder: &Path) -> Result<Running> {
    let configuration = folder.join("profiler.toml");
    let text = format!(
        "[state]\ndirectory = '{0}/state'\n[web]\nlisten = 'unix:{0}/web.sock'\n[overhead]\nmax = '100%'\n",
        folder.display()
    );
    fs::write(&configuration, text)?;
    let mut command = Command::new(profiler);
    start(command.args(["daemon", "--config"]).arg(configuration))
}

/// From the end of one window to the end of a later one. The window under way now does not count.
fn measure(pid: u32, socket: &Path, windows: u32) -> Result<(Reading, Reading)> {
    let now = metrics(socket).map_or(0.0, |text| sum(&text, "profiler_windows_written_total"));
    let before = wait(pid, socket, now + 2.0)?;
    let after = wait(pid, socket, before.windows + f64::from(windows))?;
    Ok((before, after))
}

/// Waits until so many windows are written.
fn wait(pid: u32, socket: &Path, windows: f64) -> Result<Reading> {
    let mut last = (Instant::now(), -1.0);
    loop {
        interrupt::check()?;
        if let Some(text) = metrics(socket) {
            let written = sum(&text, "profiler_windows_written_total");
            if written >= windows {
                return Ok(Reading {
                    at: Instant::now(),
                    cpu: child::cpu_so_far(pid).context("the daemon has ended")?,
                    bpf_s: sum(&text, "profiler_bpf_run_seconds_total"),
                    windows: written,
                    samples: sum(&text, "profiler_samples_total"),
                    lost: sum(&text, "profiler_samples_lost_total"),
                });
            }
            if written > last.1 {
                last = (Instant::now(), written);
            }
        }
        ensure!(last.0.elapsed() < PATIENCE, "the daemon writes no windows");
        sleep(LOOK);
    }
}

/// What it tells, once it listens.
fn metrics(socket: &Path) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// Of all samples of this name in a text of metrics.
fn sum(text: &str, name: &str) -> f64 {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labels) => labels.rsplit_once("} ")?.1,
            None => rest.strip_prefix(' ')?,
        };
        value.trim().parse::<f64>().ok()
    });
    values.sum()
}

/// CPU seconds, its own and its BPF programs', and samples, each a second.
fn rates((before, after): (Reading, Reading)) -> (f64, f64) {
    let seconds = after.at.duration_since(before.at).as_secs_f64();
    let own = after.cpu.saturating_sub(before.cpu).as_secs_f64();
    let used = own + after.bpf_s - before.bpf_s;
    (used / seconds, (after.samples - before.samples) / seconds)
}

fn tell(when: &str, marks: (Reading, Reading)) {
    let (before, after) = marks;
    let (used, samples) = rates(marks);
    println!(
        "{when}: {:.2} % of a core ({:.3} s of its own and {:.3} s of BPF in {:.0} s), {samples:.1} samples a second, {} lost",
        used * 100.0,
        after.cpu.saturating_sub(before.cpu).as_secs_f64(),
        after.bpf_s - before.bpf_s,
        after.at.duration_since(before.at).as_secs_f64(),
        after.lost - before.lost,
    );
}

fn peak_kib(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let size = line.and_then(|size| size.trim().strip_suffix(" kB"));
    Ok(size.context("no VmHWM")?.parse()?)
}

#[cfg(test)]
mod tests {
    use super::sum;

    /// Samples of one name are added, whatever their labels; those of longer names are others.
    #[test]
    fn samples_are_added() {
        let text =
            "# TYPE a counter\na_total{x=\"} 5\"} 3\na_total{x=\"b\"} 4.5\na_total_more 9\nb 1\n";
        assert!((sum(text, "a_total") - 7.5).abs() < 1e-9);
        assert!((sum(text, "b") - 1.0).abs() < 1e-9);
    }
}
