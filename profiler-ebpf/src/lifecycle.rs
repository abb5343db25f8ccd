//! The lives of target processes: fork adds followers to the table of targets, exec starts the
//! command that was waited for, exit frees the entry; each is told to user space.

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, task_struct},
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    programs::RawTracePointContext,
};
use profiler_common::{
    config::{FILTER_TARGETS, target},
    event::{KIND_EXEC, KIND_EXIT, KIND_FORK, ProcessEvent},
    off_cpu::State,
    outcome::Counter,
};

use crate::{
    filter::known_bits,
    maps::{EVENTS, PYTHONS, SPACES, TARGETS, count, setting},
    off_cpu, syscalls,
    task::Task,
    tls,
};

/// A child of a followed process becomes a target before its first instruction. New threads need
/// nothing: they are of the same process.
#[inline(always)]
pub(crate) fn forked(ctx: &RawTracePointContext) {
    let parent = current_tgid();
    inherit_mappings(ctx, parent);
    let Some(bits) = known_bits(parent) else {
        return;
    };
    let task = Task(ctx.arg::<*mut task_struct>(1));
    let child = task.tgid().unwrap_or(parent);
    follow_thread(task, child, parent, bits);
    follow_calls(task, child, parent, bits);
    if child == parent || bits & target::FOLLOW == 0 {
        return;
    }
    if TARGETS.insert(child, bits, 0).is_err() {
        count(Counter::TargetsFull);
        return;
    }
    tell(KIND_FORK, child, parent);
}

/// A new thread's account of time begins now, where such accounts are kept.
#[inline(always)]
fn follow_thread(task: Task, tgid: u32, parent: u32, bits: u32) {
    let is_target = tgid == parent || bits & target::FOLLOW != 0;
    if setting!(off_cpu) == 0 || bits & target::AWAIT_EXEC != 0 || !is_target {
        return;
    }
    if let Some(tid) = task.tid() {
        // SAFETY: always callable. CLOCK_MONOTONIC.
        off_cpu::begin(tgid, tid, State::Runnable, unsafe { bpf_ktime_get_ns() });
    }
}

/// A new thread returns from the call that made it without having entered it.
#[inline(always)]
fn follow_calls(task: Task, tgid: u32, parent: u32, bits: u32) {
    let is_target = tgid == parent || bits & target::FOLLOW != 0;
    let is_listed = setting!(filters) & FILTER_TARGETS != 0;
    if bits & target::AWAIT_EXEC != 0 || is_listed && !is_target {
        return;
    }
    if let Some(tid) = task.tid() {
        syscalls::made(tgid, tid);
    }
}

/// A child begins with its parent's mappings and interpreter, so that its first sample has a whole stack.
#[inline(always)]
fn inherit_mappings(ctx: &RawTracePointContext, parent: u32) {
    let child = Task(ctx.arg::<*mut task_struct>(1)).tgid();
    let Some(child) = child.filter(|&child| child != parent) else {
        return;
    };
    // SAFETY: written whole before the process is a target; a torn copy makes reads fail.
    if let Some(interpreter) = unsafe { PYTHONS.get(parent) }
        && PYTHONS.insert(child, interpreter, 0).is_err()
    {
        count(Counter::PythonsFull);
    }
    // SAFETY: values are single words, read once.
    let Some(space) = (unsafe { SPACES.get(parent) }).copied() else {
        return;
    };
    if SPACES.insert(child, space, 0).is_err() {
        count(Counter::SpacesFull);
    }
}

/// A target replaced its program.
#[inline(always)]
pub(crate) fn execed(ctx: &RawTracePointContext) {
    let tgid = current_tgid();
    syscalls::execed(ctx.arg::<u64>(1) as u32);
    tls::ended();
    let _ = SPACES.remove(tgid);
    let _ = PYTHONS.remove(tgid);
    let Some(bits) = known_bits(tgid) else {
        return;
    };
    if bits & target::AWAIT_EXEC != 0 {
        // An update of an existing key cannot run out of room.
        let _ = TARGETS.insert(tgid, bits & !target::AWAIT_EXEC, 0);
        syscalls::made(tgid, tgid);
    }
    tell(KIND_EXEC, tgid, 0);
}

/// A thread ends; with the last one, the process. `signal->live` is decremented before the
/// tracepoint in every supported kernel (`do_exit` in kernel/exit.c).
#[inline(always)]
pub(crate) fn exited() {
    let tgid = current_tgid();
    off_cpu::ended(bpf_get_current_pid_tgid() as u32);
    syscalls::ended();
    tls::ended();
    if Task::current().live_threads().unwrap_or(0) > 0 {
        return;
    }
    let _ = SPACES.remove(tgid);
    let _ = PYTHONS.remove(tgid);
    if known_bits(tgid).is_none() {
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
