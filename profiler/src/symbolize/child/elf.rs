//! What an ELF file tells beside names: its functions' ranges, its sections, and which address belongs to which
//! offset. Files come from anywhere: what cannot be read is an error value.

use std::{fs::File, os::fd::OwnedFd};

use object::{Architecture, Object, ObjectSection, ObjectSegment, ReadCache};

use super::functions::Functions;
use crate::{go, unwind};

/// Most code that is analysed for the sake of names: a second of it would cost others theirs.
const ANALYSED_MAX: u64 = 8 << 20;

/// Facts of one file.
#[derive(Debug, Default)]
pub(crate) struct Elf {
    /// Ranges of functions.
    pub(crate) functions: Functions,
    /// Go's own tables, if it is a Go program.
    pub(crate) go: Option<go::Image<'static>>,
    segments: Vec<Segment>,
    sections: Vec<(u64, u64, String)>,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    file_offset: u64,
    file_size: u64,
    address: u64,
}

impl Elf {
    /// Reads a file, `None` if it is no ELF file that can be understood.
    pub(crate) fn read(file: &OwnedFd) -> Option<Self> {
        let cache = ReadCache::new(File::from(file.try_clone().ok()?));
        let object = object::File::parse(&cache).ok()?;
        let segments = object.segments().map(|segment| {
            let (file_offset, file_size) = segment.file_range();
            Segment {
                file_offset,
                file_size,
                address: segment.address(),
            }
        });
        let code = object
            .sections()
            .filter(|section| section.kind() == object::SectionKind::Text);
        let sections = code.filter_map(|section| {
            let name = section.name().ok()?.to_owned();
            Some((
                section.address(),
                section.address().checked_add(section.size())?,
                name,
            ))
        });
        Some(Self {
            segments: segments.collect(),
            sections: sections.collect(),
            functions: Functions::read(&object),
            go: go::Image::keep(&object),
        })
    }

    /// Looks for functions that no unwind table covers, as those of a C library without any.
    pub(super) fn analyse(&mut self, file: &OwnedFd) {
        let code: u64 = self
            .sections
            .iter()
            .map(|(start, end, _)| end.saturating_sub(*start))
            .sum();
        let Ok(file) = file.try_clone() else { return };
        let cache = ReadCache::new(File::from(file));
        if let Ok(object) = object::File::parse(&cache)
            && object.architecture() == Architecture::X86_64
            && code <= ANALYSED_MAX
        {
            self.functions = Functions::new(unwind::functions(&cache, &object));
        }
    }

    /// Whether nothing says which function an offset of code is in.
    pub(super) fn is_unknown(&self, offset: u64) -> bool {
        let address = self.address_of(offset);
        address.is_some_and(|address| {
            let section = self.section_of(address);
            section.is_some_and(|name| !name.starts_with(".plt"))
                && self.functions.find(address).is_none()
        })
    }

    /// The address that the linker gave to what is at an offset of the file. Where a segment's
    /// offset and address differ (lld), so do these.
    pub(crate) fn address_of(&self, offset: u64) -> Option<u64> {
        let holds = |segment: &&Segment| {
            offset
                .checked_sub(segment.file_offset)
                .is_some_and(|inside| inside < segment.file_size)
        };
        let segment = self.segments.iter().find(holds)?;
        segment.address.checked_add(offset - segment.file_offset)
    }

    /// The section of code that holds an address.
    pub(crate) fn section_of(&self, address: u64) -> Option<&str> {
        let section = self
            .sections
            .iter()
            .find(|(start, end, _)| (*start..*end).contains(&address))?;
        Some(&section.2)
    }
}
