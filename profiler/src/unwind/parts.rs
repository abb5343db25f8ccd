//! The parts of a function that a compiler has taken apart: its unlikely code lies elsewhere, in a stripped file
//! without a symbol. x86-64 only.
//!
//! Such a part has an entry of call frame information of its own, whose first row is not that of a function's
//! entry: something is on the stack already. Direct jumps lead to it, never calls.

use std::collections::{BTreeSet, HashMap, VecDeque};

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, LittleEndian, Register, UnwindContext, UnwindSection,
};
use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction};
use object::{Architecture, Object, ObjectSection, ObjectSegment, ReadRef, elf::PF_X};

use super::elf::{COMMON_BYTES_MAX, INSTRUCTION_BYTES_MAX};
use crate::foreign::plain;

/// Most parts of one function.
const PARTS_MAX: usize = 64;
/// Most bytes of code of one function.
const BYTES_MAX: u64 = 4 << 20;
/// Most entries that are looked through.
const ENTRIES_MAX: usize = 1_000_000;
/// Most segments of one file; linkers make some ten.
const SEGMENTS_MAX: usize = 256;
/// rsp in DWARF numbering.
const STACK_POINTER: Register = Register(7);
/// Bytes from the stack pointer to the frame address where a function begins: its return address.
const AT_ENTRY: i64 = 8;

/// Adds to the ranges of a function those of its other parts. They are the linker's addresses.
pub(crate) fn add_parts<'a, R: ReadRef<'a>>(
    data: R,
    object: &object::File<'a, R>,
    ranges: &mut Vec<(u64, u64)>,
) {
    if object.architecture() != Architecture::X86_64 || ranges.is_empty() {
        return;
    }
    let entries = entries(object);
    let code = |start: u64, end: u64| {
        let segments = object.segments().take(SEGMENTS_MAX);
        let mut holding = segments.filter(|segment| {
            let inside = start.wrapping_sub(segment.address());
            let is_code = matches!(segment.flags(), object::SegmentFlags::Elf { p_flags, .. } if p_flags & PF_X != 0);
            is_code && inside < segment.file_range().1
        });
        let segment = holding.next()?;
        let offset = segment
            .file_range()
            .0
            .checked_add(start - segment.address())?;
        data.read_bytes_at(offset, end.checked_sub(start)?).ok()
    };
    *ranges = follow(std::mem::take(ranges), &entries, code);
}

/// An entry of call frame information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    start: u64,
    end: u64,
    /// Its first row is not that of a function's entry.
    is_part: bool,
}

/// Sorted by address.
fn entries<'a, R: ReadRef<'a>>(object: &object::File<'a, R>) -> Vec<Entry> {
    let Some(section) = object.section_by_name(".eh_frame") else {
        return Vec::new();
    };
    let Some(data) = plain(&section) else {
        return Vec::new();
    };
    let bases = BaseAddresses::default().set_eh_frame(section.address());
    let mut eh_frame = EhFrame::new(data, LittleEndian);
    eh_frame.set_address_size(8);
    let mut context = UnwindContext::new();
    let mut found = Vec::new();
    let mut iterator = eh_frame.entries(&bases);
    let mut common = HashMap::new();
    let mut bytes = 0;
    while let Ok(Some(entry)) = iterator.next() {
        let partial = match entry {
            CieOrFde::Fde(partial) => partial,
            CieOrFde::Cie(cie) => {
                if cie.entry_len() as u64 <= COMMON_BYTES_MAX {
                    common.insert(cie.offset(), cie);
                }
                continue;
            }
        };
        // As in `elf`: what is common is never read again for each function.
        let fde = partial.parse(|_, _, offset| {
            let cie = common.get(&offset.0).cloned();
            cie.ok_or(gimli::Error::NotCieId(offset.0 as u64))
        });
        let Ok(fde) = fde else {
            continue;
        };
        bytes += (fde.entry_len() + fde.cie().entry_len()) as u64;
        let first = fde
            .rows(&eh_frame, &bases, &mut context)
            .ok()
            .and_then(|mut rows| rows.next_row().ok().flatten().map(|row| row.cfa().clone()));
        let at_entry = CfaRule::RegisterAndOffset {
            register: STACK_POINTER,
            offset: AT_ENTRY,
        };
        if let (Some(first), Some(end)) = (first, fde.initial_address().checked_add(fde.len())) {
            found.push(Entry {
                start: fde.initial_address(),
                end,
                is_part: first != at_entry,
            });
        }
        if found.len() >= ENTRIES_MAX || bytes > INSTRUCTION_BYTES_MAX {
            break;
        }
    }
    found.sort_unstable_by_key(|entry| entry.start);
    found
}

/// Follows direct jumps out of the ranges until no other part is found.
fn follow<'a>(
    ranges: Vec<(u64, u64)>,
    entries: &[Entry],
    code: impl Fn(u64, u64) -> Option<&'a [u8]>,
) -> Vec<(u64, u64)> {
    let mut known: BTreeSet<(u64, u64)> = ranges.iter().copied().collect();
    let mut queue: VecDeque<(u64, u64)> = ranges.into();
    let mut parts = 0;
    while let Some((start, end)) = queue.pop_front() {
        let end = end.min(start.saturating_add(BYTES_MAX));
        let Some(bytes) = code(start, end) else {
            continue;
        };
        for target in jumps(bytes, start) {
            let after = entries.partition_point(|entry| entry.start <= target);
            let Some(entry) = after.checked_sub(1).and_then(|last| entries.get(last)) else {
                continue;
            };
            let part = (entry.start, entry.end);
            let is_new = entry.is_part && target < entry.end && !known.contains(&part);
            if is_new && parts < PARTS_MAX && entry.end - entry.start <= BYTES_MAX {
                parts += 1;
                known.insert(part);
                queue.push_back(part);
            }
        }
    }
    known.into_iter().collect()
}

/// Where direct jumps lead that leave this code.
fn jumps(bytes: &[u8], start: u64) -> BTreeSet<u64> {
    let end = start.saturating_add(bytes.len() as u64);
    let mut decoder = Decoder::with_ip(64, bytes, start, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    let mut targets = BTreeSet::new();
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        let jumps = matches!(
            instruction.flow_control(),
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch
        );
        let target = instruction.near_branch_target();
        if jumps && !(start..end).contains(&target) {
            targets.insert(target);
        }
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::{Entry, follow};

    /// From the named part a jump leads to a second one, from there another to a third; a call and a jump to a
    /// function of its own lead nowhere.
    #[test]
    fn jumps_are_followed_into_parts() {
        let mut memory = vec![0xcc; 0x400];
        let mut put = |at: usize, opcode: u8, target: usize| {
            memory[at] = opcode;
            let distance = i32::try_from(target).unwrap() - i32::try_from(at + 5).unwrap();
            memory[at + 1..at + 5].copy_from_slice(&distance.to_le_bytes());
        };
        let (jump, call) = (0xe9, 0xe8);
        put(0x00, jump, 0x110);
        put(0x10, call, 0x300);
        put(0x20, jump, 0x380);
        put(0x100, jump, 0x200);
        let entry = |start, end, is_part| Entry {
            start,
            end,
            is_part,
        };
        let entries = [
            entry(0x00, 0x30, false),
            entry(0x100, 0x140, true),
            entry(0x200, 0x220, true),
            entry(0x300, 0x320, true),
            entry(0x380, 0x390, false),
        ];
        let code = |start: u64, end: u64| {
            memory.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
        };
        let found = follow(vec![(0, 0x30)], &entries, code);
        assert_eq!(found, [(0, 0x30), (0x100, 0x140), (0x200, 0x220)]);
    }
}
