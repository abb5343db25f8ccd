//! The memory shared with the unwinder of the kernel side: arrays mapped into our address space, so
//! that a table is written by copying it, and segments of rows, made as they are needed.

use std::{fmt, mem::size_of, os::fd::AsFd, ptr::NonNull};

use aya::{
    Ebpf, Pod,
    maps::{ArrayOfMaps, HashMap, Map, MapData},
};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY;
use profiler_common::{
    limits::{MAPPINGS_MAX, PAGES_MAX, RULES_MAX},
    unwind::{
        Rule,
        table::{BLOCKS_PER_SEGMENT, Mapping, Page, ROWS_PER_BLOCK, ROWS_PER_SEGMENT, Space},
    },
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::KernelError;
use crate::unwind::Shared;

const SPACES: &str = "SPACES";
const ROWS: &str = "ROWS";
/// `BPF_F_MMAPABLE`
const MMAPABLE: u32 = 1 << 10;

/// A map of the kernel as memory of ours.
struct Mapped<T> {
    memory: NonNull<T>,
    length: usize,
    /// Kept open for the mapping's sake.
    _map: MapData,
}

// SAFETY: the memory is shared with the kernel anyway; on our side one owner writes to it.
unsafe impl<T: Send> Send for Mapped<T> {}

impl<T: Copy> Mapped<T> {
    fn new(map: MapData, length: usize, name: &'static str) -> Result<Self, KernelError> {
        let bytes = length * size_of::<T>();
        // SAFETY: a new mapping at an address of the kernel's choice.
        let memory = unsafe {
            mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map.fd().as_fd(),
                0,
            )
        };
        let memory = memory.map_err(|errno| KernelError::SharedMemory {
            map: name,
            source: errno.into(),
        })?;
        let memory = NonNull::new(memory.cast()).ok_or(KernelError::Missing(name))?;
        Ok(Self {
            memory,
            length,
            _map: map,
        })
    }

    fn read(&self, at: u32) -> Option<T> {
        let at = at as usize;
        if at >= self.length {
            return None;
        }
        // SAFETY: the element lies within the mapping, as was just checked.
        let source = unsafe { self.memory.add(at) };
        // SAFETY: as above; plain data, and only we write to it.
        Some(unsafe { source.read() })
    }

    fn write(&mut self, at: u32, values: &[T]) {
        let at = at as usize;
        assert!(
            at + values.len() <= self.length,
            "the allocator keeps within the map"
        );
        // SAFETY: the range lies within the mapping, as was just checked.
        let target = unsafe { self.memory.add(at) };
        // SAFETY: as above; the source is ours and plain data. The kernel side reads what is written
        // here only after a mapping refers to it.
        unsafe { target.copy_from_nonoverlapping(NonNull::from(values).cast(), values.len()) };
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it any more.
        let _ = unsafe { munmap(self.memory.as_ptr().cast(), self.length * size_of::<T>()) };
    }
}

/// All of it.
pub struct SharedMaps {
    spaces: HashMap<MapData, u32, SpaceValue>,
    mappings: Mapped<Mapping>,
    pages: Mapped<Page>,
    rules: Mapped<Rule>,
    rows: ArrayOfMaps<MapData>,
    segments: Vec<Mapped<u32>>,
}

impl fmt::Debug for SharedMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMaps")
            .field("segments", &self.segments.len())
            .finish_non_exhaustive()
    }
}

/// [`Space`] as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct SpaceValue(Space);

// SAFETY: a transparent wrapper around a word.
unsafe impl Pod for SpaceValue {}

impl SharedMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        let spaces = super::load::map(ebpf, SPACES, HashMap::try_from)?;
        let rows = super::load::map(ebpf, ROWS, ArrayOfMaps::try_from)?;
        Ok(Self {
            spaces,
            mappings: mapped(ebpf, "MAPPINGS", MAPPINGS_MAX)?,
            pages: mapped(ebpf, "PAGES", PAGES_MAX)?,
            rules: mapped(ebpf, "RULES", RULES_MAX)?,
            rows,
            segments: Vec::new(),
        })
    }

    fn add_segment(&mut self) -> Result<(), KernelError> {
        let failed = |source| KernelError::Map {
            map: ROWS,
            source: Box::new(source),
        };
        let block = u32::try_from(ROWS_PER_BLOCK * size_of::<u32>()).unwrap_or(u32::MAX);
        let blocks = u32::try_from(BLOCKS_PER_SEGMENT).unwrap_or(u32::MAX);
        let array =
            aya_obj::Map::new_from_params(BPF_MAP_TYPE_ARRAY as u32, 4, block, blocks, MMAPABLE);
        let array = MapData::create(array, "segment", None).map_err(failed)?;
        let index = u32::try_from(self.segments.len()).unwrap_or(u32::MAX);
        self.rows.set(index, &array, 0).map_err(failed)?;
        self.segments
            .push(Mapped::new(array, ROWS_PER_SEGMENT as usize, ROWS)?);
        Ok(())
    }
}

fn mapped<T: Copy>(
    ebpf: &mut Ebpf,
    name: &'static str,
    length: usize,
) -> Result<Mapped<T>, KernelError> {
    match ebpf.take_map(name) {
        Some(Map::Array(data)) => Mapped::new(data, length, name),
        _ => Err(KernelError::Missing(name)),
    }
}

impl Shared for SharedMaps {
    type Error = KernelError;

    fn page(&self, at: u32) -> Option<Page> {
        self.pages.read(at)
    }

    fn row(&self, segment: u16, at: u32) -> Option<u32> {
        self.segments.get(usize::from(segment))?.read(at)
    }

    fn rule(&self, at: u32) -> Option<Rule> {
        self.rules.read(at)
    }

    fn write_mappings(&mut self, at: u32, mappings: &[Mapping]) {
        self.mappings.write(at, mappings);
    }

    fn write_pages(&mut self, at: u32, pages: &[Page]) {
        self.pages.write(at, pages);
    }

    fn write_rules(&mut self, at: u32, rules: &[Rule]) {
        self.rules.write(at, rules);
    }

    fn write_rows(&mut self, segment: u16, at: u32, rows: &[u32]) -> Result<(), KernelError> {
        while self.segments.len() <= usize::from(segment) {
            self.add_segment()?;
        }
        self.segments[usize::from(segment)].write(at, rows);
        Ok(())
    }

    fn set_space(&mut self, pid: u32, space: Space) -> Result<(), KernelError> {
        self.spaces
            .insert(pid, SpaceValue(space), 0)
            .map_err(|source| KernelError::Map {
                map: SPACES,
                source: Box::new(source),
            })
    }

    fn remove_space(&mut self, pid: u32) {
        // Gone already is as good.
        let _ = self.spaces.remove(&pid);
    }

    fn spaces(&self) -> Vec<(u32, Space)> {
        let entries = self.spaces.iter().filter_map(Result::ok);
        entries.map(|(pid, space)| (pid, space.0)).collect()
    }
}
