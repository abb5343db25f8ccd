//! Python's line tables. The first byte chooses the version's form, the next four are the place that is
//! looked up.

#![no_main]

use std::hint::black_box;

use libfuzzer_sys::fuzz_target;
use profiler::python::lines::line_at;
use profiler_common::python::LineTable;

fuzz_target!(|bytes: &[u8]| {
    let Some((&[choice, a, b, c, d], table)) = bytes.split_first_chunk() else {
        return;
    };
    let kind = match choice % 3 {
        0 => LineTable::Lnotab,
        1 => LineTable::Ranges,
        _ => LineTable::Locations,
    };
    let offset = i32::from_le_bytes([a, b, c, d]);
    black_box(line_at(kind, table, 1, offset));
    black_box(line_at(kind, table, u32::MAX, i32::MAX));
});
