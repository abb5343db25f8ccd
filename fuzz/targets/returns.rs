//! Code of functions whose ends are looked for.

#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler::fuzzing::leaves;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, code)) = bytes.split_first() else {
        return;
    };
    let length = code.len() as u64;
    let start = match choice % 3 {
        0 => 0x1000,
        1 => 0,
        _ => u64::MAX - length,
    };
    if let Ok((returns, tail_calls)) = leaves(start, code) {
        let inside = start..start + length;
        assert!(returns.iter().all(|at| inside.contains(at)));
        assert!(!tail_calls.iter().any(|at| inside.contains(at)));
    }
});
