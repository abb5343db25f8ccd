//! Windows read back: a summary of each is kept, as windows never change, and pictures are made of the whole.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use lru::LruCache;

use super::query::Asked;
use crate::{
    error::Error,
    export::services::service_of,
    profile::{Process, Profile},
    report::{self, History, Wanted},
    store::{self, Sampled, Span, WindowName},
};

/// Summaries that are kept: a day of windows of a minute, and some.
const SUMMARIES: NonZeroUsize = NonZeroUsize::new(2000).unwrap();

/// Processes that are kept in all of them together: about 20 MB.
const GROUPS_MAX: usize = 100_000;

/// The store, to be read.
pub(super) struct Reader {
    state: PathBuf,
    cache: Mutex<Cache>,
}

/// Summaries of windows, those that nobody asked for lately forgotten.
struct Cache {
    summaries: LruCache<String, Arc<Summary>>,
    /// Processes in them.
    groups: usize,
}

/// Of one window, or of several together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) taken: u64,
    pub(super) shown: u64,
    /// By cause.
    pub(super) lost: BTreeMap<&'static str, u64>,
    /// Samples and the time that they stand for, ns, by whose they are.
    pub(super) groups: BTreeMap<Group, (u64, u64)>,
}

/// A process, or all of one name in one service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    pub(super) service: String,
    pub(super) comm: String,
    cgroup: String,
    /// 0 where processes are told apart no more.
    pid: u32,
}

/// What a span holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) summary: Summary,
    /// What it is of.
    pub(super) sampled: Sampled,
    /// What there are windows of.
    pub(super) there: Vec<Sampled>,
    /// Windows that cover it.
    pub(super) windows: usize,
    /// Of these, windows that could not be read.
    pub(super) unreadable: usize,
    /// Of these, windows for which there was no time.
    pub(super) unread: usize,
    /// Parts without a window.
    pub(super) gaps: Vec<Span>,
}

impl Reader {
    pub(super) fn new(state: PathBuf) -> Self {
        Self {
            state,
            cache: Mutex::new(Cache {
                summaries: LruCache::new(SUMMARIES),
                groups: 0,
            }),
        }
    }

    /// What the windows of a span hold of some processes, the newest first, as far as the time goes.
    pub(super) fn sum(&self, asked: &Asked, deadline: Instant) -> Result<Sum, Error> {
        let entries = store::list(&self.state)?;
        let there = store::sampled(&entries, asked.span).into_iter();
        let there: Vec<Sampled> = there.map(|(sampled, _)| sampled).collect();
        let sampled = asked.sampled.or(there.first().copied()).unwrap_or_default();
        let selection = store::select(&entries, sampled.capability(), asked.span);
        let mut sum = Sum {
            sampled,
            there,
            windows: selection.windows.len(),
            gaps: selection.gaps,
            ..Sum::default()
        };
        for (done, name) in selection.windows.iter().rev().enumerate() {
            if Instant::now() > deadline {
                sum.unread = selection.windows.len() - done;
                break;
            }
            match self.summary(name) {
                Some(summary) => sum.summary.add(&summary, &asked.wanted),
                None => sum.unreadable += 1,
            }
        }
        Ok(sum)
    }

    /// All samples of a span together; `None` where the time was too short.
    pub(super) fn profile(
        &self,
        asked: &Asked,
        deadline: Instant,
    ) -> Result<Option<Profile>, Error> {
        let history = History {
            state: self.state.clone(),
            span: asked.span,
            sampled: asked.sampled,
        };
        history.gather(&asked.wanted, &mut || Instant::now() < deadline)
    }

    fn summary(&self, name: &WindowName) -> Option<Arc<Summary>> {
        let key = name.to_string();
        let cache = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(summary) = cache().summaries.get(&key) {
            return Some(Arc::clone(summary));
        }
        let bytes = store::open(&self.state, name).ok()?;
        let summary = Arc::new(Summary::of(&report::read_window(&bytes).ok()?));
        cache().put(key, &summary);
        Some(summary)
    }
}

impl Cache {
    fn put(&mut self, key: String, summary: &Arc<Summary>) {
        self.groups += summary.groups.len();
        let out = self.summaries.push(key, Arc::clone(summary));
        self.groups -= out.map_or(0, |(_, summary)| summary.groups.len());
        while self.groups > GROUPS_MAX {
            let Some((_, summary)) = self.summaries.pop_lru() else {
                return;
            };
            self.groups -= summary.groups.len();
        }
    }
}

impl Summary {
    fn of(profile: &Profile) -> Self {
        let account = &profile.account;
        let mut summary = Self {
            taken: account.taken,
            shown: profile.total(),
            ..Self::default()
        };
        for (cause, count) in &account.lost {
            *summary.lost.entry(cause.text()).or_default() += count;
        }
        let period_ns = profile.meta.period_ns();
        for sample in &profile.samples {
            let process = profile.process_of(sample.thread);
            let group = Group {
                service: service_of(process).to_owned(),
                comm: process.comm.clone(),
                cgroup: process.cgroup.clone(),
                pid: process.pid,
            };
            let (samples, time_ns) = summary.groups.entry(group).or_default();
            *samples += sample.count;
            *time_ns += sample.count.saturating_mul(period_ns);
        }
        summary
    }

    /// Adds what is wanted of another; processes are told apart no more.
    fn add(&mut self, other: &Self, wanted: &Wanted) {
        self.taken += other.taken;
        for (cause, count) in &other.lost {
            *self.lost.entry(cause).or_default() += count;
        }
        for (group, (samples, time_ns)) in &other.groups {
            let process = Process {
                pid: group.pid,
                comm: group.comm.clone(),
                cgroup: group.cgroup.clone(),
            };
            if !wanted.fits(&process) {
                continue;
            }
            let group = Group {
                service: group.service.clone(),
                comm: group.comm.clone(),
                cgroup: String::new(),
                pid: 0,
            };
            let sum = self.groups.entry(group).or_default();
            sum.0 += samples;
            sum.1 += time_ns;
            self.shown += samples;
        }
    }
}

impl Group {
    /// Whether the service is a systemd unit, by which it can be asked for.
    pub(super) fn is_unit(&self) -> bool {
        self.service != self.comm
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Asked, Reader, Span, Wanted, WindowName};
    use crate::{
        cgroup,
        output::{Format, Options, example, render},
        profile::Process,
        store::{Capability, Store},
    };

    fn asked(end_ms: u64, wanted: Wanted) -> Asked {
        Asked {
            span: Span {
                begin_ms: 0,
                end_ms,
            },
            wanted,
            sampled: None,
        }
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(600)
    }

    /// A store of three windows of the example, one of them damaged, and a gap.
    fn reader(state: &std::path::Path) -> Reader {
        let store = Store::open(state).unwrap();
        let bytes = render(&example::profile(), Format::Pprof, &Options::default()).unwrap();
        let name =
            |begin_ms| WindowName::new(Capability::Sampling, (begin_ms, begin_ms + 1000), "host");
        store.write(name(0), &bytes).unwrap();
        store.write(name(1000), &bytes).unwrap();
        store.write(name(5000), b"damaged").unwrap();
        Reader::new(state.to_owned())
    }

    /// Sums are those of the windows, by whose they are, and tell what is missing; asked twice they are the same.
    #[test]
    fn sums_are_of_the_windows() {
        let state = tempfile::tempdir().unwrap();
        let reader = reader(state.path());
        let sum = reader
            .sum(&asked(6000, Wanted::default()), later())
            .unwrap();
        assert_eq!((sum.windows, sum.unreadable, sum.unread), (3, 1, 0));
        assert_eq!(sum.gaps.len(), 1);
        let total = example::profile().total();
        assert_eq!(sum.summary.shown, 2 * total);
        let samples: u64 = sum
            .summary
            .groups
            .values()
            .map(|(samples, _)| samples)
            .sum();
        assert_eq!(samples, 2 * total);
        let time_ns: u64 = sum
            .summary
            .groups
            .values()
            .map(|(_, time_ns)| time_ns)
            .sum();
        assert_eq!(time_ns, 2 * total * (1_000_000_000 / 99));
        assert_eq!(sum.summary.taken, 2 * example::profile().account.taken);
        let again = reader
            .sum(&asked(6000, Wanted::default()), later())
            .unwrap();
        assert_eq!(again, sum);
    }

    /// Only what is wanted is summed, and a window for which there is no time is counted.
    #[test]
    fn only_what_is_wanted() {
        let state = tempfile::tempdir().unwrap();
        let reader = reader(state.path());
        let wanted = Wanted {
            pids: vec![1],
            ..Wanted::default()
        };
        let sum = reader.sum(&asked(6000, wanted), later()).unwrap();
        assert_eq!(sum.summary.shown, 0);
        let passed = Instant::now();
        let late = reader.sum(&asked(6000, Wanted::default()), passed).unwrap();
        assert_eq!((late.windows, late.unread), (3, 3));
        let profile = reader
            .profile(&asked(6000, Wanted::default()), passed)
            .unwrap();
        assert!(profile.is_none());
    }

    /// The service that a page names can be asked for by that name.
    #[test]
    fn services_can_be_asked_for() {
        let process = Process {
            pid: 1,
            comm: "worker".to_owned(),
            cgroup: "/system.slice/nginx.service".to_owned(),
        };
        assert!(cgroup::is_in_unit(
            &process.cgroup,
            super::service_of(&process)
        ));
    }
}
