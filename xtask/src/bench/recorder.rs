//! The recorders that are compared: each records the same processes at the same rate, and its recording
//! is made readable.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::child::{self, Used};
use crate::shell;

/// Samples per second and CPU.
pub(super) const FREQUENCY_HZ: u32 = 99;

/// Who records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recorder {
    /// Nobody: what the workload does undisturbed.
    None,
    /// The profiler.
    Ours,
    /// An earlier one, [`BEFORE`].
    Before,
    /// `perf record --call-graph dwarf`, then `perf script`.
    PerfDwarf,
    /// `perf record -g`, then `perf script`.
    PerfFramePointers,
}

/// Where the earlier profiler is, if there is one.
pub(super) static BEFORE: OnceLock<PathBuf> = OnceLock::new();

/// What one recording took and gave.
#[derive(Clone, Debug)]
pub(super) struct Recording {
    pub(super) recorder: Recorder,
    pub(super) round: u32,
    seconds: u32,
    /// Transactions of the workload per second meanwhile.
    pub(super) tps: f64,
    /// The recording process.
    pub(super) record: Used,
    /// Time inside our BPF programs; perf's kernel side has no such account, and is part of the workload's time.
    pub(super) bpf: Duration,
    /// Making it readable, where that is a program of its own.
    pub(super) script: Used,
    pub(super) samples: u64,
    /// Frames of all stacks, kernel and user, inlined functions not counted.
    frames: u64,
    /// Stacks that reach their outermost frame; perf does not tell.
    complete: Option<u64>,
}

impl Recorder {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "nobody",
            Self::Ours => "profiler",
            Self::Before => "profiler before",
            Self::PerfDwarf => "perf --call-graph dwarf",
            Self::PerfFramePointers => "perf -g",
        }
    }

    /// Records these processes.
    pub(super) fn record(self, pids: &[u32], seconds: u32, folder: &Path) -> Result<Recording> {
        let time = Duration::from_secs(u64::from(seconds));
        let middle = (time.mul_f64(0.4), time.mul_f64(0.9));
        let list: Vec<String> = pids.iter().map(u32::to_string).collect();
        let command = match self {
            Self::None => {
                let mut sleep = Command::new("sleep");
                sleep.arg(seconds.to_string());
                sleep
            }
            Self::Ours => {
                let profiler = shell::root().join("target/release/profiler");
                profiler_of(&profiler, &list.join(","), seconds, folder)
            }
            Self::Before => {
                let profiler = BEFORE.get().context("no earlier profiler is named")?;
                profiler_of(profiler, &list.join(","), seconds, folder)
            }
            Self::PerfDwarf => perf(&["--call-graph", "dwarf"], &list.join(","), seconds, folder),
            Self::PerfFramePointers => perf(&["-g"], &list.join(","), seconds, folder),
        };
        let used = quietly(command, middle, folder)?;
        Ok(Recording {
            recorder: self,
            round: 0,
            seconds,
            tps: 0.0,
            record: used,
            bpf: Duration::ZERO,
            script: Used::default(),
            samples: 0,
            frames: 0,
            complete: None,
        })
    }

    /// Makes the recording readable, at its cost, and counts what is in it, at nobody's.
    pub(super) fn read_back(self, recording: &mut Recording, folder: &Path) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Ours | Self::Before => read_ours(recording, folder),
            Self::PerfDwarf | Self::PerfFramePointers => read_perf(recording, folder),
        }
    }
}

fn profiler_of(profiler: &Path, pids: &str, seconds: u32, folder: &Path) -> Command {
    let mut profiler = Command::new(profiler);
    profiler
        .args(["record", "-p", pids, "--descendants", "-d"])
        .arg(format!("{seconds}s"))
        .args(["-F", &FREQUENCY_HZ.to_string(), "-o"])
        .arg(folder.join("ours.json"))
        .args(["-f", "json"]);
    profiler
}

fn perf(unwind: &[&str], pids: &str, seconds: u32, folder: &Path) -> Command {
    let mut perf = Command::new("perf");
    perf.arg("record")
        .args(unwind)
        .args(["-F", &FREQUENCY_HZ.to_string(), "-p", pids, "-o"])
        .arg(folder.join("perf.data"))
        .args(["--", "sleep", &seconds.to_string()]);
    perf
}

fn script(folder: &Path, more: &[&str]) -> Command {
    let mut script = Command::new("perf");
    script
        .arg("script")
        .args(more)
        .arg("-i")
        .arg(folder.join("perf.data"));
    script
}

/// Runs it; what it says is shown only if it fails.
fn quietly(mut command: Command, middle: (Duration, Duration), folder: &Path) -> Result<Used> {
    let talk = folder.join("talk");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&talk)?);
    child::run(&mut command, middle).with_context(|| fs::read_to_string(&talk).unwrap_or_default())
}

fn read_ours(recording: &mut Recording, folder: &Path) -> Result<()> {
    let file: Value = serde_json::from_slice(&fs::read(folder.join("ours.json"))?)?;
    let number = |value: &Value| value.as_u64().context("not our JSON");
    let account = &file["account"];
    recording.bpf = Duration::from_nanos(number(&account["cost"]["bpf_ns"])?);
    recording.samples = number(&account["shown"])?;
    let complete = account["complete_stacks"].as_object();
    recording.complete = complete.map(|ends| ends.values().filter_map(Value::as_u64).sum());
    for sample in file["samples"].as_array().context("no samples")? {
        let index = usize::try_from(number(&sample["stack"])?)?;
        let stack = file["stacks"][index].as_array().context("no stack")?;
        let is_frame = |location: &&Value| {
            let index = location
                .as_u64()
                .and_then(|index| usize::try_from(index).ok());
            index.is_some_and(|index| file["locations"][index]["kind"] != "marker")
        };
        let frames = stack.iter().filter(is_frame).count() as u64;
        recording.frames += frames * number(&sample["count"])?;
    }
    Ok(())
}

fn read_perf(recording: &mut Recording, folder: &Path) -> Result<()> {
    let never = (Duration::MAX, Duration::MAX);
    recording.script = quietly(script(folder, &[]), never, folder)?;
    let mut count = script(folder, &["--no-inline", "-F", "ip,sym"]);
    let mut counting = count
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot run perf script")?;
    let lines = counting.stdout.take().context("no output")?;
    let mut inside = false;
    for line in BufReader::new(lines).lines() {
        let is_frame = !line?.trim().is_empty();
        recording.frames += u64::from(is_frame);
        recording.samples += u64::from(is_frame && !inside);
        inside = is_frame;
    }
    ensure!(counting.wait()?.success(), "perf script failed");
    Ok(())
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a few thousand samples and frames"
)]
impl Recording {
    /// CPU time of everything that is known to have been spent on it.
    pub(super) fn cpu(&self) -> Duration {
        self.bpf + self.record.cpu + self.script.cpu
    }

    /// CPU seconds per second of recording.
    pub(super) fn cpu_share(&self) -> f64 {
        self.cpu().as_secs_f64() / f64::from(self.seconds)
    }

    /// Likewise, only while it records.
    pub(super) fn cpu_steady_share(&self) -> f64 {
        let bpf = self.bpf.as_secs_f64() / f64::from(self.seconds);
        self.record.cpu_steady.unwrap_or(f64::NAN) + bpf
    }

    /// Microseconds of CPU time per sample.
    pub(super) fn sample_us(&self) -> f64 {
        self.cpu().as_secs_f64() * 1e6 / self.samples as f64
    }

    /// Microseconds inside BPF programs per sample.
    pub(super) fn sample_bpf_us(&self) -> f64 {
        self.bpf.as_secs_f64() * 1e6 / self.samples as f64
    }

    /// Mean depth.
    pub(super) fn depth(&self) -> f64 {
        self.frames as f64 / self.samples as f64
    }

    /// The larger of the two programs.
    pub(super) fn peak_mib(&self) -> f64 {
        self.record.peak_kib.max(self.script.peak_kib) as f64 / 1024.0
    }

    /// BPF maps.
    pub(super) fn maps_mib(&self) -> f64 {
        self.record.maps_kib as f64 / 1024.0
    }

    /// As it was measured.
    pub(super) fn json(&self) -> Value {
        json!({
            "recorder": self.recorder.name(),
            "round": self.round,
            "tps": self.tps,
            "cpu_recording_s": self.record.cpu.as_secs_f64(),
            "cpu_recording_steady_share": self.record.cpu_steady,
            "cpu_bpf_s": self.bpf.as_secs_f64(),
            "cpu_script_s": self.script.cpu.as_secs_f64(),
            "samples": self.samples,
            "frames": self.frames,
            "complete_stacks": self.complete,
            "peak_recording_kib": self.record.peak_kib,
            "peak_script_kib": self.script.peak_kib,
            "bpf_maps_kib": self.record.maps_kib,
        })
    }
}
