//! The kernel's signal frame: where it keeps the registers of the interrupted code.

use super::Registers;

/// The code of the function that a signal handler returns to on x86-64, `mov $15, %rax; syscall`, as
/// two words of which the second counts with its low byte only. musl has no unwind table for it.
pub const SIGRETURN_X86_64: [u64; 2] = [0x0f00_0000_0fc0_c748, 0x05];

/// Likewise on aarch64: `mov x8, #139; svc #0`.
pub const SIGRETURN_AARCH64: u64 = 0xd400_0001_d280_1168;

/// Byte offsets, from the stack pointer at the return of a signal handler.
#[derive(Clone, Copy, Debug)]
pub struct SignalFrame {
    /// Of the interrupted frame pointer.
    pub bp: i64,
    /// Of the interrupted stack pointer.
    pub sp: i64,
    /// Of the interrupted program counter.
    pub pc: i64,
    /// Of the interrupted link register, where there is one: the return address of a leaf.
    pub link: Option<i64>,
}

/// DWARF number of aarch64's link register.
pub const LINK_REGISTER: usize = 30;

impl SignalFrame {
    /// `struct ucontext` of arch/x86/include/uapi/asm/sigcontext.h: after 40 bytes the registers r8
    /// to r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip.
    pub const X86_64: Self = Self {
        bp: 40 + 10 * 8,
        sp: 40 + 15 * 8,
        pc: 40 + 16 * 8,
        link: None,
    };

    /// `struct rt_sigframe` of arch/arm64/kernel/signal.c: 128 bytes of `siginfo`, then the `ucontext`, whose
    /// registers begin at 184 with x0; sp and pc follow x30.
    pub const AARCH64: Self = Self {
        bp: 312 + 29 * 8,
        sp: 312 + 31 * 8,
        pc: 312 + 32 * 8,
        link: Some(312 + 30 * 8),
    };

    /// The interrupted registers; `None` where the stack cannot be read.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "compiled into a bpf_loop callback")]
    pub fn interrupted(
        self,
        frame: &Registers,
        read: impl Fn(u64) -> Option<u64>,
    ) -> Option<Registers> {
        let word = |offset| read(frame.sp.wrapping_add_signed(offset));
        Some(Registers {
            pc: word(self.pc)?,
            sp: word(self.sp)?,
            bp: word(self.bp)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Registers, SignalFrame};

    /// The registers are those that the kernel's structure has at these places.
    #[test]
    fn interrupted_registers() {
        let frame = Registers {
            pc: 1,
            sp: 0x1000,
            bp: 2,
        };
        for (layout, expected) in [
            (SignalFrame::X86_64, (10, 15, 16, 40)),
            (SignalFrame::AARCH64, (29, 31, 32, 312)),
        ] {
            let (bp, sp, pc, base) = expected;
            let read = |address: u64| (address - 0x1000).checked_sub(base).map(|at| at / 8);
            assert_eq!(
                layout.interrupted(&frame, read),
                Some(Registers { pc, sp, bp })
            );
        }
    }
}
