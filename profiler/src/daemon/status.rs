//! What the daemon does and how it fares: written by its parts, cheap to read for whoever shows it.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    postgres::totals::Totals,
    store::{Capability, Figure, LostWindow},
};

/// Shared by all parts.
#[derive(Debug, Default)]
pub struct Status {
    now: Mutex<Snapshot>,
    queries: Mutex<Totals>,
}

/// All of it at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// What each capability does.
    pub capabilities: BTreeMap<Capability, State>,
    /// Windows since the start.
    pub windows: Windows,
    /// Samples of stacks on the CPU.
    pub samples: Counts,
    /// Spans off the CPU.
    pub off_cpu: Counts,
    /// Both, where all time is recorded.
    pub wall: Counts,
    /// Calls of Postgres.
    pub calls: Counts,
    /// TCP connections.
    pub connections: Counts,
    /// System calls.
    pub syscalls: Counts,
    /// What else is added up of windows that were written.
    pub sums: BTreeMap<Figure, u64>,
    /// Samples lost, by cause.
    pub lost_by: BTreeMap<String, u64>,
    /// Samples in windows that were written whose stack was cut.
    pub cut_stacks: u64,
    /// Time inside the BPF programs since the start; zero where the kernel does not tell.
    pub bpf: Duration,
    /// When the main loop last looked after everything.
    pub looked: Option<Instant>,
    /// Signs of life of each capability that runs: how many, and since when it is so many.
    pub beats: BTreeMap<Capability, (u64, Instant)>,
    /// How long a window is.
    pub window: Duration,
    /// What threads that write windows are at, and since when; one that waits for work is not
    /// there.
    pub at: BTreeMap<&'static str, (&'static str, Instant)>,
    /// Windows lost since the last one that was written, and why the last of them was.
    pub lost_in_a_row: BTreeMap<Capability, (u64, LostWindow)>,
    /// CPU time of the daemon of the last seconds, BPF programs included: millionths of the time of all CPUs.
    pub own_ppm: u64,
    /// What the budget has cut, in words, if it has.
    pub cut: Option<String>,
    /// Why the last reload was refused, if it was.
    pub refused: Option<String>,
}

/// What became of samples, calls or connections since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// In windows that were written.
    pub shown: u64,
    /// Lost, with windows that were, and within those that were written; of calls and connections, what may be ones.
    pub lost: u64,
}

/// What became of windows since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Windows {
    /// Written.
    pub written: u64,
    /// Lost, by cause.
    pub lost: BTreeMap<LostWindow, u64>,
    /// Deleted, as too old or too many.
    pub deleted: u64,
    /// That should have been deleted and could not.
    pub undeleted: u64,
    /// In the store now.
    pub kept: u64,
    /// Bytes of those.
    pub kept_bytes: u64,
    /// End of the newest, milliseconds after the Unix epoch.
    pub newest_ms: Option<u64>,
}

/// What a capability does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs, in words.
    On(String),
    /// It is not wanted.
    Off,
    /// It is wanted, but for now there is not CPU time enough.
    Shed,
    /// It failed, and is tried again.
    Failed(String),
}

impl Status {
    /// Changes it.
    pub(super) fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.lock());
    }

    /// Notes how far a capability that runs has come, or that it does not run.
    pub(super) fn beat(&self, capability: Capability, beats: Option<u64>) {
        let now = Instant::now();
        self.update(|snapshot| {
            snapshot.looked = Some(now);
            let Some(beats) = beats else {
                snapshot.beats.remove(&capability);
                return;
            };
            let last = snapshot.beats.entry(capability).or_insert((beats, now));
            if last.0 != beats {
                *last = (beats, now);
            }
        });
    }

    /// A thread begins with something, or waits for work.
    pub(super) fn set_at(&self, thread: &'static str, what: Option<&'static str>) {
        let now = Instant::now();
        self.update(|snapshot| match what {
            Some(what) => {
                snapshot.at.insert(thread, (what, now));
            }
            None => {
                snapshot.at.remove(thread);
            }
        });
    }

    /// How it is now.
    pub fn snapshot(&self) -> Snapshot {
        self.lock().clone()
    }

    /// Statements since the start.
    pub(crate) fn queries(&self) -> MutexGuard<'_, Totals> {
        self.queries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A panic of another part does not make what was written less true.
    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Snapshot {
    pub(super) fn counts(&mut self, capability: Capability) -> &mut Counts {
        match capability {
            Capability::Sampling => &mut self.samples,
            Capability::OffCpu => &mut self.off_cpu,
            Capability::Wall => &mut self.wall,
            Capability::Queries => &mut self.calls,
            Capability::Tcp => &mut self.connections,
            Capability::Syscalls => &mut self.syscalls,
        }
    }

    /// CPU time of the daemon of the last seconds, in per cent of all CPUs: `0.12 %`.
    pub fn own_cpu(&self) -> String {
        let (percent, hundredths) = (self.own_ppm / 10_000, self.own_ppm % 10_000 / 100);
        format!("{percent}.{hundredths:02} %")
    }

    /// One line.
    pub fn line(&self) -> String {
        let mut parts = Vec::new();
        for (capability, state) in &self.capabilities {
            let name = capability.name();
            match state {
                State::On(what) => parts.push(format!("{name}: {what}")),
                State::Off => {}
                State::Shed => parts.push(format!("{name} SHED by the CPU budget")),
                State::Failed(why) => parts.push(format!("{name} FAILED, tried again: {why}")),
            }
        }
        if parts.is_empty() {
            parts.push("nothing is on".to_owned());
        }
        let Windows {
            written,
            lost,
            kept,
            kept_bytes,
            ..
        } = &self.windows;
        parts.push(format!(
            "{written} windows written, {kept} kept in {} kB",
            kept_bytes.div_ceil(1000)
        ));
        for (cause, count) in lost {
            parts.push(format!("{count} LOST: {}", cause.text()));
        }
        parts.push(format!("own CPU {}", self.own_cpu()));
        parts.extend(self.cut.iter().map(|cut| format!("over budget: {cut}")));
        let refused = self.refused.iter();
        parts.extend(refused.map(|why| format!("new configuration REFUSED: {why}")));
        parts.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::{Capability, LostWindow, State, Status};

    /// What is shed by the budget is not off, as what nobody wants.
    #[test]
    fn line_tells_what_is_shed() {
        let status = Status::default();
        status.update(|now| {
            now.capabilities.insert(Capability::Tcp, State::Shed);
            now.capabilities.insert(Capability::Queries, State::Off);
        });
        let line = status.snapshot().line();
        assert!(
            line.starts_with("tcp SHED by the CPU budget; 0 windows"),
            "{line}"
        );
    }

    /// Trouble is in the line, and nothing else shouts.
    #[test]
    fn line_tells_trouble() {
        let status = Status::default();
        status.update(|now| {
            let what = State::On("host at 19 Hz".to_owned());
            now.capabilities.insert(Capability::Sampling, what);
            now.windows.written = 3;
            now.own_ppm = 1234;
        });
        assert_eq!(
            status.snapshot().line(),
            "sampling: host at 19 Hz; 3 windows written, 0 kept in 0 kB; own CPU 0.12 %"
        );
        status.update(|now| {
            now.windows.lost.insert(LostWindow::DiskFull, 2);
            now.refused = Some("p.toml:1: nonsense".to_owned());
        });
        let line = status.snapshot().line();
        assert!(line.contains("2 LOST: disk full") && line.contains("REFUSED: p.toml:1"));
    }
}
