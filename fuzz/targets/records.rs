//! Records as they come off the ring: aligned to 8 bytes, of any length.

#![no_main]

use std::hint::black_box;

use libfuzzer_sys::fuzz_target;
use profiler::kernel::Record;
use profiler_common::limits::{KERNEL_FRAMES_MAX, PYTHON_FRAMES_MAX, USER_FRAMES_MAX};

fuzz_target!(|bytes: &[u8]| {
    let words: Vec<u64> = bytes
        .chunks(8)
        .map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_ne_bytes(word)
        })
        .collect();
    // SAFETY: the vector's memory, of which any byte may be read and which has at least as many as
    // there were; it lives until the end.
    let aligned = unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), bytes.len()) };
    match Record::decode(aligned) {
        Record::Sample(sample) => {
            assert!(sample.kernel.len() <= KERNEL_FRAMES_MAX);
            assert!(sample.user.len() <= USER_FRAMES_MAX);
            // Reads every word: the sanitizer knows whose they are.
            black_box(
                sample
                    .kernel
                    .iter()
                    .chain(sample.user)
                    .fold(0, |a, b| a ^ b),
            );
            assert!(sample.python.len() <= PYTHON_FRAMES_MAX);
            black_box(sample.python.iter().flatten().fold(0, |a, b| a ^ b));
            black_box(sample.header.comm);
        }
        Record::Process(event) => {
            black_box(*event);
        }
        Record::ThreadEnd(times) => {
            black_box(*times);
        }
        Record::Caller(event) => {
            black_box(*event);
        }
        Record::Tcp(event) => {
            black_box(*event);
        }
        Record::Wire(wire) => {
            let bytes = wire.head.iter().chain(wire.tail);
            assert!(wire.header.length >= bytes.clone().count() as u64);
            black_box(bytes.fold(0, |a, b| a ^ b));
            black_box(*wire.header);
        }
        Record::Malformed => {}
    }
});
