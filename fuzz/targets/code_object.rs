//! Python's code objects and tables of offsets, in the memory of a process that is all the fuzzer's. The
//! first byte chooses the version.

#![no_main]

use libfuzzer_sys::fuzz_target;
use profiler::python::code::{Memory, read};
use profiler_common::python::{
    DEBUG_OFFSET_WORDS, HEAD_WORDS, PythonFrame, Version, checksum, debug_offsets,
};

/// Where the memory begins: addresses below and behind are not mapped.
const BASE: u64 = 0x1000;

struct Bytes<'a>(&'a [u8]);

impl Memory for Bytes<'_> {
    fn read(&self, address: u64, buffer: &mut [u8]) -> bool {
        let from = address
            .checked_sub(BASE)
            .and_then(|from| usize::try_from(from).ok());
        let source = from.and_then(|from| self.0.get(from..)?.get(..buffer.len()));
        if let Some(source) = source {
            buffer.copy_from_slice(source);
        }
        source.is_some()
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    let mut words = [0; DEBUG_OFFSET_WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    let told = debug_offsets(&words).and_then(Result::ok);
    let version = Version {
        minor: 8 + choice % 5,
    };
    let Some(layout) = told.or_else(|| version.known()) else {
        return;
    };
    let memory = Bytes(bytes);
    let mut head = [0; HEAD_WORDS * 4];
    memory.read(BASE + u64::from(layout.code.head), &mut head);
    let mut words = [0; HEAD_WORDS];
    for (word, bytes) in words.iter_mut().zip(head.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    let frame = PythonFrame {
        code: BASE,
        checksum: checksum(&words),
        ..PythonFrame::default()
    };
    if let Ok(code) = read(&memory, &layout.code, &frame) {
        assert!(code.name.chars().count() <= 4096);
        assert!(code.lines.len() <= bytes.len());
    }
});
