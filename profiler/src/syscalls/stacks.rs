//! Where in the program system calls are made: stacks that stand for time in calls, as a profile.
//!
//! The kernel side takes a stack for each full millisecond that a thread spent in calls, so that the stacks
//! stand for the time in the mean. Time that no stack stands for is in the profile too, without one.

use std::time::{Duration, SystemTime};

use profiler_common::{
    off_cpu::ThreadTimes,
    syscalls::{Call, CallerEvent, KIND_DESCRIPTOR, state},
};

use super::names;
use crate::{
    artifact::{Artifact, Destination},
    config::{self, Interpreter, Mode, PythonThreads, Targets},
    error::Error,
    kernel::Kernel,
    output::{Format, Options},
    process::{self, Place},
    record::{Recorded, Single, aggregate::Aggregate, finish, state::State},
};

/// The frame that stands on a stack.
pub(super) fn leaf(number: i32) -> String {
    format!("[{}]", names::call(number.cast_unsigned()))
}

/// Whether the thread is in a call.
pub(super) fn is_inside(call: &Call) -> bool {
    matches!(call.state, state::INSIDE | state::INSIDE_BEFORE)
}

/// The descriptor that an open call works on, as the kernel side would tell it.
pub(super) fn descriptor_of(tid: u32, call: &Call) -> CallerEvent {
    CallerEvent {
        kind: KIND_DESCRIPTOR,
        tgid: call.tgid,
        tid,
        descriptor: call.descriptor,
        inode: call.inode,
        mode: call.mode,
        padding: 0,
        comm: [0; 16],
    }
}

/// What a finished count leaves of stacks.
pub(super) struct Recording {
    pub(super) targets: Targets,
    pub(super) format: Format,
    pub(super) artifact: Artifact,
    pub(super) kernel: Kernel,
    pub(super) state: State,
    pub(super) started_at: (SystemTime, u64),
    pub(super) duration: Duration,
}

/// Enters time that no stack stands for: of calls still open, and what is left of full milliseconds.
pub(super) fn add_rest(aggregate: &mut Aggregate<Place>, kernel: &Kernel, now_ns: u64) {
    for (tid, call) in kernel.callers() {
        let mut times = ThreadTimes {
            tgid: call.tgid,
            tid,
            ..ThreadTimes::default()
        };
        let name = process::thread_comm(call.tgid, tid).unwrap_or_default();
        let bytes = name.bytes().take(times.comm.len() - 1);
        times
            .comm
            .iter_mut()
            .zip(bytes)
            .for_each(|(to, byte)| *to = byte);
        let thread = aggregate.thread_of(&times);
        if call.unshown_ns > 0 {
            aggregate.add_time(
                thread,
                "[calls without a stack of their own]",
                call.unshown_ns,
            );
        }
        if is_inside(&call) {
            let leaf = format!("[{}, not returned]", names::call(call.number));
            aggregate.add_time(thread, &leaf, now_ns.saturating_sub(call.since_ns));
        }
    }
}

/// Writes the profile.
pub(super) fn write(recording: Recording) -> Result<(), Error> {
    let Recording {
        targets,
        format,
        artifact,
        kernel,
        state,
        started_at,
        duration,
    } = recording;
    let config = config::Record {
        targets,
        duration: Some(duration),
        mode: Mode::Syscalls,
        min_block: Duration::ZERO,
        frequency_hz: config::FREQUENCY_HZ,
        destination: None::<Destination>,
        format,
        options: Options::default(),
        interpreter: Interpreter::default(),
        python_threads: PythonThreads::All,
    };
    let single: Option<Single> = finish::single(&config, &state.processes, &state.aggregate);
    finish::write(Recorded {
        config,
        artifact,
        kernel,
        stacks: state.stacks,
        processes: state.processes,
        aggregate: state.aggregate,
        malformed: state.malformed,
        clock: None,
        started_at,
        duration,
        target_cpu: None,
        single,
        open_spans: 0,
    })
}
