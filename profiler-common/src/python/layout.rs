//! Where the members of the interpreter's structures lie, by version. Computed from the installed
//! headers of 3.8 to 3.13 (LP64); within a minor version they do not change from its release on.

/// An offset of a member that the version does not have.
pub const NONE: u32 = u32::MAX;

/// What belongs to one activation of the evaluator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Activation {
    /// One frame (up to 3.10).
    Frame = 0,
    /// Frames up to one that is marked as the entry (3.11).
    Entry = 1,
    /// Frames up to one that stands for the entry and is none itself (from 3.12 on).
    Shim = 2,
}

/// What the kernel side needs. Offsets in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Layout {
    /// [`Activation`]
    pub activation: u32,
    /// `_PyRuntimeState.interpreters.head`
    pub interpreters: u32,
    /// `_PyRuntimeState` … `autoTSSkey`, or [`NONE`]
    pub thread_key: u32,
    /// `_PyRuntimeState.gilstate.tstate_current`, or [`NONE`]
    pub current_thread: u32,
    /// `PyInterpreterState.next`
    pub interpreter_next: u32,
    /// `PyInterpreterState` … head of the list of thread states
    pub interpreter_threads: u32,
    /// `PyInterpreterState.ceval.gil`, or [`NONE`] where there is one for all interpreters
    pub interpreter_gil: u32,
    /// `_gil_runtime_state.last_holder`
    pub gil_holder: u32,
    /// `_gil_runtime_state.locked`
    pub gil_locked: u32,
    /// `PyThreadState.next`
    pub thread_next: u32,
    /// `PyThreadState.interp`
    pub thread_interpreter: u32,
    /// `PyThreadState.thread_id`
    pub thread_id: u32,
    /// `PyThreadState` … the innermost frame, or what points to it
    pub thread_frame: u32,
    /// `_PyCFrame.current_frame`, or [`NONE`] where `thread_frame` is the frame itself
    pub c_frame: u32,
    /// Frame: code object
    pub frame_code: u32,
    /// Frame: the caller's
    pub frame_back: u32,
    /// Frame: index of the instruction, or its address
    pub frame_instruction: u32,
    /// Frame: a byte that says whether an activation ends; see [`Activation`]
    pub frame_mark: u32,
    /// Bytes of a frame that hold all of these
    pub frame_bytes: u32,
    /// Bytes that one step of the instruction's index is
    pub instruction_bytes: u32,
    /// `PyCodeObject.co_argcount`: the head begins here
    pub code_head: u32,
    /// `PyCodeObject.co_code_adaptive`: the bytecode begins here, where the instruction is an address
    pub code_bytes: u32,
}

/// How a code object tells lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineTable {
    /// `co_lnotab` (up to 3.9)
    Lnotab,
    /// `co_linetable` of 3.10 (PEP 626)
    Ranges,
    /// `co_linetable` from 3.11 on (`Objects/locations.md`)
    Locations,
}

/// What user space needs to read a code object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeLayout {
    /// `co_argcount`: the head begins here.
    pub head: u32,
    /// `co_firstlineno`
    pub first_line: u32,
    /// `co_filename`
    pub filename: u32,
    /// `co_qualname`, before 3.11 `co_name`
    pub name: u32,
    /// `co_lnotab`, `co_linetable`
    pub lines: u32,
    /// What that is.
    pub line_table: LineTable,
    /// `PyASCIIObject.length`
    pub text_length: u32,
    /// `PyASCIIObject.state`
    pub text_state: u32,
    /// Where in `state` the kind begins; `compact` and `ascii` follow it.
    pub text_kind_bit: u32,
    /// Where an ASCII string's characters begin.
    pub text_ascii: u32,
    /// Where another compact string's characters begin.
    pub text_wide: u32,
    /// `PyBytesObject.ob_size`
    pub bytes_length: u32,
    /// `PyBytesObject.ob_sval`
    pub bytes_data: u32,
}

/// Everything of one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// 11 of 3.11.
    pub minor: u8,
    /// For the kernel side.
    pub layout: Layout,
    /// For user space.
    pub code: CodeLayout,
}

/// Why an interpreter's frames are not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// Before 3.8, after 3.15, or a version that could not be found out.
    Version,
    /// Built `--with-pydebug`: every object begins with more than usual.
    Debug,
    /// Its own table of offsets contradicts itself.
    Offsets,
    /// Its `_PyRuntime` could not be read.
    Unreadable,
}

impl Refusal {
    /// What it means, in words for a report.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Version => "Python of a version that is not known, native frames only",
            Self::Debug => "Python built --with-pydebug, native frames only",
            Self::Offsets => "Python with unusable debug offsets, native frames only",
            Self::Unreadable => "Python whose runtime could not be read, native frames only",
        }
    }
}

/// A release of `CPython` 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 11 of 3.11.
    pub minor: u8,
}

impl Version {
    /// Out of `PY_VERSION_HEX`.
    #[must_use]
    pub const fn from_hex(hex: u32) -> Option<Self> {
        let [major, minor, ..] = hex.to_be_bytes();
        if major == 3 {
            Some(Self { minor })
        } else {
            None
        }
    }

    /// Offsets of the versions that do not tell them themselves, as those from 3.13 on do.
    #[must_use]
    pub const fn known(self) -> Option<Versioned> {
        let versioned = match self.minor {
            8 => V3_8,
            9 => V3_9,
            10 => V3_10,
            11 => V3_11,
            12 => V3_12,
            _ => return None,
        };
        Some(versioned)
    }
}

const V3_8: Versioned = Versioned {
    minor: 8,
    layout: Layout {
        activation: Activation::Frame as u32,
        interpreters: 32,
        thread_key: 1392,
        current_thread: 1368,
        interpreter_next: 0,
        interpreter_threads: 8,
        interpreter_gil: NONE,
        gil_holder: NONE,
        gil_locked: NONE,
        thread_next: 8,
        thread_interpreter: 16,
        thread_id: 176,
        thread_frame: 24,
        c_frame: NONE,
        frame_code: 32,
        frame_back: 24,
        frame_instruction: 104,
        frame_mark: 0,
        frame_bytes: 120,
        instruction_bytes: 1,
        code_head: 16,
        code_bytes: 0,
    },
    code: CodeLayout {
        head: 16,
        first_line: 40,
        filename: 104,
        name: 112,
        lines: 120,
        line_table: LineTable::Lnotab,
        text_length: 16,
        text_state: 32,
        text_kind_bit: 2,
        text_ascii: 48,
        text_wide: 72,
        bytes_length: 16,
        bytes_data: 32,
    },
};

const V3_9: Versioned = Versioned {
    minor: 9,
    layout: Layout {
        thread_key: 584,
        current_thread: 568,
        ..V3_8.layout
    },
    ..V3_8
};

const V3_10: Versioned = Versioned {
    minor: 10,
    layout: Layout {
        frame_instruction: 96,
        instruction_bytes: 2,
        ..V3_9.layout
    },
    code: CodeLayout {
        line_table: LineTable::Ranges,
        ..V3_9.code
    },
};

const V3_11: Versioned = Versioned {
    minor: 11,
    layout: Layout {
        activation: Activation::Entry as u32,
        interpreters: 40,
        thread_key: 592,
        current_thread: 576,
        interpreter_threads: 16,
        thread_id: 152,
        thread_frame: 56,
        c_frame: 8,
        frame_code: 32,
        frame_back: 48,
        frame_instruction: 56,
        frame_mark: 68,
        frame_bytes: 80,
        code_head: 56,
        code_bytes: 184,
        ..V3_10.layout
    },
    code: CodeLayout {
        head: 56,
        first_line: 72,
        filename: 112,
        name: 128,
        lines: 136,
        line_table: LineTable::Locations,
        ..V3_10.code
    },
};

const V3_12: Versioned = Versioned {
    minor: 12,
    layout: Layout {
        activation: Activation::Shim as u32,
        thread_key: 1544,
        current_thread: NONE,
        interpreter_threads: 72,
        interpreter_gil: 384,
        gil_holder: 8,
        gil_locked: 16,
        thread_id: 136,
        c_frame: 0,
        frame_code: 0,
        frame_back: 8,
        frame_mark: 70,
        code_head: 52,
        code_bytes: 192,
        ..V3_11.layout
    },
    code: CodeLayout {
        head: 52,
        first_line: 68,
        text_ascii: 40,
        text_wide: 56,
        ..V3_11.code
    },
};
