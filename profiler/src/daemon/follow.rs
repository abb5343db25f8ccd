//! Which processes are targets now: processes come and go, units restart in new cgroups, programs change their
//! names. Pure but for [`listing`] and [`look`], which the caller hands in.
//!
//! Every second all processes are listed, which is cheap, and looked at closer only where one is new (a reused
//! id is), young, or has not been looked at for some time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    os::unix::fs::DirEntryExt,
};

use profiler_common::{config::target, limits::COMM_LEN};

use super::config::Targets;
use crate::{cgroup, config::Descendants, error::Error, kernel::KernelError, process};

/// Looks at a process in the seconds after it was first seen: it executes its program and gets its name now.
const YOUNG_TICKS: u64 = 3;
/// Ticks between two looks later.
const LOOK_EVERY: u64 = 10;

/// Note: see [`TARGETS_MAX`](profiler_common::limits::TARGETS_MAX).
const TARGETS_FULL: &str = "process not sampled, table of targets full";

/// What a look at a process tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Name of its main thread.
    pub(crate) comm: String,
    /// Its cgroup (v2) from the root; empty where it has none.
    pub(crate) cgroup: String,
}

/// What to tell the kernel side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Targets no more, or never. To be done first: an id may be in both lists.
    pub(crate) remove: Vec<u32>,
    /// New targets, with the bits of [`target`].
    pub(crate) add: Vec<(u32, u32)>,
}

/// Who is followed.
#[derive(Debug)]
pub(crate) struct Follower {
    targets: Targets,
    known: HashMap<u32, Known>,
    tick: u64,
    children: Descendants,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    /// Tells processes of the same id apart.
    inode: u64,
    /// Bits with which it is a target, if it is one.
    bits: Option<u32>,
    first_tick: u64,
}

impl Follower {
    pub(crate) fn new(targets: Targets) -> Self {
        Self {
            targets,
            known: HashMap::new(),
            tick: 0,
            children: Descendants::Ignore,
        }
    }

    /// What descends from targets is a target, whoever they are.
    pub(crate) fn with_descendants(targets: Targets) -> Self {
        Self {
            children: Descendants::Follow,
            ..Self::new(targets)
        }
    }

    /// Targets that live.
    pub(crate) fn pids(&self) -> impl Iterator<Item = u32> {
        let known = self.known.iter();
        let targets = known.filter(|(_, known)| known.bits.is_some());
        targets.map(|(pid, _)| *pid)
    }

    /// How many there are.
    pub(crate) fn followed(&self) -> usize {
        self.pids().count()
    }

    /// Call once a second with every process: its id and the inode number of its folder below `/proc`.
    pub(crate) fn tick(
        &mut self,
        listing: &[(u32, u64)],
        mut look: impl FnMut(u32) -> Option<Seen>,
    ) -> Change {
        let mut change = Change::default();
        self.tick += 1;
        let tick = self.tick;
        for &(pid, inode) in listing {
            let before = self.known.get(&pid).copied();
            let same = before.filter(|known| known.inode == inode);
            if same.is_some_and(|known| !is_due(pid, tick, known.first_tick)) {
                continue;
            }
            let bits = look(pid).and_then(|seen| bits_of(&self.targets, pid, &seen));
            let was = before.and_then(|known| known.bits);
            // Who is new may have become a target by being forked by one.
            let is_stray = same.is_none() && self.children == Descendants::Ignore;
            if bits.is_none() && (is_stray || was.is_some()) {
                change.remove.push(pid);
            }
            if bits.is_some() && (same.is_none() || was != bits) {
                change.add.extend(bits.map(|bits| (pid, bits)));
            }
            let known = Known {
                inode,
                bits,
                first_tick: same.map_or(tick, |known| known.first_tick),
            };
            self.known.insert(pid, known);
        }
        let listed: BTreeSet<u32> = listing.iter().map(|&(pid, _)| pid).collect();
        self.known.retain(|pid, known| {
            let is_there = listed.contains(pid);
            if !is_there && known.bits.is_some() {
                change.remove.push(*pid);
            }
            is_there
        });
        change
    }
}

/// Every process, with the inode number of its folder below `/proc`, which another process of its id does not have.
pub(crate) fn listing() -> Vec<(u32, u64)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, entry.ino()))
        })
        .collect()
}

/// A look at a process; `None` if it is gone.
pub(crate) fn look(pid: u32) -> Option<Seen> {
    Some(Seen {
        comm: process::comm(pid)?,
        cgroup: process::cgroup(pid).unwrap_or_default(),
    })
}

/// A process that finds no room among the targets is noted; any other failure is one.
pub(crate) fn note_full(
    added: Result<(), Error>,
    notes: &mut BTreeMap<String, u64>,
) -> Result<(), Error> {
    match added {
        Err(Error::Kernel(KernelError::TooManyTargets { .. })) => {
            *notes.entry(TARGETS_FULL.to_owned()).or_default() += 1;
            Ok(())
        }
        added => added,
    }
}

/// Old processes take turns.
fn is_due(pid: u32, tick: u64, first_tick: u64) -> bool {
    tick - first_tick < YOUNG_TICKS || (tick + u64::from(pid)).is_multiple_of(LOOK_EVERY)
}

/// The bits with which it is a target, if it is one. What a unit, a cgroup or a command forks is one at once.
fn bits_of(targets: &Targets, pid: u32, seen: &Seen) -> Option<u32> {
    let mut comm = [0; COMM_LEN];
    let bytes = seen.comm.bytes().take(COMM_LEN - 1);
    comm.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
    let Targets {
        units,
        cgroups,
        commands,
        pids,
    } = targets;
    let is_grouped = !seen.cgroup.is_empty()
        && (units
            .iter()
            .any(|unit| cgroup::is_in_unit(&seen.cgroup, unit))
            || cgroups
                .iter()
                .any(|path| cgroup::is_below(&seen.cgroup, path)));
    if is_grouped || commands.iter().any(|(_, glob)| glob.matches(&comm)) {
        return Some(target::FOLLOW);
    }
    pids.contains(&pid).then_some(0)
}

#[cfg(test)]
mod tests {
    use profiler_common::{comm::CommGlob, config::target::FOLLOW};

    use super::{Change, Follower, LOOK_EVERY, Seen, Targets, YOUNG_TICKS};

    fn follower() -> Follower {
        Follower::new(Targets {
            units: vec!["nginx".to_owned()],
            cgroups: vec!["/user.slice".to_owned()],
            commands: vec![(
                "gunicorn*".to_owned(),
                CommGlob::compile(b"gunicorn*").unwrap(),
            )],
            pids: vec![77],
        })
    }

    fn seen(comm: &str, cgroup: &str) -> Seen {
        Seen {
            comm: comm.to_owned(),
            cgroup: cgroup.to_owned(),
        }
    }

    fn change(remove: &[u32], add: &[(u32, u32)]) -> Change {
        Change {
            remove: remove.to_vec(),
            add: add.to_vec(),
        }
    }

    /// Each kind of target is found, and nobody else.
    #[test]
    fn every_kind_of_target() {
        let mut follower = follower();
        let listing: Vec<(u32, u64)> = (1..=5).map(|pid| (pid, 1)).chain([(77, 1)]).collect();
        let look = |pid| match pid {
            1 => seen("nginx", "/system.slice/nginx.service"),
            2 => seen("bash", "/user.slice/session-1.scope"),
            3 => seen("gunicorn: maste", "/"),
            4 => seen("cron", "/system.slice/cron.service"),
            _ => seen("single", ""),
        };
        let look = |pid| (pid != 5).then(|| look(pid));
        let first = follower.tick(&listing, look);
        assert_eq!(
            first,
            change(&[4, 5], &[(1, FOLLOW), (2, FOLLOW), (3, FOLLOW), (77, 0)])
        );
        assert_eq!(follower.followed(), 4);
        assert_eq!(follower.tick(&listing, look), Change::default());
    }

    /// Where descendants are wanted, what a target forked stays one.
    #[test]
    fn children_stay() {
        let mut follower = Follower::with_descendants(follower().targets);
        let look = |_| Some(seen("postgres", "/"));
        assert_eq!(follower.tick(&[(77, 1)], look), change(&[], &[(77, 0)]));
        assert_eq!(follower.tick(&[(77, 1), (78, 1)], look), Change::default());
        assert_eq!(follower.tick(&[], look), change(&[77], &[]));
    }

    /// A unit that restarts has another process, in a cgroup of the same name; a reused id is another process.
    #[test]
    fn restarts_are_followed() {
        let mut follower = follower();
        let nginx = |_| Some(seen("nginx", "/system.slice/nginx.service"));
        assert_eq!(
            follower.tick(&[(10, 1)], nginx),
            change(&[], &[(10, FOLLOW)])
        );
        assert_eq!(
            follower.tick(&[(11, 2)], nginx),
            change(&[10], &[(11, FOLLOW)])
        );
        assert_eq!(
            follower.tick(&[(11, 3)], nginx),
            change(&[], &[(11, FOLLOW)])
        );
        let other = |_| Some(seen("cron", "/system.slice/cron.service"));
        assert_eq!(follower.tick(&[(11, 4)], other), change(&[11], &[]));
    }

    /// A process that gets its name after its start is found while it is young, later within some seconds.
    #[test]
    fn names_may_come_later() {
        let mut follower = follower();
        let shell = |_| Some(seen("sh", "/"));
        let gunicorn = |_| Some(seen("gunicorn", "/"));
        follower.tick(&[(10, 1)], shell);
        assert_eq!(follower.tick(&[(10, 1)], gunicorn).add, [(10, FOLLOW)]);
        for _ in 0..YOUNG_TICKS {
            follower.tick(&[(10, 1)], gunicorn);
        }
        let gone = (0..LOOK_EVERY).find(|_| follower.tick(&[(10, 1)], shell).remove == [10]);
        assert!(gone.is_some());
        assert_eq!(follower.followed(), 0);
    }

    /// Old processes are looked at now and then, not every time.
    #[test]
    fn looks_are_few() {
        let mut follower = follower();
        let listing: Vec<(u32, u64)> = (1..=100).map(|pid| (pid, 1)).collect();
        let mut looks = 0;
        for _ in 0..100 {
            follower.tick(&listing, |_| {
                looks += 1;
                Some(seen("sh", "/"))
            });
        }
        assert!(looks < 100 * 15, "{looks}");
    }
}
