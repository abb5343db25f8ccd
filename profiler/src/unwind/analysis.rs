//! Rules for code that has no call frame information, by following what its instructions do to the
//! stack pointer. x86-64 only. musl, and C built without asynchronous unwind tables, have such code.
//!
//! Each function is followed from its first instruction along every branch; jump tables are not read: what is
//! reached only through one is taken to have the frame of the indirect jump. Code that computes its
//! stack pointer otherwise than by constants or from the frame pointer is left without a rule; so are whole
//! functions that take their return address off the stack or whose branches meet with different frames (V8's
//! builtins, which keep a frame pointer).
//!
//! A path ends where another function begins: behind a call that never returns there is no more of this one. What is
//! called anywhere, or whose address is taken, is such a beginning; so are symbols.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register,
};
use profiler_common::unwind::{Bp, Cfa, Return, Rule, SIGRETURN_X86_64};

use super::{elf::ROWS_MAX, ranges::holds, rows::Builder};

/// Most bytes of one file that are analysed.
const BYTES_MAX: usize = 8 << 20;
/// Most bytes of one function.
const FUNCTION_BYTES_MAX: u64 = 1 << 18;
/// Most bytes of a gap between functions that is taken for one function.
const LONE_BYTES_MAX: usize = 4096;
/// Most functions that are looked for because others call them.
const CALLED_MAX: usize = 1_000_000;

/// One section of code: its address and size, and what reads so many bytes of it from an offset on.
pub(super) struct CodeSection<F> {
    pub(super) address: u64,
    pub(super) size: u64,
    pub(super) read: F,
}

/// Adds functions that begin at `symbols` (with their sizes, 0 where not known) or are called from there and that no
/// function of the builder covers. The one at `entry` is where the process begins.
pub(super) fn add_functions<'a, F: Fn(u64, u64) -> Option<&'a [u8]>>(
    sections: &[CodeSection<F>],
    symbols: &BTreeMap<u64, u64>,
    entry: u64,
    builder: &mut Builder,
) {
    let covered = builder.extents();
    let mut starts: BTreeSet<u64> = symbols.keys().copied().collect();
    let mut referred = BTreeSet::new();
    for gap in gaps(sections, &covered) {
        add_references(&gap, sections, &covered, &mut referred);
        // Between functions that have rules lies one that has none, as C's `main` of a Rust program that aborts.
        if !covered.is_empty() && gap.1.len() < LONE_BYTES_MAX {
            referred.extend(behind_padding(&gap));
        }
    }
    // Within a function that says how long it is, what is referred to is a label.
    let is_label = |address: &u64| {
        let before = symbols.range(..address).next_back();
        before.is_some_and(|(start, size)| address - start < *size)
    };
    starts.extend(referred.iter().filter(|address| !is_label(address)));
    let mut analysis = Analysis {
        sections,
        covered: &covered,
        seen: BTreeSet::new(),
        bytes: 0,
    };
    starts.insert(entry);
    let mut outermost = BTreeSet::from([entry]);
    let mut queue: VecDeque<u64> = starts.iter().copied().collect();
    while let Some(start) = queue.pop_front() {
        if !analysis.seen.insert(start) {
            continue;
        }
        let Some(code) = analysis.code_at(start, &starts) else {
            continue;
        };
        analysis.bytes += code.len();
        if analysis.bytes > BYTES_MAX || builder.is_full(usize::MAX, ROWS_MAX) {
            builder.cut();
            break;
        }
        if is_sigreturn(code) {
            let before = start.saturating_sub(1);
            builder.function(before, start + code.len() as u64);
            builder.row(before, Rule::only(Cfa::Signal));
            continue;
        }
        let entry = Frame {
            is_outermost: outermost.contains(&start),
            ..Frame::ENTRY
        };
        let function = Function::follow(start, code, entry);
        if function.falls_through {
            outermost.insert(function.end);
        }
        if queue.len() < CALLED_MAX {
            queue.extend(function.calls.iter().copied());
        }
        function.add_to(builder);
    }
}

/// Code that nothing covers: where it begins, and its bytes. What is short is padding.
fn gaps<'a, F: Fn(u64, u64) -> Option<&'a [u8]>>(
    sections: &[CodeSection<F>],
    covered: &[(u64, u64)],
) -> Vec<(u64, &'a [u8])> {
    const PADDING_BYTES: u64 = 16;
    let mut gaps = Vec::new();
    let mut left = BYTES_MAX as u64;
    for section in sections {
        let section_end = section.address.saturating_add(section.size);
        let first = covered.partition_point(|&(_, end)| end <= section.address);
        let mut begin = section.address;
        let behind = [(section_end, section_end)];
        for &(next, end) in covered.iter().skip(first).chain(&behind) {
            let size = next.min(section_end).saturating_sub(begin).min(left);
            if size >= PADDING_BYTES
                && let Some(code) = (section.read)(begin - section.address, size)
            {
                left -= size;
                gaps.push((begin, code));
            }
            if next >= section_end {
                break;
            }
            begin = begin.max(end);
        }
    }
    gaps
}

/// Where a gap's first instruction is that is no padding.
fn behind_padding(&(start, code): &(u64, &[u8])) -> Option<u64> {
    let mut decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
    let mut instructions = std::iter::from_fn(|| decoder.can_decode().then(|| decoder.decode()));
    let is_padding = |instruction: &Instruction| {
        matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Int3)
    };
    let first = instructions.find(|instruction| !is_padding(instruction));
    let first = first.filter(|first| !first.is_invalid())?;
    Some(first.ip())
}

/// Adds what such code calls, and what it takes the address of, where nothing covers that either. It is read one
/// instruction after the other: what is between functions is padding.
fn add_references<'a, F: Fn(u64, u64) -> Option<&'a [u8]>>(
    &(start, code): &(u64, &[u8]),
    sections: &[CodeSection<F>],
    covered: &[(u64, u64)],
    starts: &mut BTreeSet<u64>,
) {
    let is_code = |address: u64| {
        let inside =
            |section: &CodeSection<F>| address.wrapping_sub(section.address) < section.size;
        !holds(covered, address) && sections.iter().any(inside)
    };
    let mut decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    while decoder.can_decode() && starts.len() < CALLED_MAX {
        decoder.decode_out(&mut instruction);
        let target = match instruction.code() {
            Code::Call_rel32_64 => instruction.near_branch_target(),
            Code::Lea_r64_m if instruction.memory_base() == Register::RIP => {
                instruction.memory_displacement64()
            }
            _ => continue,
        };
        if is_code(target) {
            starts.insert(target);
        }
    }
}

/// Whether a signal handler returns here; see `elf::add_function` for the byte before it.
fn is_sigreturn(code: &[u8]) -> bool {
    let [first, second] = SIGRETURN_X86_64;
    code.starts_with(&first.to_le_bytes()) && code.get(8) == second.to_le_bytes().first()
}

struct Analysis<'s, F> {
    sections: &'s [CodeSection<F>],
    covered: &'s [(u64, u64)],
    seen: BTreeSet<u64>,
    bytes: usize,
}

impl<'a, F: Fn(u64, u64) -> Option<&'a [u8]>> Analysis<'_, F> {
    /// The code of a function, up to where another one begins; `None` if it is covered or no code.
    fn code_at(&self, start: u64, starts: &BTreeSet<u64>) -> Option<&'a [u8]> {
        if holds(self.covered, start) {
            return None;
        }
        let after = self.covered.partition_point(|&(begin, _)| begin <= start);
        let is_in = |section: &&CodeSection<F>| {
            start >= section.address && start - section.address < section.size
        };
        let section = self.sections.iter().find(is_in)?;
        let mut end = section.address.checked_add(section.size)?;
        if let Some(&(begin, _)) = self.covered.get(after) {
            end = end.min(begin);
        }
        if let Some(&next) = starts.range(start + 1..).next() {
            end = end.min(next);
        }
        let end = end.min(start.saturating_add(FUNCTION_BYTES_MAX));
        (section.read)(start - section.address, end.checked_sub(start)?)
    }
}

/// What is known of the frame before an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Frame {
    /// Bytes from the stack pointer up to the canonical frame address, if known.
    sp: Option<i32>,
    /// Likewise from the frame pointer, where it is one.
    bp: Option<i32>,
    /// Where the caller's frame pointer is saved, from the canonical frame address.
    saved_bp: Option<i16>,
    /// The frame pointer was cleared without being saved: the outermost frame, as the ABI marks it.
    is_outermost: bool,
}

impl Frame {
    const ENTRY: Self = Self {
        sp: Some(8),
        bp: None,
        saved_bp: None,
        is_outermost: false,
    };

    fn rule(self) -> Rule {
        if self.is_outermost {
            return Rule::only(Cfa::End);
        }
        let (cfa, offset) = match (self.bp, self.sp) {
            (Some(offset), _) => (Cfa::Bp, offset),
            (None, Some(offset)) => (Cfa::Sp, offset),
            (None, None) => return Rule::only(Cfa::None),
        };
        Rule {
            cfa_offset: offset,
            ra_kind: Return::Cfa as u8,
            ra: -8,
            bp_kind: self.saved_bp.map_or(Bp::Same, |_| Bp::Cfa) as u8,
            bp: self.saved_bp.unwrap_or(0),
            ..Rule::only(cfa)
        }
    }

    /// What it is after an instruction.
    fn after(mut self, instruction: &Instruction) -> Self {
        use Register::{RBP, RSP};
        let first = instruction.op0_register();
        match instruction.mnemonic() {
            Mnemonic::Push => {
                self.move_sp(-8);
                if first == RBP && self.saved_bp.is_none() {
                    self.saved_bp = self.sp.and_then(|sp| i16::try_from(-sp).ok());
                }
            }
            Mnemonic::Pop => {
                self.move_sp(8);
                if first == RBP {
                    (self.bp, self.saved_bp) = (None, None);
                }
            }
            Mnemonic::Leave => {
                self.sp = self.bp.map(|bp| bp - 8);
                (self.bp, self.saved_bp) = (None, None);
            }
            Mnemonic::Mov if first == RBP && instruction.op1_register() == RSP => self.bp = self.sp,
            Mnemonic::Mov if first == RSP && instruction.op1_register() == RBP => self.sp = self.bp,
            Mnemonic::Lea if first == RSP => self.load_sp(instruction),
            Mnemonic::Xor
                if matches!(first, RBP | Register::EBP)
                    && instruction.op1_register() == first
                    && self.saved_bp.is_none() =>
            {
                self.is_outermost = true;
            }
            Mnemonic::And if first == RSP => self.sp = None,
            // A call's return takes its address off again.
            Mnemonic::Call => {}
            _ if first == RBP && instruction.op0_kind() == OpKind::Register => {
                if writes_first(instruction) {
                    self.bp = None;
                }
            }
            _ => {
                let change = instruction.stack_pointer_increment();
                if change != 0 {
                    self.move_sp(change);
                } else if first == RSP
                    && instruction.op0_kind() == OpKind::Register
                    && writes_first(instruction)
                {
                    self.add_to_sp(instruction);
                }
            }
        }
        self
    }

    fn move_sp(&mut self, change: i32) {
        self.sp = self.sp.and_then(|sp| sp.checked_sub(change));
    }

    /// `add $N, %rsp`, `sub $N, %rsp`; anything else computes.
    fn add_to_sp(&mut self, instruction: &Instruction) {
        let constant = match instruction.op1_kind() {
            OpKind::Immediate8to64 => Some(instruction.immediate8to64()),
            OpKind::Immediate32to64 => Some(instruction.immediate32to64()),
            _ => None,
        };
        let constant = constant.and_then(|constant| i32::try_from(constant).ok());
        match (instruction.mnemonic(), constant) {
            (Mnemonic::Add, Some(constant)) => self.move_sp(constant),
            (Mnemonic::Sub, Some(constant)) => self.move_sp(constant.wrapping_neg()),
            _ => self.sp = None,
        }
    }

    /// `lea N(%rsp), %rsp`, `lea N(%rbp), %rsp`
    fn load_sp(&mut self, instruction: &Instruction) {
        let offset = i32::try_from(instruction.memory_displacement64().cast_signed()).ok();
        let base = match instruction.memory_base() {
            _ if instruction.memory_index() != Register::None => None,
            Register::RSP => self.sp,
            Register::RBP => self.bp,
            _ => None,
        };
        self.sp = base
            .zip(offset)
            .and_then(|(base, offset)| base.checked_sub(offset));
    }
}

/// Whether an instruction whose first operand is a register changes it.
fn writes_first(instruction: &Instruction) -> bool {
    !matches!(
        instruction.mnemonic(),
        Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Bt | Mnemonic::Nop
    ) && !instruction.is_jcc_short_or_near()
}

/// A function as far as it could be followed.
struct Function {
    start: u64,
    end: u64,
    /// Of each instruction: where it ends, and the frame before it.
    frames: BTreeMap<u64, (u64, Frame)>,
    /// Ends of instructions that lead elsewhere, of those not looked behind yet.
    ends: Vec<u64>,
    calls: BTreeSet<u64>,
    /// It does what this analysis does not follow.
    is_strange: bool,
    /// It is the outermost frame and runs on into the next function.
    falls_through: bool,
}

impl Function {
    fn follow(start: u64, code: &[u8], entry: Frame) -> Self {
        let mut function = Self {
            start,
            end: start + code.len() as u64,
            frames: BTreeMap::new(),
            ends: Vec::new(),
            calls: BTreeSet::new(),
            is_strange: false,
            falls_through: false,
        };
        // What only a jump table leads to lies behind code that was reached.
        if let Some(frame) = function.paths(code, vec![(start, entry)], true) {
            // Such code ends where more of it may begin.
            loop {
                let gaps = function.take_gaps();
                if gaps.is_empty() {
                    break;
                }
                for gap in gaps {
                    function.paths(code, vec![(gap, frame)], false);
                }
            }
        }
        function
    }

    /// Follows every path from here on. The frame at their beginning is `certain` or guessed. Gives the
    /// frame of the last indirect jump within the function.
    fn paths(&mut self, code: &[u8], mut paths: Vec<(u64, Frame)>, certain: bool) -> Option<Frame> {
        let mut indirect = None;
        while let Some((mut address, mut frame)) = paths.pop() {
            while address >= self.start && address < self.end {
                self.is_strange |= frame.sp.is_some_and(|sp| sp < 8);
                if let Some((_, known)) = self.frames.get(&address) {
                    self.is_strange |= certain && known.rule() != frame.rule();
                    break;
                }
                let Some(instruction) = decode(code, self.start, address) else {
                    break;
                };
                let next = instruction.next_ip();
                self.frames.insert(address, (next, frame));
                frame = frame.after(&instruction);
                let goes_on = match instruction.flow_control() {
                    FlowControl::Call => {
                        if instruction.code() == Code::Call_rel32_64 {
                            self.calls.insert(instruction.near_branch_target());
                        }
                        Some(next)
                    }
                    FlowControl::Interrupt if instruction.mnemonic() == Mnemonic::Int3 => None,
                    FlowControl::Next
                    | FlowControl::IndirectCall
                    | FlowControl::XbeginXabortXend
                    | FlowControl::Interrupt => Some(next),
                    FlowControl::ConditionalBranch => {
                        paths.push((instruction.near_branch_target(), frame));
                        Some(next)
                    }
                    FlowControl::UnconditionalBranch => {
                        let target = instruction.near_branch_target();
                        if target < self.start || target >= self.end {
                            // A tail call.
                            self.calls.insert(target);
                        }
                        Some(target)
                    }
                    FlowControl::IndirectBranch => {
                        // With nothing on the stack it may be a tail call: what follows is then the beginning
                        // of another function, whose frame is the same.
                        if indirect.is_none() || frame.rule() != Frame::ENTRY.rule() {
                            indirect = Some(frame);
                        }
                        None
                    }
                    FlowControl::Return | FlowControl::Exception => None,
                };
                if goes_on != Some(next) {
                    self.ends.push(next);
                }
                let Some(there) = goes_on else { break };
                address = there;
            }
            self.falls_through |= address == self.end && frame.is_outermost;
        }
        indirect
    }

    /// Where code begins that was not reached, behind code that was reached since the last time.
    fn take_gaps(&mut self) -> BTreeSet<u64> {
        let ends = std::mem::take(&mut self.ends).into_iter();
        ends.filter(|end| *end < self.end && !self.frames.contains_key(end))
            .collect()
    }

    fn add_to(&self, builder: &mut Builder) {
        if self.is_strange {
            return;
        }
        let Some((_, &(end, _))) = self.frames.last_key_value() else {
            return;
        };
        builder.function(self.start, end);
        let mut expected = self.start;
        let mut last = None;
        for (&address, &(next, frame)) in &self.frames {
            if address > expected {
                builder.row(expected, Rule::only(Cfa::None));
                last = None;
            }
            let rule = frame.rule();
            if last != Some(rule) {
                builder.row(address, rule);
                last = Some(rule);
            }
            expected = next;
        }
    }
}

fn decode(code: &[u8], start: u64, address: u64) -> Option<Instruction> {
    let bytes = code.get(usize::try_from(address - start).ok()?..)?;
    let mut decoder = Decoder::with_ip(64, bytes, address, DecoderOptions::NONE);
    let instruction = decoder.decode();
    (!instruction.is_invalid()).then_some(instruction)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use profiler_common::unwind::{Bp, Cfa};

    use super::{Builder, CodeSection, Frame, add_functions};
    use crate::unwind::Table;

    fn table(code: &[u8]) -> Table {
        let mut builder = Builder::new();
        let section = CodeSection {
            address: 0x1000,
            size: code.len() as u64,
            read: |inside: u64, size: u64| {
                code.get(usize::try_from(inside).ok()?..)?
                    .get(..usize::try_from(size).ok()?)
            },
        };
        add_functions(&[section], &BTreeMap::from([(0x1000, 0)]), 0, &mut builder);
        builder.finish()
    }

    /// `push %rbp; mov %rsp,%rbp; push %rbx; sub $0x18,%rsp; test %edi,%edi; je L; add $0x18,%rsp; pop %rbx;
    /// pop %rbp; ret; L: leave; ret`
    #[test]
    fn follows_both_ways_of_a_branch() {
        let code = [
            0x55, 0x48, 0x89, 0xe5, 0x53, 0x48, 0x83, 0xec, 0x18, 0x85, 0xff, 0x74, 0x07, 0x48,
            0x83, 0xc4, 0x18, 0x5b, 0x5d, 0xc3, 0xc9, 0xc3,
        ];
        let table = table(&code);
        let at = |offset: u64| {
            let rule = table.rule_at(0x1000 + offset).unwrap();
            (rule.cfa, rule.cfa_offset, rule.bp_kind, rule.bp)
        };
        let (sp, bp) = (Cfa::Sp as u8, Cfa::Bp as u8);
        assert_eq!(at(0), (sp, 8, Bp::Same as u8, 0));
        assert_eq!(at(1), (sp, 16, Bp::Cfa as u8, -16));
        assert_eq!(at(4), (bp, 16, Bp::Cfa as u8, -16));
        assert_eq!(at(18), (bp, 16, Bp::Cfa as u8, -16));
        assert_eq!(at(19), (sp, 8, Bp::Same as u8, 0));
        assert_eq!(at(20), (bp, 16, Bp::Cfa as u8, -16));
        assert_eq!(at(21), (sp, 8, Bp::Same as u8, 0));
    }

    /// `sub $8,%rsp; call never`, and right behind it another function, that something calls: `push %rbx; pop %rbx; ret`;
    /// `never: hlt; call *; …`
    #[test]
    fn a_path_ends_where_another_function_begins() {
        let mut code = vec![
            0x48, 0x83, 0xec, 0x08, 0xe8, 0x03, 0, 0, 0, 0x53, 0x5b, 0xc3, 0xf4, 0xe8, 0xf7, 0xff,
            0xff, 0xff, 0xc3,
        ];
        code.resize(100, 0xcc);
        let table = table(&code);
        let at = |offset: u64| table.rule_at(0x1000 + offset).map(|rule| rule.cfa_offset);
        assert_eq!(
            [0, 4, 9, 10, 11].map(at),
            [8, 16, 8, 16, 8].map(Some),
            "the second function has its own frame"
        );
    }

    /// Between two functions that have rules, `nop…; push %rax; pop %rax; ret` is one that has none: it gets its own.
    #[test]
    fn a_function_without_rules_is_found_in_a_gap() {
        let mut code = [0x90; 0x60];
        code[0x20..0x23].copy_from_slice(&[0x50, 0x58, 0xc3]);
        code[0x23..0x40].fill(0xcc);
        let mut builder = Builder::new();
        for start in [0x1000, 0x1040] {
            builder.function(start, start + 0x10);
            builder.row(start, Frame::ENTRY.rule());
        }
        let section = CodeSection {
            address: 0x1000,
            size: 0x50,
            read: |inside: u64, size: u64| {
                code.get(usize::try_from(inside).ok()?..)?
                    .get(..usize::try_from(size).ok()?)
            },
        };
        add_functions(&[section], &BTreeMap::new(), 0, &mut builder);
        let table = builder.finish();
        let at = |offset: u64| table.rule_at(0x1000 + offset).map(|rule| rule.cfa_offset);
        assert_eq!([0x20, 0x21, 0x22].map(at), [8, 16, 8].map(Some));
        assert_eq!(at(0x30), None);
    }

    /// Without a frame pointer the stack pointer is followed, and a callee is analysed too:
    /// `sub $8,%rsp; call L; add $8,%rsp; ret; int3...; L: push %rbx; pop %rbx; ret`
    #[test]
    fn follows_calls() {
        let code = [
            0x48, 0x83, 0xec, 0x08, 0xe8, 0x07, 0, 0, 0, 0x48, 0x83, 0xc4, 0x08, 0xc3, 0xcc, 0xcc,
            0x53, 0x5b, 0xc3,
        ];
        let table = table(&code);
        let at = |offset: u64| table.rule_at(0x1000 + offset).map(|rule| rule.cfa_offset);
        assert_eq!(
            [0, 4, 9, 13, 16, 17, 18].map(at),
            [8, 16, 16, 8, 8, 16, 8].map(Some)
        );
    }

    /// Behind `sub $8,%rsp; jmp *%rax` two pieces of code that nothing else leads to, the second one behind the
    /// end of the first; and behind `jmp *%rdx` with nothing on the stack.
    #[test]
    fn what_jump_tables_lead_to_has_the_frame_of_the_jump() {
        let code = [
            0x48, 0x83, 0xec, 0x08, 0xff, 0xe0, 0xeb, 0x02, 0x90, 0x90, 0x48, 0x83, 0xc4, 0x08,
            0xc3,
        ];
        let of_jump = table(&code);
        let at = |offset: u64| of_jump.rule_at(0x1000 + offset).map(|rule| rule.cfa_offset);
        assert_eq!(
            [0, 4, 6, 8, 10, 14].map(at),
            [8, 16, 16, 16, 16, 8].map(Some)
        );
        let empty = table(&[0xff, 0xe2, 0x90, 0xc3]);
        assert_eq!(empty.rule_at(0x1002).map(|rule| rule.cfa_offset), Some(8));
    }

    /// `xor %ebp,%ebp; mov %rsp,%rdi; call .` is where a process begins.
    #[test]
    fn cleared_frame_pointer_is_the_end() {
        let table = table(&[0x31, 0xed, 0x48, 0x89, 0xe7, 0xe8, 0, 0, 0, 0, 0xf4]);
        assert_eq!(
            table.rule_at(0x1005).map(|rule| rule.cfa),
            Some(Cfa::End as u8)
        );
    }

    /// `mov $15,%rax; syscall` is where the kernel makes signal handlers return to.
    #[test]
    fn signal_trampoline() {
        let table = table(&[0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05]);
        assert_eq!(
            table.rule_at(0xfff).map(|rule| rule.cfa),
            Some(Cfa::Signal as u8)
        );
    }

    /// `pop %rcx; push %rax; push %rcx; ret` moves its return address; in `L: push %rax; dec %edi; jne L; ret` the
    /// stack grows with each turn.
    #[test]
    fn strange_functions_have_no_rules() {
        assert!(table(&[0x59, 0x50, 0x51, 0xc3]).pages.is_empty());
        assert!(
            table(&[0x50, 0xff, 0xcf, 0x75, 0xfb, 0xc3])
                .pages
                .is_empty()
        );
    }

    /// `and $-16,%rsp` without a frame pointer: nothing is claimed.
    #[test]
    fn unknown_stack_pointers_have_no_rule() {
        let table = table(&[0x48, 0x83, 0xe4, 0xf0, 0x90, 0xc3]);
        assert!(table.rule_at(0x1000).is_some());
        assert!(table.rule_at(0x1004).is_none());
    }
}
