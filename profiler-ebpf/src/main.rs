//! The BPF programs of `profiler`: entry points only, each a wrapper over a function of the room
//! that does the work. Built for the BPF target by `profiler/build.rs`; on the host this crate is an
//! empty program, so that workspace-wide commands work.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod arch;
#[cfg(target_arch = "bpf")]
mod atomic;
#[cfg(target_arch = "bpf")]
mod buffer;
#[cfg(target_arch = "bpf")]
mod descriptor;
#[cfg(target_arch = "bpf")]
mod filter;
#[cfg(target_arch = "bpf")]
mod interest;
#[cfg(target_arch = "bpf")]
mod lifecycle;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod off_cpu;
#[cfg(target_arch = "bpf")]
mod on_cpu;
#[cfg(target_arch = "bpf")]
mod preempt;
#[cfg(target_arch = "bpf")]
mod python;
#[cfg(target_arch = "bpf")]
mod sleepers;
#[cfg(target_arch = "bpf")]
mod stack;
#[cfg(target_arch = "bpf")]
mod syscalls;
#[cfg(target_arch = "bpf")]
mod task;
#[cfg(target_arch = "bpf")]
mod tcp;
#[cfg(target_arch = "bpf")]
mod tls;
#[cfg(target_arch = "bpf")]
mod unwind;
#[cfg(target_arch = "bpf")]
mod wire;

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        macros::{perf_event, raw_tracepoint, tracepoint, uprobe},
        programs::{PerfEventContext, ProbeContext, RawTracePointContext, TracePointContext},
    };

    use profiler_common::tcp::what;

    use crate::{
        lifecycle, off_cpu, on_cpu,
        preempt::{FROM_RAW_TRACEPOINT, FROM_TRACEPOINT, FROM_UPROBE, keep_own_stack},
        sleepers, syscalls, tcp, tls, wire,
    };

    /// Timer or counter overflow on one CPU.
    #[perf_event]
    fn cpu_sample(ctx: PerfEventContext) -> u32 {
        on_cpu::sample(&ctx);
        0
    }

    /// Once for each task while the list is read. aya has no macro for it.
    #[unsafe(no_mangle)]
    #[unsafe(link_section = "iter/task")]
    extern "C" fn task_registers(ctx: *const sleepers::Context) -> i32 {
        // SAFETY: the kernel gives each program of this type such a context.
        sleepers::look(unsafe { &*ctx });
        0
    }

    /// `TP_PROTO(bool preempt, struct task_struct *prev, struct task_struct *next, unsigned int
    /// prev_state)`, the last from 5.18.
    #[raw_tracepoint(tracepoint = "sched_switch")]
    fn sched_switch(ctx: RawTracePointContext) -> i32 {
        off_cpu::switched(&ctx);
        0
    }

    /// `TP_PROTO(struct pt_regs *regs, long id)`, unchanged since 2.6.
    #[raw_tracepoint(tracepoint = "sys_enter")]
    fn sys_enter(ctx: RawTracePointContext) -> i32 {
        keep_own_stack(&ctx, &FROM_RAW_TRACEPOINT);
        syscalls::entered(&ctx);
        0
    }

    /// `TP_PROTO(struct pt_regs *regs, long ret)`, unchanged since 2.6.
    #[raw_tracepoint(tracepoint = "sys_exit")]
    fn sys_exit(ctx: RawTracePointContext) -> i32 {
        keep_own_stack(&ctx, &FROM_RAW_TRACEPOINT);
        syscalls::returned::<false>(&ctx);
        0
    }

    /// Likewise, with stacks.
    #[raw_tracepoint(tracepoint = "sys_exit")]
    fn sys_exit_stacks(ctx: RawTracePointContext) -> i32 {
        keep_own_stack(&ctx, &FROM_RAW_TRACEPOINT);
        syscalls::returned::<true>(&ctx);
        0
    }

    /// `TP_PROTO(const struct sock *sk, const int oldstate, const int newstate)`, unchanged since 4.16.
    #[raw_tracepoint(tracepoint = "inet_sock_set_state")]
    fn tcp_state(ctx: RawTracePointContext) -> i32 {
        keep_own_stack(&ctx, &FROM_RAW_TRACEPOINT);
        tcp::state_changed(&ctx);
        0
    }

    /// `TP_PROTO(const struct sock *sk, const struct sk_buff *skb)`, later also `int err`.
    #[raw_tracepoint(tracepoint = "tcp_retransmit_skb")]
    fn tcp_retransmit(ctx: RawTracePointContext) -> i32 {
        keep_own_stack(&ctx, &FROM_RAW_TRACEPOINT);
        tcp::happened(&ctx, what::RETRANSMIT);
        0
    }

    /// `TP_PROTO(const struct sock *sk, const struct sk_buff *skb)`, later also the reason; either may be absent.
    #[raw_tracepoint(tracepoint = "tcp_send_reset")]
    fn tcp_reset_sent(ctx: RawTracePointContext) -> i32 {
        keep_own_stack(&ctx, &FROM_RAW_TRACEPOINT);
        tcp::happened(&ctx, what::RESET_SENT);
        0
    }

    /// `TP_PROTO(struct sock *sk)`, unchanged since 4.16.
    #[raw_tracepoint(tracepoint = "tcp_receive_reset")]
    fn tcp_reset_received(ctx: RawTracePointContext) -> i32 {
        keep_own_stack(&ctx, &FROM_RAW_TRACEPOINT);
        tcp::happened(&ctx, what::RESET_RECEIVED);
        0
    }

    /// `syscalls:sys_exit_accept` and `sys_exit_accept4`: `ret` is where the loader found it in the `format` file.
    #[tracepoint]
    fn tcp_accepted(ctx: TracePointContext) -> u32 {
        keep_own_stack(&ctx, &FROM_TRACEPOINT);
        tcp::accepted(&ctx);
        0
    }

    /// `TP_PROTO(struct sock *sk)`, unchanged since 4.16.
    #[raw_tracepoint(tracepoint = "tcp_destroy_sock")]
    fn tcp_destroyed(ctx: RawTracePointContext) -> i32 {
        keep_own_stack(&ctx, &FROM_RAW_TRACEPOINT);
        tcp::destroyed(&ctx);
        0
    }

    /// `syscalls:sys_enter_*` of calls that send; nothing of its arguments is read.
    #[tracepoint]
    fn wire_enter(ctx: TracePointContext) -> u32 {
        keep_own_stack(&ctx, &FROM_TRACEPOINT);
        wire::entered();
        0
    }

    /// `syscalls:sys_exit_*` of calls that send or receive.
    #[tracepoint]
    fn wire_exit(ctx: TracePointContext) -> u32 {
        keep_own_stack(&ctx, &FROM_TRACEPOINT);
        wire::returned();
        0
    }

    /// Entry of a function that passes plaintext; the cookie says how.
    #[uprobe]
    fn tls_enter(ctx: ProbeContext) -> u32 {
        keep_own_stack(&ctx, &FROM_UPROBE);
        tls::entered(&ctx);
        0
    }

    /// An instruction by which such a function returns.
    #[uprobe]
    fn tls_return(ctx: ProbeContext) -> u32 {
        keep_own_stack(&ctx, &FROM_UPROBE);
        tls::returned(&ctx);
        0
    }

    /// Entry of `void SSL_free(SSL *ssl)`.
    #[uprobe]
    fn tls_free(ctx: ProbeContext) -> u32 {
        keep_own_stack(&ctx, &FROM_UPROBE);
        tls::freed(&ctx);
        0
    }

    /// `TP_PROTO(struct task_struct *parent, struct task_struct *child)`, unchanged since 2.6.
    #[raw_tracepoint(tracepoint = "sched_process_fork")]
    fn process_fork(ctx: RawTracePointContext) -> i32 {
        keep_own_stack(&ctx, &FROM_RAW_TRACEPOINT);
        lifecycle::forked(&ctx);
        0
    }

    /// `TP_PROTO(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`, unchanged since 3.4.
    #[raw_tracepoint(tracepoint = "sched_process_exec")]
    fn process_exec(ctx: RawTracePointContext) -> i32 {
        keep_own_stack(&ctx, &FROM_RAW_TRACEPOINT);
        lifecycle::execed(&ctx);
        0
    }

    /// `TP_PROTO(struct task_struct *p)`, from 6.16 also `bool group_dead`.
    #[raw_tracepoint(tracepoint = "sched_process_exit")]
    fn process_exit(ctx: RawTracePointContext) -> i32 {
        keep_own_stack(&ctx, &FROM_RAW_TRACEPOINT);
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
