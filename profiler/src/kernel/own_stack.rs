//! Test of the object: which stacks its programs run on.

use std::collections::BTreeMap;

use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

use super::load::OBJECT;

/// Those that nothing preempts: an interrupt that does not nest, and the scheduler's own code, where interrupts are off.
/// A program over a list is given no such stack (`bpf_prog_check_recur` of the kernel leaves iterators out).
const ALONE: [&str; 3] = ["cpu_sample", "sched_switch", "task_registers"];
/// `bpf_tail_call` of include/uapi/linux/bpf.h.
const TAIL_CALL: i32 = 12;
/// `BPF_JMP | BPF_CALL`
const CALL: u8 = 0x85;
const INSTRUCTION_BYTES: usize = 8;

/// The programs, by name, with their instructions. What they call lies in the section of code that is theirs together.
fn programs<'a>(file: &object::File<'a>) -> BTreeMap<&'a str, &'a [u8]> {
    let functions = file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text);
    let programs = functions.filter_map(|symbol| {
        let section = file.section_by_index(symbol.section_index()?).ok()?;
        let name = symbol.name().ok().filter(|name| !name.is_empty())?;
        let begin = usize::try_from(symbol.address()).ok()?;
        let end = begin + usize::try_from(symbol.size()).ok()?;
        let code = section.data().ok()?.get(begin..end)?;
        (section.name() != Ok(".text")).then_some((name, code))
    });
    programs.collect()
}

/// Whether it calls that helper: the source register would say that it is a function.
fn calls(code: &[u8], helper: i32) -> bool {
    code.chunks_exact(INSTRUCTION_BYTES).any(|instruction| {
        let immediate = [4, 5, 6, 7].map(|at: usize| instruction[at]);
        instruction[..2] == [CALL, 0] && i32::from_le_bytes(immediate) == helper
    })
}

/// From 6.13 on the kernel gives a program without a tail call a stack for each CPU, which threads that preempt each other
/// in it share: no program of ours where that can happen is without one.
#[test]
fn programs_that_can_be_preempted_share_no_stack() {
    let file = object::File::parse(OBJECT).unwrap();
    let programs = programs(&file);
    assert!(programs.len() > 15 && ALONE.iter().all(|name| programs.contains_key(name)));
    let sharing = programs.iter().filter(|(_, code)| !calls(code, TAIL_CALL));
    let sharing: Vec<&str> = sharing.map(|(name, _)| *name).collect();
    assert_eq!(sharing, ALONE, "of {:?}", programs.keys());
}
