//! The read-only settings that the loader writes into the object before it is loaded.

use crate::comm::CommGlob;

/// Sample only processes in the table of targets.
pub const FILTER_TARGETS: u32 = 1;
/// Sample only tasks in one cgroup (v2) or below it.
pub const FILTER_CGROUP: u32 = 2;
/// Sample only processes whose main thread's name matches a glob.
pub const FILTER_COMM: u32 = 4;

/// What the loader tells the programs. Tasks are sampled that pass every filter set in `filters`.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    feature = "user",
    derive(
        zerocopy::FromBytes,
        zerocopy::IntoBytes,
        zerocopy::Immutable,
        zerocopy::KnownLayout
    )
)]
#[repr(C)]
pub struct Settings {
    /// `FILTER_*` bits.
    pub filters: u32,
    /// Depth of the wanted cgroup below the root, which is 0.
    pub cgroup_level: u32,
    /// Nonzero in tests that walk each stack a second time: every sample comes with its registers and
    /// stack, as if nothing had been walked yet.
    pub witness: u32,
    /// Nonzero where time off the CPU is followed.
    pub off_cpu: u32,
    /// The process whose threads are listed with their registers, else zero.
    pub only_tgid: u32,
    /// Nonzero where the tracepoint tells the state of the task that leaves (from kernel 5.18).
    pub switch_tells_state: u32,
    /// Spans off the CPU shorter than this are only added up, ns.
    pub min_block_ns: u64,
    /// Id of the wanted cgroup: the inode number of its directory.
    pub cgroup_id: u64,
    /// The wanted name, of which the loader makes a table of [`Step`](crate::comm::Step)s for the programs.
    pub comm: CommGlob,
    /// Where this kernel keeps what the programs read.
    pub offsets: KernelOffsets,
}

/// Byte offsets of kernel structure members, from the running kernel's BTF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(
        zerocopy::FromBytes,
        zerocopy::IntoBytes,
        zerocopy::Immutable,
        zerocopy::KnownLayout
    )
)]
#[repr(C)]
pub struct KernelOffsets {
    /// `task_struct.flags`
    pub task_flags: u32,
    /// `task_struct.mm`
    pub task_mm: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.group_leader`
    pub task_group_leader: u32,
    /// `task_struct.comm`
    pub task_comm: u32,
    /// `task_struct.signal`
    pub task_signal: u32,
    /// `signal_struct.live`
    pub signal_live: u32,
    /// `task_struct.in_execve`, in bits
    pub task_in_execve: u32,
    /// `task_struct.in_iowait`, in bits
    pub task_in_iowait: u32,
    /// `task_struct.frozen`, in bits; 0 where the kernel has none
    pub task_frozen: u32,
    /// `task_struct.__state`
    pub task_state: u32,
    /// `task_struct.pid`
    pub task_pid: u32,
    /// `task_struct.thread.fsbase` of x86-64; 0 where the thread pointer is not read
    pub task_thread_pointer: u32,
    /// `task_struct.se.sum_exec_runtime`
    pub task_ran: u32,
    /// `task_struct.utask`; 0 where the kernel has no probes of user code
    pub task_probed: u32,
    /// `uprobe_task.return_instances`
    pub probed_returns: u32,
    /// `return_instance.stack`
    pub return_stack: u32,
    /// `return_instance.orig_ret_vaddr`
    pub return_address: u32,
    /// `return_instance.next`
    pub return_next: u32,
    /// Zero.
    pub padding: u32,
}

impl Settings {
    /// What the object holds before the loader has written anything: no filter, no offsets.
    pub const UNSET: Self = Self {
        filters: 0,
        cgroup_level: 0,
        witness: 0,
        off_cpu: 0,
        only_tgid: 0,
        switch_tells_state: 0,
        min_block_ns: 0,
        cgroup_id: 0,
        comm: CommGlob::EMPTY,
        offsets: KernelOffsets {
            task_flags: 0,
            task_mm: 0,
            task_tgid: 0,
            task_group_leader: 0,
            task_comm: 0,
            task_signal: 0,
            signal_live: 0,
            task_in_execve: 0,
            task_in_iowait: 0,
            task_frozen: 0,
            task_state: 0,
            task_pid: 0,
            task_thread_pointer: 0,
            task_ran: 0,
            task_probed: 0,
            probed_returns: 0,
            return_stack: 0,
            return_address: 0,
            return_next: 0,
            padding: 0,
        },
    };
}

const _: () = assert!(size_of::<Settings>() == 144 && align_of::<Settings>() == 8);

/// Value bits of the table of targets.
pub mod target {
    /// Processes created by this one become targets.
    pub const FOLLOW: u32 = 1;
    /// Not sampled before its next exec: the command that the profiler is about to start.
    pub const AWAIT_EXEC: u32 = 2;
}
