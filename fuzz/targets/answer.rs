//! What the child that reads symbols sends: a file may have taken it over. A length, then JSON.

#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler::fuzzing::answer;

fuzz_target!(|bytes: &[u8]| {
    answer(bytes);
    // With the length that it has, the fuzzer spends itself on the rest.
    let length = u32::try_from(bytes.len()).unwrap_or(0).to_le_bytes();
    answer(&[&length[..], bytes].concat());
});
