//! Code that no unwind table covers and that says itself how it returns: a runtime's stub around a call, which pops what
//! it has pushed right behind the call (`python -X perf` of 3.12).

use super::{Bp, Cfa, Return, Rule};

/// The rule at a return address on x86-64, by the code there, two words: `add $N, %rsp; ret`.
#[inline(always)]
#[must_use]
pub const fn epilogue_x86_64(code: [u64; 2]) -> Option<Rule> {
    const MASK: u64 = 0x00ff_00ff_ffff;
    const ADD_RET: u64 = 0x00c3_00c4_8348;
    let popped = (code[0] >> 24 & 0xff) as u8;
    // The constant is signed, and whole words are popped.
    if code[0] & MASK != ADD_RET || popped & 0x87 != 0 {
        return None;
    }
    Some(Rule {
        cfa_offset: popped as i32 + 8,
        ra_kind: Return::Cfa as u8,
        ra: -8,
        bp_kind: Bp::Same as u8,
        ..Rule::only(Cfa::Sp)
    })
}

#[cfg(test)]
mod tests {
    use super::epilogue_x86_64;

    fn offset(code: [u8; 5]) -> Option<i32> {
        let mut word = [0x90; 8];
        word[..5].copy_from_slice(&code);
        epilogue_x86_64([u64::from_le_bytes(word), 0]).map(|rule| rule.cfa_offset)
    }

    /// What is popped and the return address are counted; anything else is no epilogue.
    #[test]
    fn epilogues_are_read() {
        assert_eq!(offset([0x48, 0x83, 0xc4, 0x08, 0xc3]), Some(16));
        assert_eq!(offset([0x48, 0x83, 0xc4, 0x18, 0xc3]), Some(32));
        for other in [
            [0x48, 0x83, 0xc4, 0xf8, 0xc3],
            [0x48, 0x83, 0xc4, 0x04, 0xc3],
            [0x48, 0x83, 0xec, 0x08, 0xc3],
            [0x48, 0x83, 0xc4, 0x08, 0xe9],
        ] {
            assert_eq!(offset(other), None, "{other:x?}");
        }
    }
}
