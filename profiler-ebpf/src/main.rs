//! The BPF programs of `profiler`: entry points only, each a wrapper over a function of the room
//! that does the work. Built for the BPF target by `profiler/build.rs`; on the host this crate is an
//! empty program, so that workspace-wide commands work.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod arch;
#[cfg(target_arch = "bpf")]
mod filter;
#[cfg(target_arch = "bpf")]
mod lifecycle;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod on_cpu;
#[cfg(target_arch = "bpf")]
mod stack;
#[cfg(target_arch = "bpf")]
mod task;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        macros::{perf_event, raw_tracepoint},
        programs::{PerfEventContext, RawTracePointContext},
    };

    use crate::{lifecycle, on_cpu};

    /// Timer or counter overflow on one CPU.
    #[perf_event]
    fn cpu_sample(ctx: PerfEventContext) -> u32 {
        on_cpu::sample(&ctx);
        0
    }

    /// `TP_PROTO(struct task_struct *parent, struct task_struct *child)`, unchanged since 2.6.
    #[raw_tracepoint(tracepoint = "sched_process_fork")]
    fn process_fork(ctx: RawTracePointContext) -> i32 {
        lifecycle::forked(&ctx);
        0
    }

    /// `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`, unchanged since 3.4.
    #[raw_tracepoint(tracepoint = "sched_process_exec")]
    fn process_exec(_ctx: RawTracePointContext) -> i32 {
        lifecycle::execed();
        0
    }

    /// `TP_PROTO(struct task_struct *p)`, from 6.16 also `bool group_dead`.
    #[raw_tracepoint(tracepoint = "sched_process_exit")]
    fn process_exit(_ctx: RawTracePointContext) -> i32 {
        lifecycle::exited();
        0
    }
}

/// The kernel hands its tracing functions only to programs under a GPL-compatible licence.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Never reached: the verifier would refuse a program that could panic.
#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
