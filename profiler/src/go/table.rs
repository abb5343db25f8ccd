//! The table of functions, `.gopclntab`: a header, names, files, tables of values by address, functions.

use std::ops::Range;

/// What a table begins with: Go 1.18 and 1.19, and 1.20 and later.
const MAGIC: [u32; 2] = [0xffff_fff0, 0xffff_fff1];
/// The header's length.
pub(super) const HEADER: usize = 72;
/// The longest name that is read; those of generic functions have their types in them.
const NAME_MAX: usize = 4096;
/// Steps of one table of values: one for each change in one function.
const STEPS_MAX: usize = 1 << 20;

/// A table in memory. Addresses are those that the linker gave.
#[derive(Clone, Debug)]
pub(crate) struct Table<'a> {
    names: &'a [u8],
    units: &'a [u8],
    files: &'a [u8],
    values: &'a [u8],
    functions: &'a [u8],
    count: usize,
    quantum: u64,
    /// Where the code begins that addresses are counted from.
    text: u64,
    /// Whether it is of Go 1.20 or later.
    pub(super) is_new: bool,
}

/// One function of it.
#[derive(Clone, Debug)]
pub(crate) struct Function<'a> {
    table: &'a Table<'a>,
    /// Its addresses.
    pub(crate) range: Range<u64>,
    record: &'a [u8],
}

impl<'a> Table<'a> {
    /// Reads the header. `text` is where the code begins, which the header of Go 1.26 and later does not say.
    pub(crate) fn parse(bytes: &'a [u8], text: u64) -> Option<Self> {
        let magic = MAGIC
            .iter()
            .position(|magic| word4(bytes, 0) == Some(*magic))?;
        if byte(bytes, 4)? != 0 || byte(bytes, 5)? != 0 || byte(bytes, 7)? != 8 {
            return None;
        }
        let part = |at| bytes.get(usize::try_from(word8(bytes, at)?).ok()?..);
        let count = usize::try_from(word8(bytes, 8)?).ok()?;
        let functions = part(64)?;
        // Each has two words here, and a last address follows.
        (count.checked_mul(8)?.checked_add(4)? <= functions.len()).then_some(())?;
        Some(Self {
            names: part(32)?,
            units: part(40)?,
            files: part(48)?,
            values: part(56)?,
            functions,
            count,
            quantum: u64::from(byte(bytes, 6)?),
            text,
            is_new: magic == 1,
        })
    }

    /// Where the header says that the code begins; 0 where it does not.
    pub(super) fn text_of_header(bytes: &[u8]) -> Option<u64> {
        word8(bytes, 24)
    }

    /// The function that holds an address.
    pub(crate) fn find(&'a self, address: u64) -> Option<Function<'a>> {
        let inside = u32::try_from(address.checked_sub(self.text)?).ok()?;
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.entry(middle)? <= inside {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.function(low.checked_sub(1)?)
            .filter(|function| function.range.contains(&address))
    }

    /// All functions, in the order of their addresses.
    pub(crate) fn functions(&'a self) -> impl Iterator<Item = Function<'a>> {
        (0..self.count).filter_map(|index| self.function(index))
    }

    fn entry(&self, index: usize) -> Option<u32> {
        word4(self.functions, index.checked_mul(8)?)
    }

    fn function(&'a self, index: usize) -> Option<Function<'a>> {
        let begin = self.entry(index)?;
        let end = self.entry(index + 1)?;
        let record = word4(self.functions, index * 8 + 4)?;
        let record = self.functions.get(usize::try_from(record).ok()?..)?;
        (word4(record, 0)? == begin && begin <= end).then_some(())?;
        let address = |offset| self.text.checked_add(u64::from(offset));
        Some(Function {
            table: self,
            range: address(begin)?..address(end)?,
            record,
        })
    }

    /// The name at an offset.
    pub(super) fn name(&self, offset: u32) -> Option<&'a str> {
        text(self.names, offset)
    }

    /// The value at an address of the table of values at `offset`, for a function that begins at `entry`.
    fn value(&self, offset: u32, entry: u64, address: u64) -> Option<i32> {
        let mut found = None;
        self.each_value(offset, entry, |range, value| {
            found = range.contains(&address).then_some(value);
            found.is_none()
        })?;
        found
    }

    /// Goes through a table of values until `take` says that it is enough. `None` where it is cut off.
    fn each_value(
        &self,
        offset: u32,
        entry: u64,
        mut take: impl FnMut(Range<u64>, i32) -> bool,
    ) -> Option<()> {
        if offset == 0 {
            return None;
        }
        let mut rest = self.values.get(usize::try_from(offset).ok()?..)?;
        let (mut value, mut begin) = (-1_i32, entry);
        for step in 0..STEPS_MAX {
            let by = varint(&mut rest)?;
            if by == 0 && step > 0 {
                return Some(());
            }
            value = value.wrapping_add(zigzag(by));
            let length = u64::from(varint(&mut rest)?).checked_mul(self.quantum)?;
            let end = begin.checked_add(length)?;
            if !take(begin..end, value) {
                return Some(());
            }
            begin = end;
        }
        None
    }
}

impl<'a> Function<'a> {
    /// Its name, as Go writes it.
    pub(crate) fn name(&self) -> Option<&'a str> {
        self.table.name(self.word(4)?)
    }

    /// Whether this is its name. However long its name is, no more of it is read.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        let offset = self.word(4).and_then(|offset| usize::try_from(offset).ok());
        let from = offset.and_then(|offset| self.table.names.get(offset..));
        let rest = from.and_then(|from| from.strip_prefix(name.as_bytes()));
        rest.is_some_and(|rest| rest.first() == Some(&0))
    }

    /// The file of the code at an address, and the line in it.
    pub(crate) fn line(&self, address: u64) -> Option<(&'a str, u32)> {
        let number = self.value(20, address)?;
        let line = self.value(24, address)?;
        let unit = self.word(32)?;
        let at = unit.checked_add(u32::try_from(number).ok()?)?;
        let file = word4(self.table.units, usize::try_from(at).ok()?.checked_mul(4)?)?;
        Some((text(self.table.files, file)?, u32::try_from(line).ok()?))
    }

    /// Whether nothing calls it: the first function of a goroutine, of a thread, of the program.
    pub(crate) fn is_first(&self) -> bool {
        self.flags() & 1 != 0
    }

    /// Whether it writes the stack pointer otherwise than its table knows: it switches stacks.
    pub(crate) fn switches_stacks(&self) -> bool {
        self.flags() & 2 != 0
    }

    fn flags(&self) -> u8 {
        byte(self.record, self.head() - 3).unwrap_or_default()
    }

    /// How far the stack pointer is below the return address, for each range of its addresses.
    pub(crate) fn stack(&self, mut take: impl FnMut(Range<u64>, i32)) -> Option<()> {
        let offset = self.word(16)?;
        self.table
            .each_value(offset, self.range.start, |range, value| {
                take(range, value);
                true
            })
    }

    /// The value of one of its further tables at an address; `None` where it has no such table.
    pub(super) fn further(&self, table: u32, address: u64) -> Option<i32> {
        let offset = self.further_table(table)?;
        self.table.value(offset, self.range.start, address)
    }

    /// Goes through one of its further tables until `take` says that it is enough.
    pub(super) fn each_further(
        &self,
        table: u32,
        take: impl FnMut(Range<u64>, i32) -> bool,
    ) -> Option<()> {
        let offset = self.further_table(table)?;
        self.table.each_value(offset, self.range.start, take)
    }

    fn further_table(&self, table: u32) -> Option<u32> {
        (table < self.word(28)?).then_some(())?;
        let at = usize::try_from(table).ok()?.checked_mul(4)?;
        word4(self.record, self.head().checked_add(at)?)
    }

    /// The offset of one of its data; `None` where it has none of this kind.
    pub(super) fn data(&self, kind: u8) -> Option<u32> {
        let head = self.head();
        if kind >= byte(self.record, head - 1)? {
            return None;
        }
        let tables = usize::try_from(self.word(28)?).ok()?;
        let at = tables.checked_add(usize::from(kind))?.checked_mul(4)?;
        word4(self.record, head.checked_add(at)?).filter(|offset| *offset != u32::MAX)
    }

    /// Length of what each record has: Go 1.20 added the first line.
    fn head(&self) -> usize {
        if self.table.is_new { 44 } else { 40 }
    }

    fn word(&self, at: usize) -> Option<u32> {
        word4(self.record, at)
    }

    fn value(&self, at: usize, address: u64) -> Option<i32> {
        self.table.value(self.word(at)?, self.range.start, address)
    }
}

fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

pub(super) fn word4(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(word.try_into().ok()?))
}

pub(super) fn word8(bytes: &[u8], at: usize) -> Option<u64> {
    let word = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(word.try_into().ok()?))
}

/// A text that ends with a zero.
fn text(bytes: &[u8], offset: u32) -> Option<&str> {
    let from = bytes.get(usize::try_from(offset).ok()?..)?;
    let from = from.get(..NAME_MAX).unwrap_or(from);
    let length = from.iter().position(|byte| *byte == 0)?;
    std::str::from_utf8(&from[..length]).ok()
}

fn varint(rest: &mut &[u8]) -> Option<u32> {
    let mut value = 0_u32;
    for shift in (0..35).step_by(7) {
        let (first, others) = rest.split_first()?;
        *rest = others;
        value |= u32::from(first & 0x7f).checked_shl(shift)?;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn zigzag(value: u32) -> i32 {
    let half = (value >> 1).cast_signed();
    if value & 1 == 0 { half } else { !half }
}
