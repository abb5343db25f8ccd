//! Whole ELF files, as a process may have mapped them.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Refusing a file is an answer.
    let _ = profiler_fuzz::read(bytes);
});
