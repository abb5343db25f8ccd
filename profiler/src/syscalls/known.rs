//! Who the processes are that have sums, also those that lived too shortly to be looked at.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
};

use profiler_common::event::{KIND_EXEC, KIND_EXIT, KIND_FORK, ProcessEvent};

use crate::{daemon::tables, process, record::aggregate::comm_text, store::Identity};

/// What is known of processes.
#[derive(Debug, Default)]
pub(super) struct Known {
    who: BTreeMap<u32, Identity>,
    /// Of whom something was heard since the last window.
    heard: BTreeSet<u32>,
}

impl Known {
    /// Learns of a process.
    pub(super) fn learn(&mut self, event: &ProcessEvent) {
        let who = &mut self.who;
        match event.kind {
            KIND_FORK => {
                let parent = who.get(&event.parent).map(|parent| parent.cgroup.clone());
                let cgroup = parent.unwrap_or_else(|| tables::identity(event.parent).cgroup);
                let child = Identity {
                    comm: String::new(),
                    cgroup,
                };
                who.insert(event.tgid, child);
            }
            KIND_EXEC => who.entry(event.tgid).or_default().comm = comm_text(&event.comm),
            KIND_EXIT => {
                let who = who.entry(event.tgid).or_default();
                if who.comm.is_empty() {
                    who.comm = comm_text(&event.comm);
                }
            }
            _ => return,
        }
        self.heard.insert(event.tgid);
    }

    /// Who these are, which have sums in a window that ends now.
    ///
    /// Others are forgotten, unless they live or were heard of in this window: their next calls may be their first ones,
    /// and what they did last may come after the sums were read.
    pub(super) fn of_window(&mut self, pids: BTreeSet<u32>) -> BTreeMap<u32, Identity> {
        let now = tables::identities_of(pids, &self.who);
        let heard = mem::take(&mut self.heard);
        // Those with sums come back as they are now.
        self.who.retain(|pid, _| {
            !now.contains_key(pid) && (heard.contains(pid) || process::is_alive(*pid))
        });
        self.who
            .extend(now.iter().map(|(pid, who)| (*pid, who.clone())));
        now
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, process};

    use profiler_common::{
        event::{KIND_EXIT, KIND_FORK, ProcessEvent},
        limits::COMM_LEN,
    };

    use super::Known;
    use crate::daemon::tables;

    /// Above every process id that Linux gives (`PID_MAX_LIMIT`).
    const NOBODY: u32 = 1 << 23;

    fn event(kind: u32, tgid: u32) -> ProcessEvent {
        let mut comm = [0; COMM_LEN];
        comm[..5].copy_from_slice(b"child");
        ProcessEvent {
            kind,
            tgid,
            parent: process::id(),
            padding: 0,
            time_ns: 0,
            comm,
        }
    }

    /// A child that is gone before anybody looks is of its parent's cgroup, whether its sums are in the window in which
    /// it lived or in the next one; after that it is forgotten.
    #[test]
    fn short_lives_are_known_for_two_windows() {
        let mut known = Known::default();
        known.learn(&event(KIND_FORK, NOBODY));
        known.learn(&event(KIND_EXIT, NOBODY));
        assert!(known.of_window(BTreeSet::new()).is_empty());
        let late = known.of_window(BTreeSet::from([NOBODY]));
        assert_eq!(late[&NOBODY].comm, "child");
        assert_eq!(late[&NOBODY].cgroup, tables::identity(process::id()).cgroup);
        known.of_window(BTreeSet::new());
        assert!(known.who.is_empty());
    }

    /// Who lives is known however long it has no sums.
    #[test]
    fn the_living_are_not_forgotten() {
        let mut known = Known::default();
        known.learn(&event(KIND_FORK, process::id()));
        for _ in 0..3 {
            assert!(known.of_window(BTreeSet::new()).is_empty());
        }
        assert!(known.who.contains_key(&process::id()));
    }
}
