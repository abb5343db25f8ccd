//! Words of this CPU that another program, or another thread in this one, may change at any instruction. As
//! instructions of the processor: Rust has no atomic words for this target.

use core::arch::asm;

/// Adds to a word.
#[inline(always)]
pub(crate) fn add(word: *mut u64, amount: u64) {
    // SAFETY: a live map value, which the verifier checks.
    unsafe {
        asm!("lock *(u64 *)({word} + 0) += {amount}", word = in(reg) word, amount = in(reg) amount)
    };
}

/// Takes what a word guards, if nobody has it.
#[inline(always)]
pub(crate) fn claim(word: *mut u64) -> bool {
    let before: u64;
    // SAFETY: a live map value, which the verifier checks.
    unsafe {
        asm!("r0 = cmpxchg_64({word} + 0, r0, {taken})",
            word = in(reg) word, taken = in(reg) 1_u64, inout("r0") 0_u64 => before);
    }
    before == 0
}

/// Gives back what was claimed.
#[inline(always)]
pub(crate) fn release(word: *mut u64) {
    // SAFETY: a live map value. Volatile, so that what was done before it stays before it.
    unsafe { core::ptr::write_volatile(word, 0) };
}
