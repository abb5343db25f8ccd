//! Windows of the store, which a failing disk may have changed. The first byte chooses the table,
//! and whether the rest is as it lies on the disk or what was compressed there.

#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler::fuzzing::{Kept, packed, window};

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, rest)) = bytes.split_first() else {
        return;
    };
    let kept = match choice % 3 {
        0 => Kept::Queries,
        1 => Kept::Tcp,
        _ => Kept::Syscalls,
    };
    // Refusing a window is an answer.
    let _ = if choice & 64 == 0 {
        window(kept, &packed(rest))
    } else {
        window(kept, rest)
    };
});
