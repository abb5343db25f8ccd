//! What a futex is: its address, the symbol that it lies in or the heap, and who holds it.

use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use object::{Object, ObjectSymbol, ReadCache, SymbolKind};
use procfs::process::{MMPermissions, MemoryMap};

use crate::{
    process::{Content, Memory, memory},
    unwind::{Segments, Use},
};

/// How long a list of mappings is believed.
const MAPS_AGE: Duration = Duration::from_secs(1);
/// Most processes and files that are remembered.
const KNOWN_MAX: usize = 256;

/// Mappings of processes and data symbols of files.
#[derive(Debug, Default)]
pub(super) struct Locks {
    maps: HashMap<u32, (Instant, Vec<Memory>)>,
    files: HashMap<PathBuf, Symbols>,
}

/// A file's data symbols by address: first address, end, name.
#[derive(Debug, Default)]
struct Symbols {
    segments: Segments,
    sorted: Vec<(u64, u64, String)>,
}

impl Locks {
    /// Address and place of a lock and its owner's name. `owner` is a thread's id, if the lock notes one; any
    /// number may stand there.
    pub(super) fn describe(&mut self, pid: u32, address: u64, owner: u32) -> String {
        let place = self.place(pid, address);
        let comm = fs::read_to_string(format!("/proc/{pid}/task/{owner}/comm"));
        match comm.ok().filter(|_| owner != 0) {
            Some(comm) => format!("{address:#x} {place}, held by {}", comm.trim_end()),
            None => format!("{address:#x} {place}"),
        }
    }

    fn place(&mut self, pid: u32, address: u64) -> String {
        let Self { maps, files } = self;
        if maps.len() > KNOWN_MAX {
            maps.clear();
        }
        let (read, list) = maps
            .entry(pid)
            .or_insert_with(|| (Instant::now(), memory(pid)));
        let holds = |part: &Memory| {
            let (start, end) = part.map.address;
            (start..end).contains(&address)
        };
        if read.elapsed() > MAPS_AGE || !list.iter().any(holds) {
            (*read, *list) = (Instant::now(), memory(pid));
        }
        let Some(index) = list.iter().position(holds) else {
            return "unmapped".to_owned();
        };
        match (&list[index].content, data_mapping(list, index)) {
            (Content::Stack, _) => "stack".to_owned(),
            (Content::Shared, _) => "shared memory".to_owned(),
            (_, Some((map, path))) => {
                if files.len() > KNOWN_MAX {
                    files.clear();
                }
                let symbols = files
                    .entry(path.to_owned())
                    .or_insert_with(|| Symbols::read(pid, path).unwrap_or_default());
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                symbols
                    .find(map, address)
                    .unwrap_or_else(|| name.into_owned())
            }
            _ => "heap".to_owned(),
        }
    }
}

/// The mapping of a file that an address's mapping is or, as memory without a file that adjoins one
/// (`.bss`), belongs to.
fn data_mapping(list: &[Memory], index: usize) -> Option<(&MemoryMap, &Path)> {
    let part = &list[index];
    match &part.content {
        Content::File(path) => Some((&part.map, path)),
        Content::Private => {
            let before = &list[index.checked_sub(1)?];
            let adjoins = before.map.address.1 == part.map.address.0;
            match &before.content {
                Content::File(path)
                    if adjoins && before.map.perms.contains(MMPermissions::WRITE) =>
                {
                    Some((&before.map, path))
                }
                _ => None,
            }
        }
        Content::Stack | Content::Shared => None,
    }
}

impl Symbols {
    fn read(pid: u32, path: &Path) -> Option<Self> {
        let below_root = path.strip_prefix("/").ok()?;
        let file = File::open(Path::new(&format!("/proc/{pid}/root")).join(below_root)).ok()?;
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let cache = ReadCache::new(&file);
        let object = object::File::parse(&cache).ok()?;
        let symbols = object.symbols().chain(object.dynamic_symbols());
        let data = symbols.filter(|s| s.kind() == SymbolKind::Data && s.size() > 0);
        let mut sorted: Vec<_> = data
            .filter_map(|s| {
                Some((
                    s.address(),
                    s.address().checked_add(s.size())?,
                    s.name().ok()?.to_owned(),
                ))
            })
            .collect();
        sorted.sort_unstable();
        Some(Self {
            segments: Segments::of(&cache)?,
            sorted,
        })
    }

    fn find(&self, map: &MemoryMap, address: u64) -> Option<String> {
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
