//! The only file that names blazesym: looks places up, file by file, and falls back where there is
//! no symbol.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    io::Read,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use blazesym::symbolize::{
    CodeInfo, Input, Sym, Symbolized, Symbolizer,
    source::{Elf as ElfSource, Kernel, Source},
};

use super::{
    Named, Resolved, Sources,
    elf::Elf,
    perf_map::{BYTES_MAX, PerfMap},
};
use crate::{
    process::{FileId, LifeId, PinnedFile, Place, VDSO_NAME, vdso_image},
    profile::{Frame, FrameKind, Module},
};

/// Where distributions put separate debug information.
const DEBUG_DIRECTORIES: [&str; 2] = ["/usr/lib/debug", "/lib/debug"];
const KERNEL: &str = "[kernel.kallsyms]";

const NO_KERNEL_NAMES: &str =
    "kernel address without a name (kernel.kptr_restrict, or no CAP_SYSLOG)";
const NOT_ELF: &str = "mapped file that is no readable ELF file";
const UNMAPPED: &str = "address outside every mapping";
const NO_DEBUG_INFO: &str = "debug information not usable, only symbols used";
const PERF_MAP_LINE: &str = "malformed line of a perf map";

/// The state of the symbolizer's thread.
pub(super) struct Names {
    symbolizer: Symbolizer,
    /// Files in which functions had to be named by address.
    stripped: BTreeSet<FileId>,
    vdso: Option<(File, Option<Elf>)>,
    notes: BTreeMap<&'static str, u64>,
}

impl Names {
    pub(super) fn new(debug_directories: &[PathBuf]) -> Self {
        let host = DEBUG_DIRECTORIES.iter().map(PathBuf::from);
        let directories: Vec<PathBuf> = debug_directories
            .iter()
            .cloned()
            .chain(host)
            .filter(|path| path.is_dir())
            .collect();
        let symbolizer = Symbolizer::builder()
            .enable_code_info(true)
            .enable_inlined_fns(true)
            .set_debug_dirs(Some(directories))
            .build();
        Self {
            symbolizer,
            stripped: BTreeSet::new(),
            vdso: vdso_image().ok().map(|file| (file, None)),
            notes: BTreeMap::new(),
        }
    }

    /// A name for each place.
    pub(super) fn resolve(&mut self, places: &[Place], sources: &Sources) -> Resolved {
        let mut named: Vec<Option<Named>> = vec![None; places.len()];
        self.kernel(places, &mut named);
        self.files(places, sources, &mut named);
        self.vdso(places, &mut named);
        self.anonymous(places, sources, &mut named);
        let named = named
            .into_iter()
            .map(|named| named.unwrap_or_else(|| self.unmapped()))
            .collect();
        Resolved {
            named,
            notes: std::mem::take(&mut self.notes),
            hints: self.hints(sources),
        }
    }

    fn note(&mut self, note: &'static str) {
        *self.notes.entry(note).or_default() += 1;
    }

    fn unmapped(&mut self) -> Named {
        self.note(UNMAPPED);
        plain(FrameKind::Marker, "[unmapped]".to_owned(), None)
    }

    fn kernel(&mut self, places: &[Place], named: &mut [Option<Named>]) {
        let (positions, addresses) = select(places, |place| match place {
            Place::Kernel(address) => Some(*address),
            _ => None,
        });
        if addresses.is_empty() {
            return;
        }
        let symbols = self.symbolizer.symbolize(
            &Source::Kernel(Kernel::default()),
            Input::AbsAddr(&addresses),
        );
        let symbols = symbols.unwrap_or_default();
        let names: Vec<_> = symbols
            .iter()
            .map(|symbol| symbol.as_sym().map(frames))
            .collect();
        let mut names = names.into_iter();
        for position in positions {
            let name = names.next().flatten();
            let unnamed = name.is_none();
            let module = Some(Module {
                path: KERNEL.to_owned(),
                ..Module::default()
            });
            let frames = name.unwrap_or_else(|| vec![frame("[kernel]".to_owned())]);
            named[position] = Some(Named {
                kind: FrameKind::Kernel,
                frames,
                module,
            });
            if unnamed {
                self.note(NO_KERNEL_NAMES);
            }
        }
    }

    fn files(&mut self, places: &[Place], sources: &Sources, named: &mut [Option<Named>]) {
        let mut by_file: BTreeMap<FileId, (Vec<usize>, Vec<u64>)> = BTreeMap::new();
        for (position, place) in places.iter().enumerate() {
            if let Place::File { file, offset } = *place {
                let (positions, offsets) = by_file.entry(file).or_default();
                positions.push(position);
                offsets.push(offset);
            }
        }
        for (id, (positions, offsets)) in by_file {
            let Some(pinned) = sources.files.get(id.index()) else {
                continue;
            };
            let elf = pinned.file.as_ref().and_then(Elf::read);
            if pinned.file.is_some() && elf.is_none() {
                self.note(NOT_ELF);
            }
            // A file that is no ELF file is noted as such, once.
            let readable = pinned.file.as_ref().filter(|_| elf.is_some());
            let (symbols, note) = readable
                .map(|file| self.lookup(file, &offsets))
                .unwrap_or_default();
            if let Some(note) = note {
                self.note(note);
            }
            let module = module(pinned, elf.as_ref());
            let mut symbols = symbols.into_iter();
            for (position, offset) in positions.into_iter().zip(offsets) {
                let symbol = symbols.next().flatten();
                if symbol.is_none() && elf.is_some() {
                    self.stripped.insert(id);
                }
                named[position] = Some(in_file(symbol, offset, &module, elf.as_ref()));
            }
        }
    }

    fn vdso(&mut self, places: &[Place], named: &mut [Option<Named>]) {
        let (positions, offsets) = select(places, |place| match place {
            Place::Vdso { offset } => Some(*offset),
            _ => None,
        });
        if offsets.is_empty() {
            return;
        }
        let mut symbols = Vec::new();
        if let Some((file, elf)) = &mut self.vdso {
            elf.get_or_insert_with(|| Elf::read(file).unwrap_or_default());
        }
        if let Some((file, _)) = &self.vdso {
            (symbols, _) = self.lookup(file, &offsets);
        }
        let elf = self.vdso.as_ref().and_then(|(_, elf)| elf.as_ref());
        let module = Module {
            path: VDSO_NAME.to_owned(),
            ..Module::default()
        };
        let mut symbols = symbols.into_iter();
        for (position, offset) in positions.into_iter().zip(offsets) {
            named[position] = Some(in_file(symbols.next().flatten(), offset, &module, elf));
        }
    }

    fn anonymous(&mut self, places: &[Place], sources: &Sources, named: &mut [Option<Named>]) {
        let mut maps: HashMap<LifeId, PerfMap> = HashMap::new();
        for (position, place) in places.iter().enumerate() {
            let Place::Anonymous { life, address } = *place else {
                continue;
            };
            let map = maps
                .entry(life)
                .or_insert_with(|| read_perf_map(sources, life));
            let name = map.find(address).unwrap_or("[anonymous code]").to_owned();
            named[position] = Some(plain(FrameKind::Jit, name, None));
        }
        let malformed = maps.values().map(|map| map.malformed).sum::<u64>();
        if malformed > 0 {
            *self.notes.entry(PERF_MAP_LINE).or_default() += malformed;
        }
    }

    /// What blazesym says of offsets in a file, in their order. Debug information that cannot be used
    /// (that of the host's file of the same path, say) must not cost the file its own symbols.
    fn lookup(&self, file: &File, offsets: &[u64]) -> (Vec<Option<Symbol>>, Option<&'static str>) {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mut source = ElfSource::new(path);
        let mut note = None;
        let mut symbols = self
            .symbolizer
            .symbolize(&Source::from(source.clone()), Input::FileOffset(offsets));
        if symbols.is_err() {
            note = Some(NO_DEBUG_INFO);
            source.debug_syms = false;
            symbols = self
                .symbolizer
                .symbolize(&Source::from(source), Input::FileOffset(offsets));
        }
        let owned = symbols
            .unwrap_or_default()
            .into_iter()
            .map(|symbol| match symbol {
                Symbolized::Sym(symbol) => Some(Symbol {
                    address: symbol.addr,
                    covers: symbol.size.is_some_and(|size| size > 0) || symbol.code_info.is_some(),
                    frames: frames(&symbol),
                }),
                Symbolized::Unknown(_) => None,
            });
        (owned.collect(), note)
    }

    /// One sentence for all files whose functions had to be named by address.
    fn hints(&self, sources: &Sources) -> Vec<String> {
        let pinned = self
            .stripped
            .iter()
            .filter_map(|id| sources.files.get(id.index()));
        let paths: Vec<String> = pinned.map(|file| file.path.display().to_string()).collect();
        if paths.is_empty() {
            return Vec::new();
        }
        let files = paths.join(", ");
        vec![format!(
            "stripped, so some functions are named by address: {files}; debug symbol packages (-dbgsym, -debuginfo) name them"
        )]
    }
}

/// A symbol that covers an address, or claims to.
struct Symbol {
    address: u64,
    /// Whether its file says so: by a size, or by debug information, which has exact ranges also of
    /// functions in several pieces.
    covers: bool,
    frames: Vec<Frame>,
}

/// The name of an offset in a file: its symbol, if that really covers it; else its function's first
/// address; else its section.
fn in_file(symbol: Option<Symbol>, offset: u64, module: &Module, elf: Option<&Elf>) -> Named {
    let address = elf.and_then(|elf| elf.address_of(offset));
    let function = elf
        .zip(address)
        .and_then(|(elf, address)| elf.functions.find(address));
    // Without a size, a symbol may end long before: it is believed up to the end of its function, or,
    // where nothing says where that is, of its section (`_init` does not reach into `.plt`).
    let covered = symbol.filter(|symbol| {
        symbol.covers
            || match function {
                Some((start, _)) => start <= symbol.address,
                None => elf.zip(address).is_some_and(|(elf, address)| {
                    elf.section_of(address).is_some()
                        && elf.section_of(address) == elf.section_of(symbol.address)
                }),
            }
    });
    let frames = match covered {
        Some(symbol) => symbol.frames,
        None => vec![frame(without_symbol(
            module.name(),
            offset,
            address,
            function,
            elf,
        ))],
    };
    Named {
        kind: FrameKind::Native,
        frames,
        module: Some(module.clone()),
    }
}

fn without_symbol(
    name: &str,
    offset: u64,
    address: Option<u64>,
    function: Option<(u64, u64)>,
    elf: Option<&Elf>,
) -> String {
    let section = elf
        .zip(address)
        .and_then(|(elf, address)| elf.section_of(address));
    match (section, function) {
        // All of the procedure linkage table is one entry of the unwind tables.
        (Some(section), _) if section.starts_with(".plt") => format!("{name} [{section}]"),
        (_, Some((start, _))) => format!("{name}+{start:#x}"),
        (Some(section), None) => format!("{name} [{section}]"),
        // A file that cannot be read: at least one name for each page.
        (None, None) => format!("{name}@{:#x}", offset & !0xfff),
    }
}

fn module(pinned: &PinnedFile, elf: Option<&Elf>) -> Module {
    let (start, end, file_offset) = pinned.first_mapping;
    Module {
        path: pinned.path.display().to_string(),
        build_id: elf.map(|elf| elf.build_id.clone()).unwrap_or_default(),
        start,
        end,
        file_offset,
    }
}

/// The function and what is inlined into it, innermost first. blazesym has them outermost first.
fn frames(symbol: &Sym<'_>) -> Vec<Frame> {
    let outer = with_line(&symbol.name, symbol.code_info.as_deref());
    let inlined = symbol
        .inlined
        .iter()
        .map(|inlined| with_line(&inlined.name, inlined.code_info.as_ref()));
    let mut frames: Vec<Frame> = std::iter::once(outer).chain(inlined).collect();
    frames.reverse();
    frames
}

fn with_line(name: &str, code_info: Option<&CodeInfo<'_>>) -> Frame {
    Frame {
        name: name.to_owned(),
        system_name: None,
        file: code_info.map(|code| code.to_path().display().to_string()),
        line: code_info.and_then(|code| code.line),
        first_line: None,
    }
}

fn frame(name: String) -> Frame {
    Frame {
        name,
        ..Frame::default()
    }
}

fn plain(kind: FrameKind, name: String, module: Option<Module>) -> Named {
    Named {
        kind,
        frames: vec![frame(name)],
        module,
    }
}

/// The places of one kind: their positions, and what to look up.
fn select(places: &[Place], of_kind: impl Fn(&Place) -> Option<u64>) -> (Vec<usize>, Vec<u64>) {
    places
        .iter()
        .enumerate()
        .filter_map(|(position, place)| Some((position, of_kind(place)?)))
        .unzip()
}

fn read_perf_map(sources: &Sources, life: LifeId) -> PerfMap {
    let mut text = Vec::new();
    if let Some(file) = sources.perf_maps.get(&life) {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        // A second opening reads from the beginning whatever was read before; what could be read
        // before an error is used.
        if let Ok(file) = File::open(Path::new(&path)) {
            let _ = file.take(BYTES_MAX).read_to_end(&mut text);
        }
    }
    PerfMap::parse(&text)
}
