//! Perf maps, which a target writes. The first eight bytes are the address that is looked up.

#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler::fuzzing::perf_map;

fuzz_target!(|bytes: &[u8]| {
    let Some((address, text)) = bytes.split_first_chunk() else {
        return;
    };
    for address in [u64::from_le_bytes(*address), 0x1000, u64::MAX] {
        if let Some(name) = perf_map(text, address) {
            assert!(!name.is_empty() && name.len() <= 3 * text.len());
        }
    }
});
