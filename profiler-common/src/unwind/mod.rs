//! The unwind step: from one frame's registers to its caller's. No I/O, no maps: memory comes
//! through a parameter, so that BPF runs it with `bpf_probe_read_user` and a test with an array.
//!
//! [`Rule`] says how the caller's registers are found at one program counter, [`step`] applies it;
//! [`step_frame_pointer`] is for code that no rule covers. [`table`] is the form in which the kernel
//! side holds the rules of files and the mappings of processes, and its searches.

mod compiled;
mod epilogue;
mod frame_pointer;
mod rule;
mod signal;
pub mod table;

pub use compiled::{COMPILED_WORDS, step_compiled};
pub use epilogue::epilogue_x86_64;
pub use frame_pointer::step_frame_pointer;
pub use rule::{Bp, Cfa, Return, Rule, step};
pub use signal::{LINK_REGISTER, SIGRETURN_AARCH64, SIGRETURN_X86_64, SignalFrame};

/// The registers a step needs, of one frame.
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
pub struct Registers {
    /// Program counter: of the leaf, the instruction itself; of its callers, a return address.
    pub pc: u64,
    /// Stack pointer (rsp, sp).
    pub sp: u64,
    /// Frame pointer (rbp, x29).
    pub bp: u64,
}

/// How a frame was found: what its program counter means and which registers are known.
pub mod how {
    /// The pc is a return address: what is looked up lies before it.
    pub const RETURN: u32 = 1;
    /// The frame is the leaf, whose registers are all known.
    pub const LEAF: u32 = 2;
    /// It was found through the frame pointer: its pc may be no code at all.
    pub const BY_FRAME_POINTER: u32 = 4;
    /// A signal interrupted it: its pc is the instruction itself.
    pub const INTERRUPTED: u32 = 8;
    /// Its link register is known.
    pub const LINK: u32 = 16;
    /// The leaf's registers are those of this frame, too, as far as calls need not keep them: nothing since has
    /// a rule for them.
    pub const KEPT: u32 = 32;
    /// It was found through such a register: its pc may be no code at all.
    pub const BY_REGISTER: u32 = 64;
}

/// General registers in DWARF numbering, as far as a leaf's rules may need them: those of x86-64 are
/// 0 to 15, and of aarch64 0 to 31.
pub const LEAF_REGISTERS: usize = 32;

/// User addresses end here: 47 bits on x86-64 and 48 on aarch64. Where return addresses are signed
/// (aarch64), the signature lies above.
pub const USER_ADDRESS_END: u64 = 1 << 48;
/// Nothing is ever mapped executable below this (`vm.mmap_min_addr`).
pub const USER_ADDRESS_MIN: u64 = 4096;
