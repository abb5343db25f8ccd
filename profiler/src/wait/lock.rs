//! What a futex is: its address, the symbol that it lies in or the heap, and who holds it.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::{Duration, Instant},
};

use object::{Object, ObjectSymbol, SymbolKind};
use procfs::process::MMPermissions;

use crate::{
    foreign::{Contents, Identity, Refused, proc_facts},
    process::{Content, Memory, file_of, memory},
    unwind::{Segments, Use},
};

/// How long a list of mappings is believed.
const MAPS_AGE: Duration = Duration::from_secs(1);
/// Most processes and files that are remembered.
const KNOWN_MAX: usize = 256;
/// Most mappings of all those processes: some 20 MB.
const MAPPINGS_MAX: usize = 100_000;
/// Most symbols of a file that are looked at.
const SYMBOLS_MAX: usize = 1_000_000;
/// Most bytes that the data symbols of one file may take, and those of all files.
const FILE_BYTES_MAX: usize = 4 << 20;
const BYTES_MAX: usize = 16 << 20;

/// Mappings of processes and data symbols of files.
#[derive(Debug, Default)]
pub(super) struct Locks {
    maps: HashMap<u32, Maps>,
    /// By what nobody else can make another file of.
    files: HashMap<Identity, Symbols>,
    /// Bytes that the symbols of all files take.
    bytes: usize,
}

/// Mappings of a process.
#[derive(Debug)]
struct Maps {
    read: Instant,
    list: Vec<Memory>,
    /// The files behind mappings, by position.
    files: HashMap<usize, Result<Identity, Refused>>,
}

impl Maps {
    fn of(pid: u32) -> Self {
        Self {
            read: Instant::now(),
            list: memory(pid),
            files: HashMap::new(),
        }
    }
}

/// A file's data symbols by address: first address, end, name.
#[derive(Debug, Default)]
struct Symbols {
    segments: Segments,
    sorted: Vec<(u64, u64, String)>,
    bytes: usize,
}

impl Locks {
    /// Address and place of a lock and its owner's name. `owner` is a thread's id, if the lock notes one; any
    /// number may stand there.
    pub(super) fn describe(&mut self, pid: u32, address: u64, owner: u32) -> String {
        let place = self.place(pid, address);
        let comm = proc_facts(pid, &format!("task/{owner}/comm"));
        match comm.filter(|_| owner != 0) {
            Some(comm) => format!("{address:#x} {place}, held by {}", comm.trim_end()),
            None => format!("{address:#x} {place}"),
        }
    }

    fn place(&mut self, pid: u32, address: u64) -> String {
        let all: usize = self.maps.values().map(|maps| maps.list.len()).sum();
        if self.maps.len() > KNOWN_MAX || all > MAPPINGS_MAX {
            self.maps.clear();
        }
        let Self { maps, files, bytes } = self;
        let maps = maps.entry(pid).or_insert_with(|| Maps::of(pid));
        let holds = |part: &Memory| {
            let (start, end) = part.map.address;
            (start..end).contains(&address)
        };
        if maps.read.elapsed() > MAPS_AGE || !maps.list.iter().any(holds) {
            *maps = Maps::of(pid);
        }
        let Some(index) = maps.list.iter().position(holds) else {
            return "unmapped".to_owned();
        };
        match (&maps.list[index].content, data_mapping(&maps.list, index)) {
            (Content::Stack, _) => "stack".to_owned(),
            (Content::Shared, _) => "shared memory".to_owned(),
            (_, None) => "heap".to_owned(),
            (_, Some(of_file)) => {
                let part = &maps.list[of_file];
                let symbol = match maps.files.entry(of_file) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(new) => *new.insert(learn(pid, part, files, bytes)),
                };
                let symbols = symbol.ok().and_then(|identity| files.get(&identity));
                symbols
                    .and_then(|symbols| symbols.find(part, address))
                    .unwrap_or_else(|| name(part))
            }
        }
    }
}

/// Reads the symbols of the file behind a mapping, unless they are known.
fn learn(
    pid: u32,
    part: &Memory,
    files: &mut HashMap<Identity, Symbols>,
    bytes: &mut usize,
) -> Result<Identity, Refused> {
    let found = file_of(pid, part)?;
    let identity = found.identity();
    if !files.contains_key(&identity) {
        if files.len() > KNOWN_MAX || *bytes > BYTES_MAX {
            files.clear();
            *bytes = 0;
        }
        let file = found.open()?;
        let symbols = Symbols::read(&Contents::of(&file)).unwrap_or_default();
        *bytes += symbols.bytes;
        files.insert(identity, symbols);
    }
    Ok(identity)
}

/// The name of a mapping's file.
fn name(part: &Memory) -> String {
    match &part.content {
        Content::File(path) => {
            let name = path.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        }
        Content::Stack | Content::Shared | Content::Private => "heap".to_owned(),
    }
}

/// The mapping of a file that an address's mapping is or, as memory without a file that adjoins one
/// (`.bss`), belongs to, by its position.
fn data_mapping(list: &[Memory], index: usize) -> Option<usize> {
    let part = &list[index];
    match &part.content {
        Content::File(_) => Some(index),
        Content::Private => {
            let before = index.checked_sub(1)?;
            let other = &list[before];
            let adjoins = other.map.address.1 == part.map.address.0;
            let is_data = matches!(other.content, Content::File(_))
                && other.map.perms.contains(MMPermissions::WRITE);
            (adjoins && is_data).then_some(before)
        }
        Content::Stack | Content::Shared => None,
    }
}

impl Symbols {
    fn read(contents: &Contents<'_>) -> Option<Self> {
        let object = object::File::parse(contents).ok()?;
        let symbols = object.symbols().chain(object.dynamic_symbols());
        let data = symbols
            .take(SYMBOLS_MAX)
            .filter(|s| s.kind() == SymbolKind::Data && s.size() > 0);
        let mut found = Self {
            segments: Segments::of(contents)?,
            ..Self::default()
        };
        for symbol in data {
            let start = symbol.address();
            if let (Some(end), Ok(name)) = (start.checked_add(symbol.size()), symbol.name()) {
                found.bytes += size_of::<(u64, u64, String)>() + name.len();
                found.sorted.push((start, end, name.to_owned()));
            }
            if found.bytes > FILE_BYTES_MAX {
                break;
            }
        }
        found.sorted.sort_unstable();
        Some(found)
    }

    fn find(&self, part: &Memory, address: u64) -> Option<String> {
        let map = &part.map;
        let bias = self.segments.bias(map.address.0, map.offset, Use::Data)?;
        let address = address.wrapping_sub(bias);
        let after = self.sorted.partition_point(|&(start, ..)| start <= address);
        let (start, end, name) = self.sorted.get(after.checked_sub(1)?)?;
        match address - start {
            _ if address >= *end => None,
            0 => Some(name.clone()),
            offset => Some(format!("{name}+{offset:#x}")),
        }
    }
}
