//! AArch64.

use aya_ebpf::{bindings::pt_regs, programs::PerfEventContext};
use profiler_common::unwind::{LEAF_REGISTERS, Registers, Rule, SIGRETURN_AARCH64, SignalFrame};

use super::ReturningCall;
use crate::{task::read_at, wire::Transfer};

/// `PSR_MODE_MASK` and `PSR_MODE32_BIT` of `arch/arm64/include/uapi/asm/ptrace.h`.
const PSR_MODE_MASK: u64 = 0xf;
const PSR_MODE32_BIT: u64 = 0x10;

/// The kernel's signal frame.
pub(crate) const SIGNAL_FRAME: SignalFrame = SignalFrame::AARCH64;

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

/// The same of registers in the kernel's memory; `None` of 32-bit code. All of them are too many for the stack of a
/// program that may be preempted.
#[inline(always)]
pub(crate) fn frame_at(registers: u64) -> Option<Registers> {
    use core::mem::offset_of;
    let pstate: u64 = read_at(registers, offset_of!(pt_regs, pstate) as u32)?;
    if pstate & PSR_MODE32_BIT != 0 {
        return None;
    }
    Some(Registers {
        pc: read_at(registers, offset_of!(pt_regs, pc) as u32)?,
        sp: read_at(registers, offset_of!(pt_regs, sp) as u32)?,
        bp: read_at(registers, (offset_of!(pt_regs, regs) + 29 * 8) as u32)?,
    })
}

/// Whether the kernel was entered by a system call. Its number lies behind the registers that this
/// type covers, so the answer is always no: the line of a call made here may be the next one.
#[inline(always)]
pub(crate) fn in_syscall(_registers: &pt_regs) -> bool {
    false
}

/// The registers in DWARF numbering, x0 to x30 (AADWARF64 §4.1).
#[inline(always)]
pub(crate) fn leaf_registers(registers: &pt_regs, leaf: &mut [u64; LEAF_REGISTERS]) {
    leaf[..31].copy_from_slice(&registers.regs);
}

/// Whether calls need not keep a register, so that no rule ever gives a caller's: what it holds at the leaf is the
/// caller's as long as nothing has changed it. AAPCS64 §6.1.1.
#[inline(always)]
pub(crate) fn is_volatile(register: usize) -> bool {
    register < 18
}

/// The rule that code says itself, at a return address: none is known here.
#[inline(always)]
pub(crate) fn epilogue(_code: [u64; 2]) -> Option<Rule> {
    None
}

/// Whether a runtime's compiled code may be `CPython` 3.14's, whose frames are known.
pub(crate) const COMPILES_PYTHON: bool = false;

/// Whether this code, the first 16 bytes of a function, is what a signal handler returns to.
#[inline(always)]
pub(crate) fn is_sigreturn(code: [u64; 2]) -> bool {
    code[0] == SIGRETURN_AARCH64
}

/// The number of the system call that the registers are in and its first arguments: the number lies
/// behind what this type covers, so that it is never known.
#[inline(always)]
pub(crate) fn syscall(registers: &pt_regs) -> (i32, [u64; 3]) {
    (
        -1,
        [registers.regs[0], registers.regs[1], registers.regs[2]],
    )
}

/// Whether a system call is `futex`.
#[inline(always)]
pub(crate) fn is_futex(number: i32) -> bool {
    number == 98
}

/// Whether a system call is `ppoll`; there is no `poll`.
#[inline(always)]
pub(crate) fn is_poll(number: i32) -> bool {
    number == 73
}

/// The system call that is returned from: the result is in the first argument's register, and `struct pt_regs` has
/// `orig_x0` and `syscallno` behind what user space sees of it.
#[inline(always)]
pub(crate) fn returning_call(registers: u64) -> Option<ReturningCall> {
    const ORIG_X0: u32 = size_of::<pt_regs>() as u32;
    const SYSCALLNO: u32 = ORIG_X0 + 8;
    let [result, second, third, fourth]: [u64; 4] = read_at(registers, 0)?;
    let first = read_at::<u64>(registers, ORIG_X0)?;
    Some(ReturningCall {
        number: read_at::<i32>(registers, SYSCALLNO)?,
        arguments: [first, second, third, fourth],
        result: result as i64,
    })
}

/// How a system call passes bytes through a descriptor, if it does.
#[inline(always)]
pub(crate) fn transfer(number: i32) -> Option<Transfer> {
    Some(match number {
        63 => Transfer::READ,
        64 => Transfer::WRITE,
        65 => Transfer::READV,
        66 => Transfer::WRITEV,
        206 => Transfer::SENDTO,
        207 => Transfer::RECVFROM,
        211 => Transfer::SENDMSG,
        212 => Transfer::RECVMSG,
        _ => return None,
    })
}

/// The first argument of a system call, of the registers at its entry.
#[inline(always)]
pub(crate) fn first_argument(registers: u64) -> Option<u64> {
    read_at(registers, core::mem::offset_of!(pt_regs, regs) as u32)
}

/// The first arguments of a function, of the registers at its entry.
#[inline(always)]
pub(crate) fn arguments(registers: &pt_regs) -> [u64; 5] {
    [
        registers.regs[0],
        registers.regs[1],
        registers.regs[2],
        registers.regs[3],
        registers.regs[4],
    ]
}

/// The result of a function, of the registers at its return.
#[inline(always)]
pub(crate) fn result(registers: &pt_regs) -> u64 {
    registers.regs[0]
}

/// The stack pointer: at a function's return it is what it was at its entry.
#[inline(always)]
pub(crate) fn stack_pointer(registers: &pt_regs) -> u64 {
    registers.sp
}

/// Where at a function's entry a return address is that stays there while the function runs: in the frame record of
/// its caller.
#[inline(always)]
pub(crate) fn return_slot(registers: &pt_regs) -> u64 {
    registers.regs[29] + 8
}
