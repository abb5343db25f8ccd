//! Names for places out of what the kernel and the child say of them, and what stands in for a name where neither
//! knows one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
};

use super::{
    Limits, NAMELESS_CODE, Named, Resolved, Sources, blaze,
    budget::Budget,
    debug_files::{Candidates, candidates, plain_name},
    hints::{self, Unnamed},
    wire::{Answer, At, DebugInformation, Detail, FileNames, Function, JitNames, Links, Question},
    worker::{Failed, Worker},
};
use crate::{
    foreign::{Root, reopen},
    process::{FileId, LifeId, PinnedFile, Place, VDSO_NAME, vdso_image},
    profile::{Frame, FrameKind, Module},
};

const KERNEL: &str = "[kernel.kallsyms]";

const NO_KERNEL_NAMES: &str =
    "kernel address without a name (kernel.kptr_restrict, or no CAP_SYSLOG)";
const NOT_ELF: &str = "mapped file that is no readable ELF file";
const UNMAPPED: &str = "address outside every mapping";
const NO_DEBUG_INFO: &str = "debug information not usable, only symbols used";
const BY_ADDRESS: &str = "file whose symbols cannot be read, its code is named by address";
const UNCOPIED: &str = "file over 64 MiB that not everybody may read, its code is named by address";
const NO_TIME_LEFT: &str =
    "file of an owner whose files took too much time, its code is named by address";
const PERF_MAP_LINE: &str = "malformed line of a perf map";
const PERF_MAP_BEYOND: &str = "perf map longer than is read, the rest not used";
const NO_PERF_MAP: &str = "perf map that cannot be read, its code has no names";

/// The state of the symbolizer's thread.
pub(super) struct Names {
    worker: Worker,
    limits: Limits,
    /// Where the host's own debug information is.
    host: Option<Root>,
    vdso: Option<File>,
    /// Files whose debug information is not read again.
    plain: BTreeSet<FileId>,
    /// Files that are not read again.
    refused: BTreeSet<FileId>,
    /// Perf maps that are not.
    refused_maps: BTreeSet<LifeId>,
    notes: BTreeMap<&'static str, u64>,
}

impl Names {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            worker: Worker::new(limits),
            limits,
            host: Root::of(std::process::id()).ok(),
            vdso: vdso_image().ok(),
            plain: BTreeSet::new(),
            refused: BTreeSet::new(),
            refused_maps: BTreeSet::new(),
            notes: BTreeMap::new(),
        }
    }

    /// A name for each place.
    pub(super) fn resolve(&mut self, places: &[Place], sources: &Sources) -> Resolved {
        self.forget(sources);
        let mut named: Vec<Option<Named>> = vec![None; places.len()];
        let mut budget = Budget::default();
        self.kernel(places, &mut named);
        let hints = self.files(places, sources, &mut named, &mut budget);
        self.vdso(places, &mut named);
        self.anonymous(places, sources, &mut named, &mut budget);
        let named = named
            .into_iter()
            .zip(places)
            .map(|(named, place)| match (named, place) {
                (Some(named), _) => named,
                (None, Place::Uretprobe) => {
                    plain(FrameKind::Marker, "[uretprobe]".to_owned(), None)
                }
                (None, _) => self.unmapped(),
            })
            .collect();
        Resolved {
            named,
            notes: std::mem::take(&mut self.notes),
            hints,
        }
    }

    /// Positions of files are not used twice, so what is remembered of those that are gone would grow for ever.
    fn forget(&mut self, sources: &Sources) {
        let is_there = |id: &FileId| {
            let file = sources.files.get(id.index());
            file.is_some_and(|pinned| pinned.file.is_some())
        };
        self.plain.retain(is_there);
        self.refused.retain(is_there);
        self.refused_maps
            .retain(|life| sources.perf_maps.contains_key(life));
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
        let mut names = blaze::kernel(&addresses).into_iter();
        for position in positions {
            let name = names.next().flatten();
            if name.is_none() {
                self.note(NO_KERNEL_NAMES);
            }
            let module = Some(Module {
                path: KERNEL.to_owned(),
                ..Module::default()
            });
            named[position] = Some(Named {
                kind: FrameKind::Kernel,
                frames: name.map_or_else(|| vec![frame("[kernel]".to_owned())], frames),
                module,
            });
        }
    }

    /// Gives a sentence for each file whose functions had to be named by address.
    fn files(
        &mut self,
        places: &[Place],
        sources: &Sources,
        named: &mut [Option<Named>],
        budget: &mut Budget,
    ) -> Vec<String> {
        let mut by_file: BTreeMap<FileId, (Vec<usize>, Vec<u64>)> = BTreeMap::new();
        for (position, place) in places.iter().enumerate() {
            if let Place::File { file, offset } = *place {
                let (positions, offsets) = by_file.entry(file).or_default();
                positions.push(position);
                offsets.push(offset);
            }
        }
        let mut unnamed = Vec::new();
        for (id, (positions, offsets)) in by_file {
            let Some(pinned) = sources.files.get(id.index()) else {
                continue;
            };
            let (links, names) = self.file(id, pinned, &offsets, budget);
            let module = module(pinned, links.build_id.clone());
            unnamed.extend(self.unnamed(&module.path, pinned, links, &names));
            fill(named, &positions, &offsets, names.named, &module);
        }
        hints::sentences(unnamed)
    }

    /// What is to be said of a file that has no names for some of its code and no debug file.
    fn unnamed(
        &self,
        path: &str,
        pinned: &PinnedFile,
        links: Links,
        names: &FileNames,
    ) -> Option<Unnamed> {
        let is_symbol = |at: &&At| matches!(at, At::Symbol(_));
        let places = names.named.len() - names.named.iter().filter(is_symbol).count();
        if !names.is_elf || names.debug == DebugInformation::Apart || places == 0 {
            return None;
        }
        let number = |root: Option<&Root>| root.and_then(Root::device_and_inode);
        let debug_link = links.debug_link.as_deref().and_then(plain_name);
        Some(Unnamed {
            path: path.to_owned(),
            debug_link: debug_link.map(|name| name.to_string_lossy().into_owned()),
            build_id: links.build_id,
            is_elsewhere: number(pinned.root.as_deref()) != number(self.host.as_ref()),
            places,
        })
    }

    /// What a file says of its debug information, and what is at offsets of it.
    fn file(
        &mut self,
        id: FileId,
        pinned: &PinnedFile,
        offsets: &[u64],
        budget: &mut Budget,
    ) -> (Links, FileNames) {
        let nothing = (Links::default(), FileNames::default());
        let Some(file) = &pinned.file else {
            return nothing;
        };
        let owner = pinned.owner;
        let details: &[Detail] = match (self.refused.contains(&id), self.plain.contains(&id)) {
            (true, _) => &[],
            (_, true) => &[Detail::Symbols],
            (_, false) => &[Detail::DebugInformation, Detail::Symbols],
        };
        for &detail in details {
            if !budget.has(owner, self.limits.owner) {
                self.note(NO_TIME_LEFT);
                return nothing;
            }
            let before = self.worker.used();
            match self.attempt(file, pinned, offsets, detail) {
                Ok(answer) => {
                    budget.charge(owner, self.worker.used().saturating_sub(before));
                    let (_, names) = &answer;
                    if names.uncopied {
                        self.note(UNCOPIED);
                    }
                    if !names.is_elf {
                        self.note(NOT_ELF);
                    } else if names.is_debug_unusable || self.plain.contains(&id) {
                        self.note(NO_DEBUG_INFO);
                    }
                    return answer;
                }
                Err(cause) => {
                    budget.charge(owner, self.limits.processor_time());
                    self.note(text(cause));
                    if matches!(cause, Failed::GivenUp | Failed::NotStarted) {
                        return nothing;
                    }
                    self.plain.insert(id);
                }
            }
        }
        self.refused.insert(id);
        self.note(BY_ADDRESS);
        nothing
    }

    fn attempt(
        &mut self,
        file: &File,
        pinned: &PinnedFile,
        offsets: &[u64],
        detail: Detail,
    ) -> Result<(Links, FileNames), Failed> {
        // One of its own: descriptors that are passed on share their position, and others read this file, too.
        let file = reopen(file).map_err(|_| Failed::Broken)?;
        let Answer::Links(links) = self.worker.ask(&Question::Links, &[file.as_fd()])? else {
            return Err(Failed::Broken);
        };
        let others = match detail {
            Detail::DebugInformation => candidates(pinned, &links, self.host.as_ref()),
            Detail::Symbols => Candidates::default(),
        };
        for cause in others.refused {
            self.note(cause);
        }
        let files: Vec<BorrowedFd<'_>> = std::iter::once(&file)
            .chain(&others.files)
            .map(AsFd::as_fd)
            .collect();
        let names = self.ask_names(&files, offsets, detail)?;
        Ok((links, names))
    }

    fn ask_names(
        &mut self,
        files: &[BorrowedFd<'_>],
        offsets: &[u64],
        detail: Detail,
    ) -> Result<FileNames, Failed> {
        let question = Question::Names {
            offsets: offsets.to_vec(),
            detail,
        };
        match self.worker.ask(&question, files)? {
            Answer::Names(names) if !names.is_elf || names.named.len() == offsets.len() => {
                Ok(names)
            }
            _ => Err(Failed::Broken),
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
        let image = self.vdso.take();
        let names = image.as_ref().map_or(Ok(FileNames::default()), |file| {
            self.ask_names(&[file.as_fd()], &offsets, Detail::DebugInformation)
        });
        self.vdso = image;
        let names = names.unwrap_or_else(|cause| {
            self.note(text(cause));
            FileNames::default()
        });
        let module = Module {
            path: VDSO_NAME.to_owned(),
            ..Module::default()
        };
        fill(named, &positions, &offsets, names.named, &module);
    }

    fn anonymous(
        &mut self,
        places: &[Place],
        sources: &Sources,
        named: &mut [Option<Named>],
        budget: &mut Budget,
    ) {
        let mut by_life: BTreeMap<LifeId, BTreeMap<u64, Vec<usize>>> = BTreeMap::new();
        for (position, place) in places.iter().enumerate() {
            if let Place::Anonymous { life, address } = *place {
                let addresses = by_life.entry(life).or_default();
                addresses.entry(address).or_default().push(position);
            }
        }
        for (life, positions) in by_life {
            let addresses: Vec<u64> = positions.keys().copied().collect();
            let map = sources.perf_maps.get(&life);
            let names =
                map.map_or_else(Vec::new, |map| self.perf_map(life, map, addresses, budget));
            let mut names = names.into_iter();
            for positions in positions.into_values() {
                let name = names.next().flatten();
                let name = name.unwrap_or_else(|| NAMELESS_CODE.to_owned());
                for position in positions {
                    named[position] = Some(plain(FrameKind::Jit, name.clone(), None));
                }
            }
        }
    }

    fn perf_map(
        &mut self,
        life: LifeId,
        map: &File,
        addresses: Vec<u64>,
        budget: &mut Budget,
    ) -> Vec<Option<String>> {
        let owner = map.metadata().map_or(u32::MAX, |metadata| metadata.uid());
        if self.refused_maps.contains(&life) || !budget.has(owner, self.limits.owner) {
            self.note(NO_PERF_MAP);
            return Vec::new();
        }
        let before = self.worker.used();
        let count = addresses.len();
        let answer = self
            .worker
            .ask(&Question::PerfMap { addresses }, &[map.as_fd()]);
        let (names, time) = match answer {
            Ok(Answer::PerfMap(map)) if map.names.len() == count => {
                (Ok(map), self.worker.used().saturating_sub(before))
            }
            Ok(_) => (Err(Failed::Broken), self.limits.processor_time()),
            Err(cause) => (Err(cause), self.limits.processor_time()),
        };
        budget.charge(owner, time);
        let names = names.unwrap_or_else(|cause| {
            self.note(text(cause));
            self.note(NO_PERF_MAP);
            if !matches!(cause, Failed::GivenUp | Failed::NotStarted) {
                self.refused_maps.insert(life);
            }
            JitNames::default()
        });
        if names.malformed > 0 {
            *self.notes.entry(PERF_MAP_LINE).or_default() += names.malformed;
        }
        if names.beyond > 0 {
            self.note(PERF_MAP_BEYOND);
        }
        names.names
    }
}

/// Why there is no answer, for the account.
fn text(cause: Failed) -> &'static str {
    match cause {
        Failed::Memory => "file whose names take too much memory to read",
        Failed::Time => "file whose names take too much processor time to read",
        Failed::Cut => "file that was cut while its names were read",
        Failed::Stuck => "file that does not come while its names are read",
        Failed::Broken => "file whose names the reader broke on",
        Failed::GivenUp => "file whose names were not read, the profiler had to end",
        Failed::NotStarted => "file whose names were not read, no process can be confined for it",
    }
}

/// Puts what is at offsets into the places that they come from.
fn fill(
    named: &mut [Option<Named>],
    positions: &[usize],
    offsets: &[u64],
    found: Vec<At>,
    module: &Module,
) {
    let mut found = found.into_iter();
    for (&position, &offset) in positions.iter().zip(offsets) {
        let at = found.next().unwrap_or(At::Nothing);
        named[position] = Some(in_file(at, offset, module));
    }
}

fn in_file(at: At, offset: u64, module: &Module) -> Named {
    let name = module.name();
    let frames = match at {
        At::Symbol(lines) if !lines.is_empty() => frames(lines),
        At::Function(start) => vec![frame(format!("{name}+{start:#x}"))],
        At::Section(section) => vec![frame(format!("{name} [{section}]"))],
        // A file that cannot be read: at least one name for each page.
        At::Symbol(_) | At::Nothing => vec![frame(format!("{name}@{:#x}", offset & !0xfff))],
    };
    Named {
        kind: FrameKind::Native,
        frames,
        module: Some(module.clone()),
    }
}

fn module(pinned: &PinnedFile, build_id: Vec<u8>) -> Module {
    let (start, end, file_offset) = pinned.first_mapping;
    Module {
        path: pinned.path.display().to_string(),
        build_id,
        start,
        end,
        file_offset,
    }
}

fn frames(lines: Vec<Function>) -> Vec<Frame> {
    let frames = lines
        .into_iter()
        .map(|Function { name, file, line }| Frame {
            name,
            system_name: None,
            file,
            line,
            first_line: None,
        });
    frames.collect()
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
