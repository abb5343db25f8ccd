//! Go's table of functions: what it says of names, and the unwind table that is made of it. The first eight bytes are
//! where its code begins.

#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler::fuzzing::go_table;
use profiler_fuzz::{Machine, Part, build, read};

fuzz_target!(|bytes: &[u8]| {
    let Some((text, table)) = bytes.split_first_chunk() else {
        return;
    };
    go_table(table, u64::from_le_bytes(*text));
    let parts = [(".gopclntab", table), (".text", bytes)];
    let file = build(
        Machine::X86_64,
        &parts.map(|(name, bytes)| Part::data(name, bytes)),
    );
    assert_eq!(read(&file), Ok(()), "the file around it is in order");
});
