//! The lives of target processes: fork adds followers to the table of targets, exec starts the
//! command that was waited for, exit frees the entry; each is told to user space.

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, task_struct},
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    programs::RawTracePointContext,
};
use profiler_common::{
    config::target,
    event::{KIND_EXEC, KIND_EXIT, KIND_FORK, ProcessEvent},
    outcome::Counter,
};

use crate::{
    filter::known_bits,
    maps::{EVENTS, TARGETS, count},
    task::Task,
};

/// A child of a followed process becomes a target before its first instruction. New threads need
/// nothing: they are of the same process.
#[inline(always)]
pub(crate) fn forked(ctx: &RawTracePointContext) {
    let parent = current_tgid();
    let Some(bits) = known_bits(parent) else {
        return;
    };
    let child = Task(ctx.arg::<*mut task_struct>(1))
        .tgid()
        .unwrap_or(parent);
    if child == parent || bits & target::FOLLOW == 0 {
        return;
    }
    if TARGETS.insert(child, bits, 0).is_err() {
        count(Counter::TargetsFull);
        return;
    }
    tell(KIND_FORK, child, parent);
}

/// A target replaced its program.
#[inline(always)]
pub(crate) fn execed() {
    let tgid = current_tgid();
    let Some(bits) = known_bits(tgid) else {
        return;
    };
    if bits & target::AWAIT_EXEC != 0 {
        // An update of an existing key cannot run out of room.
        let _ = TARGETS.insert(tgid, bits & !target::AWAIT_EXEC, 0);
    }
    tell(KIND_EXEC, tgid, 0);
}

/// A thread ends; with the last one, the process. `signal->live` is decremented before the
/// tracepoint in every supported kernel (`do_exit` in kernel/exit.c).
#[inline(always)]
pub(crate) fn exited() {
    let tgid = current_tgid();
    if known_bits(tgid).is_none() || Task::current().live_threads().unwrap_or(0) > 0 {
        return;
    }
    let _ = TARGETS.remove(tgid);
    tell(KIND_EXIT, tgid, 0);
}

#[inline(always)]
fn current_tgid() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

#[inline(always)]
fn tell(kind: u32, tgid: u32, parent: u32) {
    let event = ProcessEvent {
        kind,
        tgid,
        parent,
        padding: 0,
        // SAFETY: always callable. CLOCK_MONOTONIC.
        time_ns: unsafe { bpf_ktime_get_ns() },
        comm: bpf_get_current_comm().unwrap_or_default(),
    };
    if EVENTS
        .output_untyped::<ProcessEvent>(&event, u64::from(BPF_RB_FORCE_WAKEUP))
        .is_err()
    {
        count(Counter::EventLost);
    }
}
