//! From an ELF file to its [`Table`]. Files come from anywhere: what cannot be read is an error value
//! or counted, never a panic.

use std::collections::{BTreeMap, HashMap};

use gimli::{
    BaseAddresses, CieOrFde, CommonInformationEntry, DebugFrame, EhFrame, FrameDescriptionEntry,
    LittleEndian, Reader, ReaderOffset, UnwindContext, UnwindOffset, UnwindSection,
};
use object::{
    Architecture, Object, ObjectSection, ObjectSegment, ObjectSymbol, ReadRef, SectionKind,
    SymbolKind,
    elf::{PF_W, PF_X},
};
use profiler_common::unwind::{Cfa, Rule};

use super::{
    analysis::{self, CodeSection},
    code_of_go, headers,
    ranges::holds,
    rows::{Builder, Table},
    rules::{Arch, Rules},
};
use crate::{foreign::plain, go};

/// Most functions of one file; libLLVM has 160,000. While it is read, one takes 32 bytes.
pub(super) const FUNCTIONS_MAX: usize = 1_000_000;
/// Most rows of one file; libLLVM has 1.5 million. While it is read, one takes 32 bytes.
pub(super) const ROWS_MAX: usize = 3_000_000;
/// Most bytes of instructions that are run through for one file, those in common once for each function.
pub(super) const INSTRUCTION_BYTES_MAX: u64 = 128 << 20;
/// Most sections of code of one file; linkers make some five.
const CODE_SECTIONS_MAX: usize = 256;
/// Most symbols of one file that are looked at.
const SYMBOLS_MAX: usize = 1_000_000;
/// Most segments of one file; linkers make some ten.
const SEGMENTS_MAX: usize = 256;

/// Longest part that functions' rules have in common: it is run through again for each of them.
/// Compilers write 20 to 40 bytes.
pub(super) const COMMON_BYTES_MAX: u64 = 1024;

/// Smallest unit that is mapped; where the machine's is larger, linkers align segments to that.
const PAGE_BYTES: u64 = 4096;

/// Why a file has no table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is no ELF file.
    #[error("not an ELF file")]
    NotElf,
    /// It is one for another processor.
    #[error("an ELF file for another processor")]
    OtherProcessor,
}

/// Where the parts of a file that are mapped lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segments(Vec<Segment>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    file_offset: u64,
    file_size: u64,
    address: u64,
    flags: u32,
}

/// Which segment is meant where several share a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// The executable one.
    Code,
    /// The writable one.
    Data,
}

impl Segments {
    fn read<'a, R: ReadRef<'a>>(object: &object::File<'a, R>) -> Self {
        let segments = object.segments().take(SEGMENTS_MAX).map(|segment| {
            let (file_offset, file_size) = segment.file_range();
            let flags = match segment.flags() {
                object::SegmentFlags::Elf { p_flags, .. } => p_flags,
                _ => 0,
            };
            Segment {
                file_offset,
                file_size,
                address: segment.address(),
                flags,
            }
        });
        Self(segments.collect())
    }

    /// What addresses are above those of the file where `file_offset` is mapped at `start`. A mapping
    /// begins at a page's beginning, so up to a page before its segment; offset and address of a
    /// segment need not be equal (lld).
    pub fn bias(&self, start: u64, file_offset: u64, usage: Use) -> Option<u64> {
        let flag = match usage {
            Use::Code => PF_X,
            Use::Data => PF_W,
        };
        let holds = |segment: &&Segment| {
            let begin = segment.file_offset - segment.file_offset % PAGE_BYTES;
            (begin..segment.file_offset.saturating_add(segment.file_size)).contains(&file_offset)
        };
        let mut found = self.0.iter().filter(holds);
        let first = found.clone().next()?;
        let segment = found
            .find(|segment| segment.flags & flag != 0)
            .unwrap_or(first);
        let address = segment
            .address
            .wrapping_add(file_offset)
            .wrapping_sub(segment.file_offset);
        Some(start.wrapping_sub(address))
    }
}

impl Table {
    /// Reads a file: its segments and its table, which is empty where it has no call frame information.
    pub fn read<'a, R: ReadRef<'a>>(data: R) -> Result<(Segments, Self), Malformed> {
        let object = object::File::parse(data).map_err(|_| Malformed::NotElf)?;
        let arch = match object.architecture() {
            Architecture::X86_64 => Arch::X86_64,
            Architecture::Aarch64 => Arch::Aarch64,
            _ => return Err(Malformed::OtherProcessor),
        };
        let segments = Segments::read(&object);
        Ok((segments, table(data, &object, arch)))
    }
}

/// Where functions begin and end, as far as unwind tables or an analysis of the code say so, sorted.
pub(crate) fn functions<'a, R: ReadRef<'a>>(
    data: R,
    object: &object::File<'a, R>,
) -> Vec<(u64, u64)> {
    builder(data, object, Arch::X86_64).extents()
}

fn table<'a, R: ReadRef<'a>>(data: R, object: &object::File<'a, R>, arch: Arch) -> Table {
    builder(data, object, arch).finish()
}

fn builder<'a, R: ReadRef<'a>>(data: R, object: &object::File<'a, R>, arch: Arch) -> Builder {
    let mut builder = Builder::new();
    let address = |name| {
        object
            .section_by_name(name)
            .map_or(0, |section| section.address())
    };
    let section = |name| plain(&object.section_by_name(name)?);
    let is_headless = object.sections().next().is_none();
    let (eh_frame_address, eh_frame) = match is_headless.then(|| headers::eh_frame(data)) {
        Some(found) => found.map_or((0, None), |(start, bytes)| (start, Some(bytes))),
        None => (address(".eh_frame"), section(".eh_frame")),
    };
    let bases = BaseAddresses::default()
        .set_eh_frame(eh_frame_address)
        .set_text(address(".text"))
        .set_got(address(".got"));
    if let Some(data) = eh_frame {
        let mut eh_frame = EhFrame::new(data, LittleEndian);
        eh_frame.set_address_size(8);
        let mut reading = Reading {
            section: &eh_frame,
            bases: &bases,
            arch,
            builder: &mut builder,
            instruction_bytes: 0,
        };
        reading.read(|_| true);
    }
    // Go has this section too, without the rules of the frame pointer that it keeps: there the frame
    // pointer itself is better.
    let is_go = go::is_go(object);
    if let Some(data) = section(".debug_frame").filter(|_| !is_go) {
        let covered = builder.extents();
        let mut debug_frame = DebugFrame::new(data, LittleEndian);
        debug_frame.set_address_size(8);
        let mut reading = Reading {
            section: &debug_frame,
            bases: &bases,
            arch,
            builder: &mut builder,
            instruction_bytes: 0,
        };
        reading.read(|start| !holds(&covered, start));
    }
    if is_go {
        code_of_go::add_functions(object, arch, &mut builder);
    } else if arch == Arch::X86_64 {
        analyse_rest(data, object, &mut builder);
    }
    builder
}

/// Follows the instructions of functions that nothing covers.
fn analyse_rest<'a, R: ReadRef<'a>>(data: R, object: &object::File<'a, R>, builder: &mut Builder) {
    let sections: Vec<_> = object
        .sections()
        .filter(|section| section.kind() == SectionKind::Text)
        .take(CODE_SECTIONS_MAX)
        .filter_map(|section| {
            let (offset, size) = section.file_range()?;
            Some(CodeSection {
                address: section.address(),
                size,
                read: move |inside, size| {
                    data.read_bytes_at(offset.checked_add(inside)?, size).ok()
                },
            })
        })
        .collect();
    let symbols = object.symbols().chain(object.dynamic_symbols());
    let symbols = symbols.take(SYMBOLS_MAX);
    let functions =
        symbols.filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.is_definition());
    let functions: BTreeMap<u64, u64> = functions
        .map(|symbol| (symbol.address(), symbol.size()))
        .collect();
    analysis::add_functions(&sections, &functions, object.entry(), builder);
}

/// One section of call frame information, on its way into a table.
struct Reading<'a, S> {
    section: &'a S,
    bases: &'a BaseAddresses,
    arch: Arch,
    builder: &'a mut Builder,
    instruction_bytes: u64,
}

impl<S> Reading<'_, S> {
    /// Adds the functions that are wanted by their first address; what is malformed is counted, what
    /// can be read is used.
    fn read<R>(&mut self, wanted: impl Fn(u64) -> bool)
    where
        R: Reader,
        S: UnwindSection<R>,
    {
        let mut cies: HashMap<u64, CommonInformationEntry<R>> = HashMap::new();
        let mut context = UnwindContext::new();
        let mut entries = self.section.entries(self.bases);
        loop {
            let partial = match entries.next() {
                Ok(Some(CieOrFde::Fde(partial))) => partial,
                Ok(Some(CieOrFde::Cie(cie))) => {
                    if cie.entry_len().into_u64() <= COMMON_BYTES_MAX {
                        cies.insert(cie.offset().into_u64(), cie);
                    }
                    continue;
                }
                Ok(None) => break,
                Err(_) => {
                    self.builder.malformed();
                    break;
                }
            };
            // Assemblers write what is common before the functions that share it. Reading it wherever a
            // function says that it is would take a hostile file's time squared.
            let fde = partial.parse(|_, _, offset| {
                let offset = UnwindOffset::<R::Offset>::into(offset).into_u64();
                let cie = cies.get(&offset).cloned();
                cie.ok_or(gimli::Error::NotCieId(offset))
            });
            // The linker leaves entries of functions that it dropped at zero.
            let is_wanted = |fde: &FrameDescriptionEntry<R>| {
                fde.initial_address() != 0 && wanted(fde.initial_address())
            };
            match fde {
                Ok(fde) if is_wanted(&fde) => {
                    let bytes = fde.entry_len().into_u64() + fde.cie().entry_len().into_u64();
                    self.instruction_bytes += bytes;
                    if self.add_function(&fde, &mut context).is_none() {
                        self.builder.malformed();
                    }
                }
                Ok(_) => {}
                Err(_) => self.builder.malformed(),
            }
            if self.builder.is_full(FUNCTIONS_MAX, ROWS_MAX)
                || self.instruction_bytes > INSTRUCTION_BYTES_MAX
            {
                self.builder.cut();
                break;
            }
        }
    }

    /// `None` where its rules are malformed: what was read until then is used.
    fn add_function<R>(
        &mut self,
        fde: &FrameDescriptionEntry<R>,
        context: &mut UnwindContext<R::Offset>,
    ) -> Option<()>
    where
        R: Reader,
        S: UnwindSection<R>,
    {
        let rules = Rules {
            arch: self.arch,
            section: self.section,
            encoding: fde.cie().encoding(),
        };
        let ra = fde.cie().return_address_register();
        let end = fde.initial_address().checked_add(fde.len())?;
        // The return address into the kernel's trampoline is its first byte, though no call led there,
        // and is looked up one byte before.
        let is_signal = fde.is_signal_trampoline();
        let start = fde.initial_address() - u64::from(is_signal);
        self.builder.function(start, end);
        if is_signal {
            self.builder.row(start, Rule::only(Cfa::Signal));
            return Some(());
        }
        let mut rows = fde.rows(self.section, self.bases, context).ok()?;
        while let Some(row) = rows.next_row().ok()? {
            self.builder.row(row.start_address(), rules.rule(row, ra));
            if self.builder.is_full(usize::MAX, ROWS_MAX) {
                break;
            }
        }
        Some(())
    }
}

impl Segments {
    /// Reads only the segments of a file.
    pub fn of<'a, R: ReadRef<'a>>(data: R) -> Option<Self> {
        Some(Self::read(&object::File::parse(data).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use gimli::{BaseAddresses, EhFrame, LittleEndian};

    use super::{Builder, Cfa, Reading, Table};
    use crate::unwind::rules::Arch;

    /// `DW_CFA_def_cfa rsp+8; DW_CFA_offset ra, -8`
    const FIRST: [u8; 5] = [0x0c, 7, 8, 0x90, 1];
    const NOP: u8 = 0;
    /// `DW_CFA_advance_loc 1`
    const ADVANCE: u8 = 0x41;

    /// A section: what is common, then functions of 4096 bytes one after the other.
    fn read(common: &[u8], functions: &[&[u8]]) -> Table {
        let mut section = Vec::new();
        let mut entry = |pointer: u32, body: &[u8]| {
            let padding = body.len().next_multiple_of(4) - body.len();
            let length = u32::try_from(4 + body.len() + padding).unwrap();
            section.extend([length.to_le_bytes(), pointer.to_le_bytes()].concat());
            section.extend([body, &[NOP; 3][..padding]].concat());
            u32::try_from(section.len()).unwrap()
        };
        // Version 1, no augmentation, alignment factors 1 and -8, return address in 16.
        let mut at = entry(0, &[&[1, 0, 1, 0x78, 16], common].concat());
        for (number, rows) in (1_u64..).zip(functions) {
            let extent = [(number << 12).to_le_bytes(), 4096_u64.to_le_bytes()].concat();
            at = entry(at + 4, &[&extent, *rows].concat());
        }
        let mut eh_frame = EhFrame::new(&section, LittleEndian);
        eh_frame.set_address_size(8);
        let mut builder = Builder::new();
        let bases = BaseAddresses::default().set_eh_frame(0);
        let mut reading = Reading {
            section: &eh_frame,
            bases: &bases,
            arch: Arch::X86_64,
            builder: &mut builder,
            instruction_bytes: 0,
        };
        reading.read(|_| true);
        builder.finish()
    }

    /// What compilers write is read: the functions' rules, and none behind them.
    #[test]
    fn functions_have_the_common_rules() {
        let table = read(&FIRST, &[&[], &[ADVANCE, 0x0e, 16]]);
        assert_eq!((table.malformed, table.raw_rows), (0, 3));
        let at = |address| table.rule_at(address).map(|rule| rule.cfa_offset);
        assert_eq!(
            [0xfff, 0x1000, 0x2000, 0x2001, 0x3000].map(at),
            [None, Some(8), Some(8), Some(16), None]
        );
    }

    /// A long common part is not run through for each function: its functions are malformed.
    #[test]
    fn a_long_common_part_is_refused() {
        let table = read(&[&FIRST[..], &[NOP; 2000]].concat(), &[&[], &[]]);
        assert_eq!((table.malformed, table.raw_rows), (2, 0));
    }

    /// The longest form of expression is understood, and one operation more is not.
    #[test]
    fn expressions_end() {
        // What binutils write for a procedure linkage table, as long as it is.
        const PLT: [u8; 11] = [0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22];
        let kind = |operations: &[u8]| {
            let length = u8::try_from(operations.len()).unwrap();
            let table = read(&[&[0x0f, length], operations, &[0x90, 1]].concat(), &[&[]]);
            table.rule_at(0x1000).map(|rule| rule.cfa)
        };
        assert_eq!(kind(&PLT), Some(Cfa::Plt as u8));
        let longer = [&PLT[..], &[0x96]].concat();
        assert_eq!(kind(&longer), Some(Cfa::Unsupported as u8));
    }
}
