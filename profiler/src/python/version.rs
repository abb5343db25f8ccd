//! Which version an interpreter is, and with it where its structures' members lie.

use profiler_common::python::{
    COOKIE, CodeLayout, DEBUG_OFFSET_WORDS, Interpreter, Refusal, Version, Versioned, debug_offsets,
};

use super::{code::Memory, image::Image, memory::ProcessMemory};

/// Proves how strings are read on the name of a function that is running: it has changed between releases of a minor
/// version, and no table says it.
pub(super) fn prove(
    memory: &ProcessMemory,
    image: &Image,
    runtime: u64,
    versioned: Versioned,
) -> Versioned {
    /// Threads and frames that are tried: any may change while it is read.
    const TRIED: usize = 8;
    /// Where the kind of a string has begun so far.
    const KIND_BITS: [u32; 3] = [2, 8, 16];
    let interpreter = Interpreter {
        runtime,
        runtime_bytes: image.runtime.1,
        layout: versioned.layout,
    };
    let states = memory.states(&interpreter).into_iter().take(TRIED);
    let stacks = states.filter_map(|(tid, state)| memory.walk(&interpreter, tid, state));
    let frames = stacks.flat_map(|walked| walked.frames.into_iter().take(TRIED));
    let known = versioned.code.text_kind_bit;
    for frame in frames.filter(|frame| frame.code != 0) {
        for text_kind_bit in std::iter::once(known).chain(KIND_BITS) {
            let code = CodeLayout {
                text_kind_bit,
                ..versioned.code
            };
            let read = memory.code(&code, &frame);
            if read.is_ok_and(|read| is_function_name(&read.name) && !read.file.is_empty()) {
                return Versioned { code, ..versioned };
            }
        }
    }
    versioned
}

/// `Class.method.<locals>.<lambda>`
fn is_function_name(name: &str) -> bool {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '<' | '>' | ' ');
    !name.is_empty() && name.chars().all(fits)
}

/// Finds out the version of an interpreter, and with it where its structures' members lie.
pub(super) fn versioned(
    memory: &impl Memory,
    image: &Image,
    bias: u64,
) -> Result<Versioned, Refusal> {
    if image.is_debug {
        return Err(Refusal::Debug);
    }
    let runtime = bias.wrapping_add(image.runtime.0);
    let mut bytes = [0; DEBUG_OFFSET_WORDS * 8];
    if !memory.read(runtime, &mut bytes[..8]) {
        return Err(Refusal::Unreadable);
    }
    if bytes[..8] == COOKIE.to_ne_bytes() && !memory.read(runtime, &mut bytes) {
        return Err(Refusal::Unreadable);
    }
    let mut words = [0; DEBUG_OFFSET_WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    if let Some(read) = debug_offsets(&words) {
        return read;
    }
    let constant = || {
        let mut hex = [0; 4];
        let is_there = memory.read(bias.wrapping_add(image.version_at?), &mut hex);
        is_there.then(|| Version::from_hex(u32::from_ne_bytes(hex)))?
    };
    constant()
        .or(image.version)
        .and_then(Version::known)
        .ok_or(Refusal::Version)
}
