//! Reads code objects out of a process's memory, which changes under our eyes and may be hostile.

use profiler_common::python::{CodeLayout, HEAD_WORDS, PythonFrame, checksum};

use crate::printable::shortened;

/// Longest name or path that is read, in characters.
const TEXT_MAX: u64 = 4096;
/// Longest name that is kept, in characters: a stack has hundreds, and a table of stacks thousands of those.
const NAME_MAX: usize = 256;
/// Longest path that is kept.
const PATH_MAX: usize = 1024;
/// Longest line table that is read, in bytes: lines beyond it are not known.
const TABLE_MAX: u64 = 1 << 16;

/// Memory of a process.
pub trait Memory {
    /// Fills the buffer from an address on; says whether all of it could be read.
    fn read(&self, address: u64, buffer: &mut [u8]) -> bool;

    /// Reads the code object of a frame.
    fn code(&self, layout: &CodeLayout, frame: &PythonFrame) -> Result<Code, Failure> {
        read(self, layout, frame)
    }
}

/// What a code object says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Code {
    /// The function's qualified name; before 3.11 its name.
    pub name: String,
    /// Path of the source as the compiler was told it.
    pub file: String,
    /// Where the function begins.
    pub first_line: u32,
    /// Its line table.
    pub lines: Box<[u8]>,
}

/// Why a code object was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// The memory is gone: the process ended or gave it back.
    Gone,
    /// Another object has taken its place.
    Replaced,
    /// Its contents make no sense.
    Malformed,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Gone, Self::Replaced, Self::Malformed];

    /// What it means, in words for a report.
    pub fn text(self) -> &'static str {
        match self {
            Self::Gone => "Python frame without a name, code object gone before it was read",
            Self::Replaced => {
                "Python frame without a name, code object replaced before it was read"
            }
            Self::Malformed => "Python frame without a name, code object malformed",
        }
    }
}

/// Reads the code object of a frame and checks, before and after, that it is the one.
pub fn read(
    memory: &(impl Memory + ?Sized),
    layout: &CodeLayout,
    frame: &PythonFrame,
) -> Result<Code, Failure> {
    let reader = Reader { memory, layout };
    let at = |offset: u32| frame.code.wrapping_add(u64::from(offset));
    reader.check(frame)?;
    let pointer = |offset: u32| reader.word(at(offset));
    let code = Code {
        name: shortened(&reader.text(pointer(layout.name)?)?, NAME_MAX).into_owned(),
        file: shortened(&reader.text(pointer(layout.filename)?)?, PATH_MAX).into_owned(),
        first_line: u32::from_ne_bytes(reader.bytes(at(layout.first_line))?),
        lines: reader.table(pointer(layout.lines)?)?,
    };
    reader.check(frame)?;
    Ok(code)
}

/// Reads a `str`.
pub(super) fn read_text(
    memory: &(impl Memory + ?Sized),
    layout: &CodeLayout,
    address: u64,
) -> Result<String, Failure> {
    Reader { memory, layout }.text(address)
}

struct Reader<'a, M: ?Sized> {
    memory: &'a M,
    layout: &'a CodeLayout,
}

impl<M: Memory + ?Sized> Reader<'_, M> {
    fn check(&self, frame: &PythonFrame) -> Result<(), Failure> {
        let head: [u8; HEAD_WORDS * 4] =
            self.bytes(frame.code.wrapping_add(u64::from(self.layout.head)))?;
        let mut words = [0; HEAD_WORDS];
        for (word, bytes) in words.iter_mut().zip(head.as_chunks::<4>().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        if checksum(&words) == frame.checksum {
            Ok(())
        } else {
            Err(Failure::Replaced)
        }
    }

    fn bytes<const N: usize>(&self, address: u64) -> Result<[u8; N], Failure> {
        let mut bytes = [0; N];
        if self.memory.read(address, &mut bytes) {
            Ok(bytes)
        } else {
            Err(Failure::Gone)
        }
    }

    fn word(&self, address: u64) -> Result<u64, Failure> {
        self.bytes(address).map(u64::from_ne_bytes)
    }

    fn buffer(&self, address: u64, length: u64) -> Result<Vec<u8>, Failure> {
        let length = usize::try_from(length).map_err(|_| Failure::Malformed)?;
        let mut buffer = vec![0; length];
        if self.memory.read(address, &mut buffer) {
            Ok(buffer)
        } else {
            Err(Failure::Gone)
        }
    }

    /// A `str`. Names are compact; other forms are made only by programs that use the old C interface.
    fn text(&self, address: u64) -> Result<String, Failure> {
        let layout = self.layout;
        let at = |offset: u32| address.wrapping_add(u64::from(offset));
        let length = self.word(at(layout.text_length))?;
        let state = u32::from_ne_bytes(self.bytes(at(layout.text_state))?);
        let flags = state >> layout.text_kind_bit;
        let (kind, is_compact, is_ascii) = (flags & 7, flags & 8 != 0, flags & 16 != 0);
        let known = matches!(kind, 1 | 2 | 4);
        if !known || !is_compact || length > TEXT_MAX {
            return Err(Failure::Malformed);
        }
        let data = if is_ascii {
            layout.text_ascii
        } else {
            layout.text_wide
        };
        let bytes = self.buffer(at(data), length * u64::from(kind))?;
        Ok(match kind {
            1 => bytes.iter().map(|&byte| char::from(byte)).collect(),
            2 => {
                let units = bytes.as_chunks::<2>().0.iter();
                char::decode_utf16(units.map(|unit| u16::from_ne_bytes(*unit)))
                    .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
                    .collect()
            }
            _ => {
                let points = bytes.as_chunks::<4>().0.iter();
                let character = |point: &[u8; 4]| {
                    char::from_u32(u32::from_ne_bytes(*point))
                        .unwrap_or(char::REPLACEMENT_CHARACTER)
                };
                points.map(character).collect()
            }
        })
    }

    fn table(&self, address: u64) -> Result<Box<[u8]>, Failure> {
        let at = |offset: u32| address.wrapping_add(u64::from(offset));
        let length = self.word(at(self.layout.bytes_length))?;
        let bytes = self.buffer(at(self.layout.bytes_data), length.min(TABLE_MAX))?;
        Ok(bytes.into_boxed_slice())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use profiler_common::python::{HEAD_WORDS, PythonFrame, Version, checksum};

    use super::{CodeLayout, Failure, Memory, read};

    /// Objects by their addresses.
    struct Objects(BTreeMap<u64, Vec<u8>>);

    impl Memory for Objects {
        fn read(&self, address: u64, buffer: &mut [u8]) -> bool {
            let Some((start, bytes)) = self.0.range(..=address).next_back() else {
                return false;
            };
            let from = usize::try_from(address - start).unwrap();
            let Some(source) = bytes.get(from..from + buffer.len()) else {
                return false;
            };
            buffer.copy_from_slice(source);
            true
        }
    }

    fn put(object: &mut [u8], offset: u32, value: &[u8]) {
        let offset = offset as usize;
        object[offset..offset + value.len()].copy_from_slice(value);
    }

    fn text(layout: &CodeLayout, (kind, flags): (u32, u32), length: u64, data: &[u8]) -> Vec<u8> {
        let mut object = vec![0; 72 + data.len()];
        put(&mut object, layout.text_length, &length.to_ne_bytes());
        let state = (kind | flags) << layout.text_kind_bit;
        put(&mut object, layout.text_state, &state.to_ne_bytes());
        let at = if flags & 16 != 0 {
            layout.text_ascii
        } else {
            layout.text_wide
        };
        put(&mut object, at, data);
        object
    }

    fn objects(layout: &CodeLayout, name: Vec<u8>) -> (Objects, PythonFrame) {
        let mut code = vec![0; 256];
        put(&mut code, layout.name, &0x1000_u64.to_ne_bytes());
        put(&mut code, layout.filename, &0x2000_u64.to_ne_bytes());
        put(&mut code, layout.lines, &0x3000_u64.to_ne_bytes());
        put(&mut code, layout.first_line, &7_u32.to_ne_bytes());
        let mut head = [0; HEAD_WORDS];
        head[((layout.first_line - layout.head) / 4) as usize] = 7;
        let mut table = vec![0; 40];
        put(&mut table, layout.bytes_length, &3_u64.to_ne_bytes());
        put(&mut table, layout.bytes_data, &[1, 2, 3]);
        let file = text(layout, (1, 8 | 16), 6, b"app.py");
        let objects = [
            (0x1000, name),
            (0x2000, file),
            (0x3000, table),
            (0x4000, code),
        ];
        let frame = PythonFrame {
            code: 0x4000,
            checksum: checksum(&head),
            ..PythonFrame::default()
        };
        (Objects(BTreeMap::from(objects)), frame)
    }

    /// A name as long as a target likes is kept short.
    #[test]
    fn long_names_are_cut() {
        let layout = Version { minor: 11 }.known().unwrap().code;
        let name = text(&layout, (1, 8 | 16), 4000, &[b'a'; 4000]);
        let (objects, frame) = objects(&layout, name);
        let code = read(&objects, &layout, &frame).unwrap();
        assert_eq!(code.name.chars().count(), super::NAME_MAX + 1);
    }

    /// Names in every width, in every version's layout.
    #[test]
    fn names_of_every_width() {
        for minor in 8..=12 {
            let layout = Version { minor }.known().unwrap().code;
            let utf16: Vec<u8> = "żółw".encode_utf16().flat_map(u16::to_ne_bytes).collect();
            let utf32: Vec<u8> = "a🐢"
                .chars()
                .flat_map(|c| u32::from(c).to_ne_bytes())
                .collect();
            for (kind, flags, length, data, expected) in [
                (1, 8 | 16, 4, b"work".as_slice(), "work"),
                (1, 8, 2, b"\xe4b", "äb"),
                (2, 8, 4, &utf16, "żółw"),
                (4, 8, 2, &utf32, "a🐢"),
            ] {
                let name = text(&layout, (kind, flags), length, data);
                let (objects, frame) = objects(&layout, name);
                let code = read(&objects, &layout, &frame).unwrap();
                assert_eq!(
                    (code.name.as_str(), code.file.as_str()),
                    (expected, "app.py")
                );
                assert_eq!((code.first_line, &*code.lines), (7, &[1, 2, 3][..]));
            }
        }
    }

    /// Each way to fail has its name.
    #[test]
    fn failures_are_told_apart() {
        let layout = Version { minor: 11 }.known().unwrap().code;
        let fails = |name: Vec<u8>, change: &dyn Fn(&mut PythonFrame)| {
            let (objects, mut frame) = objects(&layout, name);
            change(&mut frame);
            read(&objects, &layout, &frame).unwrap_err()
        };
        let name = || text(&layout, (1, 8 | 16), 1, b"f");
        assert_eq!(
            fails(name(), &|frame| frame.checksum += 1),
            Failure::Replaced
        );
        assert_eq!(fails(name(), &|frame| frame.code = 16), Failure::Gone);
        let long = text(&layout, (1, 8 | 16), 1 << 40, b"f");
        assert_eq!(fails(long, &|_| {}), Failure::Malformed);
        let short = text(&layout, (1, 8 | 16), 100, b"f");
        assert_eq!(fails(short, &|_| {}), Failure::Gone);
        let not_compact = text(&layout, (1, 16), 1, b"f");
        assert_eq!(fails(not_compact, &|_| {}), Failure::Malformed);
    }
}
