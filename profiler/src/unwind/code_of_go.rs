//! Rules of Go's code: where the stack pointer is at each instruction, which Go's own table says, and where a stack ends.
//!
//! Go keeps frame pointers, too, but what it has in assembly uses the register for other things, and a function without a
//! frame would hide its caller. Only functions that switch stacks are walked by frame pointers.

use std::ops::Range;

use iced_x86::{Decoder, DecoderOptions, Mnemonic, Register};
use object::{Object, ObjectSection, ReadRef};
use profiler_common::unwind::{Bp, Cfa, Rule};

use super::{
    elf::{FUNCTIONS_MAX, ROWS_MAX},
    rows::Builder,
    rules::Arch,
};
use crate::go::{Function, Image};

/// They go on with the thread's own stack, where nothing says where the goroutine's was.
const NO_WAY_BACK: [&str; 2] = ["runtime.mcall", "runtime.morestack"];
/// What a signal handler returns to; Go 1.20 changed the name.
const AFTER_SIGNAL: [&str; 2] = ["runtime.sigreturn", "runtime.sigreturn__sigaction"];
/// The frame pointer leads to another stack: where nothing is known it would not be followed there.
const BY_FRAME_POINTER: Rule = Rule {
    cfa_offset: 16,
    ra: -8,
    bp_kind: Bp::Cfa as u8,
    bp: -16,
    ..Rule::only(Cfa::Bp)
};
/// `push %rbp`, and how `mov %rbp,N(%rsp)` begins, with the length of each.
const PUSH: u8 = 0x55;
const SAVES: [([u8; 4], u64); 2] = [([0x48, 0x89, 0x6c, 0x24], 5), ([0x48, 0x89, 0xac, 0x24], 8)];

/// Adds them to a table.
pub(super) fn add_functions<'a, R: ReadRef<'a>>(
    object: &object::File<'a, R>,
    arch: Arch,
    builder: &mut Builder,
) {
    let image = Image::read(object);
    let Some(table) = image.as_ref().and_then(Image::table) else {
        return;
    };
    let code = Code::of(object);
    for function in table.functions() {
        let (start, end) = (function.range.start, function.range.end);
        let is_any = |names: &[&str]| names.iter().any(|name| function.is_named(name));
        if function.is_first() {
            builder.function(start, end);
            builder.row(start, Rule::only(Cfa::End));
        } else if is_any(&AFTER_SIGNAL) {
            // The return address is its first byte, and is looked up one byte before.
            let before = start.saturating_sub(1);
            builder.function(before, end);
            builder.row(before, Rule::only(Cfa::Signal));
        } else if arch == Arch::X86_64 && is_any(&NO_WAY_BACK) {
            if let Some(switched) = code.switched(&function.range) {
                builder.function(start, end);
                builder.row(start, BY_FRAME_POINTER);
                builder.row(switched, Rule::only(Cfa::End));
            }
        } else if arch == Arch::X86_64 && function.switches_stacks() {
            builder.function(start, end);
            builder.row(start, BY_FRAME_POINTER);
        } else if arch == Arch::X86_64 {
            add(&function, &code, builder);
        }
        if builder.is_full(FUNCTIONS_MAX, ROWS_MAX) {
            builder.cut();
            break;
        }
    }
}

/// The rules of one function.
fn add(function: &Function<'_>, code: &Code<'_>, builder: &mut Builder) {
    builder.function(function.range.start, function.range.end);
    let mut is_saved = false;
    let whole = function.stack(|range, depth| {
        if is_saved || depth < 8 {
            builder.row(range.start, rule(depth, is_saved));
            return;
        }
        match code.saved_from(range.start, depth) {
            Some(from) => {
                is_saved = true;
                if from > range.start {
                    builder.row(range.start, rule(depth, false));
                }
                builder.row(from, rule(depth, true));
            }
            None => builder.row(range.start, rule(depth, false)),
        }
    });
    if whole.is_none() {
        builder.malformed();
    }
}

/// The stack pointer is `depth` bytes below the return address.
fn rule(depth: i32, is_saved: bool) -> Rule {
    if depth < 0 || depth % 8 != 0 {
        return Rule::only(Cfa::None);
    }
    let saved = if is_saved && depth >= 8 {
        (Bp::Cfa as u8, -16)
    } else {
        (Bp::Same as u8, 0)
    };
    Rule {
        cfa_offset: depth.saturating_add(8),
        ra: -8,
        bp_kind: saved.0,
        bp: saved.1,
        ..Rule::only(Cfa::Sp)
    }
}

/// The code of a file; nothing where there is too much of it.
struct Code<'a> {
    start: u64,
    bytes: &'a [u8],
}

impl<'a> Code<'a> {
    fn of<R: ReadRef<'a>>(object: &object::File<'a, R>) -> Self {
        let section = object.section_by_name(".text");
        section.map_or(
            Self {
                start: 0,
                bytes: &[],
            },
            |section| Self {
                start: section.address(),
                bytes: section.data().unwrap_or_default(),
            },
        )
    }

    fn from(&self, address: u64) -> Option<&'a [u8]> {
        let inside = usize::try_from(address.checked_sub(self.start)?).ok()?;
        self.bytes.get(inside..)
    }

    /// From where on the frame pointer is saved below the return address, if that happens where the stack pointer has
    /// just come to be `depth` bytes below it.
    fn saved_from(&self, address: u64, depth: i32) -> Option<u64> {
        if self.bytes.is_empty() {
            // What Go compiles does so: only some of its assembly does not.
            return Some(address);
        }
        let pushed = address.checked_sub(1).and_then(|before| self.from(before));
        if depth == 8 && pushed.is_some_and(|code| code.first() == Some(&PUSH)) {
            return Some(address);
        }
        let code = self.from(address)?;
        let save = SAVES.iter().find(|(save, _)| code.starts_with(save));
        save.and_then(|(_, length)| address.checked_add(*length))
    }

    /// From where on a function is on another stack.
    fn switched(&self, range: &Range<u64>) -> Option<u64> {
        let code = self.from(range.start)?;
        let length = usize::try_from(range.end - range.start).ok()?;
        let code = code.get(..length)?;
        let mut decoder = Decoder::with_ip(64, code, range.start, DecoderOptions::NONE);
        let mut instructions = decoder.iter();
        let switch = instructions.find(|instruction| {
            instruction.mnemonic() == Mnemonic::Mov && instruction.op0_register() == Register::RSP
        });
        Some(switch?.next_ip())
    }
}
