//! A count under way: the kernel side's sums and the threads that are in calls, for as long as it is wanted. `session`
//! and `keeper` say when it begins, and what becomes of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use profiler_common::{
    config::Settings,
    syscalls::{Call, CallSettings, CallerEvent, CellKey, KIND_CALLER_END, wanted},
};

use super::{descriptors::Files, names, report::Named, seed, stacks, tally::Tally};
use crate::{
    error::Error,
    kernel::{Kernel, Record, Ring, SharedMaps, Wanted, call_offsets},
    process,
    record::{aggregate::comm_text, ring_watch::RingWatch},
};

/// A count under way.
pub(super) struct Watcher {
    pub(super) kernel: Kernel,
    ring: Ring,
    /// Bits of [`wanted`].
    wanted: u32,
    files: Files,
    /// Names of threads that ended.
    threads: BTreeMap<u32, String>,
    /// Calls noted as under way when their threads were met.
    begun: u64,
    /// Threads whose call of those was over by the time that it was noted, and that made none since.
    returned_unseen: BTreeSet<u32>,
}

impl Watcher {
    /// Loads the kernel side; nothing is counted yet.
    pub(super) fn load(settings: &Settings, wanted: u32) -> Result<(Self, SharedMaps), Error> {
        let mut calls = CallSettings {
            wanted,
            ..call_offsets()?
        };
        names::mark_descriptor_calls(&mut calls);
        let beside = Wanted {
            calls,
            ..Wanted::default()
        };
        let (kernel, ring, shared) = Kernel::load_with(settings, &beside)?;
        let watcher = Self {
            kernel,
            ring,
            wanted,
            files: Files::default(),
            threads: BTreeMap::new(),
            begun: 0,
            returned_unseen: BTreeSet::new(),
        };
        Ok((watcher, shared))
    }

    pub(super) fn wants(&self, bit: u32) -> bool {
        self.wanted & bit != 0
    }

    /// The ring wakes when a process begins or ends, and when a descriptor is to be looked at.
    pub(super) fn watch_ring(&self) -> Result<RingWatch, Error> {
        RingWatch::begin(&self.ring)
    }

    /// Notes the calls that threads of targets are in already.
    pub(super) fn seed(
        &mut self,
        pids: impl IntoIterator<Item = u32>,
        now_ns: u64,
    ) -> Result<(), Error> {
        for pid in pids {
            for tid in process::threads(pid) {
                if let Some(call) = seed::call(pid, tid, now_ns)
                    && self.kernel.begin_caller(tid, call)?
                {
                    self.begun += 1;
                }
            }
        }
        Ok(())
    }

    /// Takes what is on the ring; what is not about calls is handed on.
    pub(super) fn drain(&mut self, mut other: impl FnMut(Record<'_>)) {
        let Self {
            ring,
            files,
            threads,
            ..
        } = self;
        ring.drain(|record| match record {
            Record::Caller(event) => learn(event, files, threads),
            record => other(record),
        });
    }

    /// The sums so far, with the calls that threads are in, up to now; and those threads.
    pub(super) fn tally(&mut self, now_ns: u64) -> (Tally, BTreeMap<u32, Call>) {
        let mut tally = Tally::default();
        self.returned_unseen.clear();
        self.kernel.cells(|key, cell| tally.sum(*key).add(cell));
        let callers = self.kernel.callers();
        let by_thread = self.wants(wanted::BY_THREAD);
        for (&tid, call) in &callers {
            if by_thread && let Some(name) = process::thread_comm(call.tgid, tid) {
                self.threads.insert(tid, name);
            }
            if !stacks::is_inside(call) {
                continue;
            }
            if seed::has_returned(tid, call) {
                self.returned_unseen.insert(tid);
                continue;
            }
            let key = CellKey {
                tgid: call.tgid,
                number: call.number,
                tid: if by_thread { tid } else { 0 },
                descriptor: call.descriptor,
                inode: call.inode,
            };
            if call.descriptor >= 0 {
                self.files.learn(&stacks::descriptor_of(tid, call));
            }
            let sum = tally.sum(key);
            sum.open += 1;
            sum.open_ns += now_ns.saturating_sub(call.since_ns);
        }
        (tally, callers)
    }

    /// Calls noted as under way when their threads were met, as far as the last tally knows that they were.
    pub(super) fn begun(&self) -> u64 {
        self.begun - self.returned_unseen.len() as u64
    }

    /// What threads and descriptors are called.
    pub(super) fn named(&self) -> Named<'_> {
        Named {
            threads: &self.threads,
            files: &self.files,
        }
    }

    /// Time inside our BPF programs so far, where it is measured.
    pub(super) fn bpf_time(&self) -> Option<Duration> {
        self.kernel.bpf_time()
    }
}

fn learn(event: &CallerEvent, files: &mut Files, threads: &mut BTreeMap<u32, String>) {
    if event.kind == KIND_CALLER_END {
        threads.insert(event.tid, comm_text(&event.comm));
    } else {
        files.learn(event);
    }
}
