//! The instructions by which a function returns, by following its code. x86-64 only. Pure.
//!
//! A jump that leaves the function is a tail call: what it leads to returns in its place.

use std::collections::BTreeSet;

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};

/// Most instructions that are followed.
const INSTRUCTIONS_MAX: usize = 20_000;

/// How control leaves a function.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Leaves {
    /// Addresses of its `ret`s.
    pub(crate) returns: BTreeSet<u64>,
    /// Where jumps out of it lead.
    pub(crate) tail_calls: BTreeSet<u64>,
}

/// Follows a function from its first instruction along every branch; an error says why that cannot be done.
pub(crate) fn follow(start: u64, code: &[u8]) -> Result<Leaves, &'static str> {
    let end = start.saturating_add(code.len() as u64);
    let inside = start..end;
    let mut leaves = Leaves::default();
    let mut seen = BTreeSet::new();
    let mut paths = vec![start];
    while let Some(mut address) = paths.pop() {
        while seen.insert(address) {
            if seen.len() > INSTRUCTIONS_MAX {
                return Err("it is too long");
            }
            let instruction = decode(start, code, address).ok_or("its code is not understood")?;
            let next = instruction.next_ip();
            let mut branch = |target| {
                if inside.contains(&target) {
                    paths.push(target);
                } else {
                    leaves.tail_calls.insert(target);
                }
            };
            address = match instruction.flow_control() {
                // What does not return may be the last instruction.
                FlowControl::Call | FlowControl::IndirectCall if next == end => break,
                FlowControl::Next
                | FlowControl::XbeginXabortXend
                | FlowControl::Call
                | FlowControl::IndirectCall => next,
                FlowControl::ConditionalBranch => {
                    branch(instruction.near_branch_target());
                    next
                }
                FlowControl::UnconditionalBranch => {
                    branch(instruction.near_branch_target());
                    break;
                }
                FlowControl::Return => {
                    leaves.returns.insert(address);
                    break;
                }
                FlowControl::IndirectBranch => return Err("it jumps to where a register says"),
                FlowControl::Interrupt | FlowControl::Exception => break,
            };
        }
    }
    Ok(leaves)
}

fn decode(start: u64, code: &[u8], address: u64) -> Option<Instruction> {
    let at = usize::try_from(address.checked_sub(start)?).ok()?;
    let mut decoder = Decoder::with_ip(64, code.get(at..)?, address, DecoderOptions::NONE);
    let instruction = decoder.decode();
    (!instruction.is_invalid()).then_some(instruction)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::follow;

    fn leaves(code: &[u8]) -> Result<(Vec<u64>, Vec<u64>), &'static str> {
        let list = |set: std::collections::BTreeSet<u64>| set.into_iter().collect();
        follow(0x1000, code).map(|leaves| (list(leaves.returns), list(leaves.tail_calls)))
    }

    /// `test %edi,%edi; je L; xor %eax,%eax; ret; nop; L: mov $1,%eax; ret`: both ways are found, and bytes that look
    /// like a `ret` within an instruction are none.
    #[test]
    fn finds_every_return() {
        let code = [
            0x85, 0xff, 0x74, 0x04, 0x31, 0xc0, 0xc3, 0x90, 0xb8, 0xc3, 0, 0, 0, 0xc3,
        ];
        assert_eq!(leaves(&code), Ok((vec![0x1006, 0x100d], vec![])));
    }

    /// `jmp` to behind the function is a tail call; a call that ends the function does not return.
    #[test]
    fn finds_tail_calls() {
        assert_eq!(leaves(&[0xe9, 0x10, 0, 0, 0]), Ok((vec![], vec![0x1015])));
        let code = [0x74, 0x01, 0xc3, 0xe8, 0, 0, 0, 0];
        assert_eq!(leaves(&code), Ok((vec![0x1002], vec![])));
    }

    /// A loop ends; an indirect jump, an unknown instruction and running out of the function are errors.
    #[test]
    fn what_cannot_be_followed_is_said() {
        assert_eq!(leaves(&[0x75, 0xfe, 0xc3]), Ok((vec![0x1002], vec![])));
        for code in [&[0xff, 0xe0][..], &[0x06], &[0x90], &[]] {
            assert!(leaves(code).is_err(), "{code:x?}");
        }
    }

    proptest! {
        /// No bytes make it loop or panic, and returns lie within the function.
        #[test]
        fn any_bytes_end(code in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok((returns, _)) = leaves(&code) {
                prop_assert!(returns.iter().all(|at| (0x1000..0x1000 + code.len() as u64).contains(at)));
            }
        }
    }
}
