//! The same walk as the kernel side's, over the same tables, on a copy of a stack: for samples that
//! came before their process or library was known. Pure.

use profiler_common::{
    limits::USER_FRAMES_MAX,
    outcome::StopReason,
    sample::Rest,
    unwind::{
        Cfa, Registers, Rule, SIGRETURN_X86_64, SignalFrame, epilogue_x86_64,
        how::{BY_FRAME_POINTER, INTERRUPTED, LEAF, RETURN},
        step, step_frame_pointer,
        table::{Bounds, Mapping, PAGE_BITS, row, rule_of, search},
    },
};

use super::Shared;

/// Goes on from where the kernel side stopped and appends the frames. `code` reads 16 bytes of the
/// process's code.
pub(super) fn walk(
    rest: &Rest,
    mappings: &[Mapping],
    shared: &impl Shared,
    code: impl Fn(u64) -> Option<[u64; 2]>,
    frames: &mut Vec<u64>,
) -> StopReason {
    let copy = StackCopy {
        frame: rest.frame,
        how: rest.how,
        base: rest.base(),
        stack: &rest.stack[..rest.stack.len().min(rest.bytes as usize)],
    };
    walk_copy(copy, mappings, shared, code, frames)
}

/// Likewise, from anywhere.
pub(super) fn walk_copy(
    mut walk: StackCopy<'_>,
    mappings: &[Mapping],
    shared: &impl Shared,
    code: impl Fn(u64) -> Option<[u64; 2]>,
    frames: &mut Vec<u64>,
) -> StopReason {
    loop {
        if frames.len() >= USER_FRAMES_MAX {
            return StopReason::TooDeep;
        }
        match walk.advance(mappings, shared, &code, frames) {
            Ok(()) => {}
            // What the copy does not hold, the stack may.
            Err(StopReason::ReadStack) => return StopReason::CopyEnd,
            Err(stop) => return stop,
        }
    }
}

/// A frame, and a copy of the stack around it.
#[derive(Clone, Copy, Debug)]
pub struct StackCopy<'a> {
    /// The frame whose callers are looked for.
    pub frame: Registers,
    /// How it was found: bits of [`how`](profiler_common::unwind::how).
    pub how: u32,
    /// Address of the first byte of the copy.
    pub base: u64,
    /// The copy.
    pub stack: &'a [u8],
}

impl StackCopy<'_> {
    fn advance(
        &mut self,
        mappings: &[Mapping],
        shared: &impl Shared,
        code: impl Fn(u64) -> Option<[u64; 2]>,
        frames: &mut Vec<u64>,
    ) -> Result<(), StopReason> {
        let pc = self.frame.pc;
        let address = pc.wrapping_sub(u64::from(self.how & RETURN != 0));
        let Some(mapping) = find_mapping(mappings, address) else {
            if self.how & BY_FRAME_POINTER != 0 {
                return Err(StopReason::FramePointerLost);
            }
            frames.push(pc);
            return Err(StopReason::NoMapping);
        };
        if mapping.is_uprobes() {
            frames.push(pc);
            return Err(StopReason::Probed);
        }
        let rule = find_rule(mapping, address, shared).unwrap_or(Rule::only(Cfa::None));
        let is_trampoline = rule.cfa == Cfa::Signal as u8;
        let no_call = self.how & INTERRUPTED != 0 || (is_trampoline && self.how & LEAF == 0);
        frames.push(pc + u64::from(no_call));
        if is_trampoline {
            self.interrupted()
        } else if rule.cfa == Cfa::None as u8 {
            self.by_frame_pointer(code)
        } else {
            self.by_rule(&rule)
        }
    }

    fn by_rule(&mut self, rule: &Rule) -> Result<(), StopReason> {
        self.frame = step(rule, &self.frame, |_| None, |at| self.word(at))?;
        self.how = RETURN;
        Ok(())
    }

    fn interrupted(&mut self) -> Result<(), StopReason> {
        let layout = if cfg!(target_arch = "aarch64") {
            SignalFrame::AARCH64
        } else {
            SignalFrame::X86_64
        };
        let frame = layout.interrupted(&self.frame, |at| self.word(at));
        self.frame = frame.ok_or(StopReason::ReadStack)?;
        self.how = INTERRUPTED;
        Ok(())
    }

    fn by_frame_pointer(
        &mut self,
        code: impl Fn(u64) -> Option<[u64; 2]>,
    ) -> Result<(), StopReason> {
        let is_sigreturn = |[first, second]: [u64; 2]| {
            cfg!(target_arch = "x86_64")
                && first == SIGRETURN_X86_64[0]
                && second & 0xff == SIGRETURN_X86_64[1]
        };
        if self.how & (LEAF | INTERRUPTED) == 0
            && let Some(code) = code(self.frame.pc)
        {
            if is_sigreturn(code) {
                return self.interrupted();
            }
            if cfg!(target_arch = "x86_64")
                && let Some(rule) = epilogue_x86_64(code)
            {
                return self.by_rule(&rule);
            }
        }
        let words = |at: u64| Some([self.word(at)?, self.word(at + 8)?]);
        self.frame = step_frame_pointer(&self.frame, self.how, words)?;
        self.how = RETURN | BY_FRAME_POINTER;
        Ok(())
    }

    fn word(&self, address: u64) -> Option<u64> {
        let offset = usize::try_from(address.checked_sub(self.base)?).ok()?;
        let bytes = self.stack.get(offset..offset.checked_add(8)?)?;
        Some(u64::from_ne_bytes(bytes.try_into().ok()?))
    }
}

fn find_mapping(mappings: &[Mapping], address: u64) -> Option<&Mapping> {
    let after = mappings.partition_point(|mapping| mapping.begin <= address);
    let mapping = mappings.get(after.checked_sub(1)?)?;
    (address < mapping.end).then_some(mapping)
}

fn find_rule(mapping: &Mapping, address: u64, shared: &impl Shared) -> Option<Rule> {
    let address = address.wrapping_sub(mapping.bias);
    let page = (address >> PAGE_BITS).checked_sub(u64::from(mapping.first_page))?;
    let page = u32::try_from(page)
        .ok()
        .filter(|&page| page < mapping.pages)?;
    let page = shared.page(mapping.page_base + page)?;
    let low = u16::try_from(address & ((1 << PAGE_BITS) - 1)).ok()?;
    let wanted = row(low, u16::MAX);
    let read = |index: u32| shared.row(page.segment, page.first + index);
    let mut bounds = Bounds::default();
    let index = search(&mut bounds, u32::from(page.count), |index| {
        Some(read(index)? <= wanted)
    })?;
    shared.rule(mapping.rule_base + rule_of(read(index)?))
}
