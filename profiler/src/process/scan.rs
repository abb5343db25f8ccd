//! Reads what `/proc` tells of one process. A process that ends meanwhile is no error: what was read
//! until then is used.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::{Path, PathBuf},
    sync::atomic::Ordering,
    time::Duration,
};

use procfs::{
    FromBufRead,
    process::{MMPermissions, MemoryMap, MemoryMaps, Process},
};

use super::{
    files::{FileId, Files},
    mappings::{Backing, Line, Mapping, Mappings},
};
use crate::{
    cgroup,
    command_line::CommandLines,
    foreign::{
        Mapped, Refused, Regular, Root, ask, find_mapped, proc_bytes, proc_facts, ran, whole_lines,
    },
};

/// Longest list of mappings that is read: 65,530 mappings, as many as are allowed by default, take some 7 MB.
const MAPS_BYTES_MAX: u64 = 16 << 20;
/// Most mappings that are kept of one process. A browser has some 300 of code, a runtime that maps what it
/// compiles piece by piece some thousands.
const MAPPINGS_MAX: usize = 4096;
/// Most mappings that are kept of all processes before those that have many lose some: 40 MB.
const MAPPINGS_OF_ALL: usize = 400_000;
/// What a process keeps then.
const MAPPINGS_MIN: usize = 128;
/// Most parts of a process's memory that are looked through, of all kinds: as many as are allowed by default.
const MEMORY_MAX: usize = 65_536;
/// Longest command line that is read, in bytes.
const COMMAND_LINE_MAX: u64 = 1 << 16;

/// Name of the process's main thread.
pub fn comm(pid: u32) -> Option<String> {
    let comm = proc_facts(pid, "comm")?;
    Some(comm.trim_end_matches('\n').to_owned())
}

/// Name of a thread.
pub(crate) fn thread_comm(pid: u32, tid: u32) -> Option<String> {
    let comm = proc_facts(pid, &format!("task/{tid}/comm"))?;
    Some(comm.trim_end_matches('\n').to_owned())
}

/// Its command line, words separated by blanks: nothing else of ours ever holds more of it.
pub(super) fn command_line(pid: u32, kept: CommandLines) -> Option<String> {
    // The words are in its own memory.
    let read = move || proc_bytes(pid, "cmdline", COMMAND_LINE_MAX).ok();
    let (bytes, _) = ask(pid, read)??;
    let words: Vec<_> = bytes
        .split(|&byte| byte == 0)
        .map(String::from_utf8_lossy)
        .collect();
    Some(kept.text(&words))
}

/// Its cgroup of the unified hierarchy (v2), from the root.
pub fn cgroup(pid: u32) -> Option<String> {
    cgroup_in(&proc_facts(pid, "cgroup")?)
}

/// Whether it is frozen with its cgroup: its threads sleep then, by what `/proc` says.
pub(crate) fn is_frozen(pid: u32) -> bool {
    cgroup(pid).is_some_and(|path| cgroup::is_frozen(&path))
}

fn cgroup_in(text: &str) -> Option<String> {
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(str::to_owned)
}

/// Whether there is such a process.
pub fn is_alive(pid: u32) -> bool {
    fs::exists(format!("/proc/{pid}")).unwrap_or(true)
}

/// The threads of a process; none where it is gone.
pub fn threads(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    let names = tasks.into_iter().flatten().flatten();
    names
        .filter_map(|task| task.file_name().to_str()?.parse().ok())
        .collect()
}

/// The id that a thread itself sees, in its innermost pid namespace.
pub fn own_id(pid: u32, tid: u32) -> u32 {
    let status = proc_facts(pid, &format!("task/{tid}/status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let last = ids.and_then(|ids| ids.split_whitespace().last());
    last.and_then(|id| id.parse().ok()).unwrap_or(tid)
}

/// Reads a byte of its memory, so that the page is there when the kernel side wants it, which cannot
/// wait for it. Says whether there is such memory.
pub fn bring_in(pid: u32, address: u64) -> bool {
    let read = move || {
        let memory = fs::File::open(format!("/proc/{pid}/mem"))?;
        memory.read_exact_at(&mut [0], address)
    };
    ask(pid, read).is_some_and(|read| read.is_ok())
}

/// 16 bytes of its memory; `None` where there are none.
pub fn read_words(pid: u32, address: u64) -> Option<[u64; 2]> {
    let read = move || {
        let mut bytes = [[0; 8]; 2];
        let memory = fs::File::open(format!("/proc/{pid}/mem")).ok()?;
        memory
            .read_exact_at(bytes.as_flattened_mut(), address)
            .ok()?;
        Some(bytes.map(u64::from_ne_bytes))
    };
    ask(pid, read)?
}

/// Its executable mappings, the files behind them pinned, and how long that took; `None` if it is gone. What was there
/// `before` is not looked at again.
pub(super) fn mappings(
    pid: u32,
    before: &Mappings,
    files: &mut Files,
) -> Option<(Mappings, Duration)> {
    let room = if files.mappings.load(Ordering::Relaxed) < MAPPINGS_OF_ALL {
        MAPPINGS_MAX
    } else {
        MAPPINGS_MIN
    };
    let before = before.clone();
    let began = ran();
    let scan = ask(pid, move || Scan::of(pid, &before, room))??;
    files.cut += u64::from(scan.is_cut);
    let mut lines = Vec::new();
    let found = scan.found.into_iter().map(|found| match found {
        Found::Plain(mapping) => mapping,
        Found::File(line, file) => {
            lines.push(line);
            let Line {
                start,
                end,
                file_offset,
                ..
            } = line;
            Mapping {
                start,
                end,
                file_offset,
                backing: Backing::File(match file {
                    Seen::Before(id) => id,
                    Seen::Now(path, found) => files.pin(pid, &line, &path, found),
                }),
            }
        }
    });
    let found = found.collect();
    let mappings = Mappings::new(found, lines, &files.mappings);
    Some((mappings, ran().saturating_sub(began)))
}

/// The list of its mappings; says whether that is all.
fn lines(pid: u32) -> Option<(Vec<u8>, bool)> {
    whole_lines(pid, "maps", MAPS_BYTES_MAX).ok()
}

/// Memory that adjoins, without a file or a name. A runtime keeps its compiled code in a region that it
/// makes executable piece by piece, back and forth: all of the region counts, so that code made after
/// a look is known.
#[derive(Default)]
struct AnonymousRun {
    start: u64,
    end: u64,
    executable: bool,
}

impl AnonymousRun {
    /// The next piece; gives the run before it if it does not adjoin.
    fn add(&mut self, map: &MemoryMap) -> Option<Mapping> {
        let (start, end) = map.address;
        let executable = map.perms.contains(MMPermissions::EXECUTE);
        if start == self.end {
            self.end = end;
            self.executable |= executable;
            return None;
        }
        let next = Self {
            start,
            end,
            executable,
        };
        std::mem::replace(self, next).end()
    }

    fn end(self) -> Option<Mapping> {
        self.executable.then_some(Mapping {
            start: self.start,
            end: self.end,
            file_offset: 0,
            backing: Backing::Anonymous,
        })
    }
}

/// Whether memory has neither a file nor a purpose of the kernel's; the process may have named it
/// (`PR_SET_VMA_ANON_NAME`).
fn is_anonymous(name: &[u8]) -> bool {
    name.is_empty() || name.starts_with(b"[anon:")
}

/// Part of a process's memory, of whatever kind.
#[derive(Debug)]
pub struct Memory {
    /// Its numbers; the name is not in them.
    pub map: MemoryMap,
    /// What it is.
    pub content: Content,
}

/// What is in a part of a process's memory.
#[derive(Debug, PartialEq, Eq)]
pub enum Content {
    /// A file, by its path as the process sees it.
    File(PathBuf),
    /// The main thread's stack.
    Stack,
    /// Memory that other processes may have too.
    Shared,
    /// The process's own memory: its heap, or what follows a file's data (`.bss`).
    Private,
}

/// All memory of a process by address, nothing if it is gone; of one that has very much, what comes first.
pub fn memory(pid: u32) -> Vec<Memory> {
    let read = ask(pid, move || lines(pid)).flatten();
    let (text, _) = read.unwrap_or_default();
    memory_in(&text)
}

/// The same of the list itself.
pub(crate) fn memory_in(text: &[u8]) -> Vec<Memory> {
    let lines = text.split(|&byte| byte == b'\n').filter_map(parse);
    lines
        .take(MEMORY_MAX)
        .map(|(map, name)| Memory {
            content: content(&map, name),
            map,
        })
        .collect()
}

/// Finds the file that is mapped there, deleted or not.
pub(crate) fn file_of(pid: u32, memory: &Memory) -> Result<Regular, Refused> {
    match &memory.content {
        Content::File(path) => {
            let (map, path) = (memory.map.clone(), path.clone());
            let find = move || find_mapped(&mapped(pid, &map, &path, None));
            ask(pid, find).unwrap_or(Err(Refused::Silent))
        }
        Content::Stack | Content::Shared | Content::Private => Err(Refused::NotRegular),
    }
}

fn mapped<'a>(pid: u32, map: &MemoryMap, path: &'a Path, head: Option<(u64, u64)>) -> Mapped<'a> {
    Mapped {
        pid,
        start: map.address.0,
        end: map.address.1,
        file_offset: map.offset,
        device: map.dev,
        inode: map.inode,
        path,
        head,
    }
}

fn content(map: &MemoryMap, name: &[u8]) -> Content {
    let path = Path::new(OsStr::from_bytes(name));
    if is_file(path) && !path.starts_with("/dev/shm") {
        Content::File(without_mark(path).to_owned())
    } else if map.perms.contains(MMPermissions::SHARED) {
        Content::Shared
    } else if name == b"[stack]" {
        Content::Stack
    } else {
        Content::Private
    }
}

/// One line of a list of mappings: its numbers, and its name as bytes. `procfs` reads the numbers
/// only: a target chooses its file names, and one that is not UTF-8 would cost the whole list, one
/// such as `/SYSV1` a panic (procfs-core 0.18.0, `MMapPath::from` slices it unchecked).
fn parse(line: &[u8]) -> Option<(MemoryMap, &[u8])> {
    let blanks = line.iter().enumerate().filter(|&(_, &byte)| byte == b' ');
    let end = blanks.map(|(at, _)| at).nth(4).unwrap_or(line.len());
    let (numbers, name) = line.split_at(end);
    let nameless = [numbers, b" \n"].concat();
    let map = MemoryMaps::from_buf_read(nameless.as_slice())
        .ok()?
        .0
        .pop()?;
    Some((map, name.trim_ascii_start()))
}

/// One look at a process's mappings.
struct Scan {
    found: Vec<Found>,
    /// Whether it has more.
    is_cut: bool,
}

/// An executable mapping, the file behind it found but not pinned yet.
enum Found {
    Plain(Mapping),
    File(Line, Seen),
}

/// The file of a mapping.
enum Seen {
    Before(FileId),
    Now(PathBuf, Result<Regular, Refused>),
}

impl Scan {
    fn of(pid: u32, before: &Mappings, room: usize) -> Option<Self> {
        let (text, is_whole) = lines(pid)?;
        let mut found = Vec::new();
        let mut run = AnonymousRun::default();
        let mut head: Option<MemoryMap> = None;
        let mut files: Vec<(MemoryMap, &[u8])> = Vec::new();
        for (map, name) in text.split(|&byte| byte == b'\n').filter_map(parse) {
            if is_anonymous(name) {
                found.extend(run.add(&map).map(Found::Plain));
            } else if map.perms.contains(MMPermissions::EXECUTE) {
                let head = head.as_ref().filter(|head| is_same_file(head, &map));
                found.push(mapping(pid, (&map, name), head, before));
            }
            if found.len() >= room {
                break;
            }
            if is_file(Path::new(OsStr::from_bytes(name))) && files.len() < MEMORY_MAX {
                files.push((map.clone(), name));
            }
            if map.offset == 0 {
                head = Some(map);
            }
        }
        let is_cut = !is_whole || found.len() >= room;
        found.extend(run.end().map(Found::Plain));
        for each in &mut found {
            if let Found::Plain(copied) = each
                && copied.backing == Backing::Anonymous
                && let Some(file) = copied_file(pid, copied, &files, before)
            {
                *each = file;
            }
        }
        Some(Self { found, is_cut })
    }
}

/// The file that a copy in memory is of: programs move their code onto large pages, in its own place. What lies right
/// before it and right behind it is the same file, as far apart as in there.
fn copied_file(
    pid: u32,
    copied: &Mapping,
    files: &[(MemoryMap, &[u8])],
    before: &Mappings,
) -> Option<Found> {
    let behind = files.partition_point(|(map, _)| map.address.0 < copied.end);
    let (first, name) = files.get(behind.checked_sub(1)?)?;
    let (last, _) = files.get(behind)?;
    let adjoins = first.address.1 == copied.start && last.address.0 == copied.end;
    let from_start = |map: &MemoryMap| map.offset.wrapping_sub(map.address.0);
    if !adjoins || !is_same_file(first, last) || from_start(first) != from_start(last) {
        return None;
    }
    let line = Line {
        start: copied.start,
        end: copied.end,
        file_offset: first.offset + (copied.start - first.address.0),
        device: first.dev,
        inode: first.inode,
    };
    if let Some(known) = before.known(&line) {
        return Some(Found::File(line, Seen::Before(known)));
    }
    let path = without_mark(Path::new(OsStr::from_bytes(name)));
    let file = find_mapped(&mapped(pid, first, path, None));
    file.is_ok()
        .then(|| Found::File(line, Seen::Now(path.to_owned(), file)))
}

fn is_same_file(one: &MemoryMap, other: &MemoryMap) -> bool {
    (one.dev, one.inode) == (other.dev, other.inode)
}

fn mapping(
    pid: u32,
    (map, name): (&MemoryMap, &[u8]),
    head: Option<&MemoryMap>,
    before: &Mappings,
) -> Found {
    let (start, end) = map.address;
    let path = Path::new(OsStr::from_bytes(name));
    let plain = |backing| {
        Found::Plain(Mapping {
            start,
            end,
            file_offset: map.offset,
            backing,
        })
    };
    if name == b"[vdso]" {
        return plain(Backing::Vdso);
    }
    if name == b"[uprobes]" {
        // Functions return to its first byte, and return addresses are looked up one byte before.
        return Found::Plain(Mapping {
            start: start.saturating_sub(1),
            end,
            file_offset: 0,
            backing: Backing::Uprobes,
        });
    }
    let is_memfd = name.starts_with(b"/memfd:");
    if !is_file(path) && !is_memfd {
        return plain(Backing::Anonymous);
    }
    let line = Line {
        start,
        end,
        file_offset: map.offset,
        device: map.dev,
        inode: map.inode,
    };
    if let Some(known) = before.known(&line) {
        return Found::File(line, Seen::Before(known));
    }
    let path = without_mark(path);
    let head = head.map(|head| head.address);
    let found = find_mapped(&mapped(pid, map, path, head));
    // Runtimes keep what they compile in such memory, and loaders whole programs.
    if is_memfd && !found.as_ref().is_ok_and(is_elf) {
        return plain(Backing::Anonymous);
    }
    Found::File(line, Seen::Now(path.to_owned(), found))
}

/// Whether a file is an ELF file, by its first bytes.
fn is_elf(found: &Regular) -> bool {
    let mut magic = [0; 4];
    let read = |file: fs::File| file.read_exact_at(&mut magic, 0).is_ok();
    found.open().is_ok_and(read) && magic == *b"\x7fELF"
}

/// Whether a mapping's path is a file of code, rather than memory that only has a name: runtimes
/// keep their compiled code in such.
fn is_file(path: &Path) -> bool {
    let memory: [&[u8]; 4] = [b"/memfd:", b"/dev/zero", b"/anon_hugepage", b"//anon"];
    let name = path.as_os_str().as_bytes();
    let is_segment = name
        .strip_prefix(b"/SYSV")
        .and_then(|key| key.get(..8))
        .is_some_and(|key| key.iter().all(u8::is_ascii_hexdigit));
    name.starts_with(b"/") && !is_segment && !memory.iter().any(|prefix| name.starts_with(prefix))
}

/// The path without the mark that the kernel puts behind one that was unlinked.
fn without_mark(path: &Path) -> &Path {
    let name = path.as_os_str().as_bytes();
    name.strip_suffix(b" (deleted)")
        .map_or(path, |name| Path::new(OsStr::from_bytes(name)))
}

/// The perf map that a runtime may write for its compiled code, as the target sees it:
/// `/tmp/perf-PID.map` below its root, PID being the one in its innermost pid namespace.
///
/// Anybody may put a file of that name into `/tmp`: a pipe must not stop us, a link must not lead out
/// of the target's root, and only the target's own user or root is believed.
pub(super) fn perf_map(pid: u32) -> Option<fs::File> {
    let status = Process::new(i32::try_from(pid).ok()?).ok()?.status().ok()?;
    let inner = status.nspid.as_ref()?.last().copied()?;
    let path = format!("tmp/perf-{inner}.map");
    let find = move || Root::of(pid)?.find(Path::new(&path));
    let found = ask(pid, find)?.ok()?;
    let is_trusted = found.owner() == status.euid || found.owner() == 0;
    is_trusted.then(|| found.open().ok())?
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Content, content, is_file, parse, without_mark};

    /// Names that a target may choose cost neither the list nor the profiler; lines that are none are
    /// left out.
    #[test]
    fn foreign_names_are_read() {
        for name in [
            &b"/SYSV1"[..],
            b"/\xff\xfe",
            b"/SYSV\xc3\xa9",
            b"",
            b"[stack:\xc3\xa9",
        ] {
            let line = [&b"1000-2000 r-xp 00003000 fe:01 77 "[..], name].concat();
            let (map, found) = parse(&line).unwrap();
            assert_eq!(
                (map.address, map.offset, map.inode),
                ((0x1000, 0x2000), 0x3000, 77)
            );
            assert_eq!(found, name);
        }
        assert!(parse(b"nonsense").is_none() && parse(b"").is_none());
        assert!(is_file(Path::new("/SYSV1")) && !is_file(Path::new("/SYSV00000000 (deleted)")));
    }

    /// Memory that a Postgres shares with its backends, of each kind, is not taken for a file or a heap.
    #[test]
    fn contents_are_told_apart() {
        let check = |line: &str, expected| {
            let (map, name) = parse(line.as_bytes()).unwrap();
            assert_eq!(content(&map, name), expected, "{line}");
        };
        let file = Content::File("/usr/lib/libc.so.6".into());
        check(
            "1000-2000 rw-p 00003000 fe:01 77    /usr/lib/libc.so.6 (deleted)",
            file,
        );
        check(
            "1000-2000 rw-s 00000000 00:01 1462  /dev/zero (deleted)",
            Content::Shared,
        );
        check(
            "1000-2000 rw-s 00000000 00:1b 208   /dev/shm/PostgreSQL.19057",
            Content::Shared,
        );
        check(
            "1000-2000 rw-s 00000000 00:01 32798 /SYSV0098e012 (deleted)",
            Content::Shared,
        );
        check(
            "1000-2000 rw-p 00000000 00:00 0     [heap]",
            Content::Private,
        );
        check("1000-2000 rw-p 00000000 00:00 0 ", Content::Private);
        check(
            "1000-2000 rw-p 00000000 00:00 0     [stack]",
            Content::Stack,
        );
    }

    /// Of several hierarchies only the unified one counts.
    #[test]
    fn cgroup_of_the_unified_hierarchy() {
        let mixed = "4:memory:/a\n1:name=systemd:/b\n0::/system.slice/nginx.service\n";
        assert_eq!(
            super::cgroup_in(mixed).as_deref(),
            Some("/system.slice/nginx.service")
        );
        assert_eq!(super::cgroup_in("4:memory:/a\n"), None);
    }

    /// Named memory is told apart from files, and an unlinked file keeps its name.
    #[test]
    fn paths_of_mappings() {
        assert!(is_file(Path::new("/usr/bin/app")) && is_file(Path::new("/tmp/memfd:app")));
        assert!(
            !is_file(Path::new("/memfd:jit (deleted)"))
                && !is_file(Path::new("/dev/zero (deleted)"))
        );
        assert_eq!(
            without_mark(Path::new("/tmp/app (deleted)")),
            Path::new("/tmp/app")
        );
    }
}
