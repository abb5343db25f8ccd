//! What the fuzz targets share: what must hold of every table, whatever bytes it was made of, and an
//! ELF file around a section, so that the fuzzer spends itself on the section.

use profiler::unwind::{Malformed, Segments, Table, Use};
use profiler_common::unwind::table::{PAGE_BITS, SEARCH_MAX, rule_of};

/// Bytes of the ELF header, of a program header and of a section header.
const HEADER_BYTES: usize = 64;
const PROGRAM_BYTES: usize = 56;
const SECTION_BYTES: usize = 64;

/// Where the section stands in memory: far enough up that offsets back from it lie above zero.
const SECTION_ADDRESS: u64 = 0x1000_0000;

/// Names of the sections that are made, each of them behind a zero.
const NAMES: &[u8] = b"\0.shstrtab\0.eh_frame\0.debug_frame\0";

/// A section with call frame information.
#[derive(Clone, Copy, Debug)]
pub enum Section {
    /// `.eh_frame`
    EhFrame,
    /// `.debug_frame`
    DebugFrame,
}

/// A processor.
#[derive(Clone, Copy, Debug)]
pub enum Machine {
    /// `EM_X86_64`
    X86_64 = 62,
    /// `EM_AARCH64`
    Aarch64 = 183,
}

/// Reads bytes as the profiler does, and checks what comes of it.
///
/// # Panics
/// Where an invariant does not hold: that is the fuzzer's find.
pub fn read(bytes: &[u8]) -> Result<(), Malformed> {
    let (segments, table) = Table::read(bytes)?;
    check_table(&table);
    look_up(&table);
    check_segments(&segments, bytes);
    Ok(())
}

/// What the kernel side relies on: a page's rows lie in the table, sorted, in numbers that it can search,
/// each with a rule that exists; pages follow one another without holes.
fn check_table(table: &Table) {
    let mut next = 0;
    for &(first, count) in &table.pages {
        assert_eq!(first, next, "pages follow one another");
        next = first + u32::from(count);
        assert!(u32::from(count) <= SEARCH_MAX);
        let rows = &table.rows[first as usize..next as usize];
        assert!(
            rows.is_sorted_by_key(|row| row >> PAGE_BITS),
            "rows are sorted"
        );
        assert!(
            rows.iter()
                .all(|&row| (rule_of(row) as usize) < table.rules.len()),
            "rules exist"
        );
    }
    assert_eq!(next as usize, table.rows.len());
    // A row, the gap behind it, and the rule in force at the beginning of each page.
    let most = 2 * table.raw_rows + table.pages.len() as u64 + 1;
    assert!(table.rows.len() as u64 <= most, "compaction does not grow");
}

/// Looks up addresses at, before and behind every page, and at the ends of the address space.
fn look_up(table: &Table) {
    let begin = u64::from(table.first_page) << PAGE_BITS;
    for page in 0..=table.pages.len() as u64 {
        let address = begin.wrapping_add(page << PAGE_BITS);
        for near in [
            address.wrapping_sub(1),
            address,
            address.wrapping_add(0x1234),
        ] {
            table.rule_at(near);
        }
    }
    table.rule_at(0);
    table.rule_at(u64::MAX);
}

/// Asks where offsets lie that the bytes themselves name.
fn check_segments(segments: &Segments, bytes: &[u8]) {
    for word in bytes.chunks_exact(8).take(512) {
        let number = u64::from_le_bytes(word.try_into().unwrap_or_default());
        segments.bias(number, number, Use::Code);
        segments.bias(0x7f00_0000_0000, number & 0xffff_f000, Use::Code);
        segments.bias(u64::MAX, number.wrapping_add(1), Use::Code);
    }
    segments.bias(0, 0, Use::Code);
}

/// An ELF file with one segment and one section of these bytes.
#[must_use]
pub fn elf(machine: Machine, section: Section, bytes: &[u8]) -> Vec<u8> {
    let data_offset = HEADER_BYTES + PROGRAM_BYTES;
    let names_offset = data_offset + bytes.len();
    let sections_offset = (names_offset + NAMES.len()).next_multiple_of(8);
    let mut file = Vec::with_capacity(sections_offset + 3 * SECTION_BYTES);
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    put(&mut file, 2, &[3, machine as u64]);
    put(&mut file, 4, &[1]);
    put(
        &mut file,
        8,
        &[0, HEADER_BYTES as u64, sections_offset as u64],
    );
    put(&mut file, 4, &[0]);
    let sizes = [HEADER_BYTES, PROGRAM_BYTES, 1, SECTION_BYTES, 3, 1];
    put(&mut file, 2, &sizes.map(|size| size as u64));
    // PT_LOAD, readable and executable, the whole file.
    put(&mut file, 4, &[1, 5]);
    let size = bytes.len() as u64;
    put(
        &mut file,
        8,
        &[
            0,
            SECTION_ADDRESS,
            SECTION_ADDRESS,
            names_offset as u64,
            size,
            0x1000,
        ],
    );
    file.extend(bytes);
    file.extend(NAMES);
    file.resize(sections_offset, 0);
    put(&mut file, 8, &[0; SECTION_BYTES / 8]);
    // SHT_STRTAB, then SHT_PROGBITS.
    section_header(&mut file, (1, 3), (names_offset, NAMES.len()));
    let name = match section {
        Section::EhFrame => 11,
        Section::DebugFrame => 21,
    };
    section_header(&mut file, (name, 1), (data_offset, bytes.len()));
    file
}

/// A section header: its name and type, its offset and size.
fn section_header(file: &mut Vec<u8>, (name, kind): (u64, u64), (offset, size): (usize, usize)) {
    put(file, 4, &[name, kind]);
    put(
        file,
        8,
        &[2, SECTION_ADDRESS, offset as u64, size as u64, 0, 1, 0],
    );
}

/// Appends the low bytes of numbers.
fn put(file: &mut Vec<u8>, width: usize, numbers: &[u64]) {
    for number in numbers {
        file.extend(&number.to_le_bytes()[..width]);
    }
}

#[cfg(test)]
mod tests {
    use super::{Machine, Section, elf, read};

    /// What is made around a section is an ELF file, or the target would fuzz nothing.
    #[test]
    fn the_file_is_read() {
        for machine in [Machine::X86_64, Machine::Aarch64] {
            for section in [Section::EhFrame, Section::DebugFrame] {
                assert_eq!(read(&elf(machine, section, &[0; 4])), Ok(()));
            }
        }
    }
}
