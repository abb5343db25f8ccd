//! What differs by processor: the user registers and how to read them. Each file has the same names.

#[cfg(bpf_target_arch = "aarch64")]
mod aarch64;
#[cfg(bpf_target_arch = "x86_64")]
mod x86_64;

use core::ffi::c_void;

#[cfg(bpf_target_arch = "aarch64")]
pub(crate) use aarch64::{
    COMPILES_PYTHON, SIGNAL_FRAME, arguments, epilogue, first_argument, frame, frame_at,
    hit_user_mode, in_syscall, is_32_bit, is_futex, is_poll, is_sigreturn, is_volatile,
    leaf_registers, result, return_slot, returning_call, stack_pointer, syscall, transfer,
};
use aya_ebpf::{
    bindings::pt_regs,
    helpers::{bpf_task_pt_regs, generated},
};
#[cfg(bpf_target_arch = "x86_64")]
pub(crate) use x86_64::{
    COMPILES_PYTHON, SIGNAL_FRAME, arguments, epilogue, first_argument, frame, frame_at,
    hit_user_mode, in_syscall, is_32_bit, is_futex, is_poll, is_sigreturn, is_volatile,
    leaf_registers, result, return_slot, returning_call, stack_pointer, syscall, transfer,
};

use crate::task::Task;

/// A system call that is returned from.
#[derive(Clone, Copy)]
pub(crate) struct ReturningCall {
    pub(crate) number: i32,
    /// The first ones.
    pub(crate) arguments: [u64; 4],
    /// What it gives to user space; an error number below 0.
    pub(crate) result: i64,
}

/// Where the kernel saved the user registers of the running task when it last entered it.
#[inline(always)]
pub(crate) fn user_registers(task: Task) -> u64 {
    // SAFETY: the task is the running one.
    unsafe { bpf_task_pt_regs(task.0) as u64 }
}

/// Reads the user registers that the kernel saved when the task last entered it: right for a sample
/// in user mode too, as the interrupt that took it is an entry. Says whether it could.
#[inline(always)]
pub(crate) fn read_user_registers(task: Task, registers: *mut pt_regs) -> bool {
    // SAFETY: the task is the running one and has user memory.
    let saved = unsafe { bpf_task_pt_regs(task.0) } as *const c_void;
    // SAFETY: the helper checks the source; the destination is a live map value of that size.
    let result = unsafe {
        generated::bpf_probe_read_kernel(
            registers.cast(),
            size_of::<pt_regs>() as u32,
            saved.cast_mut(),
        )
    };
    result == 0
}
