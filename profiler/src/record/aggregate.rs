//! Samples in, a bounded table of distinct stacks out. Pure: where an address lies is asked of the
//! caller, names come at the end.
//!
//! Addresses are interned twice: each distinct place once, each distinct stack of places once; so
//! a recording's memory grows with the code it meets, not with its samples.

use std::{collections::BTreeMap, hash::Hash};

use profiler_common::{
    limits::COMM_LEN,
    off_cpu::ThreadTimes,
    outcome::StopReason,
    sample::{ORIGIN_SYSCALL, Sample as Record},
};
use rustc_hash::FxHashMap;

use crate::profile::{Gil, Process, ProcessId, Sample, StackId, Thread, ThreadId, Tick};

/// Most distinct stacks of one recording; further ones are counted as lost. At 40 frames each,
/// 160 bytes and some, they take about 100 MiB.
pub const STACKS_MAX: usize = 500_000;

/// Most distinct code addresses of one recording, likewise. They take about 100 MiB.
pub const PLACES_MAX: usize = 2_000_000;

/// Most samples kept with their time, for formats with a time axis: 24 MiB.
pub const TICKS_MAX: usize = 1_000_000;

/// What stands on the stack of a thread that runs, where it is told what threads do.
pub const RUNNING: &str = "[running]";

/// Where an address was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// In the kernel.
    Kernel,
    /// In the process.
    User,
}

/// A stack as interned: places leaf first, and why it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StackKey {
    /// Positions in [`Aggregate::places`], leaf first.
    pub places: Box<[u32]>,
    /// Why the user stack ended.
    pub stop: StopReason,
    /// Position in [`Aggregate::leaves`] of the frame that stands on it: what the thread did there.
    pub leaf: Option<u32>,
}

/// How much of one stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    /// Samples, or spans off the CPU.
    pub count: u64,
    /// Measured time, ns; of samples zero.
    pub time_ns: u64,
}

/// What comes with a record.
#[derive(Clone, Copy, Debug)]
pub struct Extra<'a, P> {
    /// What the thread did, if that is told.
    pub leaf: Option<&'a str>,
    /// Places of Python frames with their addresses, leaf first, each before the frame of the user stack at
    /// that position.
    pub python: &'a [(usize, P, u64)],
    /// Measured time, ns.
    pub time_ns: u64,
}

/// Whether each sample is kept with its time too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeline {
    /// Only counts.
    Drop,
    /// Up to [`TICKS_MAX`].
    Keep,
}

/// The table.
#[derive(Debug)]
pub struct Aggregate<P> {
    timeline: Timeline,
    place_ids: FxHashMap<P, u32>,
    /// Every distinct place with the address it was first seen at.
    pub places: Vec<(P, u64)>,
    stack_ids: FxHashMap<StackKey, StackId>,
    /// Every distinct stack.
    pub stacks: Vec<StackKey>,
    process_ids: FxHashMap<u32, ProcessId>,
    thread_ids: FxHashMap<(ProcessId, u32), ThreadId>,
    /// Every process with a sample; a process that executes another program is another one.
    pub processes: Vec<Process>,
    /// Every thread with a sample.
    pub threads: Vec<Thread>,
    leaf_ids: FxHashMap<String, u32>,
    /// Every distinct text of what a thread did.
    pub leaves: Vec<String>,
    counts: FxHashMap<(ThreadId, StackId, Gil), Weight>,
    /// Exact accounts of threads' time.
    pub times: BTreeMap<ThreadId, ThreadTimes>,
    /// Samples with their times, if wanted.
    pub ticks: Vec<Tick>,
    /// Samples that are in `ticks` no more because it was full.
    pub ticks_lost: u64,
    /// Samples counted in the table, by how their user stack ended.
    pub by_stop: BTreeMap<StopReason, u64>,
    /// Samples that found the table full.
    pub overflowed: u64,
    /// Samples left out, as the thread did not hold its interpreter's lock.
    pub without_gil: u64,
}

impl<P: Copy + Eq + Hash> Aggregate<P> {
    /// An empty table.
    pub fn new(timeline: Timeline) -> Self {
        Self {
            timeline,
            place_ids: FxHashMap::default(),
            places: Vec::new(),
            stack_ids: FxHashMap::default(),
            stacks: Vec::new(),
            process_ids: FxHashMap::default(),
            thread_ids: FxHashMap::default(),
            processes: Vec::new(),
            threads: Vec::new(),
            leaf_ids: FxHashMap::default(),
            leaves: Vec::new(),
            counts: FxHashMap::default(),
            times: BTreeMap::new(),
            ticks: Vec::new(),
            ticks_lost: 0,
            by_stop: BTreeMap::new(),
            overflowed: 0,
            without_gil: 0,
        }
    }

    /// Counts one record. `place` says where an address lies; `describe` tells of a process that is
    /// new here.
    pub fn add(
        &mut self,
        record: &Record<'_>,
        extra: Extra<'_, P>,
        mut place: impl FnMut(Space, u64) -> P,
        describe: impl FnOnce(u32) -> Process,
    ) {
        let frames = record.kernel.len() + record.user.len() + extra.python.len();
        if self.places.len() + frames > PLACES_MAX {
            self.overflowed += 1;
            return;
        }
        let mut places = Vec::with_capacity(frames);
        let mut python = extra.python.iter().peekable();
        let mut user = 0;
        call_addresses(record, |space, address| {
            if space == Space::User {
                while let Some(&(_, place, address)) = python.next_if(|python| python.0 <= user) {
                    places.push(self.place_id(place, address));
                }
                user += 1;
            }
            places.push(self.place_id(place(space, address), address));
        });
        places.extend(python.map(|&(_, place, address)| self.place_id(place, address)));
        let key = StackKey {
            places: places.into_boxed_slice(),
            stop: record.stop,
            leaf: extra.leaf.map(|text| self.leaf_id(text)),
        };
        let Some(stack) = self.stack_id(key) else {
            self.overflowed += 1;
            return;
        };
        let header = record.header;
        let thread = self.thread_id((header.tgid, header.tid), &header.comm, describe);
        let gil = Gil::from_id(header.gil);
        let weight = self.counts.entry((thread, stack, gil)).or_default();
        weight.count += 1;
        weight.time_ns += extra.time_ns;
        *self.by_stop.entry(record.stop).or_default() += 1;
        self.tick(Tick {
            time_ns: record.header.time_ns,
            cpu: record.header.cpu,
            thread,
            stack,
        });
    }

    /// Enters the account of a thread that ended or of a recording that did.
    pub fn add_times(&mut self, times: &ThreadTimes) {
        let thread = self.thread_id((times.tgid, times.tid), &times.comm, nameless);
        let sum = self.times.entry(thread).or_default();
        let add = |sum: &mut [u64; 4], more: &[u64; 4]| {
            sum.iter_mut()
                .zip(more)
                .for_each(|(sum, more)| *sum += more);
        };
        add(&mut sum.in_state_ns, &times.in_state_ns);
        add(&mut sum.below_threshold_ns, &times.below_threshold_ns);
        sum.lost_ns += times.lost_ns;
    }

    /// The thread that an account is of.
    pub fn thread_of(&mut self, times: &ThreadTimes) -> ThreadId {
        self.thread_id((times.tgid, times.tid), &times.comm, nameless)
    }

    /// Adds time of a thread that no record stands for.
    pub fn add_time(&mut self, thread: ThreadId, leaf: &str, time_ns: u64) {
        let key = StackKey {
            places: Box::new([]),
            stop: StopReason::Outermost,
            leaf: Some(self.leaf_id(leaf)),
        };
        if let Some(stack) = self.stack_id(key) {
            let weight = self.counts.entry((thread, stack, Gil::Unknown));
            weight.or_default().time_ns += time_ns;
        }
    }

    /// Weighs each thread's samples, of which no time was measured, with the share of the time that it really
    /// ran; gives the threads that ran without a sample, and for how long.
    pub fn weigh_samples(
        &mut self,
        running_ns: impl Fn(&ThreadTimes) -> u64,
    ) -> Vec<(ThreadId, u64)> {
        let mut samples: BTreeMap<ThreadId, u64> = BTreeMap::new();
        for ((thread, ..), weight) in &self.counts {
            if weight.time_ns == 0 {
                *samples.entry(*thread).or_default() += weight.count;
            }
        }
        for ((thread, ..), weight) in &mut self.counts {
            let ran = self.times.get(thread).map_or(0, &running_ns);
            if weight.time_ns == 0 && weight.count > 0 {
                let whole = samples.get(thread).copied().unwrap_or(1).max(1);
                let share = u128::from(ran) * u128::from(weight.count) / u128::from(whole);
                weight.time_ns = u64::try_from(share).unwrap_or(u64::MAX);
            }
        }
        let unsampled = self
            .times
            .iter()
            .filter(|(thread, _)| !samples.contains_key(thread));
        unsampled
            .map(|(thread, times)| (*thread, running_ns(times)))
            .collect()
    }

    /// The process executes another program, or is gone: what comes under its id is another process.
    pub fn forget_process(&mut self, pid: u32) {
        self.process_ids.remove(&pid);
    }

    /// Samples counted so far.
    pub fn total(&self) -> u64 {
        self.by_stop.values().sum()
    }

    /// The counts in a unit, in a stable order.
    pub fn samples(&self, unit: impl Fn(&Weight) -> u64) -> Vec<Sample> {
        let mut samples: Vec<Sample> = self
            .counts
            .iter()
            .map(|(&(thread, stack, gil), weight)| Sample {
                thread,
                stack,
                gil,
                count: unit(weight),
            })
            .filter(|sample| sample.count > 0)
            .collect();
        samples.sort_unstable_by_key(|sample| (sample.thread, sample.stack, sample.gil));
        samples
    }

    fn place_id(&mut self, place: P, address: u64) -> u32 {
        let Self {
            place_ids, places, ..
        } = self;
        *place_ids.entry(place).or_insert_with(|| {
            places.push((place, address));
            index(places.len() - 1)
        })
    }

    fn stack_id(&mut self, key: StackKey) -> Option<StackId> {
        if let Some(&id) = self.stack_ids.get(&key) {
            return Some(id);
        }
        if self.stacks.len() >= STACKS_MAX {
            return None;
        }
        let id = StackId(index(self.stacks.len()));
        self.stacks.push(key.clone());
        self.stack_ids.insert(key, id);
        Some(id)
    }

    fn leaf_id(&mut self, text: &str) -> u32 {
        if let Some(&id) = self.leaf_ids.get(text) {
            return id;
        }
        let id = index(self.leaves.len());
        self.leaves.push(text.to_owned());
        self.leaf_ids.insert(text.to_owned(), id);
        id
    }

    fn thread_id(
        &mut self,
        (pid, tid): (u32, u32),
        comm: &[u8; COMM_LEN],
        describe: impl FnOnce(u32) -> Process,
    ) -> ThreadId {
        let Self {
            process_ids,
            processes,
            thread_ids,
            threads,
            ..
        } = self;
        let name = comm_text(comm);
        let process = *process_ids.entry(pid).or_insert_with(|| {
            let mut process = describe(pid);
            if process.comm.is_empty() {
                process.comm.clone_from(&name);
            }
            processes.push(process);
            ProcessId(index(processes.len() - 1))
        });
        *thread_ids.entry((process, tid)).or_insert_with(|| {
            threads.push(Thread { process, tid, name });
            ThreadId(index(threads.len() - 1))
        })
    }

    fn tick(&mut self, tick: Tick) {
        match self.timeline {
            Timeline::Drop => {}
            Timeline::Keep if self.ticks.len() < TICKS_MAX => self.ticks.push(tick),
            Timeline::Keep => self.ticks_lost += 1,
        }
    }
}

/// Hands on every address of a sample, leaf first. A return address is handed on less one, so that
/// it falls inside the call; a leaf is the instruction itself, unless the thread was in a system
/// call, where it is the address after the call.
fn call_addresses(record: &Record<'_>, mut each: impl FnMut(Space, u64)) {
    let mut kernel = record.kernel.iter();
    if let Some(&leaf) = kernel.next() {
        each(Space::Kernel, leaf);
    }
    kernel.for_each(|&address| each(Space::Kernel, address.wrapping_sub(1)));
    let mut user = record.user.iter();
    if let Some(&leaf) = user.next() {
        let back = u64::from(record.header.origin == ORIGIN_SYSCALL);
        each(Space::User, leaf.wrapping_sub(back));
    }
    user.for_each(|&address| each(Space::User, address.wrapping_sub(1)));
}

/// What is known of a process of which only the id is.
fn nameless(pid: u32) -> Process {
    Process {
        pid,
        ..Process::default()
    }
}

/// A task's name as text.
pub fn comm_text(comm: &[u8; COMM_LEN]) -> String {
    let end = comm.iter().position(|&byte| byte == 0).unwrap_or(COMM_LEN);
    String::from_utf8_lossy(&comm[..end]).into_owned()
}

fn index(position: usize) -> u32 {
    // Every table here is bounded far below.
    u32::try_from(position).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use profiler_common::sample::{KIND_SAMPLE, ORIGIN_USER, SampleHeader};

    use super::{Aggregate, ORIGIN_SYSCALL, Record, STACKS_MAX, Space, StopReason, Timeline};

    fn header(tid: u32, origin: u8) -> SampleHeader {
        let mut comm = [0; 16];
        comm[..3].copy_from_slice(b"app");
        SampleHeader {
            kind: KIND_SAMPLE,
            cpu: 0,
            time_ns: 1,
            tgid: 7,
            tid,
            comm,
            kernel_len: 0,
            user_len: 0,
            stop: 0,
            origin,
            state: 0,
            wait: 0,
            fault: 0,
            duration_ns: 0,
            arguments: [0; 3],
            syscall: -1,
            operand: 0,
            python_len: 0,
            python_stop: 0,
            gil: 0,
            python_inner: 0,
            python_left_out: 0,
        }
    }

    fn add(
        aggregate: &mut Aggregate<(bool, u64)>,
        header: &SampleHeader,
        kernel: &[u64],
        user: &[u64],
    ) {
        let record = Record {
            header,
            kernel,
            user,
            stop: StopReason::FramePointersEnd,
            python: &[],
            python_stop: profiler_common::outcome::PythonStop::None,
            rest: None,
        };
        aggregate.add(
            &record,
            super::Extra {
                leaf: None,
                python: &[],
                time_ns: 0,
            },
            |space, address| (space == Space::Kernel, address),
            super::nameless,
        );
    }

    /// Equal stacks of one thread are one entry; another thread has its own.
    #[test]
    fn equal_stacks_are_counted_together() {
        let mut aggregate = Aggregate::new(Timeline::Keep);
        for tid in [7, 7, 8] {
            add(
                &mut aggregate,
                &header(tid, ORIGIN_USER),
                &[],
                &[0x10, 0x20],
            );
        }
        let counts: Vec<u64> = aggregate
            .samples(|weight| weight.count)
            .iter()
            .map(|sample| sample.count)
            .collect();
        assert_eq!(
            (counts, aggregate.stacks.len(), aggregate.total()),
            (vec![2, 1], 1, 3)
        );
        assert_eq!(
            (
                aggregate.processes.len(),
                aggregate.threads.len(),
                aggregate.ticks.len()
            ),
            (1, 2, 3)
        );
    }

    /// Return addresses are looked up inside the call, a leaf is not moved.
    #[test]
    fn return_addresses_fall_inside_their_call() {
        let mut aggregate = Aggregate::new(Timeline::Drop);
        add(
            &mut aggregate,
            &header(7, ORIGIN_SYSCALL),
            &[0x500, 0x600],
            &[0x10, 0x20],
        );
        add(&mut aggregate, &header(7, ORIGIN_USER), &[], &[0x10]);
        let places: Vec<_> = aggregate.places.iter().map(|(place, _)| *place).collect();
        assert_eq!(
            places,
            [
                (true, 0x500),
                (true, 0x5ff),
                (false, 0xf),
                (false, 0x1f),
                (false, 0x10)
            ]
        );
    }

    /// A process id that comes to mean another program is another process.
    #[test]
    fn exec_starts_another_process() {
        let mut aggregate = Aggregate::new(Timeline::Drop);
        add(&mut aggregate, &header(7, ORIGIN_USER), &[], &[0x10]);
        aggregate.forget_process(7);
        add(&mut aggregate, &header(7, ORIGIN_USER), &[], &[0x10]);
        assert_eq!((aggregate.processes.len(), aggregate.total()), (2, 2));
    }

    /// A full table keeps counting what it knows, and counts what it cannot take.
    #[test]
    fn a_full_table_loses_by_count() {
        let mut aggregate = Aggregate::new(Timeline::Drop);
        let distinct = u64::try_from(STACKS_MAX).unwrap() + 3;
        for address in 0..distinct {
            add(&mut aggregate, &header(7, ORIGIN_USER), &[], &[address]);
        }
        add(&mut aggregate, &header(7, ORIGIN_USER), &[], &[0]);
        assert_eq!(
            (aggregate.stacks.len(), aggregate.overflowed),
            (STACKS_MAX, 3)
        );
        assert_eq!(aggregate.total() + aggregate.overflowed, distinct + 1);
    }
}
