//! The CPU profile: one sample for each tick of a per-CPU perf event that hits a target.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_get_current_comm, bpf_get_smp_processor_id, bpf_ktime_get_ns},
    programs::PerfEventContext,
};
use profiler_common::{
    outcome::Counter,
    sample::{FRAMES_MAX, HEADER_BYTES, KIND_SAMPLE, ORIGIN_INTERRUPT, ORIGIN_USER, SampleHeader},
};

use crate::{
    arch,
    filter::{self, Target},
    maps::{EVENTS, SCRATCH, Scratch, count},
    stack,
};

/// Takes and sends one sample, if the running task is wanted.
#[inline(always)]
pub(crate) fn sample(ctx: &PerfEventContext) {
    let Some(target) = filter::current_target() else {
        return;
    };
    count(Counter::Taken);
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return;
    };
    let origin = if arch::hit_user_mode(ctx) {
        ORIGIN_USER
    } else {
        ORIGIN_INTERRUPT
    };
    // SAFETY: this CPU's own slot, which no other program uses.
    unsafe { (*scratch).header = header(target, origin) };
    stack::take(ctx.as_ptr(), scratch);
    send(scratch, target);
}

#[inline(always)]
fn header(target: Target, origin: u8) -> SampleHeader {
    SampleHeader {
        kind: KIND_SAMPLE,
        // SAFETY: always callable.
        cpu: unsafe { bpf_get_smp_processor_id() },
        // SAFETY: always callable. CLOCK_MONOTONIC.
        time_ns: unsafe { bpf_ktime_get_ns() },
        tgid: target.tgid,
        tid: target.tid,
        comm: bpf_get_current_comm().unwrap_or_default(),
        kernel_len: 0,
        user_len: 0,
        stop: 0,
        origin,
        padding: 0,
    }
}

/// Sends the record at its actual length. A process seen for the first time wakes user space at
/// once, which must read its mappings while it lives; else user space polls.
#[inline(always)]
fn send(scratch: *mut Scratch, target: Target) {
    // SAFETY: a live map value.
    let header = unsafe { &(*scratch).header };
    let frames = usize::from(header.kernel_len) + usize::from(header.user_len);
    let bytes = HEADER_BYTES + frames.min(FRAMES_MAX) * size_of::<u64>();
    let wakeup = if target.is_new {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    };
    // SAFETY: `stacks` adjoins `header` and `bytes` ends within it.
    let record = unsafe { core::slice::from_raw_parts(scratch.cast::<u8>(), bytes) };
    let sent = EVENTS.output_untyped::<[u8]>(record, u64::from(wakeup));
    count(if sent.is_ok() {
        Counter::Sent
    } else {
        Counter::RingFull
    });
}
