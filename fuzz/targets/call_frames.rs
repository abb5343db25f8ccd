//! Call frame information in an ELF file that is otherwise in order. The first byte chooses processor
//! and section, so that a seed is the letter `0` and a file's `.eh_frame`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler_fuzz::{Machine, Section, elf, read};

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, section_bytes)) = bytes.split_first() else {
        return;
    };
    let machine = if choice & 1 == 0 {
        Machine::X86_64
    } else {
        Machine::Aarch64
    };
    let section = if choice & 2 == 0 {
        Section::EhFrame
    } else {
        Section::DebugFrame
    };
    let file = elf(machine, section, section_bytes);
    assert_eq!(read(&file), Ok(()), "the file around it is in order");
});
