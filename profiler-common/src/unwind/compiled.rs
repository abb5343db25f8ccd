//! The step for what `CPython` 3.14 compiles on x86-64: code without unwind tables and frame pointers, which pushes up
//! to five words of its own. Its entry, where a page begins, pushes five registers, calls it, and pops them:
//! `pop %rbx; pop %r12; pop %r13; pop %r14; pop %r15; ret`.
//!
//! The frame is found by the return address into the entry, which its place and the code there make sure. A word that
//! an earlier call left in the frame cannot pass for it: where the address in the evaluator would be, there is one of
//! the registers that the entry has pushed.

use super::{Registers, USER_ADDRESS_END, USER_ADDRESS_MIN};
use crate::outcome::StopReason;

/// Words of the stack that are looked at: those of the frame, and the return address.
pub const COMPILED_WORDS: usize = 6;
/// Where the call in the entry returns to, bytes from the beginning of its page.
const AFTER_CALL: u64 = 0x17;
const PAGE_BYTES: u64 = 4096;
/// The code there: the first eight bytes, and two more.
const POPS: (u64, u64) = (0x415e_415d_415c_415b, 0xc35f);
/// Registers that it pops, bytes.
const POPPED: u64 = 40;
/// The last two bytes of the call to it: `call *register`.
const CALL: u64 = 0xd0ff;
const CALL_MASK: u64 = 0xf8ff;
/// Most bytes of the evaluator's frame. (Measured: 0x310 in Debian's.)
const EVALUATOR_BYTES: u64 = 4096;

/// One step from compiled code to the evaluator, which called its entry; `None` where there is no such entry. `read`
/// gives two words of code. The evaluator's frame pointer is still in its register, or the first word that the code
/// has pushed.
///
/// # Errors
/// The entry is there and what it returns to or the evaluator's frame pointer is not.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled into a bpf_loop callback")]
pub fn step_compiled(
    frame: &Registers,
    stack: &[u64; COMPILED_WORDS],
    read: impl Fn(u64) -> Option<[u64; 2]>,
) -> Option<Result<Registers, StopReason>> {
    let mut pushed = 0;
    for (depth, &word) in stack.iter().enumerate() {
        if word % PAGE_BYTES == AFTER_CALL
            && let Some(code) = read(word)
            && code[0] == POPS.0
            && code[1] & 0xffff == POPS.1
        {
            return Some(evaluator(frame, depth as u64, pushed, &read));
        }
        pushed = word;
    }
    None
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "as above")]
fn evaluator(
    frame: &Registers,
    depth: u64,
    pushed: u64,
    read: impl Fn(u64) -> Option<[u64; 2]>,
) -> Result<Registers, StopReason> {
    let slot = frame.sp + 8 * (depth + 1) + POPPED;
    let [pc, _] = read(slot).ok_or(StopReason::ReadStack)?;
    let is_called = (USER_ADDRESS_MIN..USER_ADDRESS_END).contains(&pc)
        && read(pc - 8).is_some_and(|[before, _]| (before >> 48) & CALL_MASK == CALL);
    if !is_called {
        return Err(StopReason::FramePointerLost);
    }
    let sp = slot + 8;
    let is_frame_pointer = |bp: u64| bp.is_multiple_of(8) && bp.wrapping_sub(sp) < EVALUATOR_BYTES;
    let bp = match (is_frame_pointer(frame.bp), is_frame_pointer(pushed)) {
        (true, false) => frame.bp,
        (false, true) => pushed,
        _ => return Err(StopReason::FramePointerLost),
    };
    Ok(Registers { pc, sp, bp })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::{Registers, StopReason, step_compiled};

    const BASE: u64 = 0x7fff_0000_0000;
    /// Into an entry.
    const ENTRY: u64 = 0x7f81_c6b9_e017;
    /// Into the evaluator.
    const CALLER: u64 = 0x44_7647;
    const BEFORE_CALLER: u64 = CALLER - 8;
    const HEAP_CODE: u64 = 0x7f81_c6c0_0017;
    const HEAP: u64 = 0x7f81_c6be_2490;
    const FRAME_POINTER: u64 = BASE + 0x310;

    /// A stack with these words, the entry, what it has pushed and the evaluator's address behind them.
    fn stack(own: &[u64]) -> Vec<u64> {
        let saved = [HEAP, 0xbe_d8e0, 0, HEAP, HEAP, CALLER, 0, 0, 0, 0];
        let mut words = own.to_vec();
        words.push(ENTRY);
        words.extend(saved);
        words
    }

    fn step(words: &[u64], bp: u64) -> Option<Result<Registers, StopReason>> {
        let read = |address: u64| match address {
            ENTRY => Some([0x415e_415d_415c_415b, 0x0102_0304_0506_c35f]),
            // `call *%r8`
            BEFORE_CALLER => Some([0xd0ff_4100_0000_0000, 0]),
            // Its place is that of an entry, its code is not.
            HEAP_CODE => Some([0x90; 2]),
            _ => {
                let index = usize::try_from(address.checked_sub(BASE)? / 8).ok()?;
                Some([*words.get(index)?, *words.get(index + 1)?])
            }
        };
        let frame = Registers {
            pc: ENTRY + 0x100,
            sp: BASE,
            bp,
        };
        step_compiled(&frame, words.first_chunk()?, read)
    }
    fn found(words: u64) -> Registers {
        Registers {
            pc: CALLER,
            sp: BASE + 8 * (words + 7),
            bp: FRAME_POINTER,
        }
    }

    /// With the frame pointer in its register or pushed, and up to five words of its own.
    #[test]
    fn the_evaluator_is_found() {
        for own in [&[][..], &[HEAP], &[0, HEAP_CODE, HEAP], &[1, 2, 3, 4, HEAP]] {
            assert_eq!(
                step(&stack(own), FRAME_POINTER),
                Some(Ok(found(own.len() as u64))),
                "{own:x?}"
            );
        }
        let own = [0, FRAME_POINTER];
        assert_eq!(step(&stack(&own), HEAP), Some(Ok(found(2))));
    }

    /// Other code, a deeper frame, and a frame pointer that is nowhere or in two places.
    #[test]
    fn what_is_not_sure_is_none() {
        assert_eq!(step(&[0; 12], FRAME_POINTER), None);
        assert_eq!(step(&stack(&[0; 6]), FRAME_POINTER), None);
        let lost = Some(Err(StopReason::FramePointerLost));
        assert_eq!(step(&stack(&[HEAP]), HEAP), lost);
        assert_eq!(step(&stack(&[FRAME_POINTER + 8]), FRAME_POINTER), lost);
    }

    /// What an earlier call left in the frame does not return to the evaluator.
    #[test]
    fn a_word_left_behind_is_none() {
        let lost = Some(Err(StopReason::FramePointerLost));
        // The slot holds one of the registers, an address of no call.
        for own in [&[ENTRY, FRAME_POINTER][..], &[ENTRY, HEAP, FRAME_POINTER]] {
            assert_eq!(step(&stack(own), HEAP), lost, "{own:x?}");
        }
    }
}
