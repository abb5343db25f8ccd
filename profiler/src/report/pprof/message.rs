//! A pprof message, read in place: its tables as pieces of the bytes, its samples one after the other.
//!
//! An empty message takes two bytes and would be a whole value, so that a small file could fill the memory: nothing
//! is decoded before it is used, and what must be kept of every entry is little and counted.

use prost::encoding::{WireType, decode_key, decode_varint};
use rustc_hash::FxHashMap;

use super::schema;
use crate::report::{ReadError, TEXT_MAX, shorter};

/// Most entries of a table: strings, functions, locations.
const ENTRIES_MAX: usize = 1 << 22;
/// Most files, each of which is kept decoded.
const MAPPINGS_MAX: usize = 1 << 18;
/// Most comments, and most kinds of values.
const WORDS_MAX: usize = 1 << 16;
/// Most bytes of one sample or location; a stack of a thousand frames takes three thousand.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// A message.
#[derive(Default)]
pub(super) struct Message<'a> {
    bytes: &'a [u8],
    pub(super) sample_types: Vec<schema::ValueType>,
    pub(super) mappings: FxHashMap<u64, schema::Mapping>,
    /// The first.
    pub(super) main_mapping: Option<schema::Mapping>,
    locations: FxHashMap<u64, &'a [u8]>,
    functions: FxHashMap<u64, &'a [u8]>,
    strings: Vec<&'a str>,
    pub(super) comments: Vec<i64>,
    pub(super) time_nanos: i64,
    pub(super) duration_nanos: i64,
    pub(super) period_type: Option<schema::ValueType>,
    pub(super) period: i64,
    /// Strings that were cut.
    pub(super) cut: u64,
}

impl<'a> Message<'a> {
    /// The tables of a message; an error of what is none, or has too many entries.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, ReadError> {
        let mut message = Self {
            bytes,
            ..Self::default()
        };
        for field in Fields(bytes) {
            message.take(field.ok_or(ReadError::NotARecording)?)?;
        }
        let is_profile = message
            .strings
            .first()
            .is_some_and(|first| first.is_empty());
        if is_profile && !message.sample_types.is_empty() {
            Ok(message)
        } else {
            Err(ReadError::NotARecording)
        }
    }

    /// The samples, `None` of one that cannot be read.
    pub(super) fn samples(&self) -> impl Iterator<Item = Option<schema::Sample>> + use<'a> {
        Fields(self.bytes)
            .flatten()
            .filter_map(|field| match field {
                (2, Value::Bytes(bytes)) => Some(decode(bytes)),
                _ => None,
            })
    }

    pub(super) fn location(&self, id: u64) -> Option<schema::Location> {
        decode(self.locations.get(&id)?)
    }

    pub(super) fn function(&self, id: u64) -> Option<schema::Function> {
        decode(self.functions.get(&id)?)
    }

    /// The string at an index, empty where there is none.
    pub(super) fn text(&self, index: i64) -> &'a str {
        let index = usize::try_from(index).ok();
        index
            .and_then(|index| self.strings.get(index))
            .copied()
            .unwrap_or_default()
    }

    fn take(&mut self, field: (u32, Value<'a>)) -> Result<(), ReadError> {
        match field {
            (1, Value::Bytes(bytes)) => {
                let types = &mut self.sample_types;
                types.push(decode(bytes).ok_or(ReadError::NotARecording)?);
                check("kinds of values", types.len(), WORDS_MAX)
            }
            (3, Value::Bytes(bytes)) => {
                let mapping: schema::Mapping = decode(bytes).ok_or(ReadError::NotARecording)?;
                self.main_mapping.get_or_insert(mapping);
                self.mappings.insert(mapping.id, mapping);
                check("files", self.mappings.len(), MAPPINGS_MAX)
            }
            (4, Value::Bytes(bytes)) => {
                let id = id(bytes).ok_or(ReadError::NotARecording)?;
                self.locations.insert(id, bytes);
                check("locations", self.locations.len(), ENTRIES_MAX)
            }
            (5, Value::Bytes(bytes)) => {
                let id = id(bytes).ok_or(ReadError::NotARecording)?;
                self.functions.insert(id, bytes);
                check("functions", self.functions.len(), ENTRIES_MAX)
            }
            (6, Value::Bytes(bytes)) => {
                let text = std::str::from_utf8(bytes).map_err(|_| ReadError::NotARecording)?;
                self.cut += u64::from(text.len() > TEXT_MAX);
                self.strings.push(shorter(text));
                check("strings", self.strings.len(), ENTRIES_MAX)
            }
            (11, Value::Bytes(bytes)) => {
                self.period_type = decode(bytes);
                Ok(())
            }
            (13, Value::Number(value)) => self.comment(value),
            (13, Value::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    let value = decode_varint(&mut packed).map_err(|_| ReadError::NotARecording)?;
                    self.comment(value)?;
                }
                Ok(())
            }
            (tag, Value::Number(value)) => {
                self.number(tag, value.cast_signed());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn number(&mut self, tag: u32, value: i64) {
        match tag {
            9 => self.time_nanos = value,
            10 => self.duration_nanos = value,
            12 => self.period = value,
            _ => {}
        }
    }

    fn comment(&mut self, value: u64) -> Result<(), ReadError> {
        self.comments.push(value.cast_signed());
        check("comments", self.comments.len(), WORDS_MAX)
    }
}

/// An error of a table with more entries than it may have.
fn check(what: &'static str, count: usize, limit: usize) -> Result<(), ReadError> {
    if count > limit {
        return Err(ReadError::TooMany { what, limit });
    }
    Ok(())
}

fn decode<M: prost::Message + Default>(bytes: &[u8]) -> Option<M> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return None;
    }
    M::decode(bytes).ok()
}

/// The id of a location or function, without the rest.
fn id(bytes: &[u8]) -> Option<u64> {
    let mut id = 0;
    for field in Fields(bytes) {
        if let (1, Value::Number(value)) = field? {
            id = value;
        }
    }
    Some(id)
}

/// The fields of a message, by number; `None` and no more where the bytes are damaged.
struct Fields<'a>(&'a [u8]);

#[derive(Clone, Copy)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a kind that no field of ours has.
    Other,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u32, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u32, Value<'a>)> {
        let (tag, kind) = decode_key(&mut self.0).ok()?;
        let value = match kind {
            WireType::Varint => Value::Number(decode_varint(&mut self.0).ok()?),
            WireType::LengthDelimited => {
                let length = decode_varint(&mut self.0).ok()?;
                Value::Bytes(self.split(usize::try_from(length).ok()?)?)
            }
            WireType::SixtyFourBit => self.split(8).map(|_| Value::Other)?,
            WireType::ThirtyTwoBit => self.split(4).map(|_| Value::Other)?,
            WireType::StartGroup | WireType::EndGroup => return None,
        };
        Some((tag, value))
    }

    fn split(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}
