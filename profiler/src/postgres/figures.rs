//! What is known of a group of calls: how many, how long, how much. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::{
    latencies::Latencies,
    origin::{Origin, Transport},
    protocol::{Call, CopyDirection, Outcome, Prepared, SqlState},
};

/// Latencies are told apart up to this, ns; longer ones count as this long in quantiles.
const LATENCY_MAX_NS: u64 = 3_600_000_000_000;
/// Digits of a latency that are kept: within 1 %.
const DIGITS: u8 = 2;
/// Most values of each kind (databases, users, …) that are remembered of a group.
const VALUES_MAX: usize = 8;
/// Most codes of errors of a group whose latencies are told apart.
const FAILED_MAX: usize = 32;

/// Figures of a group.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Figures {
    /// Calls that came to their end without an error.
    pub(super) calls: u64,
    /// Calls that failed, by the code of the error.
    pub(super) errors: BTreeMap<SqlState, u64>,
    /// Calls that were not begun because one before them had failed.
    pub(super) skipped: u64,
    /// Calls that the end of their connection cut short.
    pub(super) aborted: u64,
    /// Calls under way when the recording ended.
    pub(super) unfinished: u64,
    /// Calls whose answer was not seen.
    pub(super) unseen: u64,
    /// Calls whose end came together with another's: not in the quantiles.
    pub(super) shared: u64,
    /// Time of these, ns.
    #[serde(default)]
    pub(super) shared_ns: u64,
    /// Time of all that ended in sight, errors too, ns.
    pub(super) total_ns: u64,
    /// How many those are.
    pub(super) timed: u64,
    /// Time that calls of pipelines waited for the ones before them, ns.
    pub(super) wait_ns: u64,
    /// The longest, ns.
    pub(super) max_ns: u64,
    /// Times to the first byte of the answer, ns, and how many they are.
    pub(super) first_row_ns: u64,
    pub(super) first_rows: u64,
    /// Time between the end and `ReadyForQuery`, ns: commits without a COMMIT.
    pub(super) ready_ns: u64,
    pub(super) rows: u64,
    /// Bytes to the server and from it.
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Bytes of data of COPY, to the server and from it.
    pub(super) copied_in: u64,
    pub(super) copied_out: u64,
    /// Fetches beyond the first of each call.
    pub(super) fetches: u64,
    /// Round trips that prepared, described or closed without a call, and their time, ns.
    pub(super) prepares: u64,
    pub(super) prepares_ns: u64,
    /// Of those, the ones that failed, by the code of the error.
    pub(super) prepares_failed: BTreeMap<SqlState, u64>,
    #[serde(with = "latencies")]
    latencies: Option<Box<Histogram<u32>>>,
    /// Of those, the calls that failed, by the code of the error.
    #[serde(default)]
    pub(super) failed_in: BTreeMap<SqlState, Latencies>,
    /// Where calls came from.
    pub(super) seen: Seen,
}

impl Figures {
    /// Takes a call in.
    pub(super) fn add(&mut self, call: &Call, origin: &Arc<Origin>) {
        match call.outcome {
            Outcome::Completed | Outcome::Suspended => self.calls += 1,
            Outcome::Failed(failure) => *self.errors.entry(failure.sqlstate).or_default() += 1,
            Outcome::Skipped => self.skipped += 1,
            Outcome::Aborted => self.aborted += 1,
            Outcome::Unfinished => self.unfinished += 1,
            Outcome::Unseen => self.unseen += 1,
        }
        if let Some(latency_ns) = call.latency_ns {
            self.add_latency(call, latency_ns);
        }
        self.rows += call.rows.total();
        self.sent += call.sent_bytes;
        self.received += call.received_bytes;
        self.fetches += u64::from(call.fetches.saturating_sub(1));
        if let Some(copied) = call.copy {
            match copied.direction {
                CopyDirection::In => self.copied_in += copied.bytes,
                CopyDirection::Out => self.copied_out += copied.bytes,
            }
        }
        self.seen.note(origin);
    }

    fn add_latency(&mut self, call: &Call, latency_ns: u64) {
        self.timed += 1;
        self.total_ns += latency_ns;
        self.wait_ns += call.wait_ns();
        if call.sharing > 1 {
            self.shared += 1;
            self.shared_ns += latency_ns;
        } else {
            self.max_ns = self.max_ns.max(latency_ns);
            let known_ns = latency_ns.clamp(1, LATENCY_MAX_NS);
            if let Some(latencies) = self.latencies() {
                latencies.saturating_record(known_ns);
                let least_ns = latencies.lowest_equivalent(known_ns);
                self.add_failed(call, least_ns, latency_ns);
            }
        }
        if let Some(first_ns) = call.first_row_ns {
            self.first_row_ns += first_ns.saturating_sub(call.service_ns);
            self.first_rows += 1;
        }
        if let (Some(ready_ns), Some(end_ns)) = (call.ready_ns, call.end_ns) {
            self.ready_ns += ready_ns.saturating_sub(end_ns);
        }
    }

    /// Takes the latency of a call that failed in, as exactly as all latencies are kept: so that those of the others are
    /// the difference.
    fn add_failed(&mut self, call: &Call, least_ns: u64, latency_ns: u64) {
        let Outcome::Failed(failure) = call.outcome else {
            return;
        };
        let failed = self.failed_of(failure.sqlstate);
        failed.count(least_ns, 1);
        failed.sum_ns += latency_ns;
    }

    fn failed_of(&mut self, code: SqlState) -> &mut Latencies {
        let has_room = self.failed_in.len() < FAILED_MAX || self.failed_in.contains_key(&code);
        let code = if has_room { code } else { SqlState::UNKNOWN };
        self.failed_in.entry(code).or_default()
    }

    fn latencies(&mut self) -> Option<&mut Histogram<u32>> {
        if self.latencies.is_none() {
            self.latencies = histogram();
        }
        self.latencies.as_deref_mut()
    }

    /// Takes a round trip without a call in.
    pub(super) fn add_prepare(&mut self, prepared: &Prepared, origin: &Arc<Origin>) {
        self.prepares += 1;
        self.prepares_ns += prepared.end_ns.saturating_sub(prepared.start_ns);
        if let Some(failure) = prepared.failure {
            *self.prepares_failed.entry(failure.sqlstate).or_default() += 1;
        }
        self.seen.note(origin);
    }

    /// Takes all of another group in.
    pub(super) fn merge(&mut self, other: Self) {
        let Self {
            calls,
            errors,
            skipped,
            aborted,
            unfinished,
            unseen,
            shared,
            shared_ns,
            total_ns,
            timed,
            wait_ns,
            max_ns,
            first_row_ns,
            first_rows,
            ready_ns,
            rows,
            sent,
            received,
            copied_in,
            copied_out,
            fetches,
            prepares,
            prepares_ns,
            prepares_failed,
            latencies,
            failed_in,
            seen,
        } = other;
        add(&mut self.errors, &errors);
        add(&mut self.prepares_failed, &prepares_failed);
        self.max_ns = self.max_ns.max(max_ns);
        for (sum, more) in [
            (&mut self.calls, calls),
            (&mut self.skipped, skipped),
            (&mut self.aborted, aborted),
            (&mut self.unfinished, unfinished),
            (&mut self.unseen, unseen),
            (&mut self.shared, shared),
            (&mut self.shared_ns, shared_ns),
            (&mut self.total_ns, total_ns),
            (&mut self.timed, timed),
            (&mut self.wait_ns, wait_ns),
            (&mut self.first_row_ns, first_row_ns),
            (&mut self.first_rows, first_rows),
            (&mut self.ready_ns, ready_ns),
            (&mut self.rows, rows),
            (&mut self.sent, sent),
            (&mut self.received, received),
            (&mut self.copied_in, copied_in),
            (&mut self.copied_out, copied_out),
            (&mut self.fetches, fetches),
            (&mut self.prepares, prepares),
            (&mut self.prepares_ns, prepares_ns),
        ] {
            *sum += more;
        }
        match (&mut self.latencies, latencies) {
            // Both have the same bounds, so that adding cannot fail.
            (Some(mine), Some(others)) => drop(mine.add(*others)),
            (mine @ None, others) => *mine = others,
            (Some(_), None) => {}
        }
        for (code, latencies) in failed_in {
            self.failed_of(code).add(&latencies);
        }
        self.seen.merge(seen);
    }

    /// Of the calls whose own latency is known, within 1 %.
    pub(super) fn known_latencies(&self) -> Latencies {
        let mut known = Latencies {
            sum_ns: self.total_ns.saturating_sub(self.shared_ns),
            ..Latencies::default()
        };
        if let Some(latencies) = &self.latencies {
            for value in latencies.iter_recorded() {
                // So that a latency that is a bound counts as within it.
                let least_ns = latencies.lowest_equivalent(value.value_iterated_to());
                known.count(least_ns, u64::from(value.count_at_value()));
            }
        }
        known
    }

    /// Calls that failed.
    pub(super) fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Errors by their code, of calls and of round trips without one: drivers that prepare a statement before they ask
    /// for it hear there that it is wrong.
    pub(super) fn all_errors(&self) -> BTreeMap<SqlState, u64> {
        let mut errors = self.errors.clone();
        add(&mut errors, &self.prepares_failed);
        errors
    }

    /// Every call, however it ended.
    pub(super) fn all_calls(&self) -> u64 {
        let not_ended = self.skipped + self.aborted + self.unfinished + self.unseen;
        self.calls + self.failed() + not_ended
    }

    pub(super) fn mean_ns(&self) -> Option<u64> {
        self.total_ns.checked_div(self.timed)
    }

    pub(super) fn mean_first_row_ns(&self) -> Option<u64> {
        self.first_row_ns.checked_div(self.first_rows)
    }

    /// The latency that so many of a hundred do not exceed, within 1 %, ns.
    pub(super) fn quantile_ns(&self, percent: u8) -> Option<u64> {
        let latencies = self.latencies.as_deref()?;
        let ns = latencies.value_at_quantile(f64::from(percent) / 100.0);
        (!latencies.is_empty()).then_some(ns.min(self.max_ns))
    }

    /// The longest whose own time is known, ns.
    pub(super) fn longest_ns(&self) -> Option<u64> {
        (self.timed > self.shared).then_some(self.max_ns)
    }
}

/// An empty one. The bounds are constants that fit each other: see the test.
fn histogram() -> Option<Box<Histogram<u32>>> {
    let new = Histogram::new_with_bounds(1, LATENCY_MAX_NS, DIGITS).ok()?;
    Some(Box::new(new))
}

/// Latencies as they are stored: those that there were, ns, and how often.
mod latencies {
    use hdrhistogram::Histogram;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{LATENCY_MAX_NS, histogram};

    #[expect(clippy::ref_option, reason = "serde hands the field")]
    pub(super) fn serialize<S: Serializer>(
        latencies: &Option<Box<Histogram<u32>>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let recorded = latencies.iter().flat_map(|all| all.iter_recorded());
        let counts = recorded.map(|value| (value.value_iterated_to(), value.count_at_value()));
        counts.collect::<Vec<(u64, u32)>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Box<Histogram<u32>>>, D::Error> {
        let counts = Vec::<(u64, u32)>::deserialize(deserializer)?;
        if counts.is_empty() {
            return Ok(None);
        }
        let mut latencies = histogram();
        for (ns, count) in counts {
            if let Some(latencies) = &mut latencies {
                latencies.saturating_record_n(ns.clamp(1, LATENCY_MAX_NS), count);
            }
        }
        Ok(latencies)
    }
}

fn add(counts: &mut BTreeMap<SqlState, u64>, more: &BTreeMap<SqlState, u64>) {
    for (code, count) in more {
        *counts.entry(*code).or_default() += count;
    }
}

/// Where the calls of a group came from: a few values of each kind.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Seen {
    #[serde(skip)]
    last: Option<Arc<Origin>>,
    pub(super) databases: BTreeSet<Arc<str>>,
    pub(super) users: BTreeSet<Arc<str>>,
    pub(super) applications: BTreeSet<Arc<str>>,
    pub(super) peers: BTreeSet<Arc<str>>,
    pub(super) transports: BTreeSet<Transport>,
}

impl Seen {
    fn note(&mut self, origin: &Arc<Origin>) {
        // Nearly always it is the one of the call before.
        if let Some(last) = &self.last
            && Arc::ptr_eq(last, origin)
        {
            return;
        }
        self.last = Some(Arc::clone(origin));
        for (values, value) in [
            (&mut self.databases, &origin.database),
            (&mut self.users, &origin.user),
            (&mut self.applications, &origin.application),
            (&mut self.peers, &origin.peer),
        ] {
            if let Some(value) = value
                && values.len() < VALUES_MAX
            {
                values.insert(Arc::clone(value));
            }
        }
        self.transports.insert(origin.transport);
    }

    fn merge(&mut self, other: Self) {
        for (values, more) in [
            (&mut self.databases, other.databases),
            (&mut self.users, other.users),
            (&mut self.applications, other.applications),
            (&mut self.peers, other.peers),
        ] {
            let room = VALUES_MAX.saturating_sub(values.len());
            let new: Vec<_> = more.difference(values).take(room).cloned().collect();
            values.extend(new);
        }
        self.transports.extend(other.transports);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{Figures, Origin};
    use crate::postgres::{
        example::{call, failed},
        origin::tests::origin,
        protocol::{Call, Outcome, Prepared, Statement, Step},
    };

    fn figures(times_ms: &[u64]) -> Figures {
        let mut figures = Figures::default();
        for ms in times_ms {
            figures.add(&call(Statement::Empty, *ms), &Arc::new(origin()));
        }
        figures
    }

    /// Quantiles are within 1 % of those of the calls, and none is longer than the longest.
    #[test]
    fn quantiles_are_right() {
        let times: Vec<u64> = (1..=1000).collect();
        let figures = figures(&times);
        for (percent, ms) in [(50, 500_u64), (95, 950), (99, 990)] {
            let ns = figures.quantile_ns(percent).unwrap();
            assert!(
                ns.abs_diff(ms * 1_000_000) <= ms * 10_000,
                "p{percent}: {ns}"
            );
        }
        assert_eq!(figures.longest_ns(), Some(1_000_000_000));
        assert_eq!(figures.mean_ns(), Some(500_500_000));
        assert_eq!(Figures::default().quantile_ns(50), None);
    }

    /// Two groups together are what one group of all their calls would be.
    #[test]
    fn groups_merge() {
        let mut merged = figures(&[1, 2, 3]);
        merged.merge(figures(&[400, 500]));
        let whole = figures(&[1, 2, 3, 400, 500]);
        for percent in [1, 50, 90, 99] {
            assert_eq!(merged.quantile_ns(percent), whole.quantile_ns(percent));
        }
        let sums = |of: &Figures| {
            (
                of.calls,
                of.total_ns,
                of.rows,
                of.sent,
                of.received,
                of.first_rows,
            )
        };
        assert_eq!(sums(&merged), sums(&whole));
        assert_eq!(merged.longest_ns(), whole.longest_ns());
    }

    /// A call whose end is another's too is in the sums only; an error is no call; where calls came from is kept.
    #[test]
    fn kinds_of_calls_are_told_apart() {
        let mut figures = Figures::default();
        let other = Arc::new(Origin {
            user: Some("bench".into()),
            ..origin()
        });
        figures.add(
            &Call {
                sharing: 2,
                ..call(Statement::Empty, 5)
            },
            &Arc::new(origin()),
        );
        figures.add(
            &Call {
                outcome: failed(),
                ..call(Statement::Empty, 7)
            },
            &other,
        );
        assert_eq!((figures.calls, figures.failed(), figures.shared), (1, 1, 1));
        assert_eq!(
            (figures.total_ns, figures.longest_ns()),
            (12_000_000, Some(7_000_000))
        );
        assert_eq!(figures.all_calls(), 2);
        assert_eq!(figures.seen.users.first().map(AsRef::as_ref), Some("bench"));
    }

    /// Latencies of failures are told apart, in the same buckets as all: what is left is of the other calls.
    #[test]
    fn failures_have_latencies_of_their_own() {
        let mut figures = figures(&[1, 10]);
        let origin = Arc::new(origin());
        for (ms, sharing) in [(10, 1), (7, 2)] {
            let call = Call {
                outcome: failed(),
                sharing,
                ..call(Statement::Empty, ms)
            };
            figures.add(&call, &origin);
        }
        let mut known = figures.known_latencies();
        assert_eq!((known.calls(), known.sum_ns), (3, 21_000_000));
        let failed = figures.failed_in.values().next().unwrap();
        assert_eq!((failed.calls(), failed.sum_ns), (1, 10_000_000));
        known.remove(failed);
        assert_eq!((known.calls(), known.sum_ns), (2, 11_000_000));
        assert_eq!(known.within(&[1_000_000, 10_000_000]), [1, 1, 0]);
    }

    /// What failed while it was prepared is an error and no call.
    #[test]
    fn errors_of_preparing_are_errors() {
        let Outcome::Failed(failure) = failed() else {
            panic!("a failure");
        };
        let prepared = Prepared {
            statement: Statement::Empty,
            step: Step::Parse,
            start_ns: 1,
            end_ns: 3,
            tid: 7,
            failure: Some(failure),
        };
        let mut figures = Figures::default();
        figures.add_prepare(&prepared, &Arc::new(origin()));
        figures.merge(figures.clone());
        assert_eq!((figures.prepares, figures.prepares_ns), (2, 4));
        assert_eq!((figures.failed(), figures.all_calls()), (0, 0));
        assert_eq!(figures.all_errors(), [(failure.sqlstate, 2)].into());
    }
}
