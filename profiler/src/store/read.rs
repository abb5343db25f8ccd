//! Windows read back: which ones a span of time is covered by, and where there is none.

use std::{collections::BTreeMap, io, path::Path};

use super::{
    Capability, Entry, FOLDER, Sampled, WINDOW_BYTES_MAX, WindowName, instant_text, trusted,
};
use crate::error::Error;

/// Most that is no gap between two windows, ms.
const JOINT_MAX_MS: u64 = 1000;

/// Gaps that are named one by one; the others are only counted.
const GAPS_NAMED_MAX: usize = 10;
/// Note: a window's file that could not be read.
pub(crate) const UNREADABLE: &str = "window that could not be read";
/// Note: a window that was deleted while it was to be read.
const DELETED: &str = "window that was deleted meanwhile";
/// Note: a clock that was set back has windows before it that it has not come to yet.
const TO_COME: &str =
    "window of a time to come, not shown: the clock was set back, --until shows it";
/// Note: the span had more gaps.
const FURTHER_GAPS: &str = "further gap between windows";

/// A span of wall-clock time: milliseconds after the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first one.
    pub begin_ms: u64,
    /// The first one behind it.
    pub end_ms: u64,
}

/// What covers a span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Windows that overlap it, whole, by time.
    pub windows: Vec<WindowName>,
    /// Parts of it without a window.
    pub gaps: Vec<Span>,
}

/// Windows of a capability that overlap a span, and the gaps. Pure. Between two windows up to half of the first
/// one's length, and up to a second, is no gap; at the end of the span up to one and a half lengths, as that window
/// may still be open.
pub fn select(entries: &[Entry], capability: Capability, span: Span) -> Selection {
    let mut selection = Selection::default();
    let mut covered_ms = span.begin_ms;
    let mut length_ms = 0;
    for Entry { name, .. } in entries {
        let overlaps = name.begin_ms < span.end_ms && name.end_ms > span.begin_ms;
        if name.capability != capability || !overlaps {
            continue;
        }
        let joint_ms = if selection.windows.is_empty() {
            0
        } else {
            JOINT_MAX_MS.min(length_ms / 2)
        };
        if name.begin_ms > covered_ms + joint_ms {
            selection.gaps.push(Span {
                begin_ms: covered_ms,
                end_ms: name.begin_ms,
            });
        }
        covered_ms = covered_ms.max(name.end_ms);
        length_ms = name.end_ms.saturating_sub(name.begin_ms);
        selection.windows.push(name.clone());
    }
    if span.end_ms > covered_ms + length_ms + length_ms / 2 {
        selection.gaps.push(Span {
            begin_ms: covered_ms,
            end_ms: span.end_ms,
        });
    }
    selection
}

/// What was sampled in a span, with the number of its windows: in the order in which it is shown where nothing is
/// asked for. Pure.
pub fn sampled(entries: &[Entry], span: Span) -> Vec<(Sampled, u64)> {
    let of = |sampled: Sampled| {
        let windows = select(entries, sampled.capability(), span).windows;
        (sampled, windows.len() as u64)
    };
    let all = Sampled::ALL.into_iter().map(of);
    all.filter(|(_, windows)| *windows > 0).collect()
}

/// How many windows of a capability lie behind a span and behind now. Pure.
fn to_come(entries: &[Entry], capability: Capability, span: Span, now_ms: u64) -> u64 {
    let begin_ms = span.end_ms.max(now_ms);
    let later =
        |entry: &&Entry| entry.name.capability == capability && entry.name.begin_ms >= begin_ms;
    entries.iter().filter(later).count() as u64
}

/// The bytes of a window.
pub fn open(state: &Path, name: &WindowName) -> io::Result<Vec<u8>> {
    let path = state.join(FOLDER).join(name.to_string());
    trusted::read_bounded(&path, WINDOW_BYTES_MAX)
}

/// Hands the bytes of each window of a span on, by time, as long as `go_on` says so; `each` says whether it could read
/// them. Gives what is to be said of the span: gaps, and windows that could not be read; `None` where it was to stop.
///
/// # Errors
///
/// Of a folder that cannot be listed, and of a span without any window.
pub fn each(
    state: &Path,
    capability: Capability,
    span: Span,
    go_on: &mut dyn FnMut() -> bool,
    mut each: impl FnMut(&[u8]) -> bool,
) -> Result<Option<BTreeMap<String, u64>>, Error> {
    let entries = super::list(state)?;
    let selection = select(&entries, capability, span);
    if selection.windows.is_empty() {
        let of_it = |entry: &&Entry| entry.name.capability == capability;
        let newest = entries.iter().rfind(of_it);
        return Err(Error::NoWindows {
            state: state.to_owned(),
            begin: instant_text(span.begin_ms),
            end: instant_text(span.end_ms),
            newest: newest.map(|entry| instant_text(entry.name.end_ms)),
        });
    }
    let mut notes = BTreeMap::new();
    for name in &selection.windows {
        if !go_on() {
            return Ok(None);
        }
        let problem = match open(state, name) {
            Ok(bytes) if each(&bytes) => continue,
            Err(error) if error.kind() == io::ErrorKind::NotFound => DELETED,
            Ok(_) | Err(_) => UNREADABLE,
        };
        *notes.entry(problem.to_owned()).or_default() += 1;
    }
    for gap in selection.gaps.iter().take(GAPS_NAMED_MAX) {
        let (begin, end) = (instant_text(gap.begin_ms), instant_text(gap.end_ms));
        notes.insert(format!("no window from {begin} to {end}"), 1);
    }
    let further = selection.gaps.len().saturating_sub(GAPS_NAMED_MAX) as u64;
    let to_come = to_come(&entries, capability, span, super::now_ms());
    for (note, count) in [(FURTHER_GAPS, further), (TO_COME, to_come)] {
        if count > 0 {
            notes.insert(note.to_owned(), count);
        }
    }
    Ok(Some(notes))
}

#[cfg(test)]
mod tests {
    use super::{Capability, Entry, Sampled, Span, WindowName, sampled, select, to_come};

    fn entries(windows: &[(u64, u64)]) -> Vec<Entry> {
        let entry = |&times: &(u64, u64)| Entry {
            name: WindowName::new(Capability::Sampling, times, "host"),
            bytes: 1,
        };
        windows.iter().map(entry).collect()
    }

    fn gaps(windows: &[(u64, u64)], begin_ms: u64, end_ms: u64) -> Vec<(u64, u64)> {
        let span = Span { begin_ms, end_ms };
        let selection = select(&entries(windows), Capability::Sampling, span);
        let gaps = selection.gaps.into_iter();
        gaps.map(|gap| (gap.begin_ms, gap.end_ms)).collect()
    }

    /// After the clock was set back windows of before lie in what is the future again, which is told; where only the
    /// end of the span is before them they are merely not asked for.
    #[test]
    fn windows_of_a_time_to_come_are_counted() {
        let entries = entries(&[(0, 1000), (1000, 2000), (5000, 6000), (6000, 7000)]);
        let count = |end_ms, now_ms| {
            let span = Span {
                begin_ms: 0,
                end_ms,
            };
            to_come(&entries, Capability::Sampling, span, now_ms)
        };
        assert_eq!(count(2000, 2000), 2);
        assert_eq!(count(6000, 2000), 1);
        assert_eq!(count(2000, 8000), 0);
    }

    /// Windows that follow each other have no gap; one that is missing is one, at the beginning too.
    #[test]
    fn missing_windows_are_gaps() {
        let whole = [(0, 60_000), (60_003, 120_000), (120_000, 180_000)];
        assert_eq!(gaps(&whole, 10_000, 170_000), []);
        let holed = [(0, 60_000), (120_000, 180_000)];
        assert_eq!(gaps(&holed, 10_000, 170_000), [(60_000, 120_000)]);
        assert_eq!(gaps(&holed, 110_000, 170_000), [(110_000, 120_000)]);
        assert_eq!(gaps(&[(0, 100), (200, 300)], 0, 300), [(100, 200)]);
    }

    /// The window that is still open is no gap, more than that is.
    #[test]
    fn the_open_window_is_no_gap() {
        assert_eq!(gaps(&[(0, 60_000)], 0, 149_000), []);
        assert_eq!(gaps(&[(0, 60_000)], 0, 151_000), [(60_000, 151_000)]);
        assert_eq!(gaps(&[], 5, 10), [(5, 10)]);
    }

    /// Windows of each kind are counted apart, and one kind is no cover for another.
    #[test]
    fn kinds_are_told_apart() {
        let mut all = entries(&[(0, 1000), (1000, 2000)]);
        all.push(Entry {
            name: WindowName::new(Capability::OffCpu, (2000, 3000), "host"),
            bytes: 1,
        });
        let span = Span {
            begin_ms: 0,
            end_ms: 3000,
        };
        assert_eq!(
            sampled(&all, span),
            [(Sampled::Cpu, 2), (Sampled::OffCpu, 1)]
        );
        let waits = select(&all, Capability::OffCpu, span);
        assert_eq!((waits.windows.len(), waits.gaps.len()), (1, 1));
    }

    /// Only windows that overlap are taken; windows that overlap each other make no gap.
    #[test]
    fn selection_overlaps_the_span() {
        let span = Span {
            begin_ms: 60_000,
            end_ms: 120_000,
        };
        let windows = [
            (0, 60_000),
            (50_000, 110_000),
            (60_000, 120_000),
            (120_000, 180_000),
        ];
        let selection = select(&entries(&windows), Capability::Sampling, span);
        assert_eq!((selection.windows.len(), selection.gaps.len()), (2, 0));
    }
}
