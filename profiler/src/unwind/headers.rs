//! Call frame information of files without section headers, by their program headers.
//!
//! `PT_GNU_EH_FRAME` is `.eh_frame_hdr` (Linux Standard Base, Core, 10.6.2), which says where `.eh_frame` begins. Where
//! that ends it does not say: its reader stops at the entry of length zero.

use object::{
    LittleEndian, ReadRef,
    elf::{FileHeader64, PT_GNU_EH_FRAME, PT_LOAD},
    read::elf::{FileHeader, ProgramHeader},
};

/// `DW_EH_PE_pcrel | DW_EH_PE_sdata4`: what every linker writes.
const PC_RELATIVE: u8 = 0x1b;
/// Most program headers that are looked through; linkers make some ten.
const HEADERS_MAX: usize = 256;

/// The section's first address and its bytes, to the end of its segment.
pub(super) fn eh_frame<'a, R: ReadRef<'a>>(data: R) -> Option<(u64, &'a [u8])> {
    let header = FileHeader64::<LittleEndian>::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let segments = header.program_headers(endian, data).ok()?;
    let segments = segments.get(..segments.len().min(HEADERS_MAX))?;
    let index = segments
        .iter()
        .find(|segment| segment.p_type(endian) == PT_GNU_EH_FRAME)?;
    let bytes = index.data(endian, data).ok()?;
    // Version, encodings of the pointer, of the count and of the table, then the pointer, from where it lies itself.
    let &[1, PC_RELATIVE, _, _, a, b, c, d, ..] = bytes else {
        return None;
    };
    let pointer = index.p_vaddr(endian).checked_add(4)?;
    let start = pointer.checked_add_signed(i64::from(i32::from_le_bytes([a, b, c, d])))?;
    segments
        .iter()
        .filter(|segment| segment.p_type(endian) == PT_LOAD)
        .find_map(|segment| {
            let inside = start.checked_sub(segment.p_vaddr(endian))?;
            let left = segment.p_filesz(endian).checked_sub(inside)?;
            let offset = segment.p_offset(endian).checked_add(inside)?;
            let bytes = data.read_bytes_at(offset, left).ok()?;
            Some((start, bytes)).filter(|_| left > 0)
        })
}

#[cfg(test)]
mod tests {
    use object::{Object, ObjectSection};

    use super::eh_frame;

    /// Our own executable's section is found without its section headers, where they say that it is.
    #[test]
    fn the_section_is_found() {
        let data = std::fs::read("/proc/self/exe").unwrap();
        let file = object::File::parse(data.as_slice()).unwrap();
        let section = file.section_by_name(".eh_frame").unwrap();
        let (start, bytes) = eh_frame(data.as_slice()).unwrap();
        assert_eq!(start, section.address());
        assert!(bytes.starts_with(section.data().unwrap()));
    }

    /// What is no such file has none.
    #[test]
    fn nonsense_has_none() {
        assert!(eh_frame(b"\x7fELF".as_slice()).is_none());
        assert!(eh_frame([0; 4096].as_slice()).is_none());
    }
}
