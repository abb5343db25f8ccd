//! The registers with which every thread of a process entered the kernel: run over the list of tasks as user
//! space reads it, for threads that wait. The process does not notice.

use core::ffi::c_void;

use aya_ebpf::{bindings::task_struct, helpers::generated::bpf_seq_write};
use profiler_common::sleepers::Sleeper;

use crate::{arch, maps::setting, task::Task};

/// `struct bpf_iter__task` of kernel/bpf/task_iter.c: both are pointers in 64 bits on every machine.
#[repr(C)]
pub(crate) struct Context {
    meta: *const Meta,
    task: *mut task_struct,
}

/// `struct bpf_iter_meta` of include/linux/bpf.h, as far as it is read.
#[repr(C)]
struct Meta {
    file: *mut c_void,
}

/// One task, or none at the end of the list.
#[inline(always)]
pub(crate) fn look(ctx: &Context) {
    if ctx.task.is_null() {
        return;
    }
    let task = Task(ctx.task);
    if task.tgid() != Some(setting!(only_tgid)) || task.is_kernel_thread() {
        return;
    }
    let Some(frame) = arch::frame_at(arch::user_registers(task)) else {
        return;
    };
    let sleeper = Sleeper {
        tid: task.tid().unwrap_or(0).into(),
        frame,
    };
    // SAFETY: the kernel's own context of this program type.
    let file = unsafe { (*ctx.meta).file };
    // SAFETY: the file that is being read; a local value without padding.
    unsafe {
        bpf_seq_write(
            file.cast(),
            (&raw const sleeper).cast_mut().cast(),
            size_of::<Sleeper>() as u32,
        )
    };
}
