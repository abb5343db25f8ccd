//! Reads of the kernel's task structures, at the offsets the loader took from BTF. `bpf_probe_read_kernel`
//! rather than direct access, as Rust has no CO-RE relocations.

use aya_ebpf::{
    bindings::task_struct,
    helpers::{bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_probe_read_user},
};
use profiler_common::limits::COMM_LEN;

use crate::maps::setting;

/// `PF_KTHREAD | PF_USER_WORKER | PF_IO_WORKER` of `include/linux/sched.h`: a task without user code.
const PF_NO_USER_CODE: u32 = 0x0020_0000 | 0x0000_4000 | 0x0000_0010;

/// A task of the kernel.
#[derive(Clone, Copy)]
pub(crate) struct Task(pub(crate) *mut task_struct);

impl Task {
    /// The running task.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        // SAFETY: always callable from tracing programs.
        Self(unsafe { bpf_get_current_task_btf() })
    }

    #[inline(always)]
    fn read<T>(self, offset: u32) -> Option<T> {
        read_at(self.0 as u64, offset)
    }

    /// Whether it never runs user code.
    #[inline(always)]
    pub(crate) fn is_kernel_thread(self) -> bool {
        self.read::<u32>(setting!(offsets.task_flags))
            .is_some_and(|flags| flags & PF_NO_USER_CODE != 0)
    }

    /// Whether it has a user address space.
    #[inline(always)]
    pub(crate) fn has_memory(self) -> bool {
        self.read::<u64>(setting!(offsets.task_mm))
            .is_some_and(|mm| mm != 0)
    }

    /// Whether it is replacing its program: its memory is the new program's already, its registers are the
    /// old one's.
    #[inline(always)]
    pub(crate) fn in_execve(self) -> bool {
        self.bit(setting!(offsets.task_in_execve))
    }

    #[inline(always)]
    fn bit(self, bits: u32) -> bool {
        self.read::<u8>(bits / 8)
            .is_some_and(|byte| byte >> (bits % 8) & 1 != 0)
    }

    /// Whether it waits for input or output.
    #[inline(always)]
    pub(crate) fn in_iowait(self) -> bool {
        self.bit(setting!(offsets.task_in_iowait))
    }

    /// Whether its cgroup is frozen (v2), and it with it.
    #[inline(always)]
    pub(crate) fn is_frozen(self) -> bool {
        let bits = setting!(offsets.task_frozen);
        bits != 0 && self.bit(bits)
    }

    /// Its state: `TASK_*` of include/linux/sched.h.
    #[inline(always)]
    pub(crate) fn state(self) -> Option<u32> {
        self.read(setting!(offsets.task_state))
    }

    /// Its thread id.
    #[inline(always)]
    pub(crate) fn tid(self) -> Option<u32> {
        self.read(setting!(offsets.task_pid))
    }

    /// Where its thread's own data begins (fs base); `None` where that is not read on this processor.
    #[inline(always)]
    pub(crate) fn thread_pointer(self) -> Option<u64> {
        let offset = setting!(offsets.task_thread_pointer);
        if offset == 0 {
            return None;
        }
        self.read(offset)
    }

    /// Its process id.
    #[inline(always)]
    pub(crate) fn tgid(self) -> Option<u32> {
        self.read(setting!(offsets.task_tgid))
    }

    /// How long it has run in its life, ns: exact when it leaves a CPU.
    #[inline(always)]
    pub(crate) fn ran_ns(self) -> Option<u64> {
        self.read(setting!(offsets.task_ran))
    }

    /// Its name.
    #[inline(always)]
    pub(crate) fn comm(self) -> Option<[u8; COMM_LEN]> {
        self.read(setting!(offsets.task_comm))
    }

    /// The name of its process, which is that of the main thread.
    #[inline(always)]
    pub(crate) fn process_comm(self) -> Option<[u8; COMM_LEN]> {
        let leader: u64 = self.read(setting!(offsets.task_group_leader))?;
        read_at(leader, setting!(offsets.task_comm))
    }

    /// Threads of its process that have not begun to exit.
    #[inline(always)]
    pub(crate) fn live_threads(self) -> Option<i32> {
        let signal: u64 = self.read(setting!(offsets.task_signal))?;
        read_at(signal, setting!(offsets.signal_live))
    }
}

/// Reads a member of a structure of the kernel.
#[inline(always)]
pub(crate) fn read_at<T>(base: u64, offset: u32) -> Option<T> {
    let address = base + u64::from(offset);
    // SAFETY: the helper checks the address and fails where it is not readable.
    unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
}

/// Reads the running process's memory.
#[inline(always)]
pub(crate) fn user_at<T>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address and fails where it is not readable.
    unsafe { bpf_probe_read_user(address as *const T) }.ok()
}
