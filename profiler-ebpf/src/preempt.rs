//! What keeps two threads apart that are in one program on one CPU, since one was preempted in it.
//!
//! From Linux 6.13 on a program whose frame is 64 bytes or more runs on a stack of the CPU that is the program's own
//! ("private"), which such threads share. A program with a tail call never does (`check_max_stack_depth` of
//! kernel/bpf/verifier.c). So each of ours that can be preempted has one, which is never made. A test of the loader
//! looks at the object.
//!
//! Memory of the CPU is used by these programs only where one instruction changes it, where it is [claimed](crate::atomic),
//! or where the kernel runs no program within itself: then the program is not run and the kernel counts that.

use core::ptr;

use aya_ebpf::{EbpfContext, btf_maps::ProgramArray, macros::btf_map};

/// Programs of one kind may share such an array. Nobody puts one in.
pub(crate) type Nowhere = ProgramArray<1>;

/// Of raw tracepoints.
#[btf_map]
pub(crate) static FROM_RAW_TRACEPOINT: Nowhere = Nowhere::new();

/// Of tracepoints.
#[btf_map]
pub(crate) static FROM_TRACEPOINT: Nowhere = Nowhere::new();

/// Of uprobes.
#[btf_map]
pub(crate) static FROM_UPROBE: Nowhere = Nowhere::new();

/// Zero for ever: the verifier leaves out what it guards, after it has looked for tail calls.
#[unsafe(no_mangle)]
static NEVER: u32 = 0;

/// Keeps the program on the stack of its thread.
#[inline(always)]
pub(crate) fn keep_own_stack<C: EbpfContext>(ctx: &C, nowhere: &Nowhere) {
    // SAFETY: a live static. Volatile, as the compiler must not leave it out.
    if unsafe { ptr::read_volatile(&raw const NEVER) } != 0 {
        // SAFETY: never reached.
        unsafe { nowhere.tail_call(ctx, 0) };
    }
}
