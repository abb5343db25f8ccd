//! Which pointer a function of a server's program goes by, from its code. x86-64 only. Pure.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

/// The address of the pointer, in a function that returns the first word of what it points to: a load of the pointer,
/// a load through it, a return, and nothing else.
pub(super) fn pointer_of(start: u64, code: &[u8]) -> Option<u64> {
    let decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
    let is_mark = |instruction: &Instruction| instruction.code() == Code::Endbr64;
    let mut instructions = decoder.into_iter().skip_while(is_mark);
    let mut load = || {
        let load = instructions.next()?;
        let is_load = load.mnemonic() == Mnemonic::Mov
            && load.op0_kind() == OpKind::Register
            && load.op1_kind() == OpKind::Memory
            && load.op0_register().is_gpr64()
            && load.memory_index() == Register::None;
        is_load.then_some(load)
    };
    let (pointer, word) = (load()?, load()?);
    let is_through = word.memory_base() == pointer.op0_register()
        && word.memory_displacement64() == 0
        && word.op0_register() == Register::RAX;
    let is_end = instructions.next()?.mnemonic() == Mnemonic::Ret;
    let is_it = pointer.is_ip_rel_memory_operand() && is_through && is_end;
    is_it.then(|| pointer.ip_rel_memory_address())
}

#[cfg(test)]
mod tests {
    use super::pointer_of;

    /// The pointer is found in what compilers make of the function, and in nothing else.
    #[test]
    fn pointers_are_found() {
        // mov 0x2c14c9(%rip),%rax; mov (%rax),%rax; ret
        let code = b"\x48\x8b\x05\xc9\x14\x2c\0\x48\x8b\0\xc3";
        assert_eq!(pointer_of(0x5b_4af0, code), Some(0x87_5fc0));
        let marked = [b"\xf3\x0f\x1e\xfa", &code[..]].concat();
        assert_eq!(pointer_of(0x5b_4aec, &marked), Some(0x87_5fc0));
        // mov 8(%rax),%eax is of a function that returns the number.
        let number = b"\x48\x8b\x05\xc9\x14\x2c\0\x8b\x40\x08\xc3";
        for other in [&number[..], &code[..7], &code[..10], b"\xc3", b""] {
            assert_eq!(pointer_of(0x5b_4af0, other), None, "{other:02x?}");
        }
    }
}
