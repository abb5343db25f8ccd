//! Description and account of a recording, restored from the lines that every file carries.
//!
//! The counterpart of [`crate::output::provenance`]. Lines with other keys are left aside: they are
//! someone's comments. What the lines claim is checked against the samples that were really read:
//! samples missing from the file are lost without explanation, and said to be.

use std::{borrow::Cow, time::Duration};

use profiler_common::outcome::StopReason;

use super::{CONTRADICTION, FOREIGN_NOTE, SAMPLES_MAX};
use crate::{
    output::{account, provenance},
    profile::{Account, Event, Lost, Meta, Profile, ThreadTime},
};

/// Highest rate that is believed, Hz: the kernel's own limit is far below.
const RATE_MAX: u64 = 1_000_000;

/// Counts per second of an event that is time.
const MICROSECONDS: u64 = 1_000_000;

/// Longest time that is believed, s: three thousand years. Keeps arithmetic on times in bounds.
const SECONDS_MAX: u64 = 100_000_000_000;

/// Most notes that are kept in their own words, and the longest: files come from anywhere.
const NOTES_MAX: usize = 64;
const NOTE_BYTES_MAX: usize = 200;

/// Every cause of loss.
const LOST: [Lost; 6] = [
    Lost::RingFull,
    Lost::Malformed,
    Lost::TableFull,
    Lost::WithoutGil,
    Lost::OtherProcess,
    Lost::Unexplained,
];

/// Sets the profile's description and account from a file's comments.
pub(super) fn restore(profile: &mut Profile, comments: &[&str]) {
    profile.meta = Meta::default();
    profile.account = Account::default();
    for (key, value) in comments.iter().filter_map(|line| line.split_once(": ")) {
        if !describe(&mut profile.meta, key, value) {
            enter(&mut profile.account, key, value);
        }
    }
    reconcile(profile);
}

/// Whether the line belongs to the description.
fn describe(meta: &mut Meta, key: &str, value: &str) -> bool {
    match key {
        provenance::TITLE => unquote(value).clone_into(&mut meta.title),
        provenance::COMMAND_LINE => unquote(value).clone_into(&mut meta.command_line),
        provenance::EVENT => {
            meta.event = event(value);
            if meta.event.is_time() {
                meta.frequency_hz = MICROSECONDS;
            }
        }
        provenance::UNIT => {}
        provenance::FREQUENCY => {
            meta.frequency_hz = number(value).filter(|rate| *rate <= RATE_MAX).unwrap_or(0);
        }
        provenance::STARTED => meta.started = time(value).unwrap_or_default(),
        provenance::DURATION => meta.duration = time(value).unwrap_or_default(),
        _ => return false,
    }
    true
}

fn enter(account: &mut Account, key: &str, value: &str) {
    let Some((topic, detail)) = topic(key) else {
        return;
    };
    let count = number(value).unwrap_or(0).min(SAMPLES_MAX);
    match topic {
        account::TAKEN => account.taken = count,
        account::LOST => {
            if let Some(cause) = LOST.into_iter().find(|cause| cause.text() == detail) {
                account.lost.insert(cause, count);
            }
        }
        account::COMPLETE | account::CUT => {
            if let Some(reason) = StopReason::ALL
                .iter()
                .find(|reason| reason.text() == detail)
            {
                account.stacks.insert(*reason, count);
            }
        }
        account::NOTE => {
            let room = account.notes.len() < NOTES_MAX && detail.len() <= NOTE_BYTES_MAX;
            let known = account.notes.contains_key(detail);
            let note = if known || room {
                Cow::Owned(detail.to_owned())
            } else {
                Cow::Borrowed(FOREIGN_NOTE)
            };
            *account.notes.entry(note).or_default() += count;
        }
        account::THREADS => {
            let part = ThreadTime::ALL
                .into_iter()
                .find(|part| part.text() == detail);
            if let (Some(part), Some(time)) = (part, time(value)) {
                account.threads.insert(part, time);
            }
        }
        account::COST_BPF => account.cost.bpf = time(value).unwrap_or_default(),
        account::COST_PROCESS => account.cost.process = time(value).unwrap_or_default(),
        _ => {}
    }
}

/// A key of the account, and the detail after it.
fn topic(key: &str) -> Option<(&'static str, &str)> {
    let plain = [account::TAKEN, account::COST_BPF, account::COST_PROCESS];
    if let Some(topic) = plain.into_iter().find(|topic| *topic == key) {
        return Some((topic, ""));
    }
    let detailed = [
        account::LOST,
        account::COMPLETE,
        account::CUT,
        account::NOTE,
        account::THREADS,
    ];
    detailed.into_iter().find_map(|topic| {
        let detail = key.strip_prefix(topic)?.strip_prefix(", ")?;
        Some((topic, detail))
    })
}

/// Makes the account agree with the samples, and says where it did not.
fn reconcile(profile: &mut Profile) {
    let is_time = profile.meta.event.is_time();
    let shown = if is_time {
        profile.account.stacks.values().sum()
    } else {
        profile.total()
    };
    let account = &mut profile.account;
    account.shown = shown;
    if !account.is_known() {
        return;
    }
    let accounted = shown + account.lost_total();
    if accounted < account.taken {
        *account.lost.entry(Lost::Unexplained).or_default() += account.taken - accounted;
    }
    let ends: u64 = account.stacks.values().sum();
    if accounted != account.taken || ends > shown {
        account.notes.entry(CONTRADICTION.into()).or_insert(1);
    }
    account.taken = account.taken.max(accounted);
}

fn event(name: &str) -> Event {
    let mut events = Event::ALL.into_iter();
    events
        .find(|event| event.name() == name)
        .unwrap_or_default()
}

fn unquote(text: &str) -> &str {
    text.strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
        .unwrap_or(text)
}

/// The grouped number that a value begins with.
fn number(value: &str) -> Option<u64> {
    let word = value.split([' ', ';']).next()?;
    word.replace(',', "").parse().ok()
}

/// Seconds with microseconds.
fn time(value: &str) -> Option<Duration> {
    let (seconds, fraction) = value.split(' ').next()?.split_once('.')?;
    let micros: u32 = (fraction.len() == 6)
        .then(|| fraction.parse().ok())
        .flatten()?;
    let seconds = seconds
        .parse()
        .ok()
        .filter(|seconds| *seconds <= SECONDS_MAX)?;
    Some(Duration::new(seconds, micros * 1000))
}

#[cfg(test)]
mod tests {
    use super::{CONTRADICTION, Duration, FOREIGN_NOTE, Lost, Profile, restore, time};
    use crate::output::{example, provenance};

    fn restored(profile: &Profile, edit: impl Fn(String) -> String) -> Profile {
        let lines: Vec<String> = provenance::lines(profile).into_iter().map(edit).collect();
        let mut copy = example::profile();
        restore(
            &mut copy,
            &lines.iter().map(String::as_str).collect::<Vec<_>>(),
        );
        copy
    }

    /// Everything that was written comes back, but for the monotonic clock, which means nothing later.
    #[test]
    fn description_and_account_come_back() {
        let mut profile = example::profile();
        let copy = restored(&profile, |line| line);
        profile.meta.started_mono_ns = 0;
        assert_eq!(copy.meta, profile.meta);
        assert_eq!(copy.account, profile.account);
    }

    /// Samples that a file should hold and does not are lost, and it is said that no one knows why.
    #[test]
    fn missing_samples_are_lost_unexplained() {
        let copy = restored(&example::profile(), |line| line.replace("104", "110"));
        assert_eq!(copy.account.lost[&Lost::Unexplained], 1 + 6);
        assert_eq!(
            copy.account.taken,
            copy.account.shown + copy.account.lost_total()
        );
        assert_eq!(copy.account.notes[CONTRADICTION], 1);
    }

    /// A note comes back in its own words, one that is too long under a name for all such.
    #[test]
    fn notes_keep_their_words() {
        let copy = restored(&example::profile(), |line| {
            line.replace("kernel stack", "moon phase")
        });
        assert!(
            copy.account
                .notes
                .keys()
                .any(|note| note.contains("moon phase"))
        );
        let long = restored(&example::profile(), |line| {
            line.replace("kernel stack", &"moon phase ".repeat(50))
        });
        assert_eq!(long.account.notes[FOREIGN_NOTE], 2);
    }

    /// Times that no writer wrote are no times.
    #[test]
    fn odd_times_are_refused() {
        assert_eq!(time("1.500000 s"), Some(Duration::from_millis(1500)));
        assert_eq!(time("99999999999999999999.000000 s"), None);
        assert_eq!(time("1.5 s"), None);
        assert_eq!(time("-1.000000 s"), None);
        assert_eq!(time(""), None);
    }
}
