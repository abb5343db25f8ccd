//! One thread after the other: where it is, what it does, what its stack is called.

use std::{collections::HashMap, fs, os::unix::fs::FileExt};

use profiler_common::{
    off_cpu::State,
    outcome::{PythonStop, StopReason},
    sample::{ORIGIN_SYSCALL, Sample},
    unwind::{Registers, how::RETURN},
};

use super::memory::Tables;
use crate::{
    config::{Dump, Interpreter},
    error::Error,
    foreign::{ask, proc_facts},
    kernel::sleepers,
    process::{self, Place, Processes},
    profile::Location,
    python::{Inserted, Pythons, States},
    record::{
        aggregate::comm_text,
        threads::{Modules, PythonPlaces, header_of, locations, shown},
    },
    symbolize::{Limits, Sources, Symbols},
    unwind::{StackCopy, Unwinder},
    wait::Waits,
};

/// Most of a stack that is copied.
const STACK_BYTES_MAX: usize = 1 << 20;
/// Most threads that are shown.
const THREADS_MAX: usize = 8192;
/// What a thread does that may not be looked at.
const NOT_READABLE: &str = "not readable";
/// Why a stack is cut where the kernel did not give the registers.
const FRAME_POINTER_UNKNOWN: &str =
    "the thread's frame pointer is not known: it takes root, or CAP_BPF and CAP_PERFMON";
/// What is copied at once.
const PAGE_BYTES: usize = 4096;

/// A thread as it is shown.
pub(super) struct Dumped {
    pub(super) tid: u32,
    pub(super) name: String,
    /// Running, or what it waits for.
    pub(super) doing: String,
    pub(super) has_gil: bool,
    /// Innermost first.
    pub(super) stack: Vec<Location>,
    /// Why the native stack is cut, if it is.
    pub(super) cut: Option<&'static str>,
}

/// What is known of the process.
pub(super) struct Dumper {
    pid: u32,
    interpreter: Interpreter,
    processes: Processes,
    pythons: Pythons,
    /// The interpreter's list of threads, read once.
    states: States,
    /// The registers of those that wait; `None` where the kernel does not let us ask.
    registers: Option<HashMap<u32, Registers>>,
    unwinder: Unwinder<Tables>,
    is_frozen: bool,
    waits: Waits,
    /// Threads that are not shown, as there are too many.
    pub(super) left_out: usize,
}

/// A thread before its places have names.
struct Raw {
    thread: Dumped,
    places: Vec<u32>,
}

impl Dumper {
    pub(super) fn new(config: Dump) -> Self {
        let Dump {
            pid, interpreter, ..
        } = config;
        let mut processes = Processes::keeping(config.command_lines);
        processes.observe(pid);
        let mut unwinder = Unwinder::new(Tables::default(), process::vdso_image().ok());
        let Ok(()) = unwinder.set_mappings(pid, processes.mappings(pid), processes.files());
        let mut pythons = Pythons::default();
        pythons.look(pid, processes.mappings(pid), processes.files());
        Self {
            pid,
            interpreter,
            processes,
            states: pythons.states(pid),
            registers: sleepers(pid).ok(),
            pythons,
            unwinder,
            is_frozen: process::is_frozen(pid),
            waits: Waits::default(),
            left_out: 0,
        }
    }

    /// The process in a line.
    pub(super) fn title(&self) -> String {
        let command_line = self.processes.command_line(self.pid).unwrap_or_default();
        format!("process {}: {command_line}", self.pid)
    }

    /// Every thread, the first one first.
    pub(super) fn threads(&mut self) -> Result<Vec<Dumped>, Error> {
        let pid = self.pid;
        let tasks =
            fs::read_dir(format!("/proc/{pid}/task")).map_err(|_| Error::NoSuchProcess { pid })?;
        let mut tids: Vec<u32> = tasks
            .flatten()
            .filter_map(|task| task.file_name().to_str()?.parse().ok())
            .collect();
        tids.sort_unstable();
        self.left_out = tids.len().saturating_sub(THREADS_MAX);
        tids.truncate(THREADS_MAX);
        let mut places = Vec::new();
        let raw: Vec<Raw> = tids
            .into_iter()
            .filter_map(|tid| self.thread(tid, &mut places))
            .collect();
        // What nothing is known of must not look like a process that does nothing.
        if !raw.is_empty() && raw.iter().all(|raw| raw.thread.doing == NOT_READABLE) {
            return Err(Error::NotReadable { pid: self.pid });
        }
        let mut modules = Modules::default();
        let pythons = PythonPlaces::of(&places, &self.pythons);
        let sources = Sources::of(&self.processes);
        let symbols = Symbols::spawn(Limits::VERB)?;
        let resolve = |places| symbols.resolve(places, sources);
        let named = locations(&places, &pythons, &mut modules, resolve)?.list;
        let threads = raw.into_iter().map(
            |Raw {
                 thread,
                 places: stack,
             }| {
                let ids = shown(&stack, &places, &pythons, self.interpreter);
                let stack = ids.into_iter().map(|id| named[id.index()].clone());
                Dumped {
                    stack: stack.collect(),
                    ..thread
                }
            },
        );
        Ok(threads.collect())
    }

    /// `None` if it is gone.
    fn thread(&mut self, tid: u32, places: &mut Vec<(Place, u64)>) -> Option<Raw> {
        let Self {
            pid,
            processes,
            pythons,
            states,
            registers,
            waits,
            unwinder,
            is_frozen,
            ..
        } = self;
        let Some(mut header) = header_of(*pid, tid, *is_frozen) else {
            // Gone, or so closed to us that not even its name may be read.
            let is_there = fs::exists(format!("/proc/{pid}/task/{tid}")).unwrap_or(true);
            return is_there.then(|| Raw::unread(tid, "?".to_owned()));
        };
        if !may_read(*pid, tid) {
            return Some(Raw::unread(tid, comm_text(&header.comm)));
        }
        header.origin = ORIGIN_SYSCALL;
        let walked = pythons.walk(*pid, process::own_id(*pid, tid), states);
        let name = walked
            .as_ref()
            .and_then(|walked| pythons.thread_name(*pid, walked));
        let frames = walked.iter().flat_map(|walked| &walked.frames);
        let words: Vec<[u64; 2]> = frames.map(|frame| frame.words()).collect();
        let registers = registers.as_ref().and_then(|known| known.get(&tid));
        let Native {
            frames: user,
            stop,
            cut,
        } = native(unwinder, *pid, tid, registers).unwrap_or(Native::NONE);
        let sample = Sample {
            header: &header,
            kernel: &[],
            user: &user,
            stop,
            python: &words,
            python_stop: walked
                .as_ref()
                .map_or(PythonStop::None, |walked| walked.stop),
            rest: None,
        };
        let inserted = pythons.interleave(&sample, |address| processes.locate(*pid, address));
        let stack = placed(&user, inserted, places, |address| {
            processes.locate(*pid, address)
        });
        let state = State::from_id(header.state).unwrap_or(State::Blocked);
        let is_gil = state == State::Blocked
            && header.syscall >= 0
            && pythons.owns(*pid, header.arguments[0]);
        let doing = match state {
            State::Runnable => "running".to_owned(),
            _ if is_gil => "waiting for the GIL".to_owned(),
            _ => waits.describe(&header),
        };
        Some(Raw {
            thread: Dumped {
                tid,
                name: name.unwrap_or_else(|| comm_text(&header.comm)),
                doing,
                has_gil: walked.is_some_and(|walked| walked.holds_gil),
                stack: Vec::new(),
                cut,
            },
            places: stack,
        })
    }
}

impl Raw {
    /// Of a thread of which at most the name may be read.
    fn unread(tid: u32, name: String) -> Self {
        Self {
            thread: Dumped {
                tid,
                name,
                doing: NOT_READABLE.to_owned(),
                has_gil: false,
                stack: Vec::new(),
                cut: None,
            },
            places: Vec::new(),
        }
    }
}

/// Both stacks as one of places, by their positions in the list of places.
fn placed(
    user: &[u64],
    inserted: Vec<Inserted>,
    places: &mut Vec<(Place, u64)>,
    mut locate: impl FnMut(u64) -> Place,
) -> Vec<u32> {
    let mut stack = Vec::new();
    let mut push = |place: Place, address: u64| {
        places.push((place, address));
        stack.push(u32::try_from(places.len() - 1).unwrap_or(u32::MAX));
    };
    let mut inserted = inserted.into_iter().peekable();
    for (index, &pc) in user.iter().enumerate() {
        while let Some(python) = inserted.next_if(|python| python.before <= index) {
            push(python.place, python.address);
        }
        let within = pc.wrapping_sub(1);
        push(locate(within), within);
    }
    inserted.for_each(|python| push(python.place, python.address));
    stack
}

/// Whether we may know what a thread does: without, it would seem to wait for nothing.
fn may_read(pid: u32, tid: u32) -> bool {
    proc_facts(pid, &format!("task/{tid}/syscall")).is_some()
}

/// A native stack.
struct Native {
    /// Innermost first.
    frames: Vec<u64>,
    stop: StopReason,
    /// Why it is cut, if it is.
    cut: Option<&'static str>,
}

impl Native {
    /// Of a thread that does not wait.
    const NONE: Self = Self {
        frames: Vec::new(),
        stop: StopReason::Outermost,
        cut: None,
    };
}

/// The native stack of a thread that waits in a system call; `None` of one that does not. `registers` are those that
/// the kernel gave, of which the frame pointer is not in `/proc`.
fn native(
    unwinder: &Unwinder<Tables>,
    pid: u32,
    tid: u32,
    registers: Option<&Registers>,
) -> Option<Native> {
    let call = proc_facts(pid, &format!("task/{tid}/syscall"))?;
    let mut words = call.split_whitespace().rev();
    let mut number = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    let (pc, sp) = (number()?, number()?);
    let stack = ask(pid, move || stack_from(pid, sp)).unwrap_or_default();
    // It may have been somewhere else when the kernel was asked.
    let known = registers.filter(|known| (known.pc, known.sp) == (pc, sp));
    let copy = StackCopy {
        frame: known.copied().unwrap_or(Registers { pc, sp, bp: 0 }),
        how: RETURN,
        base: sp,
        stack: &stack,
    };
    let code = |address| process::read_words(pid, address);
    let (frames, stop) = unwinder.walk_copy(pid, copy, code)?;
    let cause = if known.is_some() {
        stop.text()
    } else {
        FRAME_POINTER_UNKNOWN
    };
    Some(Native {
        frames,
        stop,
        cut: (!stop.is_complete()).then_some(cause),
    })
}

/// A copy of the stack from an address on, as far as it goes.
fn stack_from(pid: u32, sp: u64) -> Vec<u8> {
    let mut stack = Vec::new();
    let Ok(memory) = fs::File::open(format!("/proc/{pid}/mem")) else {
        return stack;
    };
    let mut page = [0; PAGE_BYTES];
    let mut length = PAGE_BYTES - usize::try_from(sp % PAGE_BYTES as u64).unwrap_or(0);
    while stack.len() < STACK_BYTES_MAX
        && memory
            .read_exact_at(&mut page[..length], sp.wrapping_add(stack.len() as u64))
            .is_ok()
    {
        stack.extend_from_slice(&page[..length]);
        length = PAGE_BYTES;
    }
    stack
}
