//! What is at offsets of a file.

use std::os::fd::OwnedFd;

use super::{debug_file, elf::Elf, readable::Readable};
use crate::symbolize::{
    blaze::{self, Symbol, Where},
    wire::{At, Detail, FileNames},
};

/// A name for each offset. Debug information that cannot be used must not cost the file its own symbols.
pub(super) fn names(
    file: &OwnedFd,
    candidates: &[OwnedFd],
    offsets: &[u64],
    detail: Detail,
) -> FileNames {
    let Some(elf) = Elf::read(file) else {
        return FileNames::default();
    };
    let mut debug_unusable = false;
    let mut symbols: Option<Vec<Option<Symbol>>> = None;
    if detail == Detail::DebugInformation {
        let debug_file = debug_file::find(file, candidates);
        symbols = debug_file.and_then(|debug_file| of_debug_file(debug_file, &elf, offsets));
        debug_unusable = symbols.is_none() && !candidates.is_empty();
    }
    let own = Readable::of(file).ok();
    let look_up = |detail| blaze::look_up(&own.as_ref()?.path, Where::Offsets(offsets), detail);
    match &mut symbols {
        Some(symbols) if symbols.iter().any(Option::is_none) => {
            // What its debug file does not know.
            let others = look_up(Detail::Symbols).unwrap_or_default();
            for (symbol, other) in symbols.iter_mut().zip(others) {
                *symbol = symbol.take().or(other);
            }
        }
        Some(_) => {}
        None => {
            symbols = look_up(detail);
            if symbols.is_none() && detail == Detail::DebugInformation {
                debug_unusable = own.is_some();
                symbols = look_up(Detail::Symbols);
            }
        }
    }
    let mut symbols = symbols.unwrap_or_default().into_iter();
    let named = offsets
        .iter()
        .map(|&offset| at(symbols.next().flatten(), offset, &elf));
    FileNames {
        is_elf: true,
        debug_unusable,
        named: named.collect(),
    }
}

/// What the debug file knows, by the addresses that the linker gave.
fn of_debug_file(debug_file: &OwnedFd, elf: &Elf, offsets: &[u64]) -> Option<Vec<Option<Symbol>>> {
    let known: Vec<Option<u64>> = offsets
        .iter()
        .map(|&offset| elf.address_of(offset))
        .collect();
    let addresses: Vec<u64> = known.iter().copied().flatten().collect();
    let readable = Readable::of(debug_file).ok()?;
    let place = Where::Addresses(&addresses);
    let mut found = blaze::look_up(&readable.path, place, Detail::DebugInformation)?.into_iter();
    let symbols = known
        .into_iter()
        .map(|address| address.and_then(|_| found.next().flatten()));
    Some(symbols.collect())
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
