//! `CPython`: from a thread to its stack of Python frames.
//!
//! The kernel side finds the thread's state, walks the list of its frames and sends of each the
//! address of its code object, the place in its bytecode and a checksum of the code object's head:
//! [`PythonFrame`]. Names and lines are user space's business. Where the members of the
//! interpreter's structures lie is a [`Layout`], which differs by version.
//!
//! One activation of the interpreter's evaluator (a native frame) runs one Python frame or several;
//! [`PythonFrame::is_first`] says where one ends and the next begins, so that both stacks can be
//! interleaved.

mod debug_offsets;
mod layout;

pub use debug_offsets::{COOKIE, DEBUG_OFFSET_WORDS, debug_offsets};
pub use layout::{Activation, CodeLayout, Layout, LineTable, NONE, Refusal, Version, Versioned};

/// An interpreter in a process, as it lies in the kernel side's map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Interpreter {
    /// Address of `_PyRuntime`.
    pub runtime: u64,
    /// Its size in bytes. The interpreter's lock lies within, and nothing else that threads wait for long.
    pub runtime_bytes: u64,
    /// Where the members of its structures lie.
    pub layout: Layout,
}

/// One Python frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PythonFrame {
    /// Address of its code object; 0 for an activation of the evaluator that has no frame at the time.
    pub code: u64,
    /// Whether it is the innermost frame of an activation of the evaluator.
    pub is_first: bool,
    /// Where in its bytecode, in bytes; negative before the first instruction.
    pub offset: i32,
    /// [`checksum`] of the code object's head.
    pub checksum: u32,
}

impl PythonFrame {
    /// Marks [`is_first`](Self::is_first) in the first word: user addresses leave the bit free.
    const FIRST: u64 = 1 << 63;

    /// The frame as two words of a record.
    #[must_use]
    pub const fn words(self) -> [u64; 2] {
        let first = if self.is_first { Self::FIRST } else { 0 };
        let offset = self.offset.cast_unsigned() as u64;
        [self.code | first, (self.checksum as u64) << 32 | offset]
    }

    /// The frame of two words.
    #[must_use]
    pub const fn from_words([code, rest]: [u64; 2]) -> Self {
        Self {
            code: code & !Self::FIRST,
            is_first: code & Self::FIRST != 0,
            offset: ((rest & 0xffff_ffff) as u32).cast_signed(),
            checksum: (rest >> 32) as u32,
        }
    }
}

/// Words that are read of a frame, of which the last may be garbage: a power of two, so that an index
/// is made safe by a mask.
pub const FRAME_WORDS: usize = 16;

/// Words of a code object's head from its count of arguments on. In every version: counts of
/// arguments and locals, the stack's size, the first line or the flags; nothing that changes in a code
/// object's life.
pub const HEAD_WORDS: usize = 7;

/// A step up the list of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Address of the code object.
    pub code: u64,
    /// Where in its bytecode, in bytes.
    pub offset: i32,
    /// Address of the caller's frame, 0 for the outermost.
    pub back: u64,
    /// It is no Python frame but stands for the evaluator's entry.
    pub is_shim: bool,
    /// The evaluator's activation ends with this frame.
    pub is_last: bool,
}

/// Reads a frame out of its words.
#[inline(always)]
#[expect(clippy::inline_always, reason = "compiled into a bpf_loop callback")]
pub fn step(layout: &Layout, words: &[u64; FRAME_WORDS]) -> Step {
    let word = |offset: u32| words[(offset / 8) as usize & (FRAME_WORDS - 1)];
    let byte = |offset: u32| (word(offset) >> (offset % 8 * 8)) & 0xff;
    // From 3.14 on the lowest bits are a tag.
    let code = word(layout.frame_code) & !3;
    let instruction = word(layout.frame_instruction);
    let kind = layout.activation;
    let offset = if kind == Activation::Frame as u32 {
        low_word(instruction)
            .wrapping_mul(layout.instruction_bytes)
            .cast_signed()
    } else {
        let begin = code.wrapping_add(u64::from(layout.code_bytes));
        low_word(instruction.wrapping_sub(begin)).cast_signed()
    };
    let mark = byte(layout.frame_mark);
    let is_shim = kind == Activation::Shim as u32 && mark >= u64::from(OWNED_BY_INTERPRETER);
    let is_last = kind == Activation::Frame as u32
        || (kind == Activation::Entry as u32 && mark != 0)
        || is_shim;
    Step {
        code,
        offset,
        back: word(layout.frame_back),
        is_shim,
        is_last,
    }
}

const fn low_word(word: u64) -> u32 {
    (word & 0xffff_ffff) as u32
}

/// `FRAME_OWNED_BY_CSTACK` of 3.12 and 3.13, `FRAME_OWNED_BY_INTERPRETER` from 3.14 on; what owns a
/// Python frame (a thread, a generator, a frame object) is below.
const OWNED_BY_INTERPRETER: u8 = 3;

/// Tells code objects apart that have had the same address: FNV-1a by words.
#[inline(always)]
#[must_use]
#[expect(clippy::inline_always, reason = "compiled into a bpf_loop callback")]
pub fn checksum(head: &[u32; HEAD_WORDS]) -> u32 {
    let mut hash: u32 = 0x811c_9dc5;
    for word in head {
        hash = (hash ^ word).wrapping_mul(0x0100_0193);
        hash ^= hash >> 15;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::{FRAME_WORDS, Layout, PythonFrame, Step, Version, checksum, step};

    /// Nothing is lost in the packing.
    #[test]
    fn packing_is_reversible() {
        for (is_first, offset) in [(true, -2), (false, 0), (true, i32::MAX)] {
            let frame = PythonFrame {
                code: 0x7fff_1234_5678,
                is_first,
                offset,
                checksum: 0xdead_beef,
            };
            assert_eq!(PythonFrame::from_words(frame.words()), frame);
        }
    }

    fn layout(minor: u8) -> Layout {
        Version { minor }.known().unwrap().layout
    }

    fn frame(bytes: &[(usize, u64)]) -> [u64; FRAME_WORDS] {
        let mut words = [0; FRAME_WORDS];
        for &(offset, value) in bytes {
            words[offset / 8] |= value << (offset % 8 * 8);
        }
        words
    }

    const CODE: u64 = 0x5000;

    /// Every Python frame is an activation of its own up to 3.10, where the instruction is an index:
    /// of bytes up to 3.9, of pairs of bytes in 3.10. What lies behind the index does not count.
    #[test]
    fn up_to_3_10_each_frame_is_an_activation() {
        for (minor, at, expected) in [(8, 104, 10), (9, 104, 10), (10, 96, 20)] {
            let words = frame(&[(24, 0x6000), (32, CODE), (at, 10), (at + 4, 99)]);
            let expected = Step {
                code: CODE,
                offset: expected,
                back: 0x6000,
                is_shim: false,
                is_last: true,
            };
            assert_eq!(step(&layout(minor), &words), expected, "3.{minor}");
        }
    }

    /// In 3.11 the outermost frame of an activation is marked.
    #[test]
    fn in_3_11_an_entry_frame_ends_an_activation() {
        for is_entry in [false, true] {
            let instruction = CODE + 184 + 6;
            let words = frame(&[
                (32, CODE),
                (48, 0x6000),
                (56, instruction),
                (68, u64::from(is_entry)),
                (69, 1),
            ]);
            let step = step(&layout(11), &words);
            assert_eq!(
                (step.code, step.offset, step.back),
                (CODE, 6, 0x6000),
                "{is_entry}"
            );
            assert_eq!((step.is_last, step.is_shim), (is_entry, false));
        }
    }

    /// From 3.12 on a frame that is none stands between activations; a frame that has not begun lies
    /// before its first instruction.
    #[test]
    fn from_3_12_on_a_shim_ends_an_activation() {
        for (owner, is_shim) in [(0, false), (1, false), (2, false), (3, true), (4, true)] {
            let instruction = CODE + 192 - 2;
            let words = frame(&[
                (0, CODE | 1),
                (8, 0x6000),
                (56, instruction),
                (70, owner),
                (71, 7),
            ]);
            let step = step(&layout(12), &words);
            assert_eq!((step.code, step.offset), (CODE, -2));
            assert_eq!((step.is_last, step.is_shim), (is_shim, is_shim), "{owner}");
        }
    }

    /// Any word of the head changes the sum.
    #[test]
    fn checksums_differ() {
        let head = [1, 2, 3, 4, 5, 6, 7];
        for word in 0..head.len() {
            let mut other = head;
            other[word] += 1;
            assert_ne!(checksum(&head), checksum(&other), "{word}");
        }
    }
}
