//! Which call a text belongs to that was read from a backend's memory. Pure.

use std::{collections::VecDeque, sync::Arc};

use rustc_hash::FxHashMap;

use super::{
    protocol::{Call, StatementId},
    sql::Unanswered,
};

/// Readings that are kept of a backend: calls are told some ms after they have ended.
const KEPT: usize = 8;
/// Most backends of which some are kept.
const BACKENDS_MAX: usize = 2000;

/// What a text says of the time at which it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// It was run then.
    Now,
    /// It was run last, and nothing was then.
    Last,
}

/// What backends ran, and when.
#[derive(Debug, Default)]
pub(super) struct Readings {
    by_pid: FxHashMap<u32, VecDeque<Reading>>,
}

/// What a backend ran.
#[derive(Debug)]
struct Reading {
    when: When,
    from_ns: u64,
    to_ns: u64,
    id: StatementId,
    /// Its text, which the call shows to be right or not.
    _unanswered: Option<Arc<Unanswered>>,
}

impl Readings {
    /// A backend ran a statement, or had run it last, at some time between these, ns.
    pub(super) fn add(
        &mut self,
        pid: u32,
        (when, (from_ns, to_ns)): (When, (u64, u64)),
        (id, unanswered): (StatementId, Option<Arc<Unanswered>>),
    ) {
        if self.by_pid.len() >= BACKENDS_MAX && !self.by_pid.contains_key(&pid) {
            self.by_pid.clear();
        }
        let readings = self.by_pid.entry(pid).or_default();
        // It still has run that last: the newest of these is enough.
        let is_again =
            |last: &&mut Reading| (last.when, last.id) == (when, id) && when == When::Last;
        if let Some(last) = readings.back_mut().filter(is_again) {
            (last.from_ns, last.to_ns) = (from_ns, to_ns);
            return;
        }
        if readings.len() >= KEPT {
            readings.pop_front();
        }
        readings.push_back(Reading {
            when,
            from_ns,
            to_ns,
            id,
            _unanswered: unanswered,
        });
    }

    /// A backend is gone.
    pub(super) fn forget(&mut self, pid: u32) {
        self.by_pid.remove(&pid);
    }

    /// What a call was, if a text was read while nothing but it can have been run. The times of calls whose ends came
    /// together are not known well enough.
    pub(super) fn of(&self, pid: u32, call: &Call) -> Option<StatementId> {
        let end_ns = call.end_ns.filter(|_| call.sharing <= 1)?;
        let readings = self.by_pid.get(&pid)?;
        let within = |reading: &&Reading| {
            reading.when == When::Now && reading.from_ns > call.service_ns && reading.to_ns < end_ns
        };
        readings.iter().find(within).map(|reading| reading.id)
    }

    /// What a call was, if a text was read after it, and before anything else was asked for at `until_ns`.
    pub(super) fn of_last(&self, pid: u32, call: &Call, until_ns: u64) -> Option<StatementId> {
        let end_ns = call.end_ns?;
        let readings = self.by_pid.get(&pid)?;
        let behind = |reading: &&Reading| {
            reading.when == When::Last && reading.from_ns > end_ns && reading.to_ns < until_ns
        };
        readings.iter().find(behind).map(|reading| reading.id)
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, Readings, StatementId, When};
    use crate::postgres::{example::call, protocol::Statement};

    /// A text is that of a call in which it was read from beginning to end, in the same backend.
    #[test]
    fn texts_are_of_the_call_they_were_read_in() {
        let mut readings = Readings::default();
        // From 1 s to 1.01 s.
        let call = call(Statement::Unknown, 10);
        let ms = |ms: u64| 1_000_000_000 + ms * 1_000_000;
        readings.add(7, (When::Now, (ms(0) - 1, ms(1))), (StatementId(1), None));
        readings.add(7, (When::Now, (ms(9), ms(10))), (StatementId(2), None));
        readings.add(8, (When::Now, (ms(4), ms(5))), (StatementId(3), None));
        assert_eq!(readings.of(7, &call), None);
        readings.add(7, (When::Now, (ms(4), ms(5))), (StatementId(4), None));
        assert_eq!(readings.of(7, &call), Some(StatementId(4)));
        let mut shared = call.clone();
        shared.sharing = 2;
        assert_eq!(readings.of(7, &shared), None);
        let last = (When::Last, (ms(11), ms(12)));
        readings.add(7, last, (StatementId(6), None));
        assert_eq!(readings.of_last(7, &call, ms(13)), Some(StatementId(6)));
        assert_eq!(readings.of_last(7, &call, ms(12)), None, "asked for more");
        for _ in 0..KEPT {
            readings.add(7, (When::Now, (ms(20), ms(21))), (StatementId(5), None));
        }
        assert_eq!(readings.of(7, &call), None);
    }
}
