//! Takes the stacks of the running task into a scratch record. One body for every program that samples.

use core::{ffi::c_void, mem::transmute, ptr};

use aya_ebpf::helpers::{bpf_get_stack, bpf_loop, bpf_probe_read_user};
use profiler_common::{
    limits::{KERNEL_FRAMES_MAX, USER_FRAMES_MAX},
    outcome::{Counter, StopReason},
    sample::{FRAMES_MAX, ORIGIN_INTERRUPT, ORIGIN_SYSCALL, ORIGIN_USER},
    unwind::step_frame_pointer,
};

use crate::{
    arch,
    maps::{SCRATCH, Scratch, count},
    task::Task,
};

/// Takes both stacks and fills in the lengths and the stop reason of the header. `ctx` must be the
/// context of the running program, as `bpf_get_stack` takes the kernel stack from it.
#[inline(always)]
pub(crate) fn take(ctx: *mut c_void, scratch: *mut Scratch) {
    let kernel_len = take_kernel(ctx, scratch);
    // SAFETY: `scratch` is a live map value.
    unsafe { (*scratch).header.kernel_len = kernel_len as u16 };
    let stop = take_user(scratch);
    // SAFETY: as above.
    unsafe { (*scratch).header.user_len = (*scratch).walk.frames as u16 };
    // SAFETY: as above.
    unsafe { (*scratch).header.stop = stop };
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
fn take_user(scratch: *mut Scratch) -> u8 {
    // SAFETY: `scratch` is a live map value.
    unsafe { (*scratch).walk.frames = 0 };
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
    if arch::in_syscall(registers) {
        // SAFETY: `scratch` is a live map value.
        let origin = unsafe { &mut (*scratch).header.origin };
        if *origin == ORIGIN_INTERRUPT {
            *origin = ORIGIN_SYSCALL;
        }
    }
    // SAFETY: `scratch` is a live map value.
    unsafe { (*scratch).walk.frame = arch::frame(registers) };
    // SAFETY: as above.
    unsafe { (*scratch).walk.stop = StopReason::TooDeep as u32 };
    walk();
    // SAFETY: as above.
    unsafe { (*scratch).walk.stop as u8 }
}

#[inline(always)]
fn walk() {
    // SAFETY: a function pointer and a data pointer have one size; aya turns the relocation of the
    // function item into the kernel's BPF_PSEUDO_FUNC.
    let callback = unsafe {
        transmute::<unsafe extern "C" fn(u32, *mut c_void) -> i64, *mut c_void>(push_frame)
    };
    // SAFETY: the callback matches the helper's prototype and needs no context: its state is in SCRATCH.
    unsafe { bpf_loop(USER_FRAMES_MAX as u32, callback, ptr::null_mut(), 0) };
}

/// One iteration: push the frame, step to its caller. Returns 1 to end the loop.
unsafe extern "C" fn push_frame(_index: u32, _context: *mut c_void) -> i64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return 1;
    };
    // SAFETY: this CPU's own slot, which no other program uses.
    let scratch = unsafe { &mut *scratch };
    let slot = u32::from(scratch.header.kernel_len) + scratch.walk.frames;
    if slot >= FRAMES_MAX as u32 {
        return 1;
    }
    // SAFETY: checked right above; an index with a bounds check would hold a panic.
    unsafe { *scratch.stacks.as_mut_ptr().add(slot as usize) = scratch.walk.frame.pc };
    scratch.walk.frames += 1;
    match step_frame_pointer(&scratch.walk.frame, read_words) {
        Ok(caller) => {
            scratch.walk.frame = caller;
            0
        }
        Err(stop) => {
            scratch.walk.stop = stop as u32;
            1
        }
    }
}

#[inline(always)]
fn read_words(address: u64) -> Option<[u64; 2]> {
    // SAFETY: the helper checks the address and fails where it is not readable; it never faults a page in.
    unsafe { bpf_probe_read_user(address as *const [u64; 2]) }.ok()
}
