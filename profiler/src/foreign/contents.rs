//! A foreign ELF file as its readers see it: parts of it, up to so many bytes. Nothing is mapped, as a file that is
//! truncated meanwhile would kill us; nothing is allocated by what the file claims beyond the bound.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fs::File,
    ops::Range,
    os::unix::fs::FileExt,
};

use object::{CompressionFormat, ObjectSection, ReadRef};

/// Most bytes that are read of one file. Of large programs the unwind tables and the symbols take some 20 MB.
const BYTES_MAX: usize = 48 << 20;
/// What is read at once where strings are.
const BLOCK: u64 = 1 << 16;
/// Longest string.
const STRING_MAX: u64 = 4096;
/// What keeping a part takes beside its bytes.
const PART_BYTES: usize = 64;

/// Parts of a file, by offset and size.
type Parts = HashMap<(u64, u64), Box<[u8]>>;

/// See the file.
#[derive(Debug)]
pub(crate) struct Contents<'f> {
    file: &'f File,
    length: u64,
    /// Parts that were read, which stay until the end.
    parts: RefCell<Parts>,
    left: Cell<usize>,
    is_too_large: Cell<bool>,
}

impl<'f> Contents<'f> {
    /// Nothing is read yet.
    pub(crate) fn of(file: &'f File) -> Self {
        Self::with_bound(file, BYTES_MAX)
    }

    fn with_bound(file: &'f File, bytes_max: usize) -> Self {
        Self {
            file,
            length: file.metadata().map_or(0, |found| found.len()),
            parts: RefCell::default(),
            left: Cell::new(bytes_max),
            is_too_large: Cell::new(false),
        }
    }

    /// Whether a part was refused for want of room: what was read is not all.
    pub(crate) fn is_too_large(&self) -> bool {
        self.is_too_large.get()
    }

    fn part(&self, offset: u64, size: u64) -> Result<&[u8], ()> {
        let end = offset.checked_add(size).ok_or(())?;
        if end > self.length {
            return Err(());
        }
        if let Some(part) = self.parts.borrow().get(&(offset, size)) {
            return Ok(self.lasting(part));
        }
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        let cost = length.saturating_add(PART_BYTES);
        let Some(left) = self.left.get().checked_sub(cost) else {
            self.is_too_large.set(true);
            return Err(());
        };
        self.left.set(left);
        let mut part = vec![0; length].into_boxed_slice();
        self.file.read_exact_at(&mut part, offset).map_err(drop)?;
        let mut parts = self.parts.borrow_mut();
        Ok(self.lasting(parts.entry((offset, size)).or_insert(part)))
    }

    /// A part lives as long as we do.
    fn lasting(&self, part: &[u8]) -> &[u8] {
        let _ = self;
        // SAFETY: the bytes are in a box of `parts`, which is never changed or taken out.
        unsafe { std::slice::from_raw_parts(part.as_ptr(), part.len()) }
    }
}

impl<'a> ReadRef<'a> for &'a Contents<'_> {
    fn len(self) -> Result<u64, ()> {
        Ok(self.length)
    }

    fn read_bytes_at(self, offset: u64, size: u64) -> Result<&'a [u8], ()> {
        if size == 0 {
            return Ok(&[]);
        }
        self.part(offset, size)
    }

    fn read_bytes_at_until(self, range: Range<u64>, delimiter: u8) -> Result<&'a [u8], ()> {
        let until = |bytes: &'a [u8]| {
            let end = bytes.iter().position(|&byte| byte == delimiter)?;
            bytes.get(..end)
        };
        let block = range.start - range.start % BLOCK;
        let size = BLOCK.min(self.length.saturating_sub(block));
        let longest = range.end.saturating_sub(range.start).min(STRING_MAX);
        let inside = usize::try_from(range.start - block).map_err(drop)?;
        let rest = self.part(block, size)?.get(inside..).ok_or(())?;
        let most = usize::try_from(longest).map_err(drop)?;
        if let Some(whole) = until(rest.get(..most).unwrap_or(rest)) {
            return Ok(whole);
        }
        if rest.len() >= most {
            return Err(());
        }
        until(self.part(range.start, longest)?).ok_or(())
    }
}

/// The bytes of a section as they lie in the file. A compressed one has none: what it expands to is not bounded, and
/// none that unwinding needs is compressed by any linker unasked.
pub(crate) fn plain<'a>(section: &impl ObjectSection<'a>) -> Option<&'a [u8]> {
    let range = section.compressed_file_range().ok()?;
    (range.format == CompressionFormat::None).then(|| section.data().ok())?
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write};

    use object::{Object, ObjectSection, ReadRef};
    use proptest::prelude::*;

    use super::{BLOCK, Contents, STRING_MAX};

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    /// A section that claims to be compressed has no bytes: what they would be is never made.
    #[test]
    fn compressed_sections_are_refused() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let library = maps
            .lines()
            .find(|line| line.ends_with("libc.so.6"))
            .unwrap();
        let mut bytes = std::fs::read(library.split_whitespace().nth(5).unwrap()).unwrap();
        let has_bytes = |bytes: &[u8]| {
            let object = object::File::parse(bytes).unwrap();
            super::plain(&object.section_by_name(".eh_frame").unwrap()).is_some()
        };
        assert!(has_bytes(&bytes));
        let word = |bytes: &[u8], at: usize| {
            usize::try_from(u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())).unwrap()
        };
        let object = object::File::parse(&*bytes).unwrap();
        let index = object.section_by_name(".eh_frame").unwrap().index().0;
        let header = word(&bytes, 0x28) + 64 * index;
        // `SHF_COMPRESSED`, and `ELFCOMPRESS_ZLIB` of 200 GB.
        bytes[header + 9] |= 8;
        let at = word(&bytes, header + 24);
        bytes[at..at + 8].copy_from_slice(&1_u64.to_le_bytes());
        bytes[at + 8..at + 16].copy_from_slice(&(200_u64 << 30).to_le_bytes());
        assert!(!has_bytes(&bytes));
    }

    /// What a file claims costs nothing: of a sparse one of a terabyte no more is read than is allowed.
    #[test]
    fn a_sparse_giant_is_refused() {
        let file = file(b"\x7fELF");
        file.set_len(1 << 40).unwrap();
        let contents = Contents::of(&file);
        assert_eq!((&contents).read_bytes_at(0, 4), Ok(&b"\x7fELF"[..]));
        assert!(!contents.is_too_large());
        assert_eq!((&contents).read_bytes_at(0, 1 << 39), Err(()));
        assert!(contents.is_too_large());
    }

    /// Many small parts use the room up like a large one.
    #[test]
    fn small_parts_add_up() {
        let file = file(&[7; 10_000]);
        let contents = Contents::with_bound(&file, 10_000);
        let read = (0..10_000).filter(|&at| (&contents).read_bytes_at(at, 1).is_ok());
        assert_eq!((read.count(), contents.is_too_large()), (10_000 / 65, true));
    }

    /// A file that was truncated meanwhile is an error.
    #[test]
    fn a_truncated_file_is_an_error() {
        let file = file(&[7; 10_000]);
        let contents = Contents::of(&file);
        file.set_len(10).unwrap();
        assert_eq!((&contents).read_bytes_at(0, 100), Err(()));
        assert_eq!((&contents).read_bytes_at(0, 10), Ok(&[7; 10][..]));
    }

    proptest! {
        /// Strings are found as in plain memory, also across the borders of what is read at once.
        #[test]
        fn strings_are_found(zeros in proptest::collection::btree_set(0_u64..3 * BLOCK, 0..80), start in 0_u64..3 * BLOCK, length in 0_u64..6000) {
            let mut bytes = vec![7; 3 * usize::try_from(BLOCK).unwrap()];
            for zero in zeros {
                bytes[usize::try_from(zero).unwrap()] = 0;
            }
            let file = file(&bytes);
            let contents = Contents::of(&file);
            let end = (start + length).min(3 * BLOCK);
            let found = (&contents).read_bytes_at_until(start..end, 0);
            let most = end.min(start + STRING_MAX);
            let plain = &bytes[usize::try_from(start).unwrap()..usize::try_from(most).unwrap()];
            let expected = plain.iter().position(|&byte| byte == 0).map(|at| &plain[..at]);
            prop_assert_eq!(found.ok(), expected);
        }
    }
}
