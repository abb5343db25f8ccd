//! The walk up a user stack: from the address to its mapping, to its rule, to the caller's registers.
//! One body for every program that samples, run by `bpf_loop`; the step itself is pure and in
//! `profiler_common::unwind`.

use core::{ffi::c_void, mem::transmute, ptr};

use aya_ebpf::helpers::{bpf_loop, bpf_probe_read_user};
use profiler_common::{
    limits::{FRAME_BYTES_MAX, USER_FRAMES_MAX},
    outcome::StopReason,
    sample::WORDS_MAX,
    unwind::{
        COMPILED_WORDS, Cfa, LEAF_REGISTERS, LINK_REGISTER,
        how::{BY_FRAME_POINTER, BY_REGISTER, INTERRUPTED, KEPT, LEAF, LINK, RETURN},
        step, step_compiled, step_frame_pointer,
        table::{PAGE_BITS, Page, ROWS_PER_BLOCK, row, rule_of, search},
    },
};

use crate::{
    arch,
    maps::{MAPPINGS, PAGES, ROWS, RULES, SCRATCH, Scratch, Walk, setting},
    task::{Task, read_at},
};

/// Walks from `walk.frame`, found as `walk.how` says, in `walk.space`. Sets `walk.frames` and
/// `walk.stop`. `FOR` is the index of the walk's scratch.
#[inline(always)]
pub(crate) fn walk<const FOR: u32>(walk: &mut Walk) {
    walk.frames = 0;
    walk.stop = StopReason::TooDeep as u32;
    walk.probed = 0;
    walk.mapping.begin = 0;
    walk.mapping.end = 0;
    // SAFETY: a function pointer and a data pointer have one size; aya turns the relocation of the
    // function item into the kernel's BPF_PSEUDO_FUNC.
    let callback = unsafe {
        transmute::<unsafe extern "C" fn(u32, *mut c_void) -> i64, *mut c_void>(push_frame::<FOR>)
    };
    // SAFETY: the callback matches the helper's prototype and needs no context: its state is in SCRATCH.
    unsafe { bpf_loop(USER_FRAMES_MAX as u32, callback, ptr::null_mut(), 0) };
}

/// One iteration: push the frame, step to its caller. Returns 1 to end the loop.
unsafe extern "C" fn push_frame<const FOR: u32>(_index: u32, _context: *mut c_void) -> i64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(FOR) else {
        return 1;
    };
    // SAFETY: this CPU's own slot, which no other program uses.
    let scratch = unsafe { &mut *scratch };
    match advance(scratch) {
        Ok(()) => 0,
        Err(stop) => {
            scratch.walk.stop = stop as u32;
            1
        }
    }
}

#[inline(always)]
fn advance(scratch: &mut Scratch) -> Result<(), StopReason> {
    let how = scratch.walk.how;
    let pc = scratch.walk.frame.pc;
    let address = pc - u64::from(how & RETURN != 0);
    if !find_mapping(&mut scratch.walk, address) {
        if how & BY_FRAME_POINTER != 0 {
            return Err(StopReason::FramePointerLost);
        }
        if how & BY_REGISTER != 0 {
            return Err(StopReason::UnsupportedRule);
        }
        // User space goes on with this frame.
        scratch.walk.address = address;
        return Err(StopReason::NoMapping);
    }
    if scratch.walk.mapping.is_uprobes() {
        return match original_return(&mut scratch.walk) {
            Some(pc) => {
                scratch.walk.frame.pc = pc;
                Ok(())
            }
            None => {
                push(scratch, pc)?;
                Err(StopReason::Probed)
            }
        };
    }
    find_rule(&mut scratch.walk, address);
    let kind = scratch.walk.rule.cfa;
    let is_trampoline = kind == Cfa::Signal as u8;
    // Readers of the record look one byte before every address but the leaf's, which is right after
    // a call only.
    let no_call = how & INTERRUPTED != 0 || (is_trampoline && how & LEAF == 0);
    push(scratch, pc + u64::from(no_call))?;
    let walk = &mut scratch.walk;
    if is_trampoline {
        interrupted(walk)
    } else if kind == Cfa::None as u8 {
        by_frame_pointer(walk)
    } else {
        by_rule(walk)
    }
}

/// The return address that a uretprobe has put its own in the place of.
#[inline(always)]
fn original_return(walk: &mut Walk) -> Option<u64> {
    /// Calls that returned without the kernel's notice (`longjmp`) stand between.
    const SKIPPED_MAX: usize = 8;
    let offset = setting!(offsets.task_probed);
    if offset == 0 {
        return None;
    }
    if walk.probed == 0 {
        let probed = read_at(Task::current().0 as u64, offset)?;
        walk.probed = read_at(probed, setting!(offsets.probed_returns))?;
    }
    // A call pushes its return address, and the stack pointer is right behind it by now.
    let slot = walk.frame.sp - 8;
    for _ in 0..SKIPPED_MAX {
        let call = walk.probed;
        if call == 0 {
            return None;
        }
        let stack: u64 = read_at(call, setting!(offsets.return_stack))?;
        let address = read_at(call, setting!(offsets.return_address))?;
        walk.probed = read_at(call, setting!(offsets.return_next))?;
        if stack == slot {
            return Some(address);
        }
    }
    None
}

#[inline(always)]
fn push(scratch: &mut Scratch, pc: u64) -> Result<(), StopReason> {
    scratch.walk.slot = u32::from(scratch.header.kernel_len) + scratch.walk.frames;
    // SAFETY: a live map value. Volatile, so that the register that is checked is the one that is
    // used: the verifier does not see that two computations of one sum are equal.
    let slot = unsafe { ptr::read_volatile(&raw const scratch.walk.slot) };
    if slot >= WORDS_MAX as u32 {
        return Err(StopReason::TooDeep);
    }
    // SAFETY: checked right above; an index with a bounds check would hold a panic.
    unsafe { *scratch.stacks.as_mut_ptr().add(slot as usize) = pc };
    scratch.walk.frames += 1;
    Ok(())
}

/// Makes `walk.mapping` the one that holds the address, if there is one.
#[inline(always)]
fn find_mapping(walk: &mut Walk, address: u64) -> bool {
    if walk.mapping.begin <= address && address < walk.mapping.end {
        return true;
    }
    let first = walk.space.first();
    let begins_before = |index: u32| MAPPINGS.get(first + index).map(|m| m.begin <= address);
    let Some(index) = search(&mut walk.bounds, walk.space.count(), begins_before) else {
        return false;
    };
    let Some(mapping) = MAPPINGS.get(first + index) else {
        return false;
    };
    if address >= mapping.end {
        return false;
    }
    walk.mapping = *mapping;
    true
}

/// Makes `walk.rule` the one of the address, `Cfa::None` if there is none.
#[inline(always)]
fn find_rule(walk: &mut Walk, address: u64) {
    walk.rule.cfa = Cfa::None as u8;
    if let Some(position) = rule_position(walk, address)
        && let Some(rule) = RULES.get(position)
    {
        walk.rule = *rule;
    }
}

#[inline(always)]
fn rule_position(walk: &mut Walk, address: u64) -> Option<u32> {
    let Walk {
        mapping, bounds, ..
    } = walk;
    let address = address - mapping.bias;
    let page = (address >> PAGE_BITS) - u64::from(mapping.first_page);
    if page >= u64::from(mapping.pages) {
        return None;
    }
    let page: Page = *PAGES.get(mapping.page_base + page as u32)?;
    let wanted = row(address as u16, u16::MAX);
    let read = |index: u32| {
        let at = page.first + index;
        let block = ROWS.get_value(u32::from(page.segment), &(at / ROWS_PER_BLOCK as u32))?;
        let within = at as usize % ROWS_PER_BLOCK;
        // SAFETY: the remainder is below the length; an index with a bounds check would hold a panic.
        Some(unsafe { *block.as_ptr().add(within) })
    };
    let index = search(bounds, u32::from(page.count), |index| {
        Some(read(index)? <= wanted)
    })?;
    Some(mapping.rule_base + rule_of(read(index)?))
}

#[inline(always)]
fn by_rule(walk: &mut Walk) -> Result<(), StopReason> {
    let (how, leaf) = (walk.how, (&raw const walk.leaf).cast::<u64>());
    let address = &raw mut walk.address;
    let register = |number: usize| {
        let known = how & LEAF != 0
            || (how & LINK != 0 && number == LINK_REGISTER)
            || (how & KEPT != 0 && arch::is_volatile(number));
        // SAFETY: a live map value, and an index below its length.
        known.then(|| unsafe { *leaf.add(number & (LEAF_REGISTERS - 1)) })
    };
    let sp = walk.frame.sp;
    walk.frame = step(&walk.rule, &walk.frame, register, |at| {
        read_word(address, at)
    })?;
    let is_guess = walk.rule.cfa == Cfa::Register as u8 && how & LEAF == 0;
    if is_guess && (walk.frame.sp & 7 != 0 || walk.frame.sp.wrapping_sub(sp) > FRAME_BYTES_MAX) {
        return Err(StopReason::UnsupportedRule);
    }
    walk.how = RETURN | (how & KEPT) | if is_guess { BY_REGISTER } else { 0 };
    Ok(())
}

/// The frame is the kernel's own, made to run a signal handler.
#[inline(always)]
fn interrupted(walk: &mut Walk) -> Result<(), StopReason> {
    let address = &raw mut walk.address;
    let read = |at| read_word(address, at);
    let sp = walk.frame.sp;
    let frame = arch::SIGNAL_FRAME.interrupted(&walk.frame, read);
    walk.frame = frame.ok_or(StopReason::ReadStack)?;
    walk.how = INTERRUPTED;
    if let Some(link) = arch::SIGNAL_FRAME.link {
        let link = read(sp.wrapping_add_signed(link)).ok_or(StopReason::ReadStack)?;
        walk.leaf[LINK_REGISTER] = link;
        walk.how |= LINK;
    }
    Ok(())
}

/// No rule covers the code: compiled by a runtime, or written in assembly.
#[inline(always)]
fn by_frame_pointer(walk: &mut Walk) -> Result<(), StopReason> {
    if walk.how & (LEAF | INTERRUPTED) == 0
        && let Some(code) = read_words(walk.frame.pc)
    {
        if arch::is_sigreturn(code) {
            return interrupted(walk);
        }
        if let Some(rule) = arch::epilogue(code) {
            walk.rule = rule;
            return by_rule(walk);
        }
    }
    if arch::COMPILES_PYTHON
        && walk.mapping.pages == 0
        && let Some(stack) = read_own(walk.frame.sp)
        && let Some(evaluator) = step_compiled(&walk.frame, &stack, read_words)
    {
        walk.frame = evaluator?;
        walk.how = RETURN;
        return Ok(());
    }
    let (how, address) = (walk.how, &raw mut walk.address);
    let read = |at| {
        // SAFETY: a live map value.
        unsafe { *address = at };
        read_words(at)
    };
    walk.frame = step_frame_pointer(&walk.frame, how, read)?;
    walk.how = RETURN | BY_FRAME_POINTER;
    Ok(())
}

/// Reads a word of the stack and notes its address, for the case that it cannot be read.
#[inline(always)]
fn read_word(noted: *mut u64, address: u64) -> Option<u64> {
    // SAFETY: a live map value.
    unsafe { *noted = address };
    // SAFETY: the helper checks the address and fails where it is not readable; it never faults a page in.
    unsafe { bpf_probe_read_user(address as *const u64) }.ok()
}

#[inline(always)]
fn read_words(address: u64) -> Option<[u64; 2]> {
    // SAFETY: as above.
    unsafe { bpf_probe_read_user(address as *const [u64; 2]) }.ok()
}

/// What compiled code may have pushed.
#[inline(always)]
fn read_own(address: u64) -> Option<[u64; COMPILED_WORDS]> {
    // SAFETY: as above.
    unsafe { bpf_probe_read_user(address as *const [u64; COMPILED_WORDS]) }.ok()
}
