//! Takes the stacks of the running task into a scratch record. One body for every program that samples.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_get_stack, generated};
use profiler_common::{
    limits::{
        KERNEL_FRAMES_MAX, STACK_CHUNK_BYTES, STACK_COPY_BYTES, STACK_RED_ZONE_BYTES,
        SWITCH_BUDGET_PERIOD_NS, SWITCH_STACKS_MAX,
    },
    outcome::{Counter, StopReason},
    sample::{KIND_SAMPLE_REST, ORIGIN_INTERRUPT, ORIGIN_SYSCALL, ORIGIN_USER},
    unwind::how::{KEPT, LEAF, RETURN},
};

use crate::{
    arch,
    maps::{FOR_SAMPLE, SPACES, Scratch, count, setting},
    python,
    task::Task,
    unwind,
};

/// Takes all stacks and fills in the lengths and the stop reason of the header. `ctx` must be the
/// context of the running program, as `bpf_get_stack` takes the kernel stack from it. `FOR` is the
/// index of the scratch.
#[inline(always)]
pub(crate) fn take<const FOR: u32>(ctx: *mut c_void, scratch: *mut Scratch) {
    let kernel_len = take_kernel(ctx, scratch);
    // SAFETY: `scratch` is a live map value.
    unsafe { (*scratch).header.kernel_len = kernel_len as u16 };
    // SAFETY: as above.
    let tgid = unsafe { (*scratch).header.tgid };
    let stop = take_user::<FOR>(scratch, tgid);
    // SAFETY: as above.
    unsafe { (*scratch).header.user_len = (*scratch).walk.frames as u16 };
    // SAFETY: as above.
    unsafe { (*scratch).header.stop = stop };
    // SAFETY: as above.
    unsafe { (*scratch).header.fault = (*scratch).walk.address };
    python::take::<FOR>(scratch);
}

#[inline(always)]
fn take_kernel(ctx: *mut c_void, scratch: *mut Scratch) -> u32 {
    const BYTES: u32 = (KERNEL_FRAMES_MAX * size_of::<u64>()) as u32;
    // SAFETY: `scratch` is a live map value.
    if unsafe { (*scratch).header.origin } == ORIGIN_USER {
        return 0;
    }
    // SAFETY: the buffer is longer than BYTES.
    let written = unsafe { bpf_get_stack(ctx, (&raw mut (*scratch).stacks).cast(), BYTES, 0) };
    if written < 0 {
        count(Counter::NoKernelStack);
        return 0;
    }
    (written as u32 / size_of::<u64>() as u32).min(KERNEL_FRAMES_MAX as u32)
}

#[inline(always)]
fn take_user<const FOR: u32>(scratch: *mut Scratch, tgid: u32) -> u8 {
    // SAFETY: `scratch` is a live map value.
    unsafe { (*scratch).walk.frames = 0 };
    // SAFETY: as above.
    unsafe { (*scratch).walk.address = 0 };
    let task = Task::current();
    if task.is_kernel_thread() {
        return StopReason::KernelThread as u8;
    }
    if !task.has_memory() {
        return StopReason::Exiting as u8;
    }
    // SAFETY: `scratch` is a live map value.
    let registers = unsafe { &raw mut (*scratch).registers };
    if !arch::read_user_registers(task, registers) {
        return StopReason::NoRegisters as u8;
    }
    // SAFETY: as above, and just filled.
    let registers = unsafe { &*registers };
    if arch::is_32_bit(registers) {
        return StopReason::Ia32 as u8;
    }
    let in_syscall = arch::in_syscall(registers);
    if in_syscall {
        // SAFETY: `scratch` is a live map value.
        let origin = unsafe { &mut (*scratch).header.origin };
        if *origin == ORIGIN_INTERRUPT {
            *origin = ORIGIN_SYSCALL;
        }
    }
    // SAFETY: `scratch` is a live map value.
    let walk = unsafe { &mut (*scratch).walk };
    walk.frame = arch::frame(registers);
    arch::leaf_registers(registers, &mut walk.leaf);
    walk.how = LEAF | KEPT | if in_syscall { RETURN } else { 0 };
    let is_sample = FOR == FOR_SAMPLE;
    let is_witness = is_sample && setting!(witness) != 0;
    if is_witness {
        copy_rest(scratch);
    }
    // SAFETY: values are single words, read once.
    let stop = match unsafe { SPACES.get(tgid) } {
        Some(space) => {
            walk.space = *space;
            unwind::walk::<FOR>(walk);
            walk.stop
        }
        None => StopReason::NoProcess as u32,
    };
    if stop != StopReason::Outermost as u32 && task.in_execve() {
        walk.frames = 0;
        return StopReason::Exec as u8;
    }
    let wants_mapping =
        stop == StopReason::NoProcess as u32 || stop == StopReason::NoMapping as u32;
    if wants_mapping && is_sample && !is_witness {
        copy_rest(scratch);
    }
    stop as u8
}

/// Makes the record one that user space can go on with.
#[inline(always)]
fn copy_rest(scratch: *mut Scratch) {
    // SAFETY: `scratch` is a live map value.
    let Scratch {
        header, rest, walk, ..
    } = unsafe { &mut *scratch };
    header.kind = KIND_SAMPLE_REST;
    rest.frame = walk.frame;
    rest.how = walk.how;
    rest.bytes = STACK_RED_ZONE_BYTES as u32;
    let stack = (&raw mut rest.stack).cast::<u8>();
    // SAFETY: the red zone is the first part of the copy. The helper checks the source, and zeroes what it
    // cannot read.
    let _ = unsafe {
        generated::bpf_probe_read_user(
            stack.cast(),
            STACK_RED_ZONE_BYTES as u32,
            walk.frame.sp.wrapping_sub(STACK_RED_ZONE_BYTES as u64) as *const c_void,
        )
    };
    for chunk in 0..STACK_COPY_BYTES / STACK_CHUNK_BYTES {
        let offset = chunk * STACK_CHUNK_BYTES;
        let from = walk.frame.sp + offset as u64;
        // SAFETY: the chunk lies within the copy.
        let to = unsafe { stack.add(STACK_RED_ZONE_BYTES + offset) };
        // SAFETY: the helper checks the source and fails where it is not readable.
        let result = unsafe {
            generated::bpf_probe_read_user(
                to.cast(),
                STACK_CHUNK_BYTES as u32,
                from as *const c_void,
            )
        };
        if result != 0 {
            break;
        }
        rest.bytes = (STACK_RED_ZONE_BYTES + offset + STACK_CHUNK_BYTES) as u32;
    }
}

/// Whether the CPU whose budget this is may take another stack in the period under way: how many it has taken, and when
/// that began.
#[inline(always)]
pub(crate) fn within_budget(budget: Option<*mut [u64; 2]>, now: u64) -> bool {
    let Some(budget) = budget else {
        return false;
    };
    // SAFETY: this CPU's own slot.
    let [taken, begun] = unsafe { &mut *budget };
    if now - *begun >= SWITCH_BUDGET_PERIOD_NS {
        (*taken, *begun) = (0, now);
    }
    *taken += 1;
    *taken <= SWITCH_STACKS_MAX
}
