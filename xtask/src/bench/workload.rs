//! What is recorded: `pgbench -S` against a Postgres of our own.

use std::{
    fs::File,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::recorder::{Recorder, Recording};
use crate::{postgres::Postgres, shell};

/// From pgbench's start to the recorder's: its connections are there then.
const WARM_UP: Duration = Duration::from_millis(1500);
/// Seconds that pgbench runs longer than the recorder.
const LONGER_SECONDS: u32 = 4;

/// A running server with something in it.
pub(super) struct Workload {
    server: Postgres,
    folder: TempDir,
}

/// pgbench, ended and waited for when dropped.
struct Pgbench(Child);

impl Drop for Pgbench {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Workload {
    /// Starts the server and fills it.
    pub(super) fn start() -> Result<Self> {
        let server = Postgres::start()?;
        let mut init = server.client("pgbench")?;
        shell::run(
            init.args(["--initialize", "--scale=5", "--quiet"])
                .stderr(Stdio::null()),
        )?;
        let folder = tempfile::tempdir()?;
        Ok(Self { server, folder })
    }

    /// One turn of one recorder: pgbench runs from before to after the recording, and tells how much it
    /// could do meanwhile.
    pub(super) fn record(&self, recorder: Recorder, round: u32, seconds: u32) -> Result<Recording> {
        let progress = self.folder.path().join("progress");
        let mut pgbench = self.pgbench(seconds + LONGER_SECONDS, &File::create(&progress)?)?;
        sleep(WARM_UP);
        let pids = self.server.pids()?;
        let mut recording = recorder.record(&pids, seconds, self.folder.path())?;
        let status = pgbench.0.wait()?;
        ensure!(status.success(), "pgbench failed: {status}");
        recording.round = round;
        recording.tps = transactions(&std::fs::read_to_string(progress)?, seconds)
            .context("pgbench told no progress")?;
        // With the machine to itself.
        recorder.read_back(&mut recording, self.folder.path())?;
        Ok(recording)
    }

    fn pgbench(&self, seconds: u32, progress: &File) -> Result<Pgbench> {
        let mut command: Command = self.server.client("pgbench")?;
        command
            .args(["--select-only", "--client=2", "--progress=1"])
            .arg(format!("--time={seconds}"))
            .stdout(Stdio::null())
            .stderr(progress.try_clone()?);
        Ok(Pgbench(command.spawn().context("cannot start pgbench")?))
    }
}

/// Transactions per second in the seconds that lie wholly within the recording, of lines such as
/// `progress: 3.0 s, 25000.1 tps, …`.
fn transactions(progress: &str, seconds: u32) -> Option<f64> {
    let inside = 3.0 - 0.5..f64::from(seconds) + 1.5;
    let rates: Vec<f64> = progress
        .lines()
        .filter_map(|line| {
            let (time, rest) = line.strip_prefix("progress: ")?.split_once(" s, ")?;
            let (rate, _) = rest.split_once(" tps")?;
            let time: f64 = time.parse().ok()?;
            inside.contains(&time).then(|| rate.parse().ok())?
        })
        .collect();
    let count = u32::try_from(rates.len()).ok().filter(|count| *count > 0)?;
    Some(rates.iter().sum::<f64>() / f64::from(count))
}

#[cfg(test)]
mod tests {
    use super::transactions;

    /// Only the seconds within the recording count.
    #[test]
    fn the_edges_do_not_count() {
        let lines = "pgbench (15)\nprogress: 2.0 s, 900.0 tps, lat 0.1 ms\nprogress: 3.0 s, 100.0 tps, lat\n\
                     progress: 4.0 s, 200.0 tps, lat\nprogress: 5.0 s, 900.0 tps, lat\n";
        assert_eq!(transactions(lines, 3), Some(150.0));
        assert_eq!(transactions("", 3), None);
    }
}
