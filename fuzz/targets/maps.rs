//! Lists of mappings, in which a target chooses the names.

#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler::fuzzing::maps;

fuzz_target!(|text: &[u8]| {
    let lines = text.split(|byte| *byte == b'\n').count();
    assert!(maps(text) <= lines);
});
