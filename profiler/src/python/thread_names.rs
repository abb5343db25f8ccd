//! What Python's `threading` calls a thread: the attribute `_name` of the `Thread` that its outermost function,
//! `_bootstrap`, has as its first argument.

use profiler_common::python::{PythonFrame, Versioned};

use super::code::{Memory, read_text};

/// The outermost function of a thread, and before 3.11, which knows no qualified names.
const BOOTSTRAP: [&str; 2] = ["Thread._bootstrap", "_bootstrap"];
const ATTRIBUTE: &str = "_name";
/// A `Thread` has some fifteen attributes.
const ATTRIBUTES_MAX: u64 = 64;
/// Programs choose names.
const NAME_MAX: usize = 64;

/// Where in an object things are, by version. Computed from the installed headers of 3.8 to 3.15.
#[derive(Clone, Copy)]
enum Attributes {
    /// A dictionary at this offset.
    Dictionary(u64),
    /// Values in front of it, or a dictionary there (3.11).
    InFront,
    /// One of both in one word, the lowest bit says which (3.12).
    Tagged,
    /// Values behind what its type says of its size, unless there is a dictionary (from 3.13 on).
    Behind,
}

/// What a dictionary or an object's values are: the table of its keys, and where its values are, if not in that table.
struct Table {
    keys: u64,
    values: Option<u64>,
}

/// The name of a thread by its outermost function and the address of that one's frame.
pub(super) fn name(
    memory: &impl Memory,
    versioned: &Versioned,
    (outermost, frame): (PythonFrame, u64),
) -> Option<String> {
    let code = memory.code(&versioned.code, &outermost).ok()?;
    if !BOOTSTRAP.contains(&code.name.as_str()) {
        return None;
    }
    let reader = Reader { memory, versioned };
    let locals = match versioned.minor {
        8 | 9 => 360,
        10 => 352,
        _ => 72,
    };
    // From 3.14 on the lowest bits say who owns a local.
    let thread = reader.word(frame.wrapping_add(locals))? & !7;
    let name = reader.attribute(&reader.attributes(thread)?)?;
    let is_plain = !name.is_empty() && name.chars().count() <= NAME_MAX;
    is_plain.then_some(name)
}

struct Reader<'a, M> {
    memory: &'a M,
    versioned: &'a Versioned,
}

impl<M: Memory> Reader<'_, M> {
    fn bytes<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let mut bytes = [0; N];
        self.memory.read(address, &mut bytes).then_some(bytes)
    }

    fn word(&self, address: u64) -> Option<u64> {
        self.bytes(address).map(u64::from_ne_bytes)
    }

    fn text(&self, address: u64) -> Option<String> {
        read_text(self.memory, &self.versioned.code, address).ok()
    }

    /// Where an object keeps its attributes.
    fn attributes(&self, object: u64) -> Option<Table> {
        let kind = match self.versioned.minor {
            ..=10 => Attributes::Dictionary(16),
            11 => Attributes::InFront,
            12 => Attributes::Tagged,
            _ => Attributes::Behind,
        };
        let class = self.word(object.wrapping_add(8))?;
        let before = |words: u64| self.word(object.wrapping_sub(words * 8));
        // `PyHeapTypeObject.ht_cached_keys`
        let of_class = |at: u64, values: u64| {
            Some(Table {
                keys: self.word(class.wrapping_add(at))?,
                values: Some(values),
            })
        };
        match kind {
            Attributes::Dictionary(at) => self.dictionary(self.word(object.wrapping_add(at))?),
            Attributes::InFront => match before(4)? {
                0 => self.dictionary(before(3)?),
                values => of_class(872, values),
            },
            Attributes::Tagged => match before(3)? {
                word if word & 1 == 1 => of_class(880, word.wrapping_add(1)),
                word => self.dictionary(word),
            },
            Attributes::Behind => match before(3)? {
                0 => {
                    let size = self.word(class.wrapping_add(32))?;
                    of_class(880, object.wrapping_add(size).wrapping_add(8))
                }
                word => self.dictionary(word),
            },
        }
    }

    fn dictionary(&self, address: u64) -> Option<Table> {
        let values = self.word(address.wrapping_add(40))?;
        // From 3.13 on they begin with how many there are.
        let head = if self.versioned.minor >= 13 { 8 } else { 0 };
        Some(Table {
            keys: self.word(address.wrapping_add(32))?,
            values: (values != 0).then_some(values.wrapping_add(head)),
        })
    }

    /// The attribute's text.
    fn attribute(&self, table: &Table) -> Option<String> {
        let Entries {
            first,
            count,
            bytes,
            key,
        } = self.entries(table.keys)?;
        for index in 0..count.min(ATTRIBUTES_MAX) {
            let entry = first.wrapping_add(index * bytes);
            let name = self.word(entry.wrapping_add(key))?;
            if name == 0 || self.text(name).as_deref() != Some(ATTRIBUTE) {
                continue;
            }
            let value = match table.values {
                Some(values) => values.wrapping_add(index * 8),
                None => entry.wrapping_add(key + 8),
            };
            return self.text(self.word(value)?);
        }
        None
    }

    /// The entries of a table of keys.
    fn entries(&self, keys: u64) -> Option<Entries> {
        let at = |offset: u64| keys.wrapping_add(offset);
        if self.versioned.minor <= 10 {
            let size = self.word(at(8))?;
            let width = match size {
                ..=0xff => 1,
                0x100..=0xffff => 2,
                _ => return None,
            };
            return Some(Entries {
                first: at(40 + size * width),
                count: self.word(at(32))?,
                bytes: 24,
                key: 8,
            });
        }
        let [_, index_bits, kind] = self.bytes(at(8))?;
        let (bytes, key) = if kind == 0 { (24, 8) } else { (16, 0) };
        Some(Entries {
            first: at(32 + 1_u64.checked_shl(u32::from(index_bits))?),
            count: self.word(at(24))?,
            bytes,
            key,
        })
    }
}

/// Entries of a table of keys: where the first one is, how many there are, the length of one, where in it its key is.
struct Entries {
    first: u64,
    count: u64,
    bytes: u64,
    key: u64,
}
