//! From a row of call frame information to a [`Rule`]. Pure.
//!
//! What compilers write is a handful of forms (see `unwinding.md` §1.2); anything else becomes a rule
//! that ends the stack as not supported, and is counted when a stack meets it.

use gimli::{
    CfaRule, Encoding, Operation, Reader, Register, RegisterRule, UnwindExpression, UnwindSection,
    UnwindTableRow,
};
use profiler_common::unwind::{Bp, Cfa, LEAF_REGISTERS, Return, Rule};

/// Longest expression that is understood: see [`plt`].
const OPERATIONS_MAX: usize = 9;

/// A processor: which registers are which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// System V x86-64 psABI, figure 3.36.
    X86_64,
    /// AADWARF64 §4.1.
    Aarch64,
}

impl Arch {
    fn sp(self) -> Register {
        Register(if self == Self::X86_64 { 7 } else { 31 })
    }

    fn bp(self) -> Register {
        Register(if self == Self::X86_64 { 6 } else { 29 })
    }
}

/// Reads rules out of one section.
pub(super) struct Rules<'a, S> {
    pub(super) arch: Arch,
    pub(super) section: &'a S,
    pub(super) encoding: Encoding,
}

impl<S> Rules<'_, S> {
    /// The rule of a row. `ra` is the register that stands for the return address.
    pub(super) fn rule<R>(&self, row: &UnwindTableRow<R::Offset>, ra: Register) -> Rule
    where
        R: Reader,
        S: UnwindSection<R>,
    {
        if row.register(ra) == Some(RegisterRule::Undefined) {
            return Rule::only(Cfa::End);
        }
        self.frame_address(row.cfa())
            .and_then(|rule| self.return_address(rule, row.register(ra).as_ref(), ra))
            .and_then(|rule| self.frame_pointer(rule, row.register(self.arch.bp()).as_ref()))
            .unwrap_or(Rule::only(Cfa::Unsupported))
    }

    fn frame_address<R>(&self, cfa: &CfaRule<R::Offset>) -> Option<Rule>
    where
        R: Reader,
        S: UnwindSection<R>,
    {
        match cfa {
            CfaRule::RegisterAndOffset { register, offset } => {
                let mut rule = Rule::only(self.base(*register)?);
                if rule.cfa == Cfa::Register as u8 {
                    rule.register = u8::try_from(register.0).ok()?;
                }
                rule.cfa_offset = i32::try_from(*offset).ok()?;
                Some(rule)
            }
            CfaRule::Expression(expression) => {
                let operations = self.operations(expression)?;
                plt(&operations, self.arch).or_else(|| self.realigned(&operations))
            }
        }
    }

    /// What an offset from this register is.
    fn base(&self, register: Register) -> Option<Cfa> {
        if register == self.arch.sp() {
            Some(Cfa::Sp)
        } else if register == self.arch.bp() {
            Some(Cfa::Bp)
        } else {
            (usize::from(register.0) < LEAF_REGISTERS).then_some(Cfa::Register)
        }
    }

    /// `breg N; deref` and perhaps `plus_uconst M`: the frame of a function that realigned its stack.
    fn realigned<R: Reader>(&self, operations: &[Operation<R>]) -> Option<Rule> {
        let (base, offset, extra) = match operations {
            [
                Operation::RegisterOffset {
                    register, offset, ..
                },
                Operation::Deref { size: 8, .. },
            ] => (self.base(*register)?, offset, 0),
            [
                Operation::RegisterOffset {
                    register, offset, ..
                },
                Operation::Deref { size: 8, .. },
                Operation::PlusConstant { value },
            ] => (self.base(*register)?, offset, *value),
            _ => return None,
        };
        let cfa = match base {
            Cfa::Sp => Cfa::DerefSp,
            Cfa::Bp => Cfa::DerefBp,
            _ => return None,
        };
        Some(Rule {
            cfa_offset: i32::try_from(*offset).ok()?,
            extra: i32::try_from(extra).ok()?,
            ..Rule::only(cfa)
        })
    }

    fn return_address<T: gimli::ReaderOffset>(
        &self,
        rule: Rule,
        found: Option<&RegisterRule<T>>,
        ra: Register,
    ) -> Option<Rule> {
        let (kind, at) = match found {
            Some(RegisterRule::Offset(offset)) => (Return::Cfa, i16::try_from(*offset).ok()?),
            Some(RegisterRule::Register(register)) => {
                (Return::Register, i16::try_from(register.0).ok()?)
            }
            // Not saved yet: still in the link register.
            Some(RegisterRule::SameValue) | None if self.arch == Arch::Aarch64 => {
                (Return::Register, i16::try_from(ra.0).ok()?)
            }
            _ => return None,
        };
        Some(Rule {
            ra_kind: kind as u8,
            ra: at,
            ..rule
        })
    }

    fn frame_pointer<R>(&self, rule: Rule, found: Option<&RegisterRule<R::Offset>>) -> Option<Rule>
    where
        R: Reader,
        S: UnwindSection<R>,
    {
        let (kind, offset) = match found {
            // Callee-saved in both ABIs: without a rule it has not changed.
            None | Some(RegisterRule::Undefined | RegisterRule::SameValue) => (Bp::Same, 0),
            Some(RegisterRule::Offset(offset)) => (Bp::Cfa, *offset),
            Some(RegisterRule::Expression(expression)) => {
                match self.operations::<R>(expression)?.as_slice() {
                    [
                        Operation::RegisterOffset {
                            register, offset, ..
                        },
                    ] if *register == self.arch.bp() => (Bp::Bp, *offset),
                    _ => return None,
                }
            }
            Some(_) => return None,
        };
        Some(Rule {
            bp_kind: kind as u8,
            bp: i16::try_from(offset).ok()?,
            ..rule
        })
    }

    /// `None` where there are more than any form has: an expression in the part that rows have in common
    /// is read again for each of them.
    fn operations<R>(&self, expression: &UnwindExpression<R::Offset>) -> Option<Vec<Operation<R>>>
    where
        R: Reader,
        S: UnwindSection<R>,
    {
        let expression = expression.get(self.section).ok()?;
        let mut operations = expression.operations(self.encoding);
        let mut list = Vec::new();
        while let Some(operation) = operations.next().ok()? {
            if list.len() == OPERATIONS_MAX {
                return None;
            }
            list.push(operation);
        }
        Some(list)
    }
}

/// `rsp + 8 + ((rip & 15) >= N) * 8`: what linkers write for the procedure linkage table (binutils,
/// `elf_x86_64_eh_frame_plt`).
fn plt<R: Reader>(operations: &[Operation<R>], arch: Arch) -> Option<Rule> {
    const RIP: Register = Register(16);
    let [
        Operation::RegisterOffset {
            register: sp,
            offset,
            ..
        },
        Operation::RegisterOffset {
            register: RIP,
            offset: 0,
            ..
        },
        Operation::UnsignedConstant { value: 15 },
        Operation::And,
        Operation::UnsignedConstant { value: threshold },
        Operation::Ge,
        Operation::UnsignedConstant { value: 3 },
        Operation::Shl,
        Operation::Plus,
    ] = operations
    else {
        return None;
    };
    if arch != Arch::X86_64 || *sp != arch.sp() {
        return None;
    }
    Some(Rule {
        cfa_offset: i32::try_from(*offset).ok()?,
        extra: i32::try_from(*threshold).ok()?,
        ..Rule::only(Cfa::Plt)
    })
}
