//! What threads are called: by Python's `threading`, by themselves. Their first samples may be from before.

use std::collections::HashMap;

use super::state::State;
use crate::process::{self, own_id};

/// Which threads are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// Those that have come since the last look.
    New,
    /// All: they may have other names by now.
    All,
}

impl State {
    /// Gives threads the names that they have now. The first thread of a process keeps the process's.
    pub(super) fn name_threads(&mut self, which: Which) {
        let pythons = self.stacks.known_pythons();
        let aggregate = &mut self.aggregate;
        let first = match which {
            Which::New => self.named.min(aggregate.threads.len()),
            Which::All => 0,
        };
        self.named = aggregate.threads.len();
        let mut states = HashMap::new();
        for thread in &mut aggregate.threads[first..] {
            let Some(process) = aggregate.processes.get(thread.process.index()) else {
                continue;
            };
            let (pid, tid) = (process.pid, thread.tid);
            if tid == pid {
                continue;
            }
            let states = states.entry(pid).or_insert_with(|| pythons.states(pid));
            let by_python = (!states.is_empty())
                .then(|| pythons.walk(pid, own_id(pid, tid), states))
                .flatten()
                .and_then(|walked| pythons.thread_name(pid, &walked));
            if let Some(name) = by_python.or_else(|| process::thread_comm(pid, tid)) {
                thread.name = name;
            }
        }
    }
}
