//! The only file that names blazesym: looks up the kernel's addresses, and those of a file by its path.
//!
//! Files are read in the child alone. The kernel's names are looked up by the profiler itself: they come from
//! `/proc/kallsyms`, which shows addresses only to who may see them, and from files of the host's root.

use std::path::PathBuf;

use blazesym::symbolize::{
    CodeInfo, Input, Sym, Symbolized, Symbolizer,
    source::{Elf, Kernel, Source},
};

use super::{
    mangling::demangle,
    wire::{Detail, Function},
};

/// A symbol that covers an address, or claims to.
pub(super) struct Symbol {
    /// Its first address.
    pub(super) address: u64,
    /// Whether its file says so: by a size, or by debug information, which has exact ranges also of
    /// functions in several pieces.
    pub(super) covers: bool,
    /// The function and what is inlined into it there, innermost first.
    pub(super) lines: Vec<Function>,
}

/// What is looked up in a file.
#[derive(Clone, Copy)]
pub(super) enum Where<'a> {
    /// Offsets in it.
    Offsets(&'a [u64]),
    /// Addresses that the linker gave.
    Addresses(&'a [u64]),
}

/// Names of kernel addresses, in their order; fewer where the kernel does not tell any.
pub(super) fn kernel(addresses: &[u64]) -> Vec<Option<Vec<Function>>> {
    let symbolizer = Symbolizer::builder()
        .enable_code_info(true)
        .enable_inlined_fns(true)
        .enable_demangling(false)
        .build();
    let symbols = symbolizer.symbolize(
        &Source::Kernel(Kernel::default()),
        Input::AbsAddr(addresses),
    );
    let symbols = symbols.unwrap_or_default();
    symbols
        .iter()
        .map(|symbol| symbol.as_sym().map(lines))
        .collect()
}

/// What a file has of offsets or addresses, in their order; `None` where it cannot be read so. Nothing is kept. No
/// other file is searched: neither by its debug link nor by its build id.
pub(super) fn look_up(
    path: &str,
    places: Where<'_>,
    detail: Detail,
) -> Option<Vec<Option<Symbol>>> {
    let symbolizer = Symbolizer::builder()
        .enable_auto_reload(false)
        .enable_code_info(true)
        .enable_inlined_fns(true)
        .enable_demangling(false)
        .set_debug_dirs(Some(std::iter::empty::<PathBuf>()))
        .build();
    let mut source = Elf::new(path);
    source.debug_syms = detail == Detail::DebugInformation;
    let input = match places {
        Where::Offsets(offsets) => Input::FileOffset(offsets),
        Where::Addresses(addresses) => Input::VirtOffset(addresses),
    };
    let symbols = symbolizer.symbolize(&Source::from(source), input).ok()?;
    let owned = symbols.into_iter().map(|symbol| match symbol {
        Symbolized::Sym(symbol) => Some(Symbol {
            address: symbol.addr,
            covers: symbol.size.is_some_and(|size| size > 0) || symbol.code_info.is_some(),
            lines: lines(&symbol),
        }),
        Symbolized::Unknown(_) => None,
    });
    Some(owned.collect())
}

/// The function and what is inlined into it, innermost first. blazesym has them outermost first.
fn lines(symbol: &Sym<'_>) -> Vec<Function> {
    let outer = line(&symbol.name, symbol.code_info.as_deref());
    let inlined = symbol
        .inlined
        .iter()
        .map(|inlined| line(&inlined.name, inlined.code_info.as_ref()));
    let mut lines: Vec<Function> = std::iter::once(outer).chain(inlined).collect();
    lines.reverse();
    lines
}

fn line(name: &str, code_info: Option<&CodeInfo<'_>>) -> Function {
    Function {
        name: demangle(name).into_owned(),
        file: code_info.map(|code| code.to_path().display().to_string()),
        line: code_info.and_then(|code| code.line),
    }
}
