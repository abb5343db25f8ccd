//! AArch64.

use aya_ebpf::{bindings::pt_regs, programs::PerfEventContext};
use profiler_common::unwind::Registers;

/// `PSR_MODE_MASK` and `PSR_MODE32_BIT` of `arch/arm64/include/uapi/asm/ptrace.h`.
const PSR_MODE_MASK: u64 = 0xf;
const PSR_MODE32_BIT: u64 = 0x10;

/// Whether the CPU ran user code when the event hit: exception level 0.
#[inline(always)]
pub(crate) fn hit_user_mode(ctx: &PerfEventContext) -> bool {
    // SAFETY: the kernel's own context of this program type.
    let pstate = unsafe { (*ctx.ctx).regs.pstate };
    pstate & PSR_MODE_MASK == 0
}

/// Whether the registers are those of 32-bit code.
#[inline(always)]
pub(crate) fn is_32_bit(registers: &pt_regs) -> bool {
    registers.pstate & PSR_MODE32_BIT != 0
}

/// What the walk starts from.
#[inline(always)]
pub(crate) fn frame(registers: &pt_regs) -> Registers {
    Registers {
        pc: registers.pc,
        sp: registers.sp,
        bp: registers.regs[29],
    }
}

/// Whether the kernel was entered by a system call. Its number lies behind the registers that this
/// type covers, so the answer is always no: the line of a call made here may be the next one.
#[inline(always)]
pub(crate) fn in_syscall(_registers: &pt_regs) -> bool {
    false
}
