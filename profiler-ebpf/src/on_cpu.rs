//! The CPU profile: one sample for each tick of a per-CPU perf event that hits a target.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_get_current_comm, bpf_get_smp_processor_id, bpf_ktime_get_ns},
    programs::PerfEventContext,
};
use profiler_common::{
    limits::COMM_LEN,
    outcome::Counter,
    sample::{
        GIL_UNKNOWN, HEADER_BYTES, KIND_SAMPLE, KIND_SAMPLE_REST, ORIGIN_INTERRUPT, ORIGIN_USER,
        SAMPLE_REST_BYTES, SampleHeader, WORDS_MAX,
    },
};

use crate::{
    arch,
    filter::{self, Target},
    maps::{EVENTS, FOR_SAMPLE, SCRATCH, Scratch, count},
    stack,
};

/// Takes and sends one sample, if the running task is wanted.
#[inline(always)]
pub(crate) fn sample(ctx: &PerfEventContext) {
    let Some(target) = filter::current_target() else {
        return;
    };
    count(Counter::Taken);
    let Some(scratch) = SCRATCH.get_ptr_mut(FOR_SAMPLE) else {
        return;
    };
    let origin = if arch::hit_user_mode(ctx) {
        ORIGIN_USER
    } else {
        ORIGIN_INTERRUPT
    };
    // SAFETY: this CPU's own slot, which no other program uses.
    unsafe { (*scratch).header = header(target, origin) };
    stack::take::<FOR_SAMPLE>(ctx.as_ptr(), scratch);
    send(scratch, target);
}

/// A record of the running task, without its stacks.
#[inline(always)]
pub(crate) fn header(target: Target, origin: u8) -> SampleHeader {
    let mut header = header_of(target.tgid, target.tid, origin);
    // SAFETY: always callable. CLOCK_MONOTONIC.
    header.time_ns = unsafe { bpf_ktime_get_ns() };
    header.comm = bpf_get_current_comm().unwrap_or_default();
    header
}

/// A record of a thread, without its stacks, time and name.
#[inline(always)]
pub(crate) fn header_of(tgid: u32, tid: u32, origin: u8) -> SampleHeader {
    SampleHeader {
        kind: KIND_SAMPLE,
        // SAFETY: always callable.
        cpu: unsafe { bpf_get_smp_processor_id() },
        time_ns: 0,
        tgid,
        tid,
        comm: [0; COMM_LEN],
        kernel_len: 0,
        user_len: 0,
        stop: 0,
        origin,
        state: 0,
        wait: 0,
        fault: 0,
        duration_ns: 0,
        arguments: [0; 3],
        syscall: -1,
        operand: 0,
        python_len: 0,
        python_stop: 0,
        gil: GIL_UNKNOWN,
        python_inner: 0,
        python_left_out: 0,
    }
}

/// Words of a record's stacks.
#[inline(always)]
pub(crate) fn words(header: &SampleHeader) -> usize {
    let native = usize::from(header.kernel_len) + usize::from(header.user_len);
    native + 2 * usize::from(header.python_len)
}

/// Sends the record at its actual length. A process seen for the first time, or in code that is not
/// known, wakes user space at once, which must read its mappings while it lives; else user space polls.
#[inline(always)]
fn send(scratch: *mut Scratch, target: Target) {
    // SAFETY: a live map value.
    let header = unsafe { &(*scratch).header };
    let has_rest = header.kind == KIND_SAMPLE_REST;
    let bytes = if has_rest {
        SAMPLE_REST_BYTES
    } else {
        HEADER_BYTES + words(header).min(WORDS_MAX) * size_of::<u64>()
    };
    let wakeup = if target.is_new || has_rest {
        BPF_RB_FORCE_WAKEUP
    } else {
        BPF_RB_NO_WAKEUP
    };
    // SAFETY: `stacks` and `rest` adjoin `header` and `bytes` ends within them.
    let record = unsafe { core::slice::from_raw_parts(scratch.cast::<u8>(), bytes) };
    let sent = EVENTS.output_untyped::<[u8]>(record, u64::from(wakeup));
    count(if sent.is_ok() {
        Counter::Sent
    } else {
        Counter::RingFull
    });
}
