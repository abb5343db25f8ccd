//! The messages of pprof's `profile.proto`, as far as they are in use.
//!
//! Field numbers are those of the public format
//! (<https://github.com/google/pprof/blob/main/proto/profile.proto>). Strings are indices into the
//! profile's table, whose first entry is empty; ids start at 1, and 0 means none. Fields that are
//! not listed are skipped when reading.

/// A whole profile.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Profile {
    /// What each value of a sample means.
    #[prost(message, repeated, tag = "1")]
    pub(crate) sample_type: Vec<ValueType>,
    /// The samples.
    #[prost(message, repeated, tag = "2")]
    pub(crate) sample: Vec<Sample>,
    /// Files; the first is the main binary.
    #[prost(message, repeated, tag = "3")]
    pub(crate) mapping: Vec<Mapping>,
    /// Code addresses.
    #[prost(message, repeated, tag = "4")]
    pub(crate) location: Vec<Location>,
    /// Functions.
    #[prost(message, repeated, tag = "5")]
    pub(crate) function: Vec<Function>,
    /// Every string; the first is empty.
    #[prost(string, repeated, tag = "6")]
    pub(crate) string_table: Vec<String>,
    /// Start, nanoseconds since the Unix epoch.
    #[prost(int64, tag = "9")]
    pub(crate) time_nanos: i64,
    /// Duration, nanoseconds.
    #[prost(int64, tag = "10")]
    pub(crate) duration_nanos: i64,
    /// What lies between two samples.
    #[prost(message, optional, tag = "11")]
    pub(crate) period_type: Option<ValueType>,
    /// How much of it.
    #[prost(int64, tag = "12")]
    pub(crate) period: i64,
    /// Free text.
    #[prost(int64, repeated, tag = "13")]
    pub(crate) comment: Vec<i64>,
}

/// Kind and unit of a value.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct ValueType {
    /// Such as `cpu`.
    #[prost(int64, tag = "1")]
    pub(crate) r#type: i64,
    /// Such as `nanoseconds`.
    #[prost(int64, tag = "2")]
    pub(crate) unit: i64,
}

/// Samples of one stack with one set of labels.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Sample {
    /// Location ids, leaf first.
    #[prost(uint64, repeated, tag = "1")]
    pub(crate) location_id: Vec<u64>,
    /// One for each sample type.
    #[prost(int64, repeated, tag = "2")]
    pub(crate) value: Vec<i64>,
    /// Whose they are.
    #[prost(message, repeated, tag = "3")]
    pub(crate) label: Vec<Label>,
}

/// A key with text or a number.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Label {
    /// Its name.
    #[prost(int64, tag = "1")]
    pub(crate) key: i64,
    /// Its text.
    #[prost(int64, tag = "2")]
    pub(crate) str: i64,
    /// Its number.
    #[prost(int64, tag = "3")]
    pub(crate) num: i64,
}

/// A file mapped to memory.
#[expect(
    clippy::struct_excessive_bools,
    reason = "the fields of the public format"
)]
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Mapping {
    /// Non-zero.
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    /// First address.
    #[prost(uint64, tag = "2")]
    pub(crate) memory_start: u64,
    /// Address behind the last.
    #[prost(uint64, tag = "3")]
    pub(crate) memory_limit: u64,
    /// Offset of the first address in the file.
    #[prost(uint64, tag = "4")]
    pub(crate) file_offset: u64,
    /// Its path.
    #[prost(int64, tag = "5")]
    pub(crate) filename: i64,
    /// Build id in hexadecimal digits.
    #[prost(int64, tag = "6")]
    pub(crate) build_id: i64,
    /// Names are known.
    #[prost(bool, tag = "7")]
    pub(crate) has_functions: bool,
    /// Source files are known.
    #[prost(bool, tag = "8")]
    pub(crate) has_filenames: bool,
    /// Lines are known.
    #[prost(bool, tag = "9")]
    pub(crate) has_line_numbers: bool,
    /// Inlined functions are known.
    #[prost(bool, tag = "10")]
    pub(crate) has_inline_frames: bool,
}

/// A code address.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Location {
    /// Non-zero.
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    /// Its mapping, or 0.
    #[prost(uint64, tag = "2")]
    pub(crate) mapping_id: u64,
    /// The address, or 0.
    #[prost(uint64, tag = "3")]
    pub(crate) address: u64,
    /// Functions at this address, the innermost first.
    #[prost(message, repeated, tag = "4")]
    pub(crate) line: Vec<Line>,
}

/// A function at a location.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Line {
    /// Which.
    #[prost(uint64, tag = "1")]
    pub(crate) function_id: u64,
    /// Line in its file.
    #[prost(int64, tag = "2")]
    pub(crate) line: i64,
}

/// A function.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Function {
    /// Non-zero.
    #[prost(uint64, tag = "1")]
    pub(crate) id: u64,
    /// Demangled.
    #[prost(int64, tag = "2")]
    pub(crate) name: i64,
    /// As the linker saw it.
    #[prost(int64, tag = "3")]
    pub(crate) system_name: i64,
    /// Source file.
    #[prost(int64, tag = "4")]
    pub(crate) filename: i64,
    /// Line in it where the function begins; 0 where not known.
    #[prost(int64, tag = "5")]
    pub(crate) start_line: i64,
}
