//! Windows that were lost: counted, by capability and cause, until the next one that can be written tells of them.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use super::status::Status;
use crate::store::{Capability, LostWindow};

/// Windows lost since the last one that was written, by capability.
pub(super) struct Lost {
    pending: Mutex<BTreeMap<Capability, Told>>,
    pub(super) status: Arc<Status>,
}

/// What is to be told of those of one capability.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// How many, and what was in them.
    windows: BTreeMap<LostWindow, (u64, u64)>,
    /// What they would have said.
    notes: BTreeMap<String, u64>,
}

/// A window that was lost.
pub(super) struct LostOne {
    pub(super) capability: Capability,
    pub(super) cause: LostWindow,
    /// Samples, calls or connections.
    pub(super) events: u64,
    pub(super) notes: BTreeMap<String, u64>,
}

impl Lost {
    pub(super) fn new(status: Arc<Status>) -> Self {
        Self {
            pending: Mutex::default(),
            status,
        }
    }

    pub(super) fn add(&self, lost: LostOne, detail: &str) {
        let LostOne {
            capability,
            cause,
            events,
            notes,
        } = lost;
        self.give_back(
            capability,
            Told {
                windows: BTreeMap::from([(cause, (1, events))]),
                notes,
            },
        );
        self.status.update(|now| {
            *now.windows.lost.entry(cause).or_default() += 1;
            let in_a_row = now.lost_in_a_row.entry(capability).or_insert((0, cause));
            *in_a_row = (in_a_row.0 + 1, cause);
            now.counts(capability).lost += events;
            if capability != Capability::Queries {
                let cause = format!("window lost: {}", cause.text());
                *now.lost_by.entry(cause).or_default() += events;
            }
        });
        // Last, as the log may block.
        let name = capability.name();
        tracing::warn!(
            cause = cause.text(),
            events,
            detail,
            "window of {name} lost"
        );
    }

    pub(super) fn take(&self, capability: Capability) -> Told {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending
            .get_mut(&capability)
            .map(mem::take)
            .unwrap_or_default()
    }

    /// What could not be told after all is told by the next one.
    pub(super) fn give_back(&self, capability: Capability, told: Told) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let all = pending.entry(capability).or_default();
        for (cause, (windows, events)) in told.windows {
            let sum = all.windows.entry(cause).or_default();
            sum.0 += windows;
            sum.1 += events;
        }
        for (note, count) in told.notes {
            *all.notes.entry(note).or_default() += count;
        }
    }
}

impl Told {
    /// Has a window tell it, beside what it says itself.
    pub(super) fn tell(&self, capability: Capability, notes: &mut BTreeMap<String, u64>) {
        let event = match capability {
            Capability::Sampling | Capability::OffCpu | Capability::Wall => "sample",
            Capability::Queries | Capability::Syscalls => "call",
            Capability::Tcp => "connection",
        };
        let mut note = |note: String, count: u64| {
            if count > 0 {
                *notes.entry(note).or_default() += count;
            }
        };
        for (cause, (windows, events)) in &self.windows {
            let text = cause.text();
            note(format!("window before this one lost, {text}"), *windows);
            note(
                format!("{event} in a window that was lost, {text}"),
                *events,
            );
        }
        for (told, count) in &self.notes {
            note(told.clone(), *count);
        }
    }
}
