//! What the fuzz targets share: what must hold of every table, whatever bytes it was made of, and an
//! ELF file around a section, so that the fuzzer spends itself on the section.

use profiler::unwind::{Malformed, Segments, Table, Use};
use profiler_common::unwind::table::{PAGE_BITS, SEARCH_MAX, rule_of};

mod elf;

pub use elf::{Part, build};

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
    let name = match section {
        Section::EhFrame => ".eh_frame",
        Section::DebugFrame => ".debug_frame",
    };
    build(machine, &[Part::data(name, bytes)])
}

/// A file in memory.
///
/// # Errors
///
/// Where the kernel has no such files.
pub fn memory_file() -> std::io::Result<std::fs::File> {
    tempfile::tempfile_in("/dev/shm")
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
