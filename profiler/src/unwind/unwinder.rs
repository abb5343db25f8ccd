//! Which process has which mappings, and which table each of them uses.
//!
//! Processes with equal mappings (workers forked from one master) share one list. The kernel side
//! hands a list on at fork and drops it at exec and exit by itself, so which lists are in use is
//! asked of it now and then: what nobody has used for two looks is free.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    time::Instant,
};

use profiler_common::{
    limits::{MAPPINGS_MAX, SPACES_MAX},
    outcome::StopReason,
    sample::Rest,
    unwind::table::{Mapping, Space},
};

use super::{
    Malformed, Segments, Shared, Table, Use,
    arena::Arena,
    store::{Placed, Store},
    walk::{StackCopy, walk, walk_copy},
};
use crate::{
    foreign::{Contents, Owners},
    process::{self, Backing, PinnedFile},
};

/// Looks after which a list that nobody used is free.
const LIST_GRACE: u32 = 2;
/// Looks after which a table that no list uses is free: workers come and go.
const TABLE_GRACE: u32 = 30;

/// From this length on a list of mappings finds room only while half of all is free.
const LONG_LIST: u32 = 512;

/// What a table is known by: where its pages lie.
type TableId = u32;

/// Code in a file or in the kernel's virtual library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Code {
    File(process::FileId),
    Vdso,
}

/// A file that was looked at.
#[derive(Clone, Debug, Default)]
struct Known {
    segments: Segments,
    table: Option<TableId>,
}

/// A table in shared memory.
#[derive(Clone, Copy, Debug)]
struct Loaded {
    placed: Placed,
    unused: u32,
}

/// A list of mappings in shared memory.
#[derive(Clone, Debug)]
struct List {
    mappings: Box<[Mapping]>,
    unused: u32,
}

/// What the unwinder holds and could not do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Tables made, in files.
    pub tables: u64,
    /// Rows in shared memory.
    pub rows: u64,
    /// Rows read to make them.
    pub raw_rows: u64,
    /// Time it took, ns.
    pub building_ns: u64,
    /// Functions whose rules could not be read.
    pub malformed: u64,
    /// Tables or lists for which there was no room.
    pub no_room: u64,
    /// Files that have more than is read of one.
    pub cut: u64,
    /// Times that a file was not read, as its owner's files took too long.
    pub put_off: u64,
}

/// The user side of the unwinder.
#[derive(Debug)]
pub struct Unwinder<S> {
    shared: S,
    store: Store,
    files: HashMap<Code, Known>,
    tables: HashMap<TableId, Loaded>,
    /// Tables by a hash of what is in them. Files share a table only if it is equal, entry for entry: a build id
    /// is whatever somebody wrote into a file.
    by_hash: HashMap<u64, Vec<TableId>>,
    hasher: RandomState,
    owners: Owners,
    arena: Arena,
    lists: HashMap<Space, List>,
    by_content: HashMap<Box<[Mapping]>, Space>,
    /// The list given to each process last.
    given: HashMap<u32, Space>,
    vdso: Option<std::fs::File>,
    stats: Stats,
}

impl<S: Shared> Unwinder<S> {
    /// Nothing is known yet. `vdso` is the image of the kernel's virtual library.
    pub fn new(shared: S, vdso: Option<std::fs::File>) -> Self {
        Self {
            shared,
            store: Store::new(),
            files: HashMap::new(),
            tables: HashMap::new(),
            by_hash: HashMap::new(),
            hasher: RandomState::new(),
            owners: Owners::default(),
            arena: Arena::new(u32::try_from(MAPPINGS_MAX).unwrap_or(u32::MAX)),
            lists: HashMap::new(),
            by_content: HashMap::new(),
            given: HashMap::new(),
            vdso,
            stats: Stats::default(),
        }
    }

    /// Tells the kernel side the mappings of a process, and the tables of files that are new.
    pub fn set_mappings<'a>(
        &mut self,
        pid: u32,
        mappings: impl IntoIterator<Item = &'a process::Mapping>,
        files: &[std::sync::Arc<PinnedFile>],
    ) -> Result<(), S::Error> {
        let mut list = Vec::new();
        for mapping in mappings {
            // The vsyscall page is the kernel's.
            if mapping.start < profiler_common::unwind::USER_ADDRESS_END {
                list.push(self.mapping(mapping, files)?);
            }
        }
        if list.is_empty() {
            self.shared.remove_space(pid);
            return Ok(());
        }
        let Some(space) = self.place(list) else {
            self.stats.no_room += 1;
            self.shared.remove_space(pid);
            return Ok(());
        };
        self.given.insert(pid, space);
        self.shared.set_space(pid, space)
    }

    /// A process ended.
    pub fn forget(&mut self, pid: u32) {
        self.given.remove(&pid);
        self.shared.remove_space(pid);
    }

    /// Goes on with a walk that the kernel side could not finish, and appends the frames. `code` reads 16
    /// bytes of the process's code. `None` where the process is not known here either.
    pub fn walk_rest(
        &self,
        pid: u32,
        rest: &Rest,
        code: impl Fn(u64) -> Option<[u64; 2]>,
        frames: &mut Vec<u64>,
    ) -> Option<StopReason> {
        let list = self.lists.get(self.given.get(&pid)?)?;
        Some(walk(rest, &list.mappings, &self.shared, code, frames))
    }

    /// Walks a copy of a stack, and gives the frames. `None` where the process is not known.
    pub fn walk_copy(
        &self,
        pid: u32,
        copy: StackCopy<'_>,
        code: impl Fn(u64) -> Option<[u64; 2]>,
    ) -> Option<(Vec<u64>, StopReason)> {
        let list = self.lists.get(self.given.get(&pid)?)?;
        let mut frames = Vec::new();
        let stop = walk_copy(copy, &list.mappings, &self.shared, code, &mut frames);
        Some((frames, stop))
    }

    /// These files are let go of: what they were looked at for is forgotten. Their tables are freed with the lists
    /// that use them.
    pub fn forget_files(&mut self, files: &BTreeSet<process::FileId>) {
        self.files.retain(|code, _| match code {
            Code::File(file) => !files.contains(file),
            Code::Vdso => true,
        });
    }

    /// Frees what nobody uses. Call every few seconds: see `LIST_GRACE`.
    pub fn sweep(&mut self, is_alive: impl Fn(u32) -> bool) {
        let mut used = HashSet::new();
        let spaces = self.shared.spaces();
        let known: HashSet<u32> = spaces.iter().map(|&(pid, _)| pid).collect();
        self.given.retain(|pid, _| known.contains(pid));
        // Looking at every process costs; a table that is half empty can wait.
        let crowded = spaces.len() > SPACES_MAX / 2;
        for (pid, space) in spaces {
            if crowded && !is_alive(pid) {
                self.shared.remove_space(pid);
            } else {
                used.insert(space);
            }
        }
        self.sweep_lists(&used);
        self.sweep_tables();
    }

    /// What is held.
    pub fn stats(&self) -> Stats {
        Stats {
            rows: self.store.rows(),
            ..self.stats
        }
    }

    fn sweep_lists(&mut self, used: &HashSet<Space>) {
        let Self {
            lists,
            by_content,
            arena,
            ..
        } = self;
        lists.retain(|space, list| {
            list.unused = if used.contains(space) {
                0
            } else {
                list.unused + 1
            };
            let keep = list.unused <= LIST_GRACE;
            if !keep {
                by_content.remove(&list.mappings);
                arena.give_back(space.first(), space.count());
            }
            keep
        });
    }

    fn sweep_tables(&mut self) {
        let Self {
            lists,
            tables,
            by_hash,
            store,
            files,
            ..
        } = self;
        let used: HashSet<u32> = lists
            .values()
            .flat_map(|list| list.mappings.iter())
            .filter(|mapping| mapping.pages > 0)
            .map(|mapping| mapping.page_base)
            .collect();
        let mut removed = HashSet::new();
        tables.retain(|key, loaded| {
            let is_used = used.contains(&loaded.placed.page_base);
            loaded.unused = if is_used { 0 } else { loaded.unused + 1 };
            let keep = loaded.unused <= TABLE_GRACE;
            if !keep {
                store.remove(loaded.placed);
                removed.insert(*key);
            }
            keep
        });
        if !removed.is_empty() {
            by_hash.retain(|_, equal| {
                equal.retain(|table| !removed.contains(table));
                !equal.is_empty()
            });
            files.retain(|_, known| {
                known
                    .table
                    .as_ref()
                    .is_none_or(|key| !removed.contains(key))
            });
        }
    }

    fn mapping(
        &mut self,
        mapping: &process::Mapping,
        files: &[std::sync::Arc<PinnedFile>],
    ) -> Result<Mapping, S::Error> {
        let code = match mapping.backing {
            Backing::File(file) => Code::File(file),
            Backing::Vdso => Code::Vdso,
            Backing::Anonymous => return Ok(without_table(mapping)),
            Backing::Uprobes => {
                return Ok(Mapping {
                    rule_base: Mapping::UPROBES,
                    ..without_table(mapping)
                });
            }
        };
        if !self.files.contains_key(&code) {
            let Some(known) = self.look_at(code, files)? else {
                return Ok(without_table(mapping));
            };
            self.files.insert(code, known);
        }
        let Some(Known {
            segments,
            table: Some(key),
        }) = self.files.get(&code)
        else {
            return Ok(without_table(mapping));
        };
        let placed = self.tables.get(key).map(|loaded| loaded.placed);
        let bias = segments.bias(mapping.start, mapping.file_offset, Use::Code);
        let (Some(placed), Some(bias)) = (placed, bias) else {
            return Ok(without_table(mapping));
        };
        Ok(Mapping {
            bias,
            first_page: placed.first_page,
            pages: placed.pages,
            page_base: placed.page_base,
            rule_base: placed.rule_base,
            ..without_table(mapping)
        })
    }

    /// Reads a file once; what is no ELF file of this processor has no table. `None` where it is to be read later.
    fn look_at(
        &mut self,
        code: Code,
        files: &[std::sync::Arc<PinnedFile>],
    ) -> Result<Option<Known>, S::Error> {
        let (file, owner) = match code {
            Code::File(id) => match files.get(id.index()) {
                Some(pinned) => (pinned.file.as_ref(), pinned.owner),
                None => (None, 0),
            },
            Code::Vdso => (self.vdso.as_ref(), 0),
        };
        let Some(file) = file else {
            return Ok(Some(Known::default()));
        };
        let began = Instant::now();
        let contents = Contents::of(file);
        let Some(read) = self.owners.read(owner, || Table::read(&contents)) else {
            self.stats.put_off += 1;
            return Ok(None);
        };
        let took = began.elapsed();
        self.stats.building_ns += u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let is_cut = read.as_ref().is_ok_and(|(_, table)| table.is_cut);
        self.stats.cut += u64::from(is_cut || contents.is_too_large());
        let (segments, table) = match read {
            Ok(read) => read,
            Err(Malformed::NotElf | Malformed::OtherProcessor) => {
                return Ok(Some(Known::default()));
            }
        };
        self.stats.raw_rows += table.raw_rows;
        self.stats.malformed += table.malformed;
        if table.pages.is_empty() {
            return Ok(Some(Known::default()));
        }
        let table = self.load(&table, owner)?;
        Ok(Some(Known { segments, table }))
    }

    /// The place of a table: that of an equal one, or a new one. `None` where there is no room.
    fn load(&mut self, table: &Table, owner: u32) -> Result<Option<TableId>, S::Error> {
        let hash = self.hasher.hash_one((&table.rows, &table.rules));
        let Self {
            by_hash,
            tables,
            store,
            shared,
            stats,
            ..
        } = self;
        let equal = by_hash.entry(hash).or_default();
        for id in equal.iter() {
            if let Some(loaded) = tables.get_mut(id)
                && store.is_equal(loaded.placed, table, shared)
            {
                loaded.unused = 0;
                return Ok(Some(*id));
            }
        }
        // No other user's files may take up what all need.
        let may = owner == 0 || store.leaves_half(table);
        let placed = if may { store.put(table, shared)? } else { None };
        let Some(placed) = placed else {
            stats.no_room += 1;
            return Ok(None);
        };
        stats.tables += 1;
        equal.push(placed.page_base);
        tables.insert(placed.page_base, Loaded { placed, unused: 0 });
        Ok(Some(placed.page_base))
    }

    /// Writes a list, unless there is an equal one.
    fn place(&mut self, list: Vec<Mapping>) -> Option<Space> {
        let list = list.into_boxed_slice();
        if let Some(space) = self.by_content.get(&list) {
            return Some(*space);
        }
        let count = u32::try_from(list.len()).ok()?;
        // Long lists may not take up what all need.
        let free = usize::try_from(self.arena.free()).unwrap_or(usize::MAX);
        let is_half_full = free < MAPPINGS_MAX / 2;
        if count > LONG_LIST && is_half_full {
            return None;
        }
        let first = self.arena.take(count)?;
        let space = Space::new(first, count);
        self.shared.write_mappings(first, &list);
        self.by_content.insert(list.clone(), space);
        self.lists.insert(
            space,
            List {
                mappings: list,
                unused: 0,
            },
        );
        Some(space)
    }
}

fn without_table(mapping: &process::Mapping) -> Mapping {
    Mapping {
        begin: mapping.start,
        end: mapping.end,
        ..Mapping::default()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, convert::Infallible, sync::Arc};

    use profiler_common::{
        limits::RULES_MAX,
        unwind::{Cfa, Rule, table::Page},
    };

    use super::{LIST_GRACE, Mapping, Shared, Space, TABLE_GRACE, Table, Unwinder};
    use crate::process::Processes;

    /// Ordinary memory in the place of the kernel's.
    #[derive(Debug, Default)]
    struct Memory {
        spaces: Vec<(u32, Space)>,
        pages: HashMap<u32, Page>,
        rules: HashMap<u32, Rule>,
        rows: HashMap<(u16, u32), u32>,
    }

    impl Shared for Memory {
        type Error = Infallible;

        fn page(&self, at: u32) -> Option<Page> {
            self.pages.get(&at).copied()
        }

        fn row(&self, segment: u16, at: u32) -> Option<u32> {
            self.rows.get(&(segment, at)).copied()
        }

        fn rule(&self, at: u32) -> Option<Rule> {
            self.rules.get(&at).copied()
        }

        fn write_mappings(&mut self, _at: u32, _mappings: &[Mapping]) {}

        fn write_pages(&mut self, at: u32, pages: &[Page]) {
            self.pages.extend((at..).zip(pages.iter().copied()));
        }

        fn write_rules(&mut self, at: u32, rules: &[Rule]) {
            self.rules.extend((at..).zip(rules.iter().copied()));
        }

        fn write_rows(&mut self, segment: u16, at: u32, rows: &[u32]) -> Result<(), Infallible> {
            let places = (at..).map(|at| (segment, at));
            self.rows.extend(places.zip(rows.iter().copied()));
            Ok(())
        }

        fn set_space(&mut self, pid: u32, space: Space) -> Result<(), Infallible> {
            self.remove_space(pid);
            self.spaces.push((pid, space));
            Ok(())
        }

        fn remove_space(&mut self, pid: u32) {
            self.spaces.retain(|&(known, _)| known != pid);
        }

        fn spaces(&self) -> Vec<(u32, Space)> {
            self.spaces.clone()
        }
    }

    fn with_processes(pids: std::ops::Range<u32>) -> Unwinder<Memory> {
        let mut processes = Processes::new();
        let pid = std::process::id();
        processes.observe(pid);
        let mut unwinder = Unwinder::new(Memory::default(), None);
        for child in pids {
            let files: &[Arc<_>] = processes.files();
            let Ok(()) = unwinder.set_mappings(child, processes.mappings(pid), files);
        }
        unwinder
    }

    /// A thousand processes with equal mappings share one list, and each file has one table.
    #[test]
    fn equal_processes_share() {
        let unwinder = with_processes(1..1001);
        assert_eq!((unwinder.lists.len(), unwinder.given.len()), (1, 1000));
        assert_eq!(unwinder.stats().tables, unwinder.tables.len() as u64);
        assert!(unwinder.stats().rows > 1000 && unwinder.stats().no_room == 0);
    }

    /// A table of one page, whose rules are these.
    fn table(rules: Vec<Rule>) -> Table {
        Table {
            first_page: 1,
            pages: vec![(0, 2)],
            rows: vec![0, 1 << 16],
            rules,
            ..Table::default()
        }
    }

    fn load(unwinder: &mut Unwinder<Memory>, table: &Table, owner: u32) -> Option<u32> {
        let Ok(loaded) = unwinder.load(table, owner);
        loaded
    }

    /// Files share a table that is equal, entry for entry, whoever owns them, and no other one; it is freed once.
    #[test]
    fn only_equal_tables_are_shared() {
        let mut unwinder = Unwinder::new(Memory::default(), None);
        let honest = table(vec![Rule::only(Cfa::None), Rule::only(Cfa::Sp)]);
        let forged = table(vec![Rule::only(Cfa::None), Rule::only(Cfa::End)]);
        let first = load(&mut unwinder, &forged, 65_534);
        let second = load(&mut unwinder, &honest, 0);
        assert!(first.is_some() && second.is_some() && first != second);
        assert_eq!(load(&mut unwinder, &honest, 65_534), second);
        let mut moved = honest.clone();
        moved.first_page = 2;
        assert_ne!(load(&mut unwinder, &moved, 0), second);
        assert_eq!(unwinder.stats().tables, 3);
        for _ in 0..=TABLE_GRACE {
            unwinder.sweep(|_| true);
        }
        assert_eq!((unwinder.stats().rows, unwinder.by_hash.len()), (0, 0));
    }

    /// Files of another user than root take up half of the memory at most.
    #[test]
    fn other_users_leave_half() {
        let mut unwinder = Unwinder::new(Memory::default(), None);
        let of = |first: usize| {
            let rule = |offset: usize| Rule {
                cfa_offset: i32::try_from(offset).unwrap(),
                ..Rule::only(Cfa::Sp)
            };
            table((first..first + RULES_MAX / 8).map(rule).collect())
        };
        let mut loaded = |number: usize, owner| load(&mut unwinder, &of(number * RULES_MAX), owner);
        assert!((0..4).all(|number| loaded(number, 65_534).is_some()));
        assert_eq!(loaded(4, 65_534), None);
        assert!(loaded(4, 0).is_some());
        assert_eq!(unwinder.stats().no_room, 1);
    }

    /// What no process uses is freed after its grace: lists soon, tables later, all of it.
    #[test]
    fn memory_is_freed() {
        let mut unwinder = with_processes(1..3);
        let free = unwinder.arena.free();
        unwinder.forget(1);
        unwinder.sweep(|_| true);
        assert_eq!((unwinder.lists.len(), unwinder.arena.free()), (1, free));
        unwinder.forget(2);
        for _ in 0..=LIST_GRACE {
            assert_eq!(unwinder.lists.len(), 1);
            unwinder.sweep(|_| true);
        }
        assert_eq!((unwinder.lists.len(), unwinder.by_content.len()), (0, 0));
        assert!(unwinder.arena.free() > free && unwinder.stats().rows > 0);
        for _ in 0..=TABLE_GRACE {
            unwinder.sweep(|_| true);
        }
        assert_eq!((unwinder.stats().rows, unwinder.tables.len()), (0, 0));
    }
}
