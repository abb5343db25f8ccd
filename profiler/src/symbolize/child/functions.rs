//! Where functions begin and end, from the unwind tables that even stripped programs carry: each
//! entry (FDE) of `.eh_frame` covers one function, or one part of a split one.

use gimli::{BaseAddresses, CieOrFde, EhFrame, EndianSlice, NativeEndian, UnwindSection};
use object::{Object, ObjectSection, ReadRef};

/// Most functions of one file; libLLVM has 160,000.
const FUNCTIONS_MAX: usize = 4_000_000;

/// Ranges of functions in one file, by the linker's addresses.
#[derive(Debug, Default)]
pub(crate) struct Functions {
    sorted: Vec<(u64, u64)>,
}

impl Functions {
    /// Reads `.eh_frame`; what is malformed ends the reading, what was read until then is used.
    pub(super) fn read<'a, R: ReadRef<'a>>(object: &object::File<'a, R>) -> Self {
        let Some(section) = object.section_by_name(".eh_frame") else {
            return Self::default();
        };
        let Ok(data) = section.uncompressed_data() else {
            return Self::default();
        };
        let address = |name| {
            object
                .section_by_name(name)
                .map_or(0, |section| section.address())
        };
        let bases = BaseAddresses::default()
            .set_eh_frame(section.address())
            .set_text(address(".text"))
            .set_got(address(".got"));
        let mut eh_frame = EhFrame::new(&data, NativeEndian);
        eh_frame.set_address_size(if object.is_64() { 8 } else { 4 });
        Self::new(ranges(&eh_frame, &bases))
    }

    /// Those that an analysis of the code finds, too.
    pub(super) fn new(mut ranges: Vec<(u64, u64)>) -> Self {
        ranges.sort_unstable();
        Self { sorted: ranges }
    }

    /// The function that holds an address: its first address and its end.
    pub(crate) fn find(&self, address: u64) -> Option<(u64, u64)> {
        let after = self.sorted.partition_point(|&(start, _)| start <= address);
        let range = *self.sorted.get(after.checked_sub(1)?)?;
        (address < range.1).then_some(range)
    }
}

fn ranges(
    eh_frame: &EhFrame<EndianSlice<'_, NativeEndian>>,
    bases: &BaseAddresses,
) -> Vec<(u64, u64)> {
    let mut ranges = Vec::new();
    let mut entries = eh_frame.entries(bases);
    while let Ok(Some(entry)) = entries.next() {
        let CieOrFde::Fde(partial) = entry else {
            continue;
        };
        let Ok(fde) = partial.parse(EhFrame::cie_from_offset) else {
            continue;
        };
        if let Some(end) = fde.initial_address().checked_add(fde.len()) {
            ranges.push((fde.initial_address(), end));
        }
        if ranges.len() >= FUNCTIONS_MAX {
            break;
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::Functions;

    /// An address between two functions belongs to neither.
    #[test]
    fn gaps_belong_to_nobody() {
        let functions = Functions::new(vec![(0x30, 0x40), (0x10, 0x20)]);
        assert_eq!(
            (
                functions.find(0x1f),
                functions.find(0x20),
                functions.find(0x3f)
            ),
            (Some((0x10, 0x20)), None, Some((0x30, 0x40)))
        );
        assert_eq!(functions.find(0), None);
    }

    /// Our own executable's functions hold our own code.
    #[test]
    fn reads_our_own_executable() {
        let file = std::fs::File::open("/proc/self/exe").unwrap().into();
        let elf = super::super::elf::Elf::read(&file).unwrap();
        assert!(elf.functions.sorted.len() > 1000);
        assert!(elf.functions.sorted.iter().all(|(start, end)| start <= end));
    }
}
