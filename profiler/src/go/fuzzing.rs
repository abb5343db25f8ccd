//! What `crate::fuzzing` reaches of this room.

use super::{Table, inlined::places};

/// Functions of one input that are looked at.
const FUNCTIONS: usize = 64;

/// Names of what is at the ends of each function of a table: `data` is what functions' data are offsets of.
pub(crate) fn names(table: &[u8], text: u64, data: &[u8]) -> usize {
    let Some(table) = Table::parse(table, text) else {
        return 0;
    };
    let functions = table.functions().take(FUNCTIONS);
    let ends = functions.flat_map(|function| [function.range.start, function.range.end]);
    ends.map(|address| places(&table, data, address).len())
        .sum()
}
