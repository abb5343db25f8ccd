//! Some processes of a profile: the samples of the others are left out, and counted as such.

use profiler_common::{comm::CommGlob, limits::COMM_LEN};

use crate::{
    cgroup,
    profile::{Lost, Process, Profile},
};

/// Note: so many samples of a recording without an account.
const LEFT_OUT: &str = "sample of other processes, left out";

/// Whose samples are wanted: those of processes that fit every condition that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Of these ids.
    pub pids: Vec<u32>,
    /// Of such names: the glob as typed and compiled.
    pub comm: Option<(String, CommGlob)>,
    /// Of this cgroup or below it.
    pub cgroup: Option<String>,
    /// Of this systemd unit.
    pub unit: Option<String>,
}

impl Wanted {
    /// Leaves the others out.
    pub(super) fn retain(&self, profile: &mut Profile) {
        if *self == Self::default() {
            return;
        }
        let fits: Vec<bool> = profile
            .processes
            .iter()
            .map(|process| self.fits(process))
            .collect();
        let Profile {
            samples,
            threads,
            account,
            ..
        } = profile;
        let mut left_out = 0;
        samples.retain(|sample| {
            let keep = fits[threads[sample.thread.index()].process.index()];
            left_out += if keep { 0 } else { sample.count };
            keep
        });
        if left_out == 0 {
            return;
        }
        account.shown = account.shown.saturating_sub(left_out);
        if account.is_known() {
            *account.lost.entry(Lost::OtherProcess).or_default() += left_out;
        } else {
            *account.notes.entry(LEFT_OUT.into()).or_default() += left_out;
        }
        // How the stacks of the rest ended is not known one by one.
        account.stacks.clear();
    }

    /// Gives the profile their name, unless everybody is wanted.
    pub(super) fn name(&self, profile: &mut Profile) {
        if let Some(description) = self.description() {
            profile.meta.title = description;
        }
    }

    /// In words; nothing where everybody is wanted.
    fn description(&self) -> Option<String> {
        let pids: Vec<String> = self.pids.iter().map(u32::to_string).collect();
        let parts = [
            (!pids.is_empty()).then(|| format!("pid {}", pids.join(","))),
            self.comm
                .as_ref()
                .map(|(glob, _)| format!("processes named {glob}")),
            self.cgroup.as_ref().map(|path| format!("cgroup {path}")),
            self.unit.as_ref().map(|name| format!("unit {name}")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    fn fits(&self, process: &Process) -> bool {
        let named = |(_, glob): &(String, CommGlob)| {
            let mut comm = [0; COMM_LEN];
            let bytes = process.comm.bytes().take(COMM_LEN - 1);
            comm.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
            glob.matches(&comm)
        };
        let cgroup = process.cgroup.as_str();
        (self.pids.is_empty() || self.pids.contains(&process.pid))
            && self.comm.as_ref().is_none_or(named)
            && self
                .cgroup
                .as_ref()
                .is_none_or(|path| !cgroup.is_empty() && cgroup::is_below(cgroup, path))
            && self
                .unit
                .as_ref()
                .is_none_or(|unit| cgroup::is_in_unit(cgroup, unit))
    }
}

#[cfg(test)]
mod tests {
    use profiler_common::comm::CommGlob;

    use super::{Lost, Wanted};
    use crate::output::example;

    fn shown(wanted: &Wanted) -> (u64, u64) {
        let mut profile = example::profile();
        wanted.retain(&mut profile);
        let account = &profile.account;
        assert_eq!(account.taken, profile.total() + account.lost_total());
        let left_out = account.lost.get(&Lost::OtherProcess);
        (profile.total(), left_out.copied().unwrap_or(0))
    }

    /// Every condition counts, and what is left out is in the account.
    #[test]
    fn others_are_left_out_and_counted() {
        let glob =
            |text: &str| Some((text.to_owned(), CommGlob::compile(text.as_bytes()).unwrap()));
        assert_eq!(shown(&Wanted::default()), (100, 0));
        let mut wanted = Wanted {
            unit: Some("worker".to_owned()),
            comm: glob("work*"),
            pids: vec![1, 4711],
            ..Wanted::default()
        };
        assert_eq!(shown(&wanted), (100, 0));
        wanted.pids = vec![1];
        assert_eq!(shown(&wanted), (0, 100));
        wanted = Wanted {
            cgroup: Some("/system.slice".to_owned()),
            ..Wanted::default()
        };
        assert_eq!(shown(&wanted), (100, 0));
        wanted.comm = glob("other");
        assert_eq!(shown(&wanted), (0, 100));
    }
}
