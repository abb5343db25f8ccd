//! One rule of an unwind table and its application.
//!
//! Source: DWARF 5 §6.4 (call frame information); System V x86-64 psABI §3.6.2 and
//! AADWARF64 for the numbers of registers.

use super::{LEAF_REGISTERS, Registers, USER_ADDRESS_END, USER_ADDRESS_MIN};
use crate::outcome::StopReason;

macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $id:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$vmeta])* $variant = $id,)+ }
    };
}

codes! {
    /// How the canonical frame address (the stack pointer before the call) is computed.
    Cfa {
        /// Not covered: no rule is known here.
        None = 0,
        /// `sp + cfa_offset`
        Sp = 1,
        /// `bp + cfa_offset`
        Bp = 2,
        /// `*(sp + cfa_offset) + extra`: a function that realigned its stack.
        DerefSp = 3,
        /// `*(bp + cfa_offset) + extra`: likewise.
        DerefBp = 4,
        /// `sp + cfa_offset`, 8 more from byte `extra` of each 16 on: a slot of the procedure linkage table, which
        /// pushes one word on its way.
        Plt = 5,
        /// `register + cfa_offset`: another register, known at the leaf only.
        Register = 6,
        /// The kernel's signal frame: the interrupted registers lie on the stack.
        Signal = 7,
        /// The outermost frame: there is no caller.
        End = 8,
        /// A rule that this program does not understand.
        Unsupported = 9,
    }
}

codes! {
    /// Where the return address is.
    Return {
        /// `*(cfa + ra)`
        Cfa = 0,
        /// In the register numbered `ra`, known at the leaf only.
        Register = 1,
    }
}

codes! {
    /// Where the caller's frame pointer is.
    Bp {
        /// Still in the register.
        Same = 0,
        /// `*(cfa + bp)`
        Cfa = 1,
        /// `*(bp + bp)`: saved relative to itself, by a function that realigned its stack.
        Bp = 2,
    }
}

/// One rule, as it lies in the kernel side's array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Rule {
    /// [`Cfa`]
    pub cfa: u8,
    /// DWARF number of the register of [`Cfa::Register`].
    pub register: u8,
    /// [`Return`]
    pub ra_kind: u8,
    /// [`Bp`]
    pub bp_kind: u8,
    /// Bytes.
    pub cfa_offset: i32,
    /// Bytes: see [`Cfa::DerefSp`] and [`Cfa::Plt`].
    pub extra: i32,
    /// Bytes, or the number of a register.
    pub ra: i16,
    /// Bytes.
    pub bp: i16,
}

const _: () = assert!(size_of::<Rule>() == 16);

/// Smallest unit of memory, and of stacks.
const PAGE_BYTES: u64 = 4096;
/// Furthest that a stack's first frame address is from its end: a word, and what aligns it.
const STACK_END_BYTES: u64 = 64;

impl Rule {
    /// A rule that is only its kind.
    #[must_use]
    pub const fn only(cfa: Cfa) -> Self {
        Self {
            cfa: cfa as u8,
            register: 0,
            ra_kind: 0,
            bp_kind: 0,
            cfa_offset: 0,
            extra: 0,
            ra: 0,
            bp: 0,
        }
    }
}

/// Applies a rule: the registers of the caller. `leaf` gives a register of the leaf by its DWARF
/// number, or `None` for a frame that is not the leaf. `read` reads one word of memory.
///
/// Not for [`Cfa::None`] and [`Cfa::Signal`], which the caller handles; they end with
/// [`StopReason::UnsupportedRule`].
///
/// # Errors
/// The reason why there is no caller, [`StopReason::Outermost`] where the stack is complete.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled into a bpf_loop callback")]
pub fn step(
    rule: &Rule,
    frame: &Registers,
    leaf: impl Fn(usize) -> Option<u64>,
    read: impl Fn(u64) -> Option<u64>,
) -> Result<Registers, StopReason> {
    let cfa = cfa(rule, frame, &leaf, &read)?;
    let pc = if rule.ra_kind == Return::Cfa as u8 {
        read(add(cfa, i64::from(rule.ra))).ok_or(StopReason::ReadStack)?
    } else {
        leaf(register(rule.ra)).ok_or(StopReason::UnsupportedRule)?
    };
    let pc = pc & (USER_ADDRESS_END - 1);
    if pc != 0 && pc < USER_ADDRESS_MIN {
        return Err(StopReason::BadReturnAddress);
    }
    let bp = if rule.bp_kind == Bp::Same as u8 {
        frame.bp
    } else {
        let base = if rule.bp_kind == Bp::Cfa as u8 {
            cfa
        } else {
            frame.bp
        };
        read(add(base, i64::from(rule.bp))).ok_or(StopReason::ReadStack)?
    };
    if pc == 0 {
        return Err(zero_return_address(cfa, bp));
    }
    if !is_callers(rule, cfa, frame.sp) {
        return Err(StopReason::StackPointerLost);
    }
    Ok(Registers { pc, sp: cfa, bp })
}

/// A stack ends with a zero return address at its very end, which lies at a page's, and a zero frame pointer, as
/// coroutines are set up. Anywhere else it is no stack's end: thread libraries have rules for theirs.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled into a bpf_loop callback")]
fn zero_return_address(cfa: u64, bp: u64) -> StopReason {
    let to_page_end = cfa.wrapping_neg() % PAGE_BYTES;
    if bp == 0 && to_page_end <= STACK_END_BYTES {
        StopReason::Outermost
    } else {
        StopReason::NoReturnAddress
    }
}

/// Whether a frame address can be the caller's stack pointer.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled into a bpf_loop callback")]
fn is_callers(rule: &Rule, cfa: u64, sp: u64) -> bool {
    // The stack grows down, so a caller's lies higher. Where the return address is in a register,
    // nothing need have been pushed (aarch64).
    let pushed = rule.ra_kind == Return::Cfa as u8;
    if cfa > sp || (cfa == sp && !pushed) {
        return true;
    }
    // A function that goes on on another stack keeps the first one's address, and a stack has more than a page.
    let keeps_address = rule.cfa != Cfa::Sp as u8 && rule.cfa != Cfa::Plt as u8;
    keeps_address && sp - cfa > PAGE_BYTES
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled into a bpf_loop callback")]
fn cfa(
    rule: &Rule,
    frame: &Registers,
    leaf: impl Fn(usize) -> Option<u64>,
    read: impl Fn(u64) -> Option<u64>,
) -> Result<u64, StopReason> {
    let kind = rule.cfa;
    let offset = i64::from(rule.cfa_offset);
    if kind == Cfa::Sp as u8 {
        return Ok(add(frame.sp, offset));
    }
    if kind == Cfa::Bp as u8 {
        return Ok(add(frame.bp, offset));
    }
    if kind == Cfa::DerefSp as u8 || kind == Cfa::DerefBp as u8 {
        let base = if kind == Cfa::DerefSp as u8 {
            frame.sp
        } else {
            frame.bp
        };
        let word = read(add(base, offset)).ok_or(StopReason::ReadStack)?;
        return Ok(add(word, i64::from(rule.extra)));
    }
    if kind == Cfa::Plt as u8 {
        let pushed = (frame.pc & 15).cast_signed() >= i64::from(rule.extra);
        return Ok(add(frame.sp, offset + if pushed { 8 } else { 0 }));
    }
    if kind == Cfa::Register as u8 {
        let value = leaf(usize::from(rule.register)).ok_or(StopReason::UnsupportedRule)?;
        return Ok(add(value, offset));
    }
    if kind == Cfa::End as u8 {
        return Err(StopReason::Outermost);
    }
    Err(StopReason::UnsupportedRule)
}

fn add(address: u64, offset: i64) -> u64 {
    address.wrapping_add_signed(offset)
}

/// Any number is made one of a register, as the verifier wants it.
fn register(number: i16) -> usize {
    usize::from(number.cast_unsigned()) & (LEAF_REGISTERS - 1)
}

#[cfg(test)]
mod tests {
    use super::{Bp, Cfa, Registers, Return, Rule, StopReason, step};

    const BASE: u64 = 0x7fff_0000_0000;
    const FRAME: Registers = Registers {
        pc: 0x40_1000,
        sp: BASE,
        bp: BASE + 32,
    };
    const SP_16: Rule = Rule {
        cfa: Cfa::Sp as u8,
        cfa_offset: 16,
        ra: -8,
        ..Rule::only(Cfa::Sp)
    };

    fn apply(rule: &Rule, words: &[u64], leaf: bool) -> Result<Registers, StopReason> {
        let read = |address: u64| {
            let index = usize::try_from(address.checked_sub(BASE)? / 8).ok()?;
            words.get(index).copied()
        };
        // Register n of the leaf holds BASE + n.
        let register = |number: usize| leaf.then_some(BASE + number as u64);
        step(rule, &FRAME, register, read)
    }

    #[expect(clippy::unnecessary_wraps, reason = "what `step` returns")]
    fn registers(pc: u64, sp: u64, bp: u64) -> Result<Registers, StopReason> {
        Ok(Registers { pc, sp, bp })
    }

    /// Each way to compute the frame address, with a known stack.
    #[test]
    fn every_kind_of_frame_address() {
        let words = [0x40_2000, 0x40_3000, BASE + 24, 0x40_4000, 9, 0x40_5000];
        let check = |rule: Rule, leaf, expected| assert_eq!(apply(&rule, &words, leaf), expected);
        check(SP_16, true, registers(0x40_3000, BASE + 16, BASE + 32));
        let by_bp = Rule {
            cfa: Cfa::Bp as u8,
            bp_kind: Bp::Cfa as u8,
            bp: -16,
            ..SP_16
        };
        check(by_bp, false, registers(0x40_5000, BASE + 48, 9));
        let deref = Rule {
            cfa: Cfa::DerefSp as u8,
            extra: 8,
            ..SP_16
        };
        check(deref, false, registers(0x40_4000, BASE + 32, BASE + 32));
        let deref_bp = Rule {
            cfa: Cfa::DerefBp as u8,
            cfa_offset: -16,
            extra: 8,
            bp_kind: Bp::Bp as u8,
            ..SP_16
        };
        check(deref_bp, false, registers(0x40_4000, BASE + 32, 9));
        let plt = |extra| Rule {
            cfa: Cfa::Plt as u8,
            cfa_offset: 8,
            extra,
            ..SP_16
        };
        check(plt(11), true, registers(0x40_2000, BASE + 8, BASE + 32));
        check(plt(0), true, registers(0x40_3000, BASE + 16, BASE + 32));
        let by_register = Rule {
            cfa: Cfa::Register as u8,
            register: 10,
            cfa_offset: 6,
            ..SP_16
        };
        check(
            by_register,
            true,
            registers(0x40_3000, BASE + 16, BASE + 32),
        );
        check(by_register, false, Err(StopReason::UnsupportedRule));
    }

    /// A return address may still be in a register: of aarch64 at most leaves, of x86-64 in vfork.
    #[test]
    fn return_address_in_a_register() {
        let rule = Rule {
            ra_kind: Return::Register as u8,
            ra: 30,
            cfa_offset: 0,
            ..SP_16
        };
        assert_eq!(
            apply(&rule, &[], true),
            registers(BASE + 30, BASE, BASE + 32)
        );
        assert_eq!(apply(&rule, &[], false), Err(StopReason::UnsupportedRule));
    }

    /// The bits above an address, where aarch64 keeps the signature of a return address, are dropped.
    #[test]
    fn signed_return_addresses_are_stripped() {
        let signed = 0x7a00_0000_0040_3000;
        assert_eq!(
            apply(&SP_16, &[0, signed], false),
            registers(0x40_3000, BASE + 16, BASE + 32)
        );
    }

    /// Each way to end has its reason.
    #[test]
    fn every_way_to_end() {
        let ends = |rule: Rule, words: &[u64]| apply(&rule, words, false).unwrap_err();
        assert_eq!(ends(Rule::only(Cfa::End), &[]), StopReason::Outermost);
        assert_eq!(ends(SP_16, &[0, 0]), StopReason::NoReturnAddress);
        assert_eq!(ends(SP_16, &[0, 12]), StopReason::BadReturnAddress);
        assert_eq!(ends(SP_16, &[]), StopReason::ReadStack);
        assert_eq!(
            ends(Rule::only(Cfa::Unsupported), &[]),
            StopReason::UnsupportedRule
        );
        let backwards = Rule {
            cfa_offset: -8,
            ra: 8,
            ..SP_16
        };
        assert_eq!(ends(backwards, &[0x40_2000]), StopReason::StackPointerLost);
    }

    /// A coroutine's first frame returns to zero at the end of its stack; the same zero elsewhere, or with a frame
    /// pointer, is no end.
    #[test]
    fn a_stack_ends_at_its_end() {
        let ends = |page_offset: u64, bp: u64| {
            let frame = Registers {
                sp: BASE + page_offset,
                bp,
                ..FRAME
            };
            step(&SP_16, &frame, |_| None, |_| Some(0)).unwrap_err()
        };
        for (page_offset, bp, expected) in [
            (4096 - 16, 0, StopReason::Outermost),
            (4096 - 32, 0, StopReason::Outermost),
            (4096 - 16, 8, StopReason::NoReturnAddress),
            (4096, 0, StopReason::NoReturnAddress),
            (2048, 0, StopReason::NoReturnAddress),
        ] {
            assert_eq!(ends(page_offset, bp), expected, "{page_offset} {bp}");
        }
    }

    /// A function that has switched stacks has its caller at any address; one that only grows its own has not.
    #[test]
    fn stacks_are_switched() {
        let at = |cfa: Cfa, bp: u64| {
            let rule = Rule {
                cfa: cfa as u8,
                cfa_offset: 16,
                ra: -8,
                ..Rule::only(cfa)
            };
            let frame = Registers { bp, ..FRAME };
            step(&rule, &frame, |_| None, |_| Some(0x40_2000))
        };
        let other_stack = BASE - (1 << 20);
        assert_eq!(
            at(Cfa::Bp, other_stack),
            registers(0x40_2000, other_stack + 16, other_stack)
        );
        let just_below = at(Cfa::Bp, BASE - 64);
        assert_eq!(just_below, Err(StopReason::StackPointerLost));
    }
}
