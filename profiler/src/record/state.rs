//! What records change: processes, stacks, and the table of the recording.

use std::collections::BTreeSet;

use profiler_common::{
    event::{KIND_EXEC, KIND_EXIT, KIND_FORK, ProcessEvent},
    off_cpu::{State as OffCpu, ThreadTimes},
    outcome::StopReason,
    sample::{GIL_HELD, KIND_OFF_CPU, Sample, SampleHeader},
};

use syscalls::Sysno;

use super::{
    aggregate::{Aggregate, Extra, RUNNING, Space, comm_text},
    carry::Carry,
    stacks::Stacks,
};
use crate::{
    config::{Mode, PythonThreads},
    error::Error,
    kernel::{KernelError, Record, Ring},
    process::{Place, Processes},
    python::{Inserted, Pythons},
    wait::Waits,
};

/// What stands on the stack of a thread that waits for its interpreter's lock.
const WAITING_FOR_GIL: &str = "[waiting for the GIL]";

/// What records change.
pub(crate) struct State {
    pub(crate) stacks: Stacks,
    pub(crate) waits: Waits,
    pub(crate) mode: Mode,
    pub(crate) threads: PythonThreads,
    pub(crate) processes: Processes,
    pub(crate) aggregate: Aggregate<Place>,
    /// Named targets, and followers, that live.
    pub(crate) alive: BTreeSet<u32>,
    pub(crate) malformed: u64,
    /// So many threads of the table have been looked at for their names.
    pub(crate) named: usize,
    /// Time off the CPU that windows before this one have told.
    pub(crate) carry: Carry,
}

impl State {
    /// Takes in what is on the ring. Of several failures the first is told.
    pub(crate) fn drain(&mut self, ring: &mut Ring) -> Result<(), Error> {
        let mut result = Ok(());
        ring.drain(|record| {
            let taken = self.take(record);
            if result.is_ok() {
                result = taken;
            }
        });
        result?;
        Ok(self.stacks.update(&mut self.processes)?)
    }

    /// Takes one record in.
    pub(crate) fn take(&mut self, record: Record<'_>) -> Result<(), KernelError> {
        match record {
            Record::Sample(sample) => {
                let time_ns = sample.header.time_ns;
                self.stacks.catch_up(time_ns, &mut self.processes)?;
                if sample.header.kind == KIND_OFF_CPU {
                    self.ended_span(&sample);
                } else {
                    self.sample(&sample)?;
                }
            }
            Record::ThreadEnd(times) => self.thread_ended(times),
            Record::Process(event) => self.process(event),
            // Nothing of that is asked for by a recording of stacks.
            Record::Caller(_) | Record::Tcp(_) | Record::Wire(_) | Record::Malformed => {
                self.malformed += 1;
            }
        }
        Ok(())
    }

    fn sample(&mut self, sample: &Sample<'_>) -> Result<(), KernelError> {
        let left_out = self.is_left_out(sample);
        let Self {
            stacks,
            processes,
            aggregate,
            mode,
            ..
        } = self;
        let pid = sample.header.tgid;
        let time_ns = sample.header.time_ns;
        processes.observe(pid);
        let (user, stop) = stacks.finish(sample, processes)?;
        let (user, stop) = right_part(processes, sample.header, &user, stop);
        if left_out {
            aggregate.without_gil += 1;
            return Ok(());
        }
        let sample = Sample {
            user,
            stop,
            ..*sample
        };
        let python = interleave(stacks.pythons(), &sample, |address| {
            processes.locate_when(pid, address, time_ns)
        });
        let sample = marked(sample);
        let process = processes.describe(pid);
        let place = |space, address| match space {
            Space::Kernel => Place::Kernel(address),
            Space::User => processes.locate_when(pid, address, time_ns),
        };
        let extra = Extra {
            leaf: (*mode == Mode::Wall).then_some(RUNNING),
            python: &python,
            time_ns: 0,
        };
        aggregate.add(&sample, extra, place, |_| process);
        Ok(())
    }

    /// A span off the CPU that is over: what no window before this one has told of it.
    fn ended_span(&mut self, sample: &Sample<'_>) {
        let whole = sample.header;
        let header = SampleHeader {
            duration_ns: self.carry.span(whole.tid, whole.time_ns, whole.duration_ns),
            ..*whole
        };
        self.span(&Sample {
            header: &header,
            ..*sample
        });
    }

    /// A thread that ended, or is followed no more.
    pub(crate) fn thread_ended(&mut self, times: &ThreadTimes) {
        let times = self.carry.ended(times);
        self.aggregate.add_times(&times);
    }

    /// A span off the CPU.
    pub(crate) fn span(&mut self, sample: &Sample<'_>) {
        let header = sample.header;
        let waits_in_futex = header.state == OffCpu::Blocked as u8
            && Sysno::new(usize::try_from(header.syscall).unwrap_or(usize::MAX))
                == Some(Sysno::futex);
        let waits_for_gil =
            waits_in_futex && self.stacks.pythons().owns(header.tgid, header.arguments[0]);
        let leaf = if waits_for_gil {
            WAITING_FOR_GIL.to_owned()
        } else {
            format!("[{}]", self.waits.describe(header))
        };
        self.timed(sample, &leaf);
    }

    /// A stack that stands for a time, and what the thread did then.
    pub(crate) fn timed(&mut self, sample: &Sample<'_>, leaf: &str) {
        let left_out = self.is_left_out(sample);
        let Self {
            stacks,
            processes,
            aggregate,
            ..
        } = self;
        let (pid, time_ns) = (sample.header.tgid, sample.header.time_ns);
        processes.observe(pid);
        stacks.learn(sample, processes);
        let (user, stop) = right_part(processes, sample.header, sample.user, sample.stop);
        let sample = &Sample {
            user,
            stop,
            ..*sample
        };
        if left_out {
            aggregate.without_gil += 1;
            return;
        }
        let python = interleave(stacks.pythons(), sample, |address| {
            processes.locate_when(pid, address, time_ns)
        });
        let sample = &marked(*sample);
        let process = processes.describe(pid);
        let place = |space, address| match space {
            Space::Kernel => Place::Kernel(address),
            Space::User => processes.locate_when(pid, address, time_ns),
        };
        let extra = Extra {
            leaf: Some(leaf),
            python: &python,
            time_ns: sample.header.duration_ns,
        };
        aggregate.add(sample, extra, place, |_| process);
    }

    /// Whether a sample is not wanted, for the thread did not hold its interpreter's lock.
    fn is_left_out(&self, sample: &Sample<'_>) -> bool {
        self.threads == PythonThreads::HoldingGil && sample.header.gil != GIL_HELD
    }

    /// Processes that are named or descend from those.
    pub(crate) fn named(&self) -> Vec<u32> {
        self.alive.iter().copied().collect()
    }

    fn process(&mut self, event: &ProcessEvent) {
        let comm = comm_text(&event.comm);
        match event.kind {
            KIND_FORK => {
                self.alive.insert(event.tgid);
                self.processes.forked(event.parent, event.tgid, &comm);
                self.stacks.forked(event.parent, event.tgid);
                self.aggregate.forget_process(event.tgid);
            }
            KIND_EXEC => {
                self.processes.execed(event.tgid, &comm);
                self.stacks.execed(event.tgid);
                self.aggregate.forget_process(event.tgid);
            }
            KIND_EXIT => {
                self.alive.remove(&event.tgid);
                self.processes.exited(event.tgid);
                self.stacks.forget(event.tgid);
                self.aggregate.forget_process(event.tgid);
            }
            _ => self.malformed += 1,
        }
    }
}

/// A stack whose Python part is not whole is not complete either.
fn marked(sample: Sample<'_>) -> Sample<'_> {
    let is_left_out = sample.header.python_left_out > 0;
    Sample {
        stop: if is_left_out && sample.stop.is_complete() {
            StopReason::PythonLeftOut
        } else {
            sample.stop
        },
        ..sample
    }
}

/// What is right of a user stack: of one that was walked over replaced code, the inner part.
fn right_part<'a>(
    processes: &Processes,
    header: &SampleHeader,
    user: &'a [u64],
    stop: StopReason,
) -> (&'a [u64], StopReason) {
    let right = processes.right_frames(header.tgid, header.time_ns, user);
    match user.get(..right) {
        Some(part) if right < user.len() => (part, StopReason::Replaced),
        _ => (user, stop),
    }
}

/// A sample's Python frames as the table takes them.
fn interleave(
    pythons: &mut Pythons,
    sample: &Sample<'_>,
    locate: impl FnMut(u64) -> Place,
) -> Vec<(usize, Place, u64)> {
    let inserted = pythons.interleave(sample, locate).into_iter();
    let entry = |Inserted {
                     before,
                     place,
                     address,
                 }: Inserted| (before, place, address);
    inserted.map(entry).collect()
}
