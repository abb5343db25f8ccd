//! OpenSSL's functions that pass plaintext, in any ELF file that has them by name. Pure.
//!
//! `BoringSSL` and `LibreSSL` have the same ones. Each is optional: old versions lack some, and some are left out because
//! their code cannot be followed, which is told.

use std::collections::{BTreeMap, BTreeSet};

use object::{
    Architecture, Endianness, Object, ObjectSection, ObjectSegment, ReadRef,
    elf::{FileHeader64, SHN_UNDEF},
    read::elf::{ElfFile64, Sym, SymbolTable},
};
use profiler_common::{
    tls::Passing,
    wire::{RECEIVED, SENT},
};

use super::returns::{self, Leaves};

/// Functions and how they pass bytes: `int SSL_read(SSL *ssl, void *buf, int num)`, `int SSL_read_ex(SSL *ssl, void *buf,
/// size_t num, size_t *readbytes)`, `int SSL_write_ex2(SSL *s, const void *buf, size_t num, uint64_t flags, size_t
/// *written)` and their like.
const PASSING: [(&str, Passing); 5] = [
    ("SSL_read", passing(RECEIVED, 0)),
    ("SSL_read_ex", passing(RECEIVED, 3)),
    ("SSL_write", passing(SENT, 0)),
    ("SSL_write_ex", passing(SENT, 3)),
    ("SSL_write_ex2", passing(SENT, 4)),
];
/// The function that gives a connection up.
const FREE: &str = "SSL_free";
/// Most bytes of one of them.
const BYTES_MAX: u64 = 1 << 16;
/// Most segments of a file that are looked through; linkers make some ten.
const SEGMENTS_MAX: usize = 256;
/// Most symbols that are looked through.
const SYMBOLS_MAX: usize = 1_000_000;

const fn passing(direction: u8, length_argument: u8) -> Passing {
    Passing {
        direction,
        length_argument,
    }
}

/// A function as it lies in its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) passing: Passing,
    /// Offsets in the file.
    pub(super) entry: u64,
    pub(super) returns: Vec<u64>,
}

/// What a file has of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(super) functions: Vec<Function>,
    /// Offset in the file of the function that gives a connection up.
    pub(super) free: Option<u64>,
    /// Functions that are left out, and why.
    pub(super) left_out: Vec<(&'static str, &'static str)>,
}

/// A file as it is read, and a table of its symbols.
type Elf<'a, R> = ElfFile64<'a, Endianness, R>;
type Table<'a, R> = SymbolTable<'a, FileHeader64<Endianness>, R>;
/// A function's address and size by its symbol.
type Symbols = BTreeMap<&'static str, (u64, u64)>;

/// Looks through a file; `None` if it is no ELF file or has none of them.
pub(crate) fn find<'a, R: ReadRef<'a>>(data: R) -> Option<Found> {
    let object = Elf::parse(data).ok()?;
    let mut symbols = named(&object, object.elf_dynamic_symbol_table(), ".dynstr");
    if symbols.is_empty() {
        symbols = named(&object, object.elf_symbol_table(), ".strtab");
    }
    if !PASSING.iter().any(|(name, _)| symbols.contains_key(name)) {
        return None;
    }
    let entries: BTreeSet<u64> = PASSING
        .iter()
        .filter_map(|(name, _)| Some(symbols.get(name)?.0))
        .collect();
    let mut found = Found::default();
    for (name, passing) in PASSING {
        let Some(&(address, size)) = symbols.get(name) else {
            continue;
        };
        match function(&object, address, size, &entries) {
            Ok(None) => {}
            Ok(Some((entry, returns))) => found.functions.push(Function {
                passing,
                entry,
                returns,
            }),
            Err(cause) => found.left_out.push((name, cause)),
        }
    }
    found.free = symbols
        .get(FREE)
        .and_then(|&(address, _)| file_offset(&object, address));
    Some(found)
}

/// Those that a file defines. Names are compared in the section that has them all: some files have 100,000.
fn named<'a, R: ReadRef<'a>>(object: &Elf<'a, R>, table: &Table<'a, R>, names: &str) -> Symbols {
    let mut found = Symbols::new();
    let section = object.section_by_name(names);
    let Some(names) = section.and_then(|section| section.data().ok()) else {
        return found;
    };
    let wanted = || PASSING.iter().map(|(name, _)| *name).chain([FREE]);
    let endian = object.endian();
    for symbol in table.iter().take(SYMBOLS_MAX) {
        let at = usize::try_from(symbol.st_name(endian)).unwrap_or(usize::MAX);
        let rest = names.get(at..).unwrap_or_default();
        let is_it = |name: &&str| {
            let end = rest.strip_prefix(name.as_bytes());
            end.is_some_and(|end| end.first() == Some(&0))
        };
        if symbol.st_shndx(endian) != SHN_UNDEF
            && let Some(name) = wanted().find(is_it)
        {
            found.insert(name, (symbol.st_value(endian), symbol.st_size(endian)));
        }
    }
    found
}

/// Where a function begins and returns in its file. Nothing if it only goes on in another one of them, where what it
/// passes is seen.
fn function<'a, R: ReadRef<'a>>(
    object: &Elf<'a, R>,
    address: u64,
    size: u64,
    entries: &BTreeSet<u64>,
) -> Result<Option<(u64, Vec<u64>)>, &'static str> {
    if object.architecture() != Architecture::X86_64 {
        return Err("only code of x86-64 is followed");
    }
    if !(1..=BYTES_MAX).contains(&size) {
        return Err("its size is not known");
    }
    let code = code(object, address, size).ok_or("its code is not in the file")?;
    let Leaves {
        returns,
        tail_calls,
    } = returns::follow(address, code)?;
    if !tail_calls.is_subset(entries) {
        return Err("it goes on in another function");
    }
    if returns.is_empty() {
        return if tail_calls.is_empty() {
            Err("it does not return")
        } else {
            Ok(None)
        };
    }
    let offset = |address| file_offset(object, address).ok_or("its code is not in the file");
    let returns = returns.into_iter().map(offset).collect::<Result<_, _>>()?;
    Ok(Some((offset(address)?, returns)))
}

fn code<'a, R: ReadRef<'a>>(object: &Elf<'a, R>, address: u64, size: u64) -> Option<&'a [u8]> {
    let offset = file_offset(object, address)?;
    object.data().read_bytes_at(offset, size).ok()
}

fn file_offset<'a, R: ReadRef<'a>>(object: &Elf<'a, R>, address: u64) -> Option<u64> {
    object.segments().take(SEGMENTS_MAX).find_map(|segment| {
        let (offset, size) = segment.file_range();
        let within = address.checked_sub(segment.address())?;
        (within < size).then(|| offset.checked_add(within))?
    })
}

#[cfg(test)]
mod tests {
    use super::find;

    /// Files without them, and what is no ELF file, have none.
    #[test]
    fn other_files_have_none() {
        let ours = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for data in [&ours[..], &ours[..100], b"\x7fELF", b""] {
            assert_eq!(find(data), None);
        }
    }
}
