//! An ELF file around sections.

use crate::Machine;

/// Bytes of the ELF header, of a program header and of a section header.
const HEADER_BYTES: usize = 64;
const PROGRAM_BYTES: usize = 56;
const SECTION_BYTES: usize = 64;

/// Where the first section stands in memory: far enough up that offsets back from it lie above
/// zero.
const ADDRESS: u64 = 0x1000_0000;

/// A section.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// Its name.
    pub name: &'a str,
    /// `sh_type`
    pub kind: u32,
    /// Number of the section that has its names, from 1.
    pub link: u32,
    /// `sh_entsize`
    pub entry: u64,
    /// What is in it.
    pub bytes: &'a [u8],
}

impl<'a> Part<'a> {
    /// `SHT_PROGBITS`
    #[must_use]
    pub fn data(name: &'a str, bytes: &'a [u8]) -> Self {
        Self {
            name,
            kind: 1,
            link: 0,
            entry: 0,
            bytes,
        }
    }
}

/// An ELF file with these sections, all of them in one segment that is readable and executable; the
/// names of sections come last.
#[must_use]
pub fn build(machine: Machine, parts: &[Part<'_>]) -> Vec<u8> {
    let mut names = b"\0.shstrtab\0".to_vec();
    let begin = HEADER_BYTES + PROGRAM_BYTES;
    let mut body: Vec<u8> = Vec::new();
    let mut headers = Vec::new();
    put(&mut headers, 8, &[0; SECTION_BYTES / 8]);
    for part in parts {
        let offset = (begin + body.len()) as u64;
        let name = names.len() as u64;
        names.extend(part.name.as_bytes());
        names.push(0);
        put(&mut headers, 4, &[name, u64::from(part.kind)]);
        let address = ADDRESS + body.len() as u64;
        put(
            &mut headers,
            8,
            &[2, address, offset, part.bytes.len() as u64],
        );
        put(&mut headers, 4, &[u64::from(part.link), 0]);
        put(&mut headers, 8, &[1, part.entry]);
        body.extend(part.bytes);
    }
    let names_offset = (begin + body.len()) as u64;
    // SHT_STRTAB
    put(&mut headers, 4, &[1, 3]);
    put(
        &mut headers,
        8,
        &[0, 0, names_offset, names.len() as u64, 0, 1, 0],
    );
    let sections_offset = (begin + body.len() + names.len()).next_multiple_of(8);
    let mut file = Vec::with_capacity(sections_offset + headers.len());
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    put(&mut file, 2, &[3, machine as u64]);
    put(&mut file, 4, &[1]);
    put(
        &mut file,
        8,
        &[0, HEADER_BYTES as u64, sections_offset as u64],
    );
    put(&mut file, 4, &[0]);
    let sections = parts.len() + 2;
    let sizes = [
        HEADER_BYTES,
        PROGRAM_BYTES,
        1,
        SECTION_BYTES,
        sections,
        sections - 1,
    ];
    put(&mut file, 2, &sizes.map(|size| size as u64));
    // PT_LOAD, readable and executable.
    put(&mut file, 4, &[1, 5]);
    let size = body.len() as u64;
    put(
        &mut file,
        8,
        &[begin as u64, ADDRESS, ADDRESS, size, size, 0x1000],
    );
    file.extend(body);
    file.extend(names);
    file.resize(sections_offset, 0);
    file.extend(headers);
    file
}

/// Appends the low bytes of numbers.
fn put(file: &mut Vec<u8>, width: usize, numbers: &[u64]) {
    for number in numbers {
        file.extend(&number.to_le_bytes()[..width]);
    }
}
