//! The table of offsets with which `_PyRuntime` begins from 3.13 on (`_Py_DebugOffsets` of
//! `pycore_runtime.h`, from 3.14 on `pycore_debug_offsets.h`): words in an order that each minor
//! version fixes, in groups that begin with the size of the structure.

use super::layout::{Activation, CodeLayout, Layout, LineTable, NONE, Refusal, Version, Versioned};

/// What the table begins with.
pub const COOKIE: u64 = u64::from_le_bytes(*b"xdebugpy");

/// Words that hold all that is read of it, in every version.
pub const DEBUG_OFFSET_WORDS: usize = 96;

/// Positions in the table, in words.
struct Positions {
    interpreter: usize,
    thread: usize,
    frame: usize,
    code: usize,
    bytes: usize,
    unicode: usize,
    /// Within its group.
    thread_id: usize,
    /// Within its group: the pointer to the GIL, and the GIL's own state.
    gil: usize,
    /// Within its group.
    mark: usize,
    /// `autoTSSkey`, which the table does not tell.
    thread_key: u32,
}

const V3_13: Positions = Positions {
    interpreter: 6,
    thread: 19,
    frame: 28,
    code: 34,
    bytes: 64,
    unicode: 67,
    thread_id: 5,
    gil: 8,
    mark: 5,
    thread_key: 2160,
};

const V3_14: Positions = Positions {
    interpreter: 6,
    thread: 22,
    frame: 31,
    code: 39,
    bytes: 74,
    unicode: 77,
    thread_id: 5,
    gil: 9,
    mark: 5,
    thread_key: NONE,
};

const V3_15: Positions = Positions {
    frame: 39,
    code: 47,
    bytes: 86,
    unicode: 89,
    thread_id: 8,
    ..V3_14
};

/// Reads the table; `None` where there is none.
///
/// # Errors
/// Why it cannot be used.
#[must_use]
pub fn debug_offsets(words: &[u64; DEBUG_OFFSET_WORDS]) -> Option<Result<Versioned, Refusal>> {
    let [cookie, version, free_threaded, ..] = *words;
    (cookie == COOKIE).then(|| read(words, version, free_threaded != 0))
}

fn read(
    words: &[u64; DEBUG_OFFSET_WORDS],
    version: u64,
    free_threaded: bool,
) -> Result<Versioned, Refusal> {
    let version = u32::try_from(version).map_err(|_| Refusal::Version)?;
    let minor = Version::from_hex(version).map(|version| version.minor);
    let minor = minor.ok_or(Refusal::Version)?;
    let at = match minor {
        13 => V3_13,
        14 => V3_14,
        15 => V3_15,
        _ => return Err(Refusal::Version),
    };
    let group = |first: usize| Group {
        words: words.get(first..).unwrap_or_default(),
    };
    let (interpreter, thread) = (group(at.interpreter), group(at.thread));
    let (frame, code) = (group(at.frame), group(at.code));
    let (bytes, unicode) = (group(at.bytes), group(at.unicode));
    let gil = interpreter.member(at.gil + 1)?;
    let layout = Layout {
        activation: Activation::Shim as u32,
        interpreters: group(3).member(2)?,
        thread_key: if free_threaded { NONE } else { at.thread_key },
        current_thread: NONE,
        interpreter_next: interpreter.member(2)?,
        interpreter_threads: interpreter.member(3)?,
        interpreter_gil: interpreter.member(at.gil)?,
        gil_holder: within(interpreter.member(at.gil + 4)?, gil)?,
        gil_locked: within(interpreter.member(at.gil + 3)?, gil)?,
        thread_next: thread.member(2)?,
        thread_interpreter: thread.member(3)?,
        thread_id: thread.member(at.thread_id)?,
        thread_frame: thread.member(4)?,
        c_frame: NONE,
        frame_back: frame.member(1)?,
        frame_code: frame.member(2)?,
        frame_instruction: frame.member(3)?,
        frame_mark: frame.member(at.mark)?,
        frame_bytes: FRAME_BYTES,
        instruction_bytes: 1,
        code_head: code.member(6)?,
        code_bytes: code.member(9)?,
    };
    let in_frame = [
        layout.frame_back,
        layout.frame_code,
        layout.frame_instruction,
    ];
    let readable = in_frame
        .iter()
        .all(|offset| offset % 8 == 0 && offset + 8 <= FRAME_BYTES)
        && layout.frame_mark < FRAME_BYTES;
    if !readable {
        return Err(Refusal::Offsets);
    }
    let groups = [&code, &unicode, &bytes];
    let code = code_layout(groups, free_threaded)?;
    Ok(Versioned {
        minor,
        layout,
        code,
    })
}

/// What user space needs, out of the groups of code objects, strings and bytes.
fn code_layout(
    [code, unicode, bytes]: [&Group<'_>; 3],
    free_threaded: bool,
) -> Result<CodeLayout, Refusal> {
    let ascii = unicode.member(3)?;
    Ok(CodeLayout {
        head: code.member(6)?,
        first_line: code.member(5)?,
        filename: code.member(1)?,
        name: code.member(3)?,
        lines: code.member(4)?,
        line_table: LineTable::Locations,
        text_length: unicode.member(2)?,
        text_state: unicode.member(1)?,
        // `interned` takes two bits, and a byte where there is no GIL. User space tries both.
        text_kind_bit: if free_threaded { 8 } else { 2 },
        text_ascii: ascii,
        // `utf8_length` and `utf8` come between.
        text_wide: ascii + 16,
        bytes_length: bytes.member(1)?,
        bytes_data: bytes.member(2)?,
    })
}

/// See [`Layout::frame_bytes`].
const FRAME_BYTES: u32 = 80;

/// Largest structure that is believed: an interpreter's state takes some 300 KB.
const SIZE_MAX: u64 = 1 << 24;

/// A structure's size and members.
struct Group<'a> {
    words: &'a [u64],
}

impl Group<'_> {
    /// The offset of a member, which lies within the structure.
    fn member(&self, index: usize) -> Result<u32, Refusal> {
        let size = self.words.first().copied().unwrap_or(0);
        let offset = self.words.get(index).copied().unwrap_or(u64::MAX);
        if size == 0 || size > SIZE_MAX || offset > size {
            return Err(Refusal::Offsets);
        }
        u32::try_from(offset).map_err(|_| Refusal::Offsets)
    }
}

fn within(offset: u32, base: u32) -> Result<u32, Refusal> {
    offset.checked_sub(base).ok_or(Refusal::Offsets)
}

#[cfg(test)]
mod tests {
    use super::{COOKIE, DEBUG_OFFSET_WORDS, NONE, Refusal, debug_offsets};

    /// The first words of 3.13.0's own table.
    const V3_13: [u64; 71] = include!("debug_offsets_3_13.in");

    fn table(first: &[u64]) -> [u64; DEBUG_OFFSET_WORDS] {
        let mut words = [0; DEBUG_OFFSET_WORDS];
        words[..first.len()].copy_from_slice(first);
        words
    }

    /// The table of 3.13 gives what its headers say.
    #[test]
    fn table_of_3_13() {
        let read = debug_offsets(&table(&V3_13)).unwrap().unwrap();
        let (layout, code) = (read.layout, read.code);
        assert_eq!(
            (
                layout.interpreters,
                layout.interpreter_next,
                layout.interpreter_threads
            ),
            (632, 7264, 7344)
        );
        assert_eq!(
            (layout.interpreter_gil, layout.gil_holder, layout.gil_locked),
            (16, 8, 16)
        );
        assert_eq!(
            (layout.thread_next, layout.thread_id, layout.thread_frame),
            (8, 152, 72)
        );
        assert_eq!(
            (layout.frame_code, layout.frame_back, layout.frame_mark),
            (0, 8, 70)
        );
        assert_eq!(
            (layout.code_head, layout.code_bytes, layout.thread_key),
            (52, 200, 2160)
        );
        assert_eq!(
            (code.first_line, code.filename, code.name, code.lines),
            (68, 112, 128, 136)
        );
        assert_eq!(
            (code.text_ascii, code.text_wide, code.bytes_data),
            (40, 56, 32)
        );
    }

    /// No table, an unknown version and nonsense are told apart.
    #[test]
    fn what_is_no_table() {
        assert_eq!(debug_offsets(&table(&[1, 2, 3])), None);
        let newer = table(&[COOKIE, 0x0310_00f0]);
        assert_eq!(debug_offsets(&newer), Some(Err(Refusal::Version)));
        let empty = table(&[COOKIE, 0x030d_00f0]);
        assert_eq!(debug_offsets(&empty), Some(Err(Refusal::Offsets)));
        let mut mad = V3_13;
        mad[30] = 4096;
        assert_eq!(debug_offsets(&table(&mad)), Some(Err(Refusal::Offsets)));
        let mut free_threaded = V3_13;
        free_threaded[2] = 1;
        let read = debug_offsets(&table(&free_threaded)).unwrap().unwrap();
        assert_eq!((read.layout.thread_key, read.code.text_kind_bit), (NONE, 8));
    }
}
