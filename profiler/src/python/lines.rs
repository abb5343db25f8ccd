//! From a place in a code object's bytecode to a line: the tables of all versions. Pure; the bytes come
//! from a process that may be hostile.

use profiler_common::python::LineTable;

/// The line of the instruction at `offset` (bytes) of a code object that begins at `first_line`; `None`
/// where the table says that there is none, or ends before.
pub fn line_at(kind: LineTable, table: &[u8], first_line: u32, offset: i32) -> Option<u32> {
    let Ok(offset) = u32::try_from(offset) else {
        // Not begun yet.
        return Some(first_line);
    };
    match kind {
        LineTable::Lnotab => Some(lnotab(table, first_line, offset)),
        LineTable::Ranges => ranges(table, first_line, offset),
        LineTable::Locations => locations(table, first_line, offset),
    }
}

/// Pairs: how many bytes further on, how many lines further down (`Objects/lnotab_notes.txt` of 3.9).
fn lnotab(table: &[u8], first_line: u32, offset: u32) -> u32 {
    let (mut address, mut line) = (0_u32, first_line);
    for pair in table.as_chunks::<2>().0 {
        address = address.saturating_add(u32::from(pair[0]));
        if address > offset {
            break;
        }
        line = line.wrapping_add_signed(i32::from(pair[1].cast_signed()));
    }
    line
}

/// Pairs: length of a range in bytes, lines further down; -128 for a range without a line
/// (`Objects/lnotab_notes.txt` of 3.10).
fn ranges(table: &[u8], first_line: u32, offset: u32) -> Option<u32> {
    const NO_LINE: i8 = -128;
    let (mut end, mut line) = (0_u32, first_line);
    for pair in table.as_chunks::<2>().0 {
        let delta = pair[1].cast_signed();
        if delta != NO_LINE {
            line = line.wrapping_add_signed(i32::from(delta));
        }
        end = end.saturating_add(u32::from(pair[0]));
        if offset < end {
            return (delta != NO_LINE).then_some(line);
        }
    }
    None
}

/// Entries of which the first byte alone has its top bit set: kind and length, then what the kind
/// wants (`Objects/locations.md`, from 3.11 on).
fn locations(table: &[u8], first_line: u32, offset: u32) -> Option<u32> {
    const UNIT_BYTES: u32 = 2;
    let (mut end, mut line) = (0_u32, first_line);
    let mut rest = table;
    while let Some((&first, after)) = rest.split_first() {
        let kind = first >> 3 & 15;
        let delta = match kind {
            13 | 14 => signed_varint(after),
            10..=12 => i32::from(kind) - 10,
            _ => 0,
        };
        line = line.wrapping_add_signed(delta);
        end = end.saturating_add((u32::from(first & 7) + 1) * UNIT_BYTES);
        if offset < end {
            return (kind != 15).then_some(line);
        }
        let next = after.iter().position(|byte| byte & 0x80 != 0)?;
        rest = &after[next..];
    }
    None
}

/// Six bits a byte, the lowest ones first, bit 6 set where more follow; the lowest bit is the sign.
fn signed_varint(bytes: &[u8]) -> i32 {
    let (mut value, mut shift) = (0_u32, 0);
    for byte in bytes {
        value |= u32::from(byte & 63).checked_shl(shift).unwrap_or(0);
        shift += 6;
        if byte & 64 == 0 {
            break;
        }
    }
    let magnitude = (value >> 1).cast_signed();
    if value & 1 != 0 {
        -magnitude
    } else {
        magnitude
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{LineTable, line_at};

    fn lines(kind: LineTable, table: &[u8], offsets: &[i32]) -> Vec<Option<u32>> {
        let line = |&offset: &i32| line_at(kind, table, 10, offset);
        offsets.iter().map(line).collect()
    }

    /// Bytes 0 to 5 are of the first line, 6 and 7 of the next, then it goes back by two.
    #[test]
    fn lnotab_of_3_9() {
        let table = [6, 1, 2, 0xfe];
        let expected = [10, 10, 11, 9, 9].map(Some);
        assert_eq!(
            lines(LineTable::Lnotab, &table, &[0, 5, 6, 8, 999]),
            expected
        );
        assert_eq!(
            line_at(LineTable::Lnotab, &[255, 0, 45, 7], 1, 299),
            Some(1)
        );
        assert_eq!(
            line_at(LineTable::Lnotab, &[255, 0, 45, 7], 1, 300),
            Some(8)
        );
    }

    /// Ranges follow one another; one has no line; a long function's table is read to its end.
    #[test]
    fn ranges_of_3_10() {
        let table = [4, 1, 2, 0x80, 8, 3];
        let found = lines(LineTable::Ranges, &table, &[0, 3, 4, 6, 13, 14]);
        assert_eq!(found, [Some(11), Some(11), None, Some(14), Some(14), None]);
        let long = [4, 1].repeat(500);
        assert_eq!(line_at(LineTable::Ranges, &long, 0, 1999), Some(500));
    }

    /// Every kind of entry: short, one line, no column, long, none.
    #[test]
    fn locations_of_3_11() {
        let table = [
            0x80,
            0x12, // short, one unit, same line
            0x80 | 11 << 3 | 1,
            1,
            2, // one line down, two units
            0x80 | 13 << 3,
            0x5,            // no column, two lines back (2 << 1 | 1)
            0x80 | 15 << 3, // no location
            0x80 | 14 << 3 | 7,
            0x40 | 8,
            2,
            0,
            1,
            1, // long: (2 << 6 | 8) >> 1 lines down
        ];
        let found = lines(
            LineTable::Locations,
            &table,
            &[-2, 0, 1, 2, 5, 6, 8, 10, 25, 26],
        );
        let expected = [10, 10, 10, 11, 11, 9].map(Some);
        assert_eq!(found[..6], expected);
        assert_eq!(found[6..], [None, Some(9 + 68), Some(9 + 68), None]);
    }

    proptest! {
        /// No bytes make a reader fail, or take long.
        #[test]
        fn any_bytes_are_read(table in proptest::collection::vec(any::<u8>(), 0..300), offset in any::<i32>(), line in any::<u32>()) {
            for kind in [LineTable::Lnotab, LineTable::Ranges, LineTable::Locations] {
                line_at(kind, &table, line, offset);
            }
        }
    }
}
