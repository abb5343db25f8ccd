//! What the daemon has kept: windows of a span of time, as one profile whose account says where there is none.

use std::path::PathBuf;

use super::{Wanted, merge::Merger, read};
use crate::{
    daemon::store::{self, Capability, Span, instant_text},
    error::Error,
    profile::Profile,
};

/// Gaps that are named one by one; the others are only counted.
const GAPS_NAMED_MAX: usize = 10;
/// Note: a window's file that could not be read.
const UNREADABLE: &str = "window that could not be read";
/// Note: a window that was deleted while it was to be read.
const DELETED: &str = "window that was deleted meanwhile";
/// Note: the span had more gaps.
const FURTHER_GAPS: &str = "further gap between windows";

/// What is asked for.
#[derive(Clone, Debug)]
pub struct History {
    /// The state directory.
    pub state: PathBuf,
    /// Which time.
    pub span: Span,
}

impl History {
    /// All windows of the span together, without those who are not wanted.
    pub(super) fn profile(&self, wanted: &Wanted) -> Result<Profile, Error> {
        let entries = store::list(&self.state)?;
        let selection = store::select(&entries, Capability::Sampling, self.span);
        if selection.windows.is_empty() {
            return Err(Error::NoWindows {
                state: self.state.clone(),
                begin: instant_text(self.span.begin_ms),
                end: instant_text(self.span.end_ms),
                newest: entries.last().map(|entry| instant_text(entry.name.end_ms)),
            });
        }
        let mut merger = Merger::default();
        let (mut unreadable, mut deleted) = (0, 0);
        for name in &selection.windows {
            let Ok(bytes) = store::open(&self.state, name) else {
                deleted += 1;
                continue;
            };
            let Ok(mut profile) = read(&bytes) else {
                unreadable += 1;
                continue;
            };
            wanted.retain(&mut profile);
            merger.add(profile);
        }
        let mut profile = merger.finish();
        wanted.name(&mut profile);
        profile.meta.command_line = std::env::args().collect::<Vec<_>>().join(" ");
        let notes = &mut profile.account.notes;
        for gap in selection.gaps.iter().take(GAPS_NAMED_MAX) {
            let (begin, end) = (instant_text(gap.begin_ms), instant_text(gap.end_ms));
            notes.insert(format!("no window from {begin} to {end}").into(), 1);
        }
        let further = selection.gaps.len().saturating_sub(GAPS_NAMED_MAX) as u64;
        let counts = [
            (UNREADABLE, unreadable),
            (DELETED, deleted),
            (FURTHER_GAPS, further),
        ];
        for (note, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            *notes.entry(note.into()).or_default() += count;
        }
        Ok(profile)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::{Capability, Error, History, Span, UNREADABLE, Wanted, store};
    use crate::{
        daemon::store::{Store, WindowName},
        output::{Format, Options, example, render},
    };

    fn history(state: &Path, begin_ms: u64, end_ms: u64) -> History {
        History {
            state: state.to_owned(),
            span: Span { begin_ms, end_ms },
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
