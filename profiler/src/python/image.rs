//! Whether a file holds a `CPython` interpreter, and where its parts lie. Files come from anywhere.

use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, ReadRef, Symbol, SymbolKind};
use profiler_common::python::Version;

use crate::{
    foreign::plain,
    unwind::{Segments, add_parts},
};

const RUNTIME: &[u8] = b"_PyRuntime";
const EVALUATOR: &[u8] = b"_PyEval_EvalFrameDefault";
/// The evaluator of an interpreter built with tail calls: one function for each instruction.
const TAIL_CALL: &[u8] = b"_TAIL_CALL_";
/// Only debug builds count references that are wrong.
const DEBUG: &[u8] = b"_Py_NegativeRefcount";
/// What the path of the library begins with that is compiled into an interpreter.
const LIBRARY: &[u8] = b"lib/python3.";

/// Parts of the evaluator that are looked at: 250 instructions and some.
const EVALUATOR_MAX: usize = 1024;
/// Most symbols that are looked through.
const SYMBOLS_MAX: usize = 1_000_000;
/// Most bytes of constants that are looked through.
const CONSTANTS_MAX: u64 = 16 << 20;
/// Most segments of a file that are looked through; linkers make some ten.
const SEGMENTS_MAX: usize = 256;

/// An interpreter in a file. Addresses are the linker's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Image {
    pub(super) segments: Segments,
    /// `_PyRuntime` and its size.
    pub(super) runtime: (u64, u64),
    /// The constant `Py_Version` (from 3.11 on).
    pub(super) version_at: Option<u64>,
    /// The version by what the file says elsewhere.
    pub(super) version: Option<Version>,
    pub(super) is_debug: bool,
    /// Where the evaluator begins.
    pub(super) entry: Option<u64>,
    /// Parts of the evaluator, sorted: first address and end.
    pub(super) evaluator: Vec<(u64, u64)>,
    /// The same as offsets in the file.
    pub(super) evaluator_offsets: Vec<(u64, u64)>,
}

impl Image {
    /// Reads a file; `None` where there is no interpreter in it. `name` is the file's.
    pub(crate) fn read<'a, R: ReadRef<'a>>(data: R, name: &str) -> Option<Self> {
        let object = object::File::parse(data).ok()?;
        let mut image = Self::default();
        let mut has_runtime = false;
        for symbol in object.dynamic_symbols().take(SYMBOLS_MAX) {
            has_runtime |= image.add(&symbol);
        }
        if !has_runtime && let Some(section) = object.section_by_name(".PyRuntime") {
            image.runtime = (section.address(), section.size());
            has_runtime = true;
        }
        // Parts of the evaluator that are nobody else's business are only here.
        for symbol in object.symbols().take(SYMBOLS_MAX) {
            has_runtime |= image.add(&symbol);
        }
        if !has_runtime {
            return None;
        }
        add_parts(data, &object, &mut image.evaluator);
        image.evaluator.sort_unstable();
        image.evaluator.dedup();
        image.evaluator_offsets = image
            .evaluator
            .iter()
            .filter_map(|&(start, end)| offsets(&object, start, end))
            .collect();
        image.segments = Segments::of(data)?;
        image.version = version_of(name).or_else(|| library_version(&object));
        Some(image)
    }

    /// Takes a symbol in; says whether it is the runtime.
    fn add<'a, R: ReadRef<'a>>(&mut self, symbol: &Symbol<'a, '_, R>) -> bool {
        let Ok(name) = symbol.name_bytes() else {
            return false;
        };
        if !name.starts_with(b"_") && name != b"Py_Version" || !symbol.is_definition() {
            return false;
        }
        let (start, size) = (symbol.address(), symbol.size());
        if name == RUNTIME {
            self.runtime = (start, size);
            return true;
        }
        if name == b"Py_Version" {
            self.version_at = Some(start);
        }
        self.is_debug |= name == DEBUG;
        let is_evaluator = name
            .strip_prefix(EVALUATOR)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."))
            || name.starts_with(TAIL_CALL);
        if is_evaluator
            && symbol.kind() == SymbolKind::Text
            && let Some(end) = start.checked_add(size)
            && self.evaluator.len() < EVALUATOR_MAX
        {
            if name == EVALUATOR {
                self.entry = Some(start);
            }
            self.evaluator.push((start, end));
        }
        false
    }
}

/// A range of addresses as offsets in the file.
fn offsets<'a, R: ReadRef<'a>>(
    object: &object::File<'a, R>,
    start: u64,
    end: u64,
) -> Option<(u64, u64)> {
    object.segments().take(SEGMENTS_MAX).find_map(|segment| {
        let (offset, size) = segment.file_range();
        let inside = start.checked_sub(segment.address())?;
        let begin = offset.checked_add(inside)?;
        (inside < size).then_some((begin, begin.saturating_add(end - start)))
    })
}

/// The version in a file's name: `python3.8`, `libpython3.8.so.1.0`.
fn version_of(name: &str) -> Option<Version> {
    let (_, rest) = name.split_once("python3.")?;
    number(rest.as_bytes())
}

/// The version in the path of the library that every interpreter has in its constants.
fn library_version<'a, R: ReadRef<'a>>(object: &object::File<'a, R>) -> Option<Version> {
    let constants = object.section_by_name(".rodata")?;
    if constants.size() > CONSTANTS_MAX {
        return None;
    }
    let data = plain(&constants)?;
    let mut windows = data.windows(LIBRARY.len() + 2);
    let found = windows.find(|window| window.starts_with(LIBRARY))?;
    number(&found[LIBRARY.len()..])
}

fn number(text: &[u8]) -> Option<Version> {
    let digits: Vec<u8> = text
        .iter()
        .copied()
        .take_while(u8::is_ascii_digit)
        .take(2)
        .collect();
    let minor = std::str::from_utf8(&digits).ok()?.parse().ok()?;
    Some(Version { minor })
}

#[cfg(test)]
mod tests {
    use super::{Image, Version, version_of};

    /// Versions in names of files.
    #[test]
    fn names_tell_versions() {
        let minor = |name| version_of(name).map(|Version { minor }| minor);
        assert_eq!(minor("libpython3.8.so.1.0"), Some(8));
        assert_eq!(minor("python3.13t"), Some(13));
        assert_eq!((minor("python3"), minor("uwsgi")), (None, None));
    }

    /// Our own executable is no interpreter.
    #[test]
    fn other_programs_are_none() {
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let cache = crate::foreign::Contents::of(&file);
        assert!(Image::read(&cache, "profiler").is_none());
    }
}
