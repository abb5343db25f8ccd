//! `CPython` in the targets: which processes have an interpreter, what their frames are called, and
//! where they belong among the native ones.
//!
//! An interpreter is found by what is mapped (a file with `_PyRuntime`), never by a name. Where its
//! structures' members lie is told to the kernel side, which takes the stacks; code objects are read
//! here, once each, through `/proc/PID/mem`, which never stops the process. Workers that were forked
//! from one process share what was read, and equal code of any processes is one.

pub mod code;
mod codes;
mod compiled;
mod ends;
pub(crate) mod image;
pub mod lines;
mod memory;
mod module;
mod stitch;
mod thread_names;
mod threads;
mod version;
mod walk;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use profiler_common::{
    outcome::{PythonStop, StopReason},
    python::{Interpreter, NONE, PythonFrame, Refusal, Versioned},
    sample::{ORIGIN_SYSCALL, Sample},
};

pub(crate) use self::ends::both_ends;
use self::{
    codes::Codes,
    compiled::Compiled,
    ends::{Ends, ends},
    image::Image,
    memory::ProcessMemory,
    stitch::stitch,
    threads::Threads,
    version::{prove, versioned},
};
pub use self::{
    codes::{CodeId, Function},
    walk::{States, Walked},
};
use crate::{
    foreign::{Contents, Owners, Refusals, Refused, Spent, ran},
    process::{Backing, FileId, Mapping, PinnedFile, Place, own_id},
    unwind::{Use, holds},
};

/// A sample with the evaluator on its stack and no Python frames.
const NO_FRAMES: &str = "Python evaluator on the stack without its Python frames";
/// The same, of a thread that is in none of the interpreter's lists, or was not found there yet.
const NO_STATE: &str = "Python evaluator on the stack of a thread without a known thread state";
/// The other way round.
const NO_EVALUATOR: &str = "Python frames without the evaluator on the stack";
/// A sample of a process that makes us read what changes all the time.
const TOO_LONG: &str = "Python frames left out, their process's took too long to read";

/// What reading the Python frames of a process may take at once: some ten thousand functions. A fiftieth of the time more.
const FREE: Duration = Duration::from_secs(1);

/// Everything known of interpreters and their code.
#[derive(Debug, Default)]
pub struct Pythons {
    images: HashMap<FileId, Option<Arc<Image>>>,
    known: HashMap<u32, Known>,
    codes: Codes,
    compiled: Compiled,
    refused: HashMap<Refusal, HashSet<u32>>,
    /// Samples by how their Python stack ended.
    by_stop: BTreeMap<PythonStop, u64>,
    no_frames: u64,
    /// The same of threads whose state was not found.
    no_state: u64,
    no_evaluator: u64,
    /// Samples whose Python frames were left out, as their process's took too long to read.
    too_long: u64,
    owners: Owners,
    unread: Refusals,
}

/// A process with an interpreter.
#[derive(Debug)]
struct Known {
    file: FileId,
    image: Arc<Image>,
    /// What the addresses of the process are above those of the file.
    bias: u64,
    interpreter: Interpreter,
    versioned: Versioned,
    memory: ProcessMemory,
    spent: Spent,
    threads: Threads,
}

/// A Python frame among the native ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inserted {
    /// Before this frame of the user stack, leaf first.
    pub before: usize,
    /// Where it is.
    pub place: Place,
    /// Address of its code object.
    pub address: u64,
}

/// What a native frame is to the interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The evaluator itself.
    Evaluator,
    /// What it has compiled and runs instead.
    Compiled,
    /// Other code of the interpreter's file.
    Interpreter,
    /// Nothing.
    Foreign,
}

impl Pythons {
    /// The mappings of a process were read: gives its interpreter, if it has one that is understood
    /// and that was not given before.
    pub fn look<'a>(
        &mut self,
        pid: u32,
        mappings: impl Iterator<Item = &'a Mapping>,
        files: &[Arc<PinnedFile>],
    ) -> Option<Interpreter> {
        let mut found = None;
        for mapping in mappings {
            if let Backing::File(file) = mapping.backing
                && let Some(image) = self.image(file, files)
                && let Some(bias) =
                    image
                        .segments
                        .bias(mapping.start, mapping.file_offset, Use::Code)
            {
                found = Some((file, image, bias));
                break;
            }
        }
        let (file, image, bias) = found?;
        let runtime = bias.wrapping_add(image.runtime.0);
        let known = self.known.get(&pid);
        if known.is_some_and(|known| known.interpreter.runtime == runtime) {
            return None;
        }
        let memory = ProcessMemory::of(pid);
        match versioned(&memory, &image, bias) {
            Ok(versioned) => {
                let versioned = prove(&memory, &image, runtime, versioned);
                let interpreter = Interpreter {
                    runtime,
                    runtime_bytes: image.runtime.1,
                    layout: versioned.layout,
                };
                let known = Known {
                    file,
                    image,
                    bias,
                    interpreter,
                    versioned,
                    memory,
                    spent: Spent::new(Instant::now(), FREE),
                    threads: Threads::default(),
                };
                self.known.insert(pid, known);
                Some(interpreter)
            }
            Err(refusal) => {
                self.refused.entry(refusal).or_default().insert(pid);
                None
            }
        }
    }

    fn image(&mut self, file: FileId, files: &[Arc<PinnedFile>]) -> Option<Arc<Image>> {
        if let Some(known) = self.images.get(&file) {
            return known.clone();
        }
        let pinned = files.get(file.index())?;
        let mut image = None;
        if let Some(open) = &pinned.file {
            let contents = Contents::of(open);
            let name = pinned
                .path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy();
            let read = self
                .owners
                .read(pinned.owner, || Image::read(&contents, &name));
            let Some(read) = read else {
                // Another time.
                return None;
            };
            if contents.is_too_large() {
                self.unread.count(Refused::TooLarge);
            }
            image = read.map(Arc::new);
        }
        self.images.insert(file, image.clone());
        image
    }

    /// A process forked: its child begins with the same memory. Gives the child's interpreter.
    pub fn forked(&mut self, parent: u32, child: u32) -> Option<Interpreter> {
        self.forget(child);
        let known = self.known.get(&parent)?;
        let known = Known {
            file: known.file,
            image: Arc::clone(&known.image),
            memory: ProcessMemory::of(child),
            spent: Spent::new(Instant::now(), FREE),
            threads: Threads::default(),
            ..*known
        };
        let interpreter = known.interpreter;
        self.known.insert(child, known);
        self.codes.forked(parent, child);
        Some(interpreter)
    }

    /// A process ended or executes another program.
    pub fn forget(&mut self, pid: u32) {
        self.known.remove(&pid);
        self.codes.forget(pid);
    }

    /// These files are let go of. Processes whose interpreter was refused are counted anew from here on.
    pub fn forget_files(&mut self, files: &BTreeSet<FileId>) {
        self.images.retain(|file, _| !files.contains(file));
        self.refused.clear();
    }

    /// Whether there is no room for more functions.
    pub fn is_full(&self) -> bool {
        self.codes.is_full()
    }

    /// How many functions have been met: they are never forgotten.
    pub fn functions(&self) -> usize {
        self.codes.len()
    }

    /// Places of a sample's Python frames, each before its evaluator's frame of the user stack. `locate` gives the
    /// place of an address of that stack.
    pub fn interleave(
        &mut self,
        sample: &Sample<'_>,
        locate: impl FnMut(u64) -> Place,
    ) -> Vec<Inserted> {
        let pid = sample.header.tgid;
        let Some(known) = self.known.get(&pid) else {
            return Vec::new();
        };
        if !known.spent.may(Instant::now()) {
            self.too_long += u64::from(!sample.python.is_empty());
            return Vec::new();
        }
        let began = ran();
        let inserted = self.interleave_now(sample, locate);
        if let Some(known) = self.known.get_mut(&pid) {
            known.spent.took(ran().saturating_sub(began));
        }
        inserted
    }

    fn interleave_now(
        &mut self,
        sample: &Sample<'_>,
        mut locate: impl FnMut(u64) -> Place,
    ) -> Vec<Inserted> {
        let pid = sample.header.tgid;
        let Some(known) = self.known.get(&pid) else {
            return Vec::new();
        };
        let (
            Ends {
                inner: mut frames,
                mut outer,
            },
            mut beyond,
        ) = frames_of(sample);
        let in_call = sample.header.origin == ORIGIN_SYSCALL;
        let within =
            |index: usize| sample.user[index].wrapping_sub(u64::from(index > 0 || in_call));
        let minor = known.versioned.minor;
        let activations: Vec<usize> = (0..sample.user.len())
            .filter(|&index| known.evaluates(within(index)))
            .map(|index| self.compiled.begin(index, minor, |at| locate(within(at))))
            .collect();
        if known.is_entering(sample) {
            let layout = &known.versioned.code;
            let mut codes = frames.iter().filter(|frame| frame.code != 0);
            let is_sane = sample.python_stop == PythonStop::Outermost
                && codes.all(|frame| self.codes.can_find(pid, frame, layout, &known.memory));
            if !is_sane {
                frames.clear();
                outer.clear();
                beyond = 0;
            }
        }
        *self.by_stop.entry(sample.python_stop).or_default() += 1;
        let has_frames = frames.iter().any(|frame| frame.code != 0);
        let is_missed = !has_frames && !activations.is_empty();
        let has_state = sample.python_stop != PythonStop::NoThread;
        self.no_frames += u64::from(is_missed && has_state);
        self.no_state += u64::from(is_missed && !has_state);
        self.no_evaluator += u64::from(has_frames && activations.is_empty());
        let is_whole = matches!(
            sample.stop,
            StopReason::Outermost | StopReason::FramePointersEnd
        ) && sample.python_stop == PythonStop::Outermost;
        let is_open = !frames.is_empty() && sample.python_stop == PythonStop::TooDeep;
        let gap = (beyond > 0 || is_open).then(|| self.codes.left_out(beyond, is_open));
        let mut insert = |part: &[PythonFrame], is_whole, inserted: &mut Vec<Inserted>| {
            let least = inserted.last().map_or(0, |last| last.before);
            for piece in stitch(part, &activations, sample.user.len(), is_whole) {
                for frame in &part[piece.frames] {
                    let layout = &known.versioned.code;
                    let (code, line) = self.codes.find(pid, frame, layout, &known.memory);
                    inserted.push(Inserted {
                        before: piece.before.max(least),
                        place: Place::Python { code, line },
                        address: frame.code,
                    });
                }
            }
        };
        let mut inserted = Vec::with_capacity(frames.len() + outer.len() + 1);
        insert(&frames, is_whole && gap.is_none(), &mut inserted);
        if let Some(code) = gap {
            inserted.push(Inserted {
                before: inserted.last().map_or(0, |last| last.before),
                place: Place::Python { code, line: 0 },
                address: 0,
            });
            insert(&outer, is_whole, &mut inserted);
        }
        inserted
    }

    /// The states of a process's threads now, for [`walk`](Self::walk).
    pub fn states(&self, pid: u32) -> States {
        let known = self.known.get(&pid);
        known.map_or_else(States::new, |known| known.memory.states(&known.interpreter))
    }

    /// Threads with their states, where there are more than the kernel side goes through.
    pub fn out_of_reach(&self, pid: u32) -> Vec<(u32, u64)> {
        threads::out_of_reach(pid, &self.states(pid))
    }

    /// The Python stack of a thread now; `tid` is the id that the thread itself sees.
    pub fn walk(&self, pid: u32, tid: u32, states: &States) -> Option<Walked> {
        let (known, state) = (self.known.get(&pid)?, states.get(&tid)?);
        known.memory.walk(&known.interpreter, tid, *state)
    }

    /// What Python's `threading` calls the thread with this stack.
    pub fn thread_name(&self, pid: u32, walked: &Walked) -> Option<String> {
        let known = self.known.get(&pid)?;
        known.memory.thread_name(&known.versioned, walked)
    }

    /// The state of a thread that the kernel side did not find, if it has one.
    pub fn missed(&mut self, sample: &Sample<'_>) -> Option<u64> {
        let (pid, tid) = (sample.header.tgid, sample.header.tid);
        let known = self.known.get_mut(&pid)?;
        let now = Instant::now();
        if sample.python_stop != PythonStop::NoThread || !known.spent.may(now) {
            return None;
        }
        let Known {
            memory,
            interpreter,
            threads,
            spent,
            ..
        } = known;
        let began = ran();
        let read = || memory.states(interpreter);
        let found = threads.find(tid, now, read, || own_id(pid, tid));
        spent.took(ran().saturating_sub(began));
        found
    }

    /// Whether an address of a process lies in its interpreter's own state, where the lock is too.
    pub fn owns(&self, pid: u32, address: u64) -> bool {
        self.known.get(&pid).is_some_and(|known| {
            let inside = address.wrapping_sub(known.interpreter.runtime);
            inside < known.interpreter.runtime_bytes
        })
    }

    /// What a place in a file is to an interpreter.
    pub fn role(&self, place: Place) -> Role {
        let Place::File { file, offset } = place else {
            return if self.compiled.holds(place) {
                Role::Compiled
            } else {
                Role::Foreign
            };
        };
        let Some(Some(image)) = self.images.get(&file) else {
            return Role::Foreign;
        };
        if holds(&image.evaluator_offsets, offset) {
            Role::Evaluator
        } else {
            Role::Interpreter
        }
    }

    /// The function of a code object.
    pub fn function(&self, code: CodeId) -> &Function {
        self.codes.function(code)
    }

    /// What went wrong without costing a sample, with how often.
    pub fn notes(&self) -> BTreeMap<&'static str, u64> {
        let refused = self
            .refused
            .iter()
            .map(|(refusal, pids)| (refusal.text(), pids.len() as u64));
        let cut = [PythonStop::TooDeep, PythonStop::Unreadable]
            .into_iter()
            .map(|stop| (stop.text(), self.by_stop.get(&stop).copied().unwrap_or(0)));
        let lost = [
            (NO_FRAMES, self.no_frames),
            (NO_STATE, self.no_state),
            (NO_EVALUATOR, self.no_evaluator),
            (TOO_LONG, self.too_long),
        ];
        refused
            .chain(cut)
            .chain(lost)
            .chain(self.unread.notes())
            .chain(self.codes.notes())
            .collect()
    }
}

impl Known {
    /// Whether a sample hit the evaluator's first instructions in 3.11 and 3.12: among them are some after which
    /// the list of frames begins with what happened to lie on the C stack. (Measured: once in some 2,000
    /// samples; neither the new frame nor the ones before can be found in memory then.)
    fn is_entering(&self, sample: &Sample<'_>) -> bool {
        const PROLOGUE_BYTES: u64 = 256;
        let pc = sample.user.first().copied().unwrap_or(0);
        let entry = self.image.entry.map(|entry| self.bias.wrapping_add(entry));
        self.interpreter.layout.c_frame != NONE
            && entry.is_some_and(|entry| pc.wrapping_sub(entry) < PROLOGUE_BYTES)
    }

    /// Whether an address lies in the evaluator.
    fn evaluates(&self, address: u64) -> bool {
        holds(&self.image.evaluator, address.wrapping_sub(self.bias))
    }
}

/// The Python frames of a sample, and how many are known to be between or beyond them.
fn frames_of(sample: &Sample<'_>) -> (Ends<PythonFrame>, usize) {
    let frames = sample.python.iter();
    let frames: Vec<PythonFrame> = frames
        .map(|&words| PythonFrame::from_words(words))
        .collect();
    let left_out = usize::from(sample.header.python_left_out);
    let mut both = ends(&frames, usize::from(sample.header.python_inner), left_out);
    let mut beyond = left_out;
    if sample.python_stop == PythonStop::TooDeep {
        // The outermost ones are further out, and those in the middle say nothing without them.
        beyond += std::mem::take(&mut both.outer).len();
    }
    // From 3.15 on a thread's list ends with a frame that no evaluator has.
    let outermost = if both.outer.is_empty() {
        &mut both.inner
    } else {
        &mut both.outer
    };
    let is_end = sample.python_stop == PythonStop::Outermost;
    if is_end && outermost.last().is_some_and(|frame| frame.code == 0) {
        outermost.pop();
    }
    (both, beyond)
}
