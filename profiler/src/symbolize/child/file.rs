//! What is at offsets of a file.

use std::os::fd::OwnedFd;

use super::{debug_file, elf::Elf, readable::Readable};
use crate::{
    go,
    symbolize::{
        blaze::{self, Symbol, Where},
        wire::{At, DebugInformation, Detail, FileNames, Function},
    },
};

/// What was found so far, one for each offset.
type Symbols = Vec<Option<Symbol>>;

/// A name for each offset. Debug information that cannot be used must not cost the file its own symbols.
pub(super) fn names(
    file: &OwnedFd,
    candidates: &[OwnedFd],
    offsets: &[u64],
    detail: Detail,
) -> FileNames {
    let Some(mut elf) = Elf::read(file) else {
        return FileNames::default();
    };
    let mut symbols = of_go(&elf, offsets);
    let mut is_debug_unusable = false;
    // Go's table has all that debug information has.
    let mut all_is_read = symbols.iter().all(Option::is_some);
    let mut debug = DebugInformation::Own;
    let own = Readable::of(file);
    let of_own = |detail| blaze::look_up(&own.as_ref().ok()?.path, Where::Offsets(offsets), detail);
    if detail == Detail::DebugInformation && !all_is_read {
        if let Some(debug_file) = debug_file::find(file, candidates) {
            debug = DebugInformation::Apart;
            is_debug_unusable = !of_debug_file(debug_file, &elf, offsets, &mut symbols);
        } else {
            all_is_read = add(&mut symbols, of_own(detail));
            is_debug_unusable = !candidates.is_empty() || (own.is_ok() && !all_is_read);
        }
    }
    if !all_is_read && symbols.iter().any(Option::is_none) {
        add(&mut symbols, of_own(Detail::Symbols));
    }
    let mut places = symbols.iter().zip(offsets);
    if places.any(|(symbol, &offset)| symbol.is_none() && elf.is_unknown(offset)) {
        elf.analyse(file);
    }
    let named = symbols
        .into_iter()
        .zip(offsets)
        .map(|(symbol, &offset)| at(symbol, offset, &elf));
    FileNames {
        is_elf: true,
        debug,
        is_debug_unusable,
        uncopied: own.is_err(),
        named: named.collect(),
    }
}

/// What Go's own table knows of its program's code.
fn of_go(elf: &Elf, offsets: &[u64]) -> Symbols {
    let image = elf.go.as_ref();
    let Some((image, table)) = image.and_then(|image| Some((image, image.table()?))) else {
        return offsets.iter().map(|_| None).collect();
    };
    let symbol = |&offset: &u64| {
        let address = elf.address_of(offset)?;
        let places = image.places(&table, address);
        let lines: Vec<Function> = places.into_iter().map(Function::from).collect();
        (!lines.is_empty()).then_some(Symbol {
            address,
            covers: true,
            lines,
        })
    };
    offsets.iter().map(symbol).collect()
}

impl From<go::Place<'_>> for Function {
    fn from(place: go::Place<'_>) -> Self {
        Self {
            name: place.name.to_owned(),
            file: place.line.map(|(file, _)| file.to_owned()),
            line: place.line.map(|(_, line)| line),
        }
    }
}

/// Adds what was not known; says whether there was something to add.
fn add(symbols: &mut Symbols, found: Option<Symbols>) -> bool {
    let Some(found) = found else { return false };
    for (symbol, found) in symbols.iter_mut().zip(found) {
        *symbol = symbol.take().or(found);
    }
    true
}

/// Adds what the debug file knows, by the addresses that the linker gave: also its symbols where its debug information
/// cannot be read. Says whether that could.
fn of_debug_file(debug_file: &OwnedFd, elf: &Elf, offsets: &[u64], symbols: &mut Symbols) -> bool {
    let known: Vec<Option<u64>> = offsets
        .iter()
        .map(|&offset| elf.address_of(offset))
        .collect();
    let addresses: Vec<u64> = known.iter().copied().flatten().collect();
    let Ok(readable) = Readable::of(debug_file) else {
        return false;
    };
    let look_up = |detail| {
        let found = blaze::look_up(&readable.path, Where::Addresses(&addresses), detail)?;
        let mut found = found.into_iter();
        let by_offset = known
            .iter()
            .map(|address| address.and_then(|_| found.next().flatten()));
        Some(by_offset.collect())
    };
    let is_usable = add(symbols, look_up(Detail::DebugInformation));
    if symbols.iter().any(Option::is_none) {
        add(symbols, look_up(Detail::Symbols));
    }
    is_usable
}

/// The name of an offset: its symbol, if that really covers it; else its function's first address; else its section.
fn at(symbol: Option<Symbol>, offset: u64, elf: &Elf) -> At {
    let address = elf.address_of(offset);
    let function = address.and_then(|address| elf.functions.find(address));
    let section_of = |address| elf.section_of(address);
    // Without a size, a symbol may end long before: it is believed up to the end of its function, or,
    // where nothing says where that is, of its section (`_init` does not reach into `.plt`).
    let covered = symbol.filter(|symbol| {
        symbol.covers
            || match function {
                Some((start, _)) => start <= symbol.address,
                None => address.is_some_and(|address| {
                    section_of(address).is_some()
                        && section_of(address) == section_of(symbol.address)
                }),
            }
    });
    if let Some(symbol) = covered {
        return At::Symbol(symbol.lines);
    }
    match (address.and_then(section_of), function) {
        // All of the procedure linkage table is one entry of the unwind tables.
        (Some(section), _) if section.starts_with(".plt") => At::Section(section.to_owned()),
        (_, Some((start, _))) => At::Function(start),
        (Some(section), None) => At::Section(section.to_owned()),
        (None, None) => At::Nothing,
    }
}
