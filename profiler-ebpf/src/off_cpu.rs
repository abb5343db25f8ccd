//! Time off the CPU: at each switch the thread that leaves is noted with its stack, the one that
//! comes has its time off the CPU added up and, if it was long enough, told.
//!
//! Everything is keyed by thread, so that one that comes back on another CPU is right. A thread is on one CPU at a
//! time and its switches follow each other, so that its entry has one writer.

use aya_ebpf::{
    EbpfContext,
    bindings::{BPF_NOEXIST, BPF_RB_NO_WAKEUP, task_struct},
    helpers::{bpf_get_current_comm, bpf_ktime_get_ns},
    programs::RawTracePointContext,
};
use profiler_common::{
    off_cpu::{KIND_THREAD_END, State, ThreadTimes, wait},
    outcome::{Counter, StopReason},
    sample::{HEADER_BYTES, KIND_OFF_CPU, ORIGIN_INTERRUPT, SampleHeader, WORDS_MAX},
};

use crate::{
    arch,
    filter::{self, Target},
    maps::{EVENTS, FOR_SWITCH, LEFT, Left, SCRATCH, SWITCH_BUDGET, THREADS, count, setting},
    on_cpu, python, stack,
    task::{Task, user_at},
};

/// `TASK_UNINTERRUPTIBLE`, `__TASK_STOPPED | __TASK_TRACED`, `TASK_DEAD` and `EXIT_ZOMBIE | EXIT_DEAD` of
/// include/linux/sched.h.
const TASK_UNINTERRUPTIBLE: u32 = 0x2;
const TASK_STOPPED: u32 = 0x4 | 0x8;
const TASK_GONE: u32 = 0x80 | 0x20 | 0x10;

/// Bytes between a futex and the owner's thread id in glibc's `pthread_mutex_t` (`__lock`, `__count`, `__owner`).
const OWNER_OFFSET: u64 = 8;

/// One task leaves the CPU, another one comes. The one that leaves is still the current one.
#[inline(always)]
pub(crate) fn switched(ctx: &RawTracePointContext) {
    // SAFETY: always callable. CLOCK_MONOTONIC.
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some(target) = filter::current_target() {
        left(ctx, target, now);
    }
    came(Task(ctx.arg::<*mut task_struct>(2)), now);
}

/// What the task that leaves will do, with [`wait::STOPPED`] if it is stopped; `None` if it is gone.
#[inline(always)]
fn state_of_leaving(ctx: &RawTracePointContext) -> Option<(State, u8)> {
    let state = if setting!(switch_tells_state) != 0 {
        ctx.arg::<u64>(3) as u32
    } else {
        Task::current().state()?
    };
    if state & TASK_GONE != 0 {
        return None;
    }
    let is_preempted = ctx.arg::<u64>(0) as u8 != 0;
    Some(if is_preempted || state == 0 {
        (State::Runnable, 0)
    } else if state & TASK_UNINTERRUPTIBLE != 0 {
        (State::Uninterruptible, 0)
    } else if state & TASK_STOPPED != 0 || Task::current().is_frozen() {
        (State::Blocked, wait::STOPPED)
    } else {
        (State::Blocked, 0)
    })
}

#[inline(always)]
fn left(ctx: &RawTracePointContext, target: Target, now: u64) {
    let Some((state, stopped)) = state_of_leaving(ctx) else {
        return;
    };
    let Some(times) = entry(target, now) else {
        return;
    };
    // SAFETY: a live map value, of which this thread's switches are the only writer.
    let times = unsafe { &mut *times };
    let ran_ns = Task::current().ran_ns().unwrap_or(0);
    catch_up(times, ran_ns, now);
    times.ran_ns = ran_ns;
    // User space may have begun the account since this switch did.
    times.in_state_ns[State::Running as usize] += now.saturating_sub(times.since_ns);
    times.since_ns = now;
    times.state = state as u32;
    times.switches += 1;
    let may_take = times.take_stack(now) && stack::within_budget(SWITCH_BUDGET.get_ptr_mut(0), now);
    times.wait = u32::from(note(ctx, target, (now, state, may_take), stopped));
}

/// The account of a thread, made now if it has none.
#[inline(always)]
fn entry(target: Target, now: u64) -> Option<*mut ThreadTimes> {
    if let Some(times) = THREADS.get_ptr_mut(target.tid) {
        return Some(times);
    }
    begin(target.tgid, target.tid, State::Running, now);
    THREADS.get_ptr_mut(target.tid)
}

/// Begins the account of a thread, unless it has one.
#[inline(always)]
pub(crate) fn begin(tgid: u32, tid: u32, state: State, now: u64) {
    let times = ThreadTimes {
        kind: KIND_THREAD_END,
        tgid,
        tid,
        state: state as u32,
        since_ns: now,
        first_ns: now,
        in_state_ns: [0; 4],
        below_threshold_ns: [0; 4],
        lost_ns: 0,
        paid_ns: 0,
        switches: 0,
        ran_ns: 0,
        wait: 0,
        padding: 0,
        comm: [0; 16],
    };
    if THREADS.get_ptr(tid).is_none() && THREADS.insert(tid, times, u64::from(BPF_NOEXIST)).is_err()
    {
        count(Counter::ThreadsFull);
    }
}

/// Notes what the thread leaves with; gives the bits of [`wait`].
#[inline(always)]
fn note(
    ctx: &RawTracePointContext,
    target: Target,
    (now, state, with_stack): (u64, State, bool),
    stopped: u8,
) -> u8 {
    let Some(scratch) = SCRATCH.get_ptr_mut(FOR_SWITCH) else {
        return 0;
    };
    // SAFETY: this CPU's own slot, which no other program uses.
    let header = unsafe { &mut (*scratch).header };
    *header = on_cpu::header(target, ORIGIN_INTERRUPT);
    header.kind = KIND_OFF_CPU;
    header.time_ns = now;
    header.state = state as u8;
    header.wait = stopped;
    header.stop = StopReason::Limit as u8;
    // SAFETY: as above.
    let registers = unsafe { &raw mut (*scratch).registers };
    if arch::read_user_registers(Task::current(), registers) {
        // SAFETY: just filled.
        let (syscall, arguments) = arch::syscall(unsafe { &*registers });
        header.syscall = syscall;
        header.arguments = arguments;
        if arch::is_futex(syscall) {
            header.operand = user_at::<u32>(arguments[0] + OWNER_OFFSET).unwrap_or(0);
            if matches!(state, State::Blocked)
                && stopped == 0
                && python::owns(target.tgid, arguments[0])
            {
                header.wait |= wait::GIL;
            }
        } else if arch::is_poll(syscall) {
            // The first member of `struct pollfd`.
            header.operand = user_at::<u32>(arguments[0]).unwrap_or(u32::MAX);
        }
    }
    if Task::current().in_iowait() {
        header.wait |= wait::IO;
    }
    if with_stack {
        header.wait |= wait::STACK;
        stack::take::<FOR_SWITCH>(ctx.as_ptr(), scratch);
    }
    // SAFETY: `header` and `stacks` begin both alike.
    let left = unsafe { &*scratch.cast::<Left>() };
    if LEFT.insert(target.tid, left, 0).is_err() {
        count(Counter::ThreadsFull);
    }
    left.header.wait
}

/// A task comes to the CPU.
#[inline(always)]
fn came(task: Task, now: u64) {
    let Some(tid) = task.tid() else {
        return;
    };
    let Some(times) = THREADS.get_ptr_mut(tid) else {
        return;
    };
    // SAFETY: a live map value, of which this thread's switches are the only writer.
    arrived(task, unsafe { &mut *times }, now);
}

/// The running thread was perhaps not seen to come: some virtual machines' kernels run no program at switches away from
/// one of their own processes. Then it came as long ago as it has run since it left.
#[inline(always)]
fn catch_up(times: &mut ThreadTimes, ran_ns: u64, now: u64) {
    if times.state == State::Running as u32 {
        return;
    }
    count(Counter::ArrivalUnseen);
    let came = now.saturating_sub(ran_ns.saturating_sub(times.ran_ns));
    arrived(Task::current(), times, came.max(times.since_ns));
}

/// A followed thread runs from now on.
#[inline(always)]
fn arrived(task: Task, times: &mut ThreadTimes, now: u64) {
    let tid = times.tid;
    let state = times.state;
    if state == State::Running as u32 || state > State::Uninterruptible as u32 {
        return;
    }
    // User space may have begun the account since this switch did.
    let since = times.since_ns;
    let span = now.saturating_sub(since);
    times.in_state_ns[(state & 3) as usize] += span;
    times.since_ns = now;
    times.state = State::Running as u32;
    // An interpreter's lock is waited for in pieces of 5 ms (its switch interval) at most, of which the last
    // one is short: they are told all, as long as stacks may be taken, so that they add up.
    const GIL: u32 = (wait::GIL | wait::STACK) as u32;
    let is_gil = times.wait & GIL == GIL;
    if span < setting!(min_block_ns) && !is_gil {
        times.below_threshold_ns[(state & 3) as usize] += span;
        return;
    }
    let is_told = if times.switches == 0 && LEFT.get_ptr(tid).is_none() {
        tell_first(task, times, (since, span))
    } else {
        tell(tid, span)
    };
    if !is_told {
        times.lost_ns += span;
    }
}

/// Sends what the thread left with, and for how long it was gone.
#[inline(always)]
fn tell(tid: u32, span: u64) -> bool {
    // One that found no room is counted already.
    let Some(left) = LEFT.get_ptr_mut(tid) else {
        return false;
    };
    // SAFETY: a live map value, of which this thread's switches are the only writer.
    let header: &mut SampleHeader = unsafe { &mut (*left).header };
    header.duration_ns = span;
    if header.wait & wait::STACK == 0 {
        count(Counter::NoSwitchStack);
    }
    let bytes = HEADER_BYTES + on_cpu::words(header).min(WORDS_MAX) * size_of::<u64>();
    // SAFETY: `stacks` adjoins `header` and `bytes` ends within it.
    send(unsafe { core::slice::from_raw_parts(left.cast::<u8>(), bytes) })
}

/// Sends the wait of a new thread for its first CPU: it has left none with anything.
#[inline(always)]
fn tell_first(task: Task, times: &ThreadTimes, (since, span): (u64, u64)) -> bool {
    let mut header = on_cpu::header_of(times.tgid, times.tid, ORIGIN_INTERRUPT);
    header.kind = KIND_OFF_CPU;
    header.time_ns = since;
    header.duration_ns = span;
    header.comm = task.comm().unwrap_or_default();
    header.state = State::Runnable as u8;
    // Not one that a limit kept from being taken.
    header.wait = wait::STACK;
    header.stop = StopReason::NotStarted as u8;
    let header = (&raw const header).cast::<u8>();
    // SAFETY: a local value without padding.
    send(unsafe { core::slice::from_raw_parts(header, HEADER_BYTES) })
}

#[inline(always)]
fn send(record: &[u8]) -> bool {
    count(Counter::SpansTaken);
    let sent = EVENTS.output_untyped::<[u8]>(record, u64::from(BPF_RB_NO_WAKEUP));
    if sent.is_err() {
        count(Counter::RingFull);
    }
    sent.is_ok()
}

/// The running thread ends: its account is closed and told.
#[inline(always)]
pub(crate) fn ended(tid: u32) {
    let Some(times) = THREADS.get_ptr_mut(tid) else {
        return;
    };
    // SAFETY: a live map value, of which this thread's switches are the only writer, and it runs.
    let times = unsafe { &mut *times };
    // SAFETY: always callable. CLOCK_MONOTONIC.
    let now = unsafe { bpf_ktime_get_ns() };
    catch_up(times, Task::current().ran_ns().unwrap_or(0), now);
    // The thread may have been off the CPU since that look at the clock, which its switches have noted.
    times.in_state_ns[State::Running as usize] += now.saturating_sub(times.since_ns);
    times.since_ns = now;
    times.comm = bpf_get_current_comm().unwrap_or_default();
    if EVENTS
        .output_untyped::<ThreadTimes>(times, u64::from(BPF_RB_NO_WAKEUP))
        .is_err()
    {
        count(Counter::EventLost);
    }
    let _ = THREADS.remove(tid);
    let _ = LEFT.remove(tid);
}
