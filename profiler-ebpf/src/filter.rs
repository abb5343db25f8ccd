//! Which tasks are sampled. All of it is decided here, in the kernel: what is not wanted never
//! leaves it.

use aya_ebpf::helpers::{bpf_get_current_ancestor_cgroup_id, bpf_get_current_pid_tgid};
use profiler_common::{
    comm::is_match,
    config::{FILTER_CGROUP, FILTER_COMM, FILTER_TARGETS, target},
    outcome::Counter,
};

use crate::{
    maps::{COMM_STEPS, TARGETS, count, setting},
    task::Task,
};

/// The running task passed every filter.
#[derive(Clone, Copy)]
pub(crate) struct Target {
    /// Process id.
    pub(crate) tgid: u32,
    /// Thread id.
    pub(crate) tid: u32,
    /// Its process was not known before: user space should look at it at once.
    pub(crate) is_new: bool,
}

/// The running task, if it is wanted.
#[inline(always)]
pub(crate) fn current_target() -> Option<Target> {
    let id = bpf_get_current_pid_tgid();
    let (tgid, tid) = ((id >> 32) as u32, id as u32);
    // The idle task of each CPU has id 0 and is no process.
    if tid == 0 {
        return None;
    }
    let known = known_bits(tgid);
    let filters = setting!(filters);
    if filters & FILTER_TARGETS != 0 && !known.is_some_and(|bits| bits & target::AWAIT_EXEC == 0) {
        return None;
    }
    if filters & FILTER_CGROUP != 0 && !in_cgroup() {
        return None;
    }
    if filters & FILTER_COMM != 0 && !comm_matches() {
        return None;
    }
    let is_new = known.is_none() && learn(tgid);
    Some(Target { tgid, tid, is_new })
}

/// The bits of a process in the table of targets, if it is there.
#[inline(always)]
pub(crate) fn known_bits(tgid: u32) -> Option<u32> {
    // SAFETY: values are single words, read once; a concurrent update gives the old or the new one.
    unsafe { TARGETS.get(tgid) }.copied()
}

#[inline(always)]
fn in_cgroup() -> bool {
    let level = setting!(cgroup_level) as i32;
    // SAFETY: always callable from tracing programs; 0 where the task is not that deep.
    let id = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
    id == setting!(cgroup_id)
}

#[inline(always)]
fn comm_matches() -> bool {
    let Some(comm) = Task::current().process_comm() else {
        return false;
    };
    is_match(&comm, |byte| {
        let step = &raw const COMM_STEPS[usize::from(byte)];
        // SAFETY: in the table. Volatile, as its content at compile time is not what it has when it is loaded.
        unsafe { core::ptr::read_volatile(step) }
    })
}

/// Notes a process found through another filter than the table, so that its exec and exit are told.
/// Not one whose exit has been told already, which nobody would remove again.
#[inline(always)]
fn learn(tgid: u32) -> bool {
    if Task::current().live_threads().unwrap_or(0) <= 0 {
        return false;
    }
    if TARGETS.insert(tgid, 0, 0).is_err() {
        count(Counter::TargetsFull);
        return false;
    }
    true
}
