//! System calls of followed threads: at entry the time is noted, at return the call is added to the sums of its
//! process. Nothing is sent for a call but, where asked for, a stack now and then.
//!
//! A thread's entry is written by that thread only, the sums are those of the CPU that it returns on: nothing
//! races, so that counts are exact. Where a thread can be preempted in here (from 7.0 on), the kernel does not run the same
//! program for the next one and counts that it did not.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_NOEXIST, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    programs::RawTracePointContext,
};
use profiler_common::{
    limits::CALL_STACK_PERIOD_NS,
    outcome::Counter,
    sample::{HEADER_BYTES, KIND_CALL, ORIGIN_SYSCALL, ORIGIN_USER, WORDS_MAX},
    syscalls::{
        BUCKETS, COMPAT, Call, CallerEvent, Cell, CellKey, ErrorKey, KIND_CALLER_END,
        KIND_DESCRIPTOR, NUMBERS_MAX, bucket, state, wanted,
    },
};

use crate::{
    atomic, descriptor,
    filter::{self, Target},
    maps::{
        CALL_BUDGET, CALL_SETTINGS, CALLERS, CELLS, EMPTY_CELL, ERRORS, EVENTS, FOR_CALL, SCRATCH,
        call_setting, count,
    },
    on_cpu, stack,
    task::Task,
};

/// `MAX_ERRNO` of include/linux/err.h.
const ERRNO_MAX: i64 = 4095;

/// A thread enters a call: `number` is what it asks for, be there such a call or not.
#[inline(always)]
pub(crate) fn entered(ctx: &RawTracePointContext) {
    let Some(target) = filter::current_target() else {
        return;
    };
    count(Counter::CallsEntered);
    let Some(call) = caller(target) else {
        count(Counter::CallersFull);
        return;
    };
    // SAFETY: a live map value, of which this thread is the only writer.
    let call = unsafe { &mut *call };
    if call.state == state::INSIDE {
        count(Counter::ReturnUnseen);
    } else if call.state == state::INSIDE_BEFORE {
        // It returned while user space noted that it was inside.
        count(Counter::EntryBefore);
    }
    call.number = ctx.arg::<u64>(1) as u32 & !COMPAT | compat();
    call.descriptor = -1;
    call.inode = 0;
    if call_setting!(wanted) & wanted::BY_DESCRIPTOR != 0 && takes_descriptor(call.number) {
        note_descriptor(ctx.arg::<u64>(0), call);
    }
    if call.descriptor >= 0 {
        // User space looks at the descriptor while it is open.
        let _ = cell(call, target.tid);
    }
    call.state = state::INSIDE;
    // SAFETY: always callable. CLOCK_MONOTONIC.
    call.since_ns = unsafe { bpf_ktime_get_ns() };
}

/// The thread's entry, made now if it has none.
#[inline(always)]
fn caller(target: Target) -> Option<*mut Call> {
    if let Some(call) = CALLERS.get_ptr_mut(target.tid) {
        return Some(call);
    }
    begin(target.tgid, target.tid, state::OUTSIDE);
    CALLERS.get_ptr_mut(target.tid)
}

/// Begins to follow a thread, unless it is followed.
#[inline(always)]
pub(crate) fn begin(tgid: u32, tid: u32, state: u32) {
    let call = Call {
        tgid,
        state,
        number: 0,
        descriptor: -1,
        since_ns: 0,
        inode: 0,
        unshown_ns: 0,
        mode: 0,
        padding: 0,
    };
    let _ = CALLERS.insert(tid, call, u64::from(BPF_NOEXIST));
}

/// [`COMPAT`] if the running task makes a 32-bit program's call.
#[inline(always)]
fn compat() -> u32 {
    let offset = call_setting!(task_compat);
    if offset == 0 {
        return 0;
    }
    let task = Task::current().0.cast::<u8>();
    // SAFETY: a member of the running task, of which the verifier knows the type: it checks the offset.
    let word = unsafe { task.add(offset as usize) }.cast::<u32>();
    // SAFETY: as above.
    if unsafe { core::ptr::read_volatile(word) } & call_setting!(compat_mask) != 0 {
        COMPAT
    } else {
        0
    }
}

#[inline(always)]
fn takes_descriptor(number: u32) -> bool {
    // SAFETY: a live variable. Volatile, so that what is checked is what is used.
    let number = unsafe { core::ptr::read_volatile(&raw const number) };
    if number >= NUMBERS_MAX as u32 {
        return false;
    }
    let words = (&raw const CALL_SETTINGS.takes_descriptor).cast::<u64>();
    // SAFETY: the index is below the length, as was just checked.
    let word = unsafe { words.add(number as usize / 64) };
    // SAFETY: a live static of plain data; volatile, as the compiler must not fold its zeros.
    let bits = unsafe { core::ptr::read_volatile(word) };
    bits >> (number % 64) & 1 != 0
}

/// Notes the descriptor that a call works on, and which file that is: `registers` are the caller's.
#[inline(always)]
fn note_descriptor(registers: u64, call: &mut Call) {
    let Some(first) = crate::arch::first_argument(registers) else {
        return;
    };
    call.descriptor = first as i32;
    call.mode = 0;
    // Out of range, which the call will say too, or `AT_FDCWD`.
    if call.descriptor < 0 {
        call.descriptor = -1;
        return;
    }
    let file = descriptor::file(call.descriptor as u32);
    let inode = file.and_then(descriptor::inode);
    if let Some((mode, number)) = inode.and_then(descriptor::mode_and_number) {
        (call.mode, call.inode) = (u32::from(mode), number);
    }
}

/// A thread returns from a call.
#[inline(always)]
pub(crate) fn returned<const STACKS: bool>(ctx: &RawTracePointContext) {
    let tid = bpf_get_current_pid_tgid() as u32;
    // Nearly all that is not followed ends here, as cheaply as can be.
    let Some(call) = CALLERS.get_ptr_mut(tid) else {
        return;
    };
    // SAFETY: always callable. CLOCK_MONOTONIC.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: a live map value, of which this thread is the only writer.
    let call = unsafe { &mut *call };
    let was = call.state;
    call.state = state::OUTSIDE;
    if was != state::INSIDE && was != state::INSIDE_BEFORE {
        if was == state::OUTSIDE {
            count(Counter::EntryUnseen);
        }
        return;
    }
    let span = now - call.since_ns;
    let result = ctx.arg::<u64>(1) as i64;
    let is_error = result < 0 && result >= -ERRNO_MAX;
    let Some(cell) = final_cell(call, tid) else {
        return;
    };
    // SAFETY: this CPU's own value. No other program writes to these words, and none runs within itself.
    let cell = unsafe { &mut *cell };
    cell.errors += u64::from(is_error);
    if was == state::INSIDE {
        add(cell, span);
    } else {
        cell.before += 1;
        cell.before_ns += span;
    }
    if is_error && call_setting!(wanted) & wanted::ERRORS != 0 {
        note_error(call, -result as u32);
    }
    if STACKS {
        show(ctx, call, (tid, span));
    }
}

#[inline(always)]
fn add(cell: &mut Cell, span: u64) {
    cell.calls += 1;
    cell.total_ns += span;
    if span > cell.max_ns {
        cell.max_ns = span;
    }
    let index = bucket(span);
    // SAFETY: a live variable. Volatile, so that the check below is not thought needless: the verifier wants it.
    let index = unsafe { core::ptr::read_volatile(&raw const index) };
    if index >= BUCKETS as u32 {
        return;
    }
    // SAFETY: checked right above; an index with a bounds check would hold a panic.
    unsafe { *cell.histogram.as_mut_ptr().add(index as usize) += 1 };
}

/// The sums of this CPU that a call belongs to, made now if there are none.
#[inline(always)]
fn cell(call: &Call, tid: u32) -> Option<*mut Cell> {
    let wanted = call_setting!(wanted);
    let key = CellKey {
        tgid: call.tgid,
        number: call.number,
        tid: if wanted & wanted::BY_THREAD != 0 {
            tid
        } else {
            0
        },
        descriptor: call.descriptor,
        inode: call.inode,
    };
    if let Some(cell) = CELLS.get_ptr_mut(&key) {
        return Some(cell);
    }
    if let Some(cell) = new_cell(&key) {
        if key.descriptor >= 0 {
            tell(KIND_DESCRIPTOR, call, tid);
        }
        return Some(cell);
    }
    count(Counter::CellsCoarse);
    let coarse = CellKey {
        tid: 0,
        descriptor: -1,
        inode: 0,
        ..key
    };
    CELLS.get_ptr_mut(&coarse).or_else(|| new_cell(&coarse))
}

/// Likewise, when the call is over: then it is counted, or counted as lost.
#[inline(always)]
fn final_cell(call: &Call, tid: u32) -> Option<*mut Cell> {
    let cell = cell(call, tid);
    if cell.is_none() {
        count(Counter::CellsFull);
    }
    cell
}

#[inline(always)]
fn new_cell(key: &CellKey) -> Option<*mut Cell> {
    let empty = EMPTY_CELL.get(0)?;
    // That another CPU was faster is as good.
    let _ = CELLS.insert(key, empty, u64::from(BPF_NOEXIST));
    CELLS.get_ptr_mut(key)
}

#[inline(always)]
fn note_error(call: &Call, errno: u32) {
    let key = ErrorKey {
        tgid: call.tgid,
        number: call.number,
        errno,
    };
    if ERRORS.get_ptr_mut(key).is_none() {
        let _ = ERRORS.insert(key, 0, u64::from(BPF_NOEXIST));
    }
    match ERRORS.get_ptr_mut(key) {
        // SAFETY: this CPU's own value.
        Some(number) => unsafe { *number += 1 },
        None => count(Counter::ErrorsFull),
    }
}

/// Takes a stack for each full period of time in calls: samples that are evenly spaced in that time, whatever
/// the calls' number and length.
#[inline(always)]
fn show(ctx: &RawTracePointContext, call: &mut Call, (tid, span): (u32, u64)) {
    call.unshown_ns += span;
    let periods = call.unshown_ns / CALL_STACK_PERIOD_NS;
    if periods == 0 {
        return;
    }
    if !stack::within_budget(CALL_BUDGET.get_ptr_mut(0), call.since_ns + span) {
        count(Counter::CallStackLate);
        return;
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(FOR_CALL) else {
        return;
    };
    // SAFETY: a live map value.
    let taken = unsafe { &raw mut (*scratch).taken };
    if !atomic::claim(taken) {
        count(Counter::CallStackLate);
        return;
    }
    call.unshown_ns -= periods * CALL_STACK_PERIOD_NS;
    let target = Target {
        tgid: call.tgid,
        tid,
        is_new: false,
    };
    // SAFETY: ours alone, as it was claimed.
    let header = unsafe { &mut (*scratch).header };
    // Of the kernel's side of the return there is nothing to see.
    *header = on_cpu::header(target, ORIGIN_USER);
    header.kind = KIND_CALL;
    header.syscall = call.number as i32;
    header.duration_ns = periods * CALL_STACK_PERIOD_NS;
    stack::take::<FOR_CALL>(ctx.as_ptr(), scratch);
    count(Counter::CallStacks);
    // SAFETY: as above.
    let header = unsafe { &mut (*scratch).header };
    header.origin = ORIGIN_SYSCALL;
    let words = on_cpu::words(header).min(WORDS_MAX);
    let bytes = HEADER_BYTES + words * size_of::<u64>();
    // SAFETY: `stacks` adjoins `header` and `bytes` ends within it.
    let record = unsafe { core::slice::from_raw_parts(scratch.cast::<u8>(), bytes) };
    if EVENTS
        .output_untyped::<[u8]>(record, u64::from(BPF_RB_NO_WAKEUP))
        .is_err()
    {
        count(Counter::RingFull);
    }
    atomic::release(taken);
}

/// A thread or process that is followed was made, or executes what was waited for.
#[inline(always)]
pub(crate) fn made(tgid: u32, tid: u32) {
    if call_setting!(wanted) != 0 {
        begin(tgid, tid, state::NEW);
    }
}

/// The running thread executed another program, which may have given it another id: that of the process. Its
/// call goes on.
#[inline(always)]
pub(crate) fn execed(old_tid: u32) {
    let tid = bpf_get_current_pid_tgid() as u32;
    if call_setting!(wanted) == 0 || tid == old_tid {
        return;
    }
    if let Some(call) = CALLERS.get_ptr(old_tid) {
        // SAFETY: a live map value; who could write to it is here.
        let _ = CALLERS.insert(tid, unsafe { &*call }, 0);
        let _ = CALLERS.remove(old_tid);
    }
}

/// The running thread ends: the call that it is in does not return.
#[inline(always)]
pub(crate) fn ended() {
    if call_setting!(wanted) == 0 {
        return;
    }
    let tid = bpf_get_current_pid_tgid() as u32;
    let Some(call) = CALLERS.get_ptr_mut(tid) else {
        return;
    };
    // SAFETY: a live map value, of which this thread is the only writer.
    let call = unsafe { &mut *call };
    if (call.state == state::INSIDE || call.state == state::INSIDE_BEFORE)
        && let Some(cell) = final_cell(call, tid)
    {
        // SAFETY: this CPU's own value.
        let cell = unsafe { &mut *cell };
        cell.ended += 1;
        // SAFETY: always callable. CLOCK_MONOTONIC.
        cell.ended_ns += unsafe { bpf_ktime_get_ns() } - call.since_ns;
    }
    if call_setting!(wanted) & wanted::BY_THREAD != 0 {
        tell(KIND_CALLER_END, call, tid);
    }
    let _ = CALLERS.remove(tid);
}

#[inline(always)]
fn tell(kind: u32, call: &Call, tid: u32) {
    let event = CallerEvent {
        kind,
        tgid: call.tgid,
        tid,
        descriptor: call.descriptor,
        inode: call.inode,
        mode: call.mode,
        padding: 0,
        comm: bpf_get_current_comm().unwrap_or_default(),
    };
    if EVENTS
        .output_untyped::<CallerEvent>(&event, u64::from(BPF_RB_FORCE_WAKEUP))
        .is_err()
    {
        count(Counter::EventLost);
    }
}
