//! x86-64.

use aya_ebpf::{bindings::pt_regs, programs::PerfEventContext};
use profiler_common::unwind::Registers;

/// `__USER32_CS` of `arch/x86/include/asm/segment.h`.
const USER32_CS: u64 = 0x23;

/// Whether the CPU ran user code when the event hit: the privilege level in the code segment.
#[inline(always)]
pub(crate) fn hit_user_mode(ctx: &PerfEventContext) -> bool {
    // SAFETY: the kernel's own context of this program type.
    let cs = unsafe { (*ctx.ctx).regs.cs };
    cs & 3 != 0
}

/// Whether the registers are those of 32-bit code.
#[inline(always)]
pub(crate) fn is_32_bit(registers: &pt_regs) -> bool {
    registers.cs == USER32_CS
}

/// What the walk starts from.
#[inline(always)]
pub(crate) fn frame(registers: &pt_regs) -> Registers {
    Registers {
        pc: registers.rip,
        sp: registers.rsp,
        bp: registers.rbp,
    }
}

/// Whether the kernel was entered by a system call: every other entry stores -1 (no call to restart)
/// where the number of the call would be (`arch/x86/entry/entry_64.S`).
#[inline(always)]
pub(crate) fn in_syscall(registers: &pt_regs) -> bool {
    registers.orig_rax != u64::MAX
}
