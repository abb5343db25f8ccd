//! The accounts of threads' time and what threads left the CPU with, as the kernel side keeps them.

use std::collections::BTreeSet;

use aya::{
    Ebpf, Pod,
    maps::{HashMap, MapData, MapError},
    programs::RawTracePoint,
};
use profiler_common::{
    off_cpu::ThreadTimes,
    sample::{SAMPLE_BYTES_MAX, SampleHeader},
};
use zerocopy::IntoBytes;

use super::{
    Kernel, KernelError,
    load::{failed, map, program},
};

/// The program, and the tracepoint that it is attached to.
pub(super) const SWITCH: &str = "sched_switch";

const WORDS: usize = SAMPLE_BYTES_MAX / size_of::<u64>();

/// What a thread left with: the bytes of a record at its greatest length.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Left([u64; WORDS]);

// SAFETY: plain words.
unsafe impl Pod for Left {}

impl Left {
    /// A record of a thread whose native stack is one address, or nothing, with its Python stack.
    pub fn new(header: &SampleHeader, address: u64, python: &[[u64; 2]]) -> Self {
        let mut words = [0; WORDS];
        let end = size_of::<SampleHeader>() / size_of::<u64>();
        words[..end]
            .as_mut_bytes()
            .copy_from_slice(header.as_bytes());
        words[end] = address;
        let python = python.as_flattened();
        let begin = end + usize::from(header.user_len);
        if let Some(room) = words.get_mut(begin..begin + python.len()) {
            room.copy_from_slice(python);
        }
        Self(words)
    }

    /// The record.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// [`ThreadTimes`] as aya wants it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Times(ThreadTimes);

// SAFETY: a transparent wrapper around plain words.
unsafe impl Pod for Times {}

/// Both maps.
pub(super) struct Switches {
    threads: HashMap<MapData, u32, Times>,
    left: HashMap<MapData, u32, Left>,
}

impl Switches {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            threads: map(ebpf, "THREADS", HashMap::try_from)?,
            left: map(ebpf, "LEFT", HashMap::try_from)?,
        })
    }
}

impl Kernel {
    /// Begins to follow switches.
    pub fn attach_switches(&mut self) -> Result<(), KernelError> {
        let hook: &mut RawTracePoint = program(&mut self.ebpf, SWITCH)?;
        let link = hook.attach(SWITCH).and_then(|id| hook.take_link(id));
        self.switch_link = Some(link.map_err(|source| failed("attach", SWITCH, source))?);
        Ok(())
    }

    /// Begins the account of a thread that is there already, unless the kernel side has one by now.
    pub fn begin_thread(&mut self, times: ThreadTimes, left: &Left) -> Result<(), KernelError> {
        const NO_EXIST: u64 = 1;
        let tid = times.tid;
        let Switches {
            threads,
            left: lefts,
        } = &mut self.switches;
        for result in [
            lefts.insert(tid, left, NO_EXIST),
            threads.insert(tid, Times(times), NO_EXIST),
        ] {
            match result {
                Err(MapError::SyscallError(error))
                    if error.io_error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(source) => {
                    return Err(KernelError::Map {
                        map: "THREADS",
                        source: Box::new(source),
                    });
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Ends the accounts of all threads of these processes, which are targets no more, and gives them.
    pub fn forget_threads(&mut self, pids: &BTreeSet<u32>) -> Vec<ThreadTimes> {
        let times = self.thread_times().into_iter();
        let gone: Vec<ThreadTimes> = times.filter(|times| pids.contains(&times.tgid)).collect();
        for times in &gone {
            // One that ended meanwhile has told its account itself.
            let _ = self.switches.threads.remove(&times.tid);
            let _ = self.switches.left.remove(&times.tid);
        }
        gone
    }

    /// The accounts of the threads that live.
    pub fn thread_times(&self) -> Vec<ThreadTimes> {
        let entries = self.switches.threads.iter().filter_map(Result::ok);
        entries.map(|(_, times)| times.0).collect()
    }

    /// What a thread left the CPU with last.
    pub fn left(&self, tid: u32) -> Option<Left> {
        self.switches.left.get(&tid, 0).ok()
    }
}
