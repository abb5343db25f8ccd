//! The step for code that no unwind table covers: a runtime's compiled code, hand-written assembly.

use super::{Registers, USER_ADDRESS_END, USER_ADDRESS_MIN, how::BY_FRAME_POINTER};
use crate::{limits::FRAME_BYTES_MAX, outcome::StopReason};

/// One step up the frame pointer chain: `pc' = *(bp + 8)`, `bp' = *bp`, `sp' = bp + 16`.
///
/// Both psABIs (x86-64 §3.2.2, AAPCS64 §6.4.6) put the caller's frame pointer at `*bp` and
/// the return address right above it. `read` returns those two words, or `None` where the memory
/// cannot be read. A zero ends the chain only where the chain led to it: code without frame pointers may
/// have any value in that register. `how` says how the frame was found.
///
/// # Errors
/// The reason why there is no caller, which for a chain that ends properly is
/// [`StopReason::FramePointersEnd`].
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled into a bpf_loop callback")]
pub fn step_frame_pointer(
    frame: &Registers,
    how: u32,
    read: impl FnOnce(u64) -> Option<[u64; 2]>,
) -> Result<Registers, StopReason> {
    if frame.bp == 0 && how & BY_FRAME_POINTER != 0 {
        return Err(StopReason::FramePointersEnd);
    }
    // A frame record lies above the stack pointer, aligned, and not absurdly far up.
    let distance = frame.bp.wrapping_sub(frame.sp);
    if frame.bp & 7 != 0 || distance > FRAME_BYTES_MAX {
        return Err(StopReason::FramePointerLost);
    }
    let Some([bp, pc]) = read(frame.bp) else {
        return Err(StopReason::ReadStack);
    };
    if pc == 0 && bp == 0 {
        return Err(StopReason::FramePointersEnd);
    }
    if !(USER_ADDRESS_MIN..USER_ADDRESS_END).contains(&pc) {
        return Err(StopReason::FramePointerLost);
    }
    Ok(Registers {
        pc,
        sp: frame.bp + 16,
        bp,
    })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::{BY_FRAME_POINTER, Registers, StopReason, step_frame_pointer};
    use crate::unwind::how::LEAF;

    const BASE: u64 = 0x7fff_0000_0000;

    /// Walks a stack of 8-byte words that begins at `BASE`.
    fn walk(words: &[u64], mut frame: Registers) -> (Vec<u64>, StopReason) {
        let mut pcs = std::vec![frame.pc];
        let mut how = LEAF;
        loop {
            let read = |address: u64| {
                let index = usize::try_from(address.checked_sub(BASE)? / 8).ok()?;
                Some([*words.get(index)?, *words.get(index + 1)?])
            };
            match step_frame_pointer(&frame, how, read) {
                Ok(caller) => (frame, how) = (caller, BY_FRAME_POINTER),
                Err(stop) => return (pcs, stop),
            }
            pcs.push(frame.pc);
        }
    }

    fn leaf(bp: u64) -> Registers {
        Registers {
            pc: 0x40_1000,
            sp: BASE,
            bp,
        }
    }

    /// A proper chain ends at the zero frame pointer that the ABI sets up.
    #[test]
    fn walks_to_the_end_of_the_chain() {
        let words = [0, BASE + 24, 0x40_2000, 0, 0x40_3000];
        let (pcs, stop) = walk(&words, leaf(BASE + 8));
        assert_eq!(pcs, [0x40_1000, 0x40_2000, 0x40_3000]);
        assert_eq!(stop, StopReason::FramePointersEnd);
    }

    /// A register used for something else is not followed.
    #[test]
    fn refuses_what_is_no_frame_pointer() {
        for bp in [BASE - 8, BASE + 12, BASE + (2 << 20), 42, 0] {
            assert_eq!(
                walk(&[0; 8], leaf(bp)).1,
                StopReason::FramePointerLost,
                "{bp:#x}"
            );
        }
    }

    /// A chain that points back down the stack ends instead of looping.
    #[test]
    fn a_loop_ends() {
        let words = [BASE, 0x40_2000, BASE, 0x40_3000];
        let (pcs, stop) = walk(&words, leaf(BASE));
        assert_eq!(pcs.len(), 2);
        assert_eq!(stop, StopReason::FramePointerLost);
    }

    /// Memory that cannot be read and return addresses that are none have reasons of their own.
    #[test]
    fn bad_memory_is_told_apart() {
        assert_eq!(walk(&[], leaf(BASE)).1, StopReason::ReadStack);
        assert_eq!(
            walk(&[BASE + 64, 12], leaf(BASE)).1,
            StopReason::FramePointerLost
        );
        assert_eq!(
            walk(&[BASE + 64, 0], leaf(BASE)).1,
            StopReason::FramePointerLost
        );
        assert_eq!(walk(&[0, 0], leaf(BASE)).1, StopReason::FramePointersEnd);
    }
}
