//! What is inlined where: a function has a tree of calls that were inlined into it.

use super::{
    Table,
    table::{Function, word4},
};

/// Which of a function's tables says where in the tree an address is.
const TREE_INDEX: u32 = 2;
/// Which of a function's data the tree is.
const TREE: u8 = 3;
/// Calls inlined into each other.
const DEPTH_MAX: usize = 64;

/// A function at a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    /// The function's name.
    pub(crate) name: &'a str,
    /// File and line, where the table has them.
    pub(crate) line: Option<(&'a str, u32)>,
}

/// Where in an entry of a tree things are.
struct Entry {
    bytes: usize,
    name: usize,
    parent: usize,
}

impl Table<'_> {
    fn entry_of_tree(&self) -> Entry {
        let (bytes, name, parent) = if self.is_new {
            (16, 4, 8)
        } else {
            (20, 12, 16)
        };
        Entry {
            bytes,
            name,
            parent,
        }
    }
}

/// What is at an address: the function and what is inlined into it there, innermost first. `data` is what all
/// functions' data are offsets of, empty where it is not known: then nothing inlined is.
pub(crate) fn places<'a>(table: &'a Table<'a>, data: &[u8], address: u64) -> Vec<Place<'a>> {
    let Some(function) = table.find(address) else {
        return Vec::new();
    };
    let mut places = Vec::new();
    let mut at = address;
    while places.len() < DEPTH_MAX {
        let Some((name, parent)) = inlined(table, &function, data, at) else {
            break;
        };
        places.push(Place {
            name,
            line: function.line(at),
        });
        at = parent;
    }
    places.extend(function.name().map(|name| Place {
        name,
        line: function.line(at),
    }));
    places
}

/// The name of the innermost call that is inlined at an address, and the address of that call.
fn inlined<'a>(
    table: &'a Table<'a>,
    function: &Function<'a>,
    data: &[u8],
    address: u64,
) -> Option<(&'a str, u64)> {
    let index = usize::try_from(function.further(TREE_INDEX, address)?).ok()?;
    let tree = data.get(usize::try_from(function.data(TREE)?).ok()?..)?;
    let entry = table.entry_of_tree();
    let found = tree.get(index.checked_mul(entry.bytes)?..)?;
    let name = table.name(word4(found, entry.name)?)?;
    let parent = u64::from(word4(found, entry.parent)?);
    let parent = function.range.start.checked_add(parent)?;
    (!name.is_empty() && function.range.contains(&parent)).then_some((name, parent))
}

/// Whether the first call that is inlined into a function can be read from `data`; `None` where nothing is inlined.
pub(super) fn is_whole(table: &Table<'_>, function: &Function<'_>, data: &[u8]) -> Option<bool> {
    function.data(TREE)?;
    let mut first = None;
    function.each_further(TREE_INDEX, |range, index| {
        first = (index >= 0).then_some(range.start);
        first.is_none()
    })?;
    Some(inlined(table, function, data, first?).is_some())
}
