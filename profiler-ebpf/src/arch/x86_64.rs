//! x86-64.

use aya_ebpf::{bindings::pt_regs, programs::PerfEventContext};
use profiler_common::unwind::{
    LEAF_REGISTERS, Registers, Rule, SIGRETURN_X86_64, SignalFrame, epilogue_x86_64,
};

use super::ReturningCall;
use crate::{task::read_at, wire::Transfer};

/// `__USER32_CS` of `arch/x86/include/asm/segment.h`.
const USER32_CS: u64 = 0x23;

/// The kernel's signal frame.
pub(crate) const SIGNAL_FRAME: SignalFrame = SignalFrame::X86_64;

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

/// The same of registers in the kernel's memory; `None` of 32-bit code. All of them are too many for the stack of a
/// program that may be preempted.
#[inline(always)]
pub(crate) fn frame_at(registers: u64) -> Option<Registers> {
    use core::mem::offset_of;
    let cs: u64 = read_at(registers, offset_of!(pt_regs, cs) as u32)?;
    if cs == USER32_CS {
        return None;
    }
    Some(Registers {
        pc: read_at(registers, offset_of!(pt_regs, rip) as u32)?,
        sp: read_at(registers, offset_of!(pt_regs, rsp) as u32)?,
        bp: read_at(registers, offset_of!(pt_regs, rbp) as u32)?,
    })
}

/// Whether the kernel was entered by a system call: every other entry stores -1 (no call to restart)
/// where the number of the call would be (`arch/x86/entry/entry_64.S`).
#[inline(always)]
pub(crate) fn in_syscall(registers: &pt_regs) -> bool {
    registers.orig_rax != u64::MAX
}

/// The registers in DWARF numbering (psABI figure 3.36).
#[inline(always)]
pub(crate) fn leaf_registers(registers: &pt_regs, leaf: &mut [u64; LEAF_REGISTERS]) {
    leaf[0] = registers.rax;
    leaf[1] = registers.rdx;
    leaf[2] = registers.rcx;
    leaf[3] = registers.rbx;
    leaf[4] = registers.rsi;
    leaf[5] = registers.rdi;
    leaf[6] = registers.rbp;
    leaf[7] = registers.rsp;
    leaf[8] = registers.r8;
    leaf[9] = registers.r9;
    leaf[10] = registers.r10;
    leaf[11] = registers.r11;
    leaf[12] = registers.r12;
    leaf[13] = registers.r13;
    leaf[14] = registers.r14;
    leaf[15] = registers.r15;
}

/// Whether calls need not keep a register, so that no rule ever gives a caller's: what it holds at the leaf is the
/// caller's as long as nothing has changed it. System V x86-64 psABI figure 3.4.
#[inline(always)]
pub(crate) fn is_volatile(register: usize) -> bool {
    // rax, rdx, rcx, rsi, rdi, r8 to r11
    register < 16 && 0x0f37 & (1 << register) != 0
}

/// The rule that code says itself, at a return address.
#[inline(always)]
pub(crate) fn epilogue(code: [u64; 2]) -> Option<Rule> {
    epilogue_x86_64(code)
}

/// Whether a runtime's compiled code may be `CPython` 3.14's, whose frames are known.
pub(crate) const COMPILES_PYTHON: bool = true;

/// Whether this code, the first 16 bytes of a function, is what a signal handler returns to.
#[inline(always)]
pub(crate) fn is_sigreturn(code: [u64; 2]) -> bool {
    code[0] == SIGRETURN_X86_64[0] && code[1] & 0xff == SIGRETURN_X86_64[1]
}

/// The number of the system call that the registers are in, -1 if none, and its first arguments.
#[inline(always)]
pub(crate) fn syscall(registers: &pt_regs) -> (i32, [u64; 3]) {
    (
        registers.orig_rax as i32,
        [registers.rdi, registers.rsi, registers.rdx],
    )
}

/// Whether a system call is `futex`.
#[inline(always)]
pub(crate) fn is_futex(number: i32) -> bool {
    number == 202
}

/// Whether a system call is `poll` or `ppoll`.
#[inline(always)]
pub(crate) fn is_poll(number: i32) -> bool {
    number == 7 || number == 271
}

/// The system call that is returned from: its result is among the registers already.
#[inline(always)]
pub(crate) fn returning_call(registers: u64) -> Option<ReturningCall> {
    // They lie together: one read.
    const FIRST: usize = core::mem::offset_of!(pt_regs, r10);
    const LAST: usize = core::mem::offset_of!(pt_regs, orig_rax);
    let words: [u64; (LAST - FIRST) / 8 + 1] = read_at(registers, FIRST as u32)?;
    let word = |offset: usize| words[(offset - FIRST) / 8];
    Some(ReturningCall {
        number: word(LAST) as i32,
        arguments: [
            word(core::mem::offset_of!(pt_regs, rdi)),
            word(core::mem::offset_of!(pt_regs, rsi)),
            word(core::mem::offset_of!(pt_regs, rdx)),
            word(FIRST),
        ],
        result: word(core::mem::offset_of!(pt_regs, rax)) as i64,
    })
}

/// How a system call passes bytes through a descriptor, if it does.
#[inline(always)]
pub(crate) fn transfer(number: i32) -> Option<Transfer> {
    Some(match number {
        0 => Transfer::READ,
        1 => Transfer::WRITE,
        19 => Transfer::READV,
        20 => Transfer::WRITEV,
        44 => Transfer::SENDTO,
        45 => Transfer::RECVFROM,
        46 => Transfer::SENDMSG,
        47 => Transfer::RECVMSG,
        _ => return None,
    })
}

/// The first argument of a system call, of the registers at its entry.
#[inline(always)]
pub(crate) fn first_argument(registers: u64) -> Option<u64> {
    read_at(registers, core::mem::offset_of!(pt_regs, rdi) as u32)
}

/// The first arguments of a function, of the registers at its entry.
#[inline(always)]
pub(crate) fn arguments(registers: &pt_regs) -> [u64; 5] {
    [
        registers.rdi,
        registers.rsi,
        registers.rdx,
        registers.rcx,
        registers.r8,
    ]
}

/// The result of a function, of the registers at its return.
#[inline(always)]
pub(crate) fn result(registers: &pt_regs) -> u64 {
    registers.rax
}

/// The stack pointer: at a function's return it is what it was at its entry.
#[inline(always)]
pub(crate) fn stack_pointer(registers: &pt_regs) -> u64 {
    registers.rsp
}

/// Where at a function's entry a return address is that stays there while the function runs: its own.
#[inline(always)]
pub(crate) fn return_slot(registers: &pt_regs) -> u64 {
    registers.rsp
}
