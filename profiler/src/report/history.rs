//! What the daemon has kept: windows of a span of time, as one profile whose account says where there is none.

use std::path::PathBuf;

use super::{Wanted, merge::Merger, read_window};
use crate::{
    command_line::CommandLines,
    error::Error,
    profile::Profile,
    store::{self, Sampled, Span},
};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct History {
    /// The state directory.
    pub state: PathBuf,
    /// Which time.
    pub span: Span,
    /// What was sampled; where nothing is said, the first of [`Sampled::ALL`] that there are windows of.
    pub sampled: Option<Sampled>,
}

impl History {
    /// All windows of the span together, without those who are not wanted.
    pub(super) fn profile(&self, wanted: &Wanted) -> Result<Profile, Error> {
        let all = self.gather(wanted, &mut || true)?;
        // Nobody said to stop.
        Ok(all.unwrap_or_default())
    }

    /// Likewise, as long as the caller says to go on; `None` where that was not long enough.
    pub(crate) fn gather(
        &self,
        wanted: &Wanted,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<Option<Profile>, Error> {
        let mut merger = Merger::default();
        let add = |bytes: &[u8]| {
            let Ok(mut profile) = read_window(bytes) else {
                return false;
            };
            wanted.retain(&mut profile);
            merger.add(profile);
            true
        };
        let (state, span) = (&self.state, self.span);
        let there = store::sampled(&store::list(state)?, span);
        let first = there.first().map(|(sampled, _)| *sampled);
        let sampled = self.sampled.or(first).unwrap_or_default();
        let Some(found) = store::each(state, sampled.capability(), span, go_on, add)? else {
            return Ok(None);
        };
        let mut profile = merger.finish();
        wanted.name(&mut profile);
        profile.meta.command_line = CommandLines::Names.own();
        for (note, count) in found {
            *profile.account.notes.entry(note.into()).or_default() += count;
        }
        let others = there.into_iter().filter(|(other, _)| *other != sampled);
        for (other, windows) in others {
            let note = format!(
                "window of mode {0} left out, --mode {0} shows it",
                other.name()
            );
            profile.account.notes.insert(note.into(), windows);
        }
        Ok(Some(profile))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::{Error, History, Sampled, Span, Wanted, store};
    use crate::{
        output::{Format, Options, example, render},
        store::{Capability, Store, UNREADABLE, WindowName},
    };

    fn history(state: &Path, begin_ms: u64, end_ms: u64) -> History {
        History {
            state: state.to_owned(),
            span: Span { begin_ms, end_ms },
            sampled: None,
        }
    }

    /// Windows add up, a damaged one is counted, a gap is named.
    #[test]
    fn windows_are_merged_and_gaps_named() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let bytes = render(&example::profile(), Format::Pprof, &Options::default()).unwrap();
        let name =
            |begin_ms| WindowName::new(Capability::Sampling, (begin_ms, begin_ms + 1000), "host");
        for begin_ms in [0, 1000, 5000] {
            store.write(name(begin_ms), &bytes).unwrap();
        }
        store.write(name(6000), b"half of a window").unwrap();
        let profile = history(state.path(), 0, 7000)
            .profile(&Wanted::default())
            .unwrap();
        assert_eq!(profile.total(), 300);
        let account = &profile.account;
        assert_eq!(account.taken, profile.total() + account.lost_total());
        assert_eq!(account.notes[UNREADABLE], 1);
        assert_eq!(
            account.notes["no window from 1970-01-01T00:00:02Z to 1970-01-01T00:00:05Z"],
            1
        );
        assert_eq!(profile.processes[0].cgroup, "/system.slice/worker.service");
    }

    /// A window that unpacks to more than one may have is counted as unreadable, and so are a pipe
    /// and a link that bear the name of one: none of them is waited for.
    #[test]
    fn windows_that_are_none_are_counted() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let bytes = render(&example::profile(), Format::Pprof, &Options::default()).unwrap();
        let name =
            |begin_ms| WindowName::new(Capability::Sampling, (begin_ms, begin_ms + 1000), "host");
        store.write(name(0), &bytes).unwrap();
        let most = usize::try_from(store::WINDOW_BYTES_MAX).unwrap();
        let bomb = crate::output::gzip(&vec![0; most + 1]).unwrap();
        store.write(name(1000), &bomb).unwrap();
        let path = |begin_ms| {
            state
                .path()
                .join("windows")
                .join(name(begin_ms).to_string())
        };
        let pipe = rustix::fs::FileType::Fifo;
        let (mode, here) = (rustix::fs::Mode::RUSR, rustix::fs::CWD);
        rustix::fs::mknodat(here, path(2000), pipe, mode, 0).unwrap();
        std::os::unix::fs::symlink(path(0), path(3000)).unwrap();
        let profile = history(state.path(), 0, 4000)
            .profile(&Wanted::default())
            .unwrap();
        assert_eq!(profile.total(), 100);
        assert_eq!(profile.account.notes[UNREADABLE], 1);
        let of = name(2000);
        assert!(
            store::open(state.path(), &of).is_err()
                && store::list(state.path()).unwrap().len() == 2
        );
    }

    /// Windows of another kind are never merged: they are left out, which is said, until they are asked for.
    #[test]
    fn only_like_is_merged_with_like() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path()).unwrap();
        let bytes = render(&example::profile(), Format::Pprof, &Options::default()).unwrap();
        let mut waits = example::profile();
        waits.meta.event = crate::profile::Event::OffCpu;
        waits.meta.frequency_hz = 1_000_000;
        let waits = render(&waits, Format::Pprof, &Options::default()).unwrap();
        for (capability, begin_ms, bytes) in [
            (Capability::Sampling, 0, &bytes),
            (Capability::OffCpu, 1000, &waits),
            (Capability::OffCpu, 2000, &waits),
        ] {
            let name = WindowName::new(capability, (begin_ms, begin_ms + 1000), "host");
            store.write(name, bytes).unwrap();
        }
        let profile = |sampled| {
            let all = history(state.path(), 0, 3000);
            History { sampled, ..all }.profile(&Wanted::default())
        };
        let note = "window of mode off-cpu left out, --mode off-cpu shows it";
        let on_cpu = profile(None).unwrap();
        assert_eq!((on_cpu.total(), on_cpu.account.notes[note]), (100, 2));
        assert!(!on_cpu.meta.event.is_time());
        let off_cpu = profile(Some(Sampled::OffCpu)).unwrap();
        assert_eq!(off_cpu.meta.event, crate::profile::Event::OffCpu);
        assert_eq!(off_cpu.total(), 200);
        let none = profile(Some(Sampled::Wall));
        assert!(matches!(none, Err(Error::NoWindows { .. })));
    }

    /// A span without any window is an error that tells of the newest one.
    #[test]
    fn nothing_is_an_error() {
        let state = tempfile::tempdir().unwrap();
        let missing = history(state.path(), 0, 1).profile(&Wanted::default());
        assert!(matches!(missing, Err(Error::Store(_))));
        fs::create_dir(state.path().join("windows")).unwrap();
        assert!(store::list(state.path()).unwrap().is_empty());
        let empty = history(state.path(), 0, 1).profile(&Wanted::default());
        assert!(matches!(empty, Err(Error::NoWindows { newest: None, .. })));
    }
}
