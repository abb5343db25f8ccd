//! What backends run, read from their own memory: the text of a statement that was prepared before the recording is
//! nowhere else. While a backend runs a statement, its variable `debug_query_string` points to the text
//! (`src/backend/tcop/postgres.c`). By what it reads texts stands there too: `standard_conforming_strings`, and the
//! client's encoding behind a pointer that has no symbol, but a function that returns what it points to (`code`).
//!
//! Only backends that run a statement without a text are read, every few ms, so that short calls are met by chance and
//! long ones always are. Nothing is stopped: whether the text was that of one call is found out from the call's times.

use std::{collections::VecDeque, fs::File, os::unix::fs::FileExt, sync::Arc};

use object::{Object, ObjectSection, ObjectSymbol, ReadRef};
use rustc_hash::FxHashMap;

use super::{
    code::pointer_of,
    dialect::Parameters,
    encoding::Encoding,
    readings::When,
    sql::Strings,
    status::{ACTIVITY_BYTES, QUERY_ID, STATUS_BYTES, Status, wait_class},
};
use crate::{
    foreign::{Contents, Identity, ask, find_program, proc_text},
    process::own_id,
    record::finish::monotonic_ns,
    unwind::{Segments, Use},
};

const VARIABLE: &[u8] = b"debug_query_string";
const CONFORMING: &[u8] = b"standard_conforming_strings";
const ENCODING_NAME: &[u8] = b"pg_get_client_encoding_name";
const STATUS: &[u8] = b"MyBEEntry";
const WAIT_EVENT: &[u8] = b"my_wait_event_info";
/// Longest name of an encoding, with the zero byte behind it.
const NAME_MAX: usize = 32;
/// Bytes of that function's code that are looked at.
const CODE_MAX: u64 = 32;
/// Most bytes of a text: as much as is looked at of one that is sent.
const TEXT_MAX: usize = 65_536;
/// Bytes that are read at once: most texts are shorter, and what lies behind may not be readable.
const PIECE: usize = 4096;
/// Backends that are read at a time.
const AT_ONCE: usize = 16;
/// How often a backend is read after it last ran a statement without a text.
const READS: u32 = 200;
/// Most backends that are read in turns.
const WANTED_MAX: usize = 1000;

/// Most servers' programs that are remembered.
const EXECUTABLES_MAX: usize = 64;
/// Most symbols of one that are looked through.
const SYMBOLS_MAX: usize = 1_000_000;
/// Longest list of mappings that is looked through: a backend has some hundred, the program's come first.
const MAPS_BYTES_MAX: u64 = 1 << 20;

/// Backends to be read.
#[derive(Debug, Default)]
pub(super) struct Backends {
    known: FxHashMap<u32, Option<Backend>>,
    executables: FxHashMap<Identity, Option<Executable>>,
    /// Whose turn it is, and how many more times it is.
    wanted: VecDeque<(u32, u32)>,
}

/// A backend.
#[derive(Debug)]
struct Backend {
    memory: Arc<File>,
    addresses: Addresses,
    /// Its number, as we see it and as it does itself.
    pids: [u32; 2],
}

/// Where the variables are, in a program or a process.
#[derive(Clone, Copy, Debug)]
struct Addresses {
    /// The pointer to the text.
    text: u64,
    /// The boolean, if the program has it.
    conforming: Option<u64>,
    /// The pointer to the client's encoding, of which the name comes first; if it is found.
    encoding: Option<u64>,
    /// The pointer to its [`Status`].
    status: Option<u64>,
    /// The pointer to what it waits for; not before Postgres 14.
    wait: Option<u64>,
}

/// A server's program.
#[derive(Debug)]
struct Executable {
    segments: Segments,
    /// By the linker.
    addresses: Addresses,
}

/// What a backend ran.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) pid: u32,
    pub(super) when: When,
    /// That was so from before the first of these times to after the second, unless something else was in between, ns.
    pub(super) between_ns: (u64, u64),
    pub(super) text: Vec<u8>,
    pub(super) is_whole: bool,
    /// By which it was read.
    pub(super) strings: Strings,
}

impl Backends {
    /// A backend runs a statement that has no text, or has just done so.
    pub(super) fn want(&mut self, pid: u32) {
        let known = self.wanted.iter_mut().find(|(wanted, _)| *wanted == pid);
        if let Some((_, times)) = known {
            *times = READS;
        } else if self.wanted.len() < WANTED_MAX {
            self.wanted.push_back((pid, READS));
        }
    }

    /// A process is gone, or runs another program.
    pub(super) fn forget(&mut self, pid: u32) {
        self.known.remove(&pid);
        self.wanted.retain(|(wanted, _)| *wanted != pid);
    }

    /// Reads those whose turn it is.
    pub(super) fn look(&mut self, mut each: impl FnMut(Reading)) {
        for _ in 0..self.wanted.len().min(AT_ONCE) {
            let Some((pid, times)) = self.wanted.pop_front() else {
                break;
            };
            let Some(backend) = self.backend(pid) else {
                continue;
            };
            if let Some(reading) = backend.read(pid) {
                each(reading);
            }
            if times > 1 {
                self.wanted.push_back((pid, times - 1));
            }
        }
    }

    /// What a backend says of itself, and runs or has run last.
    pub(super) fn ask(&mut self, pid: u32) -> (Option<Activity>, Option<Reading>) {
        let asked = self.backend(pid).map(|backend| {
            let (mut before, reading) = (backend.activity(pid), backend.read(pid));
            let after = backend.activity(pid);
            if let (Some(before), Some(after)) = (&mut before, after) {
                let is_same = before.status == after.status;
                before.query_id = before.query_id.filter(|_| is_same);
            }
            (before, reading)
        });
        self.close(pid);
        asked.unwrap_or_default()
    }

    /// By what a backend reads texts, and the name that its client gave itself.
    pub(super) fn session(&mut self, pid: u32) -> Option<(Parameters, Option<Arc<str>>)> {
        let backend = self.backend(pid)?;
        let activity = backend.activity(pid);
        let (memory, addresses) = (Arc::clone(&backend.memory), backend.addresses);
        let parameters = ask(pid, move || Parameters {
            encoding: (addresses.encoding).and_then(|name| encoding(&memory, name)),
            strings: strings(&memory, addresses.conforming),
            since_ns: monotonic_ns(),
        })?;
        self.close(pid);
        let application = activity.and_then(|activity| activity.application());
        Some((parameters, application))
    }

    /// It is kept open only where texts are read too.
    fn close(&mut self, pid: u32) {
        let is_wanted = self.wanted.iter().any(|(wanted, _)| *wanted == pid);
        if !is_wanted {
            self.known.remove(&pid);
        }
    }

    fn backend(&mut self, pid: u32) -> Option<&Backend> {
        let Self {
            known, executables, ..
        } = self;
        known
            .entry(pid)
            .or_insert_with(|| Backend::open(pid, executables))
            .as_ref()
    }
}

impl Backend {
    /// `None` where the process is gone or its program has no such variable.
    fn open(pid: u32, executables: &mut FxHashMap<Identity, Option<Executable>>) -> Option<Self> {
        let program = ask(pid, move || find_program(pid))?.ok()?;
        if executables.len() >= EXECUTABLES_MAX {
            executables.clear();
        }
        let executable = executables
            .entry(program.identity())
            .or_insert_with(|| Executable::read(&program.open().ok()?));
        let executable = executable.as_ref()?;
        let maps = ask(pid, move || proc_text(pid, "maps", MAPS_BYTES_MAX))??;
        let (start, offset) = data_mapping(&maps, program.inode())?;
        let bias = executable.segments.bias(start, offset, Use::Data)?;
        Some(Self {
            memory: ask(pid, move || File::open(format!("/proc/{pid}/mem")))?
                .ok()?
                .into(),
            addresses: executable.addresses.above(bias),
            pids: [pid, ask(pid, move || own_id(pid, pid))?],
        })
    }

    /// What it runs now, or else ran last.
    fn read(&self, pid: u32) -> Option<Reading> {
        let (memory, addresses, pids) = (Arc::clone(&self.memory), self.addresses, self.pids);
        ask(pid, move || {
            read(pid, &memory, addresses).or_else(|| read_last(&memory, addresses, pids))
        })?
    }

    /// What it says of itself.
    fn activity(&self, pid: u32) -> Option<Activity> {
        let (memory, addresses, pids) = (Arc::clone(&self.memory), self.addresses, self.pids);
        ask(pid, move || activity(&memory, addresses, pids))?
    }
}

/// What a backend says of itself.
#[derive(Debug)]
pub(super) struct Activity {
    pub(super) status: Status,
    application: Vec<u8>,
    /// The class of what it waits for.
    pub(super) wait: Option<&'static str>,
    /// The server's own number for what it runs or ran last, where it computes one and has not gone on meanwhile.
    pub(super) query_id: Option<i64>,
}

impl Activity {
    /// The name that its client gave itself, if it did.
    pub(super) fn application(&self) -> Option<Arc<str>> {
        let name = String::from_utf8_lossy(&self.application);
        (!name.is_empty()).then(|| Arc::from(name.as_ref()))
    }
}

fn activity(memory: &File, addresses: Addresses, pids: [u32; 2]) -> Option<Activity> {
    let status = status(memory, addresses, pids)?;
    let wait = addresses.wait.and_then(|wait| {
        let mut event = [0; 4];
        memory
            .read_exact_at(&mut event, pointer(memory, wait)?)
            .ok()?;
        wait_class(u32::from_ne_bytes(event))
    });
    let (application, _) = string(memory, status.application, NAME_MAX)?;
    Some(Activity {
        query_id: query_id(memory, addresses),
        status,
        application,
        wait,
    })
}

/// A version that has no such field has no variable for what it waits for either.
fn query_id(memory: &File, addresses: Addresses) -> Option<i64> {
    let at = pointer(
        memory,
        addresses.status.filter(|_| addresses.wait.is_some())?,
    )?;
    let id = pointer(memory, at.checked_add(QUERY_ID)?)?;
    Some(id.cast_signed())
}

fn status(memory: &File, addresses: Addresses, pids: [u32; 2]) -> Option<Status> {
    let mut bytes = [0; STATUS_BYTES];
    let at = pointer(memory, addresses.status?)?;
    memory.read_exact_at(&mut bytes, at).ok()?;
    Status::read(&bytes, &pids)
}

fn read_last(memory: &File, addresses: Addresses, pids: [u32; 2]) -> Option<Reading> {
    let before_ns = monotonic_ns();
    let first = status(memory, addresses, pids)?;
    let (text, is_whole) = string(memory, first.text, TEXT_MAX)?;
    let strings = strings(memory, addresses.conforming);
    // It has begun nothing in between.
    let is_same =
        status(memory, addresses, pids)? == first && pointer(memory, addresses.text).is_none();
    (is_same && !text.is_empty()).then(|| Reading {
        pid: pids[0],
        when: When::Last,
        between_ns: (before_ns, monotonic_ns()),
        is_whole: is_whole && text.len() < ACTIVITY_BYTES - 1,
        text,
        strings,
    })
}

fn read(pid: u32, memory: &File, addresses: Addresses) -> Option<Reading> {
    let before_ns = monotonic_ns();
    let at = pointer(memory, addresses.text)?;
    let (text, is_whole) = string(memory, at, TEXT_MAX)?;
    let strings = strings(memory, addresses.conforming);
    let is_same = pointer(memory, addresses.text)? == at;
    is_same.then(|| Reading {
        pid,
        when: When::Now,
        between_ns: (before_ns, monotonic_ns()),
        text,
        is_whole,
        strings,
    })
}

/// The text that begins there, at most so much of it, and whether that is all.
fn string(memory: &File, at: u64, bytes_max: usize) -> Option<(Vec<u8>, bool)> {
    let mut text = Vec::new();
    let mut is_whole = false;
    while text.len() < bytes_max && !is_whole {
        // Up to the end of a page: the next one may not be there.
        let from = at.checked_add(text.len() as u64)?;
        let mut piece = [0; PIECE];
        let room = PIECE - usize::try_from(from % PIECE as u64).ok()?;
        let piece = &mut piece[..room];
        memory.read_exact_at(piece, from).ok()?;
        let end = piece.iter().position(|byte| *byte == 0);
        is_whole = end.is_some();
        text.extend_from_slice(&piece[..end.unwrap_or(room)]);
    }
    Some((text, is_whole))
}

fn strings(memory: &File, conforming: Option<u64>) -> Strings {
    let mut byte = [0];
    let read = conforming.map(|at| memory.read_exact_at(&mut byte, at));
    match (read, byte) {
        (Some(Ok(())), [1]) => Strings::Conforming,
        (Some(Ok(())), [0]) => Strings::Escaping,
        _ => Strings::Unknown,
    }
}

fn encoding(memory: &File, name: u64) -> Option<Encoding> {
    let at = pointer(memory, pointer(memory, name)?)?;
    let mut name = [0; NAME_MAX];
    let read = memory.read_at(&mut name, at).ok()?;
    let end = name.iter().take(read).position(|byte| *byte == 0)?;
    Encoding::named(name.get(..end)?)
}

/// The pointer that is there, unless it leads nowhere.
fn pointer(memory: &File, at: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    memory.read_exact_at(&mut bytes, at).ok()?;
    Some(u64::from_ne_bytes(bytes)).filter(|at| *at != 0)
}

impl Addresses {
    fn above(self, bias: u64) -> Self {
        let above = |address: u64| bias.wrapping_add(address);
        Self {
            text: above(self.text),
            conforming: self.conforming.map(above),
            encoding: self.encoding.map(above),
            status: self.status.map(above),
            wait: self.wait.map(above),
        }
    }
}

impl Executable {
    fn read(program: &File) -> Option<Self> {
        let data = Contents::of(program);
        let object = object::File::parse(&data).ok()?;
        let address = |name: &[u8]| {
            let symbols = object.dynamic_symbols().chain(object.symbols());
            let symbol = symbols
                .take(SYMBOLS_MAX)
                .find(|symbol| symbol.is_definition() && symbol.name_bytes() == Ok(name));
            symbol.map(|symbol| symbol.address())
        };
        let addresses = Addresses {
            text: address(VARIABLE)?,
            conforming: address(CONFORMING),
            status: address(STATUS),
            wait: address(WAIT_EVENT),
            encoding: address(ENCODING_NAME).and_then(|start| {
                let code = code_at(&object, start)?;
                pointer_of(start, &code)
            }),
        };
        Some(Self {
            addresses,
            segments: Segments::of(&data)?,
        })
    }
}

/// The beginning of a function.
fn code_at<'a, R: ReadRef<'a>>(object: &object::File<'a, R>, start: u64) -> Option<Vec<u8>> {
    let read = |section: object::Section<'a, '_, R>| section.data_range(start, CODE_MAX).ok()?;
    object.sections().find_map(read).map(<[u8]>::to_vec)
}

/// Start and file offset of the first writable mapping of a file, in the text of `/proc/PID/maps`.
fn data_mapping(maps: &str, inode: u64) -> Option<(u64, u64)> {
    maps.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (range, rights, offset) = (words.next()?, words.next()?, words.next()?);
        let is_it = words.nth(1)?.parse() == Ok(inode) && rights.as_bytes().get(1) == Some(&b'w');
        let (start, _) = range.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        is_it.then_some((number(start)?, number(offset)?))
    })
}

#[cfg(test)]
mod tests {
    use super::data_mapping;

    /// The writable mapping is that of the program itself, not of a library's.
    #[test]
    fn writable_mapping_is_found() {
        let maps = "55d0a0000000-55d0a0100000 r--p 00000000 fe:01 77 /usr/lib/postgresql/15/bin/postgres\n\
                    7f0000000000-7f0000001000 rw-p 00002000 fe:01 78 /usr/lib/libz.so\n\
                    55d0a0800000-55d0a0810000 rw-p 007ff000 fe:01 77 /usr/lib/postgresql/15/bin/postgres\n\
                    55d0a0810000-55d0a0820000 rw-p 00000000 00:00 0 \n";
        assert_eq!(data_mapping(maps, 77), Some((0x55d0_a080_0000, 0x7f_f000)));
        assert_eq!(data_mapping(maps, 79), None);
    }
}
