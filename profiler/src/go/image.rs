//! Where in a file Go's tables are.

use std::{borrow::Cow, collections::HashMap};

use object::{Object, ObjectSection, ReadRef, RelocationTarget};

use super::{
    Place, Table,
    inlined::{self, is_whole},
    table::{HEADER, word8},
};
use crate::foreign::plain;

/// Names of the section with the table: the second one where the program can lie anywhere.
const TABLES: [&str; 2] = [".gopclntab", ".data.rel.ro.gopclntab"];
/// Which Go made the program.
const BUILD_INFO: &str = ".go.buildinfo";
/// Where the table is if another linker has put it with other things.
const HOLDERS: [&str; 2] = [".data.rel.ro", ".rodata"];
/// Where the runtime's description of the program is: Go 1.26 gave it a section.
const MODULES: [&str; 4] = [".go.module", ".noptrdata", ".data", ".data.rel.ro"];
/// Longest section that is read: the table of Kubernetes' largest program has 30 MB.
const SECTION_MAX: u64 = 128 << 20;
/// Words of that description: the table's address, its names' address, where the code begins.
const TABLE_WORD: usize = 0;
const NAMES_WORD: usize = 1;
const TEXT_WORD: usize = 22;
/// One of its words is where functions' data begin. Each version has it elsewhere.
const DATA_WORDS: std::ops::RangeInclusive<usize> = 32..=56;
/// So many functions with something inlined show whether it is the right one.
const TRIED: usize = 64;
/// Most words that the loader changes.
const RELOCATIONS_MAX: usize = 4_000_000;

/// Go's tables of a file.
#[derive(Debug)]
pub(crate) struct Image<'a> {
    table: Cow<'a, [u8]>,
    text: u64,
    /// What functions' data are offsets of; empty where it was not found, or not looked for.
    data: Cow<'a, [u8]>,
}

impl Image<'static> {
    /// Reads them with what is inlined, and keeps them.
    pub(crate) fn keep<'a, R: ReadRef<'a>>(object: &object::File<'a, R>) -> Option<Self> {
        let (address, bytes) = table(object)?;
        let module = module(object, address, bytes);
        let image = Image::of(bytes, module.as_deref())?;
        let begins = module.iter().flatten().skip(*DATA_WORDS.start());
        let data = begins
            .take(DATA_WORDS.count())
            .filter_map(|begin| at(object, *begin));
        let mut data = data.filter(|data| image.has_trees(data));
        Some(Self {
            data: data.next().unwrap_or_default().to_vec().into(),
            table: bytes.to_vec().into(),
            text: image.text,
        })
    }
}

impl<'a> Image<'a> {
    /// Reads them; `None` where the file is no Go program, or one of a version that is not known.
    pub(crate) fn read<R: ReadRef<'a>>(object: &object::File<'a, R>) -> Option<Self> {
        let (address, bytes) = table(object)?;
        // Only the header of Go 1.26 and later needs more.
        Self::of(bytes, None).or_else(|| Self::of(bytes, module(object, address, bytes).as_deref()))
    }

    fn of(bytes: &'a [u8], module: Option<&[u64]>) -> Option<Self> {
        let text = match Table::text_of_header(bytes)? {
            0 => *module?.get(TEXT_WORD)?,
            text => text,
        };
        let image = Self {
            table: bytes.into(),
            text,
            data: Cow::default(),
        };
        // What cannot be read is no table.
        image.table()?;
        Some(image)
    }

    /// The table of functions.
    pub(crate) fn table(&self) -> Option<Table<'_>> {
        Table::parse(&self.table, self.text)
    }

    /// What is at an address, innermost first; empty where it is not Go's code.
    pub(crate) fn places<'t>(&'t self, table: &'t Table<'t>, address: u64) -> Vec<Place<'t>> {
        inlined::places(table, &self.data, address)
    }

    /// Whether all inlined calls of the first functions with such calls can be read from these bytes.
    fn has_trees(&self, data: &[u8]) -> bool {
        let Some(table) = self.table() else {
            return false;
        };
        let mut tried = table
            .functions()
            .filter_map(|function| is_whole(&table, &function, data))
            .take(TRIED)
            .peekable();
        tried.peek().is_some() && tried.all(|is_whole| is_whole)
    }
}

/// Whether a file is of Go: its frame pointers are right, and its call frame information does not know them.
pub(crate) fn is_go<'a, R: ReadRef<'a>>(object: &object::File<'a, R>) -> bool {
    let mut names = TABLES.iter().chain(&[BUILD_INFO]);
    names.any(|name| object.section_by_name(name).is_some())
}

/// The table's address, and what follows from there on.
fn table<'a, R: ReadRef<'a>>(object: &object::File<'a, R>) -> Option<(u64, &'a [u8])> {
    let named = TABLES.iter().find_map(|name| object.section_by_name(name));
    if let Some(section) = named {
        return Some((section.address(), bytes(&section)?));
    }
    object.section_by_name(BUILD_INFO)?;
    HOLDERS.iter().find_map(|name| {
        let section = object.section_by_name(name)?;
        let data = bytes(&section)?;
        let mut begins = (0..data.len()).step_by(8);
        let begin = begins.find(|begin| Table::parse(&data[*begin..], 0).is_some())?;
        Some((section.address().checked_add(begin as u64)?, &data[begin..]))
    })
}

/// What a section has in the file. What is compressed is not Go's.
fn bytes<'a>(section: &impl ObjectSection<'a>) -> Option<&'a [u8]> {
    (section.size() <= SECTION_MAX).then(|| plain(section))?
}

/// What is in the file from an address to the end of its section.
fn at<'a, R: ReadRef<'a>>(object: &object::File<'a, R>, address: u64) -> Option<&'a [u8]> {
    let holds = |section: &object::Section<'a, '_, R>| {
        (section.address()..section.address().saturating_add(section.size())).contains(&address)
    };
    let section = object.sections().find(holds)?;
    let inside = usize::try_from(address - section.address()).ok()?;
    bytes(&section)?.get(inside..)
}

/// The words of the runtime's description of the program, which begins with the table's address.
fn module<'a, R: ReadRef<'a>>(
    object: &object::File<'a, R>,
    table: u64,
    header: &[u8],
) -> Option<Vec<u64>> {
    let names = table.checked_add(word8(header.get(..HEADER)?, 32)?)?;
    let is_it = |words: &dyn Fn(usize) -> Option<u64>| {
        words(TABLE_WORD) == Some(table) && words(NAMES_WORD) == Some(names)
    };
    let sections = || {
        MODULES
            .iter()
            .filter_map(|name| object.section_by_name(name))
    };
    for section in sections() {
        let Some(data) = bytes(&section) else {
            continue;
        };
        for begin in (0..data.len()).step_by(8) {
            let word = |index| word8(data, begin + index * 8);
            if is_it(&word) {
                return Some((0..=*DATA_WORDS.end()).map_while(word).collect());
            }
        }
    }
    // Other linkers leave the words empty until the program is loaded.
    let loaded = loaded(object);
    let mut begins = loaded.iter().filter(|(_, value)| **value == table);
    begins.find_map(|(begin, _)| {
        let word = |index: usize| {
            let address = begin.checked_add(index as u64 * 8)?;
            Some(loaded.get(&address).copied().unwrap_or_default())
        };
        is_it(&word).then(|| (0..=*DATA_WORDS.end()).map_while(word).collect())
    })
}

/// The words that the loader writes, as if the program lay where the linker placed it.
fn loaded<'a, R: ReadRef<'a>>(object: &object::File<'a, R>) -> HashMap<u64, u64> {
    let relocations = object.dynamic_relocations().into_iter().flatten();
    let relative = relocations
        .take(RELOCATIONS_MAX)
        .filter(|(_, relocation)| matches!(relocation.target(), RelocationTarget::Absolute));
    relative
        .map(|(address, relocation)| (address, relocation.addend().cast_unsigned()))
        .collect()
}
