//! The closing account of a recording in plain words: what became of every sample, and what taking
//! them cost.
//!
//! One list of lines serves the summary on the terminal and every file, so that no two artifacts
//! tell different stories. Each line is `fact: value` and ends in a word, never in a digit, so that
//! no reader of folded stacks takes it for one; `report` reads the lines back.

use profiler_common::outcome::StopReason;

use super::figures::{exact_seconds, percent, samples};
use crate::profile::{Account, Gil, Profile};

/// Key of the samples that were taken.
pub(crate) const TAKEN: &str = "taken";
/// Key of the samples in the profile.
pub(crate) const SHOWN: &str = "shown";
/// Key of all samples that are not in the profile; with a cause after it, of those lost by it.
pub(crate) const LOST: &str = "lost";
/// Key of the stacks that reach their outermost frame; with a reason after it, of one kind of them.
pub(crate) const COMPLETE: &str = "complete stacks";
/// Key of the stacks that do not; with a reason after it, of those cut by it.
pub(crate) const CUT: &str = "cut stacks";
/// Key of the exact time of threads; with what they did after it.
pub(crate) const THREADS: &str = "time of threads";
/// Key of the share of Python threads that held their interpreter's lock.
pub(crate) const GIL: &str = "holding the GIL";
/// Key of a note.
pub(crate) const NOTE: &str = "note";
/// Key of the CPU time inside the BPF programs.
pub(crate) const COST_BPF: &str = "own CPU time, BPF programs";
/// Key of the CPU time of the profiler's process.
pub(crate) const COST_PROCESS: &str = "own CPU time, profiler";

/// The account, one fact a line, the same facts in the same order every time.
pub fn lines(profile: &Profile) -> Vec<String> {
    let account = &profile.account;
    let mut lines = Vec::new();
    if account.is_known() {
        lines.push(format!("{TAKEN}: {}", samples(account.taken)));
    }
    let shown = if profile.meta.event.is_time() {
        account.shown
    } else {
        profile.total()
    };
    lines.push(format!("{SHOWN}: {}", samples(shown)));
    lines.extend(lost(account));
    lines.extend(stacks(account, shown));
    lines.extend(gil(profile));
    lines.extend(times_of_threads(account));
    lines.extend(
        account
            .notes
            .iter()
            .map(|(note, count)| format!("{NOTE}, {note}: {}", times(*count))),
    );
    lines.extend(cost(account));
    lines
}

/// How much of the time of Python threads their interpreter's lock was held.
fn gil(profile: &Profile) -> Option<String> {
    let sum = |gil| {
        let mut samples = profile.samples.iter();
        samples
            .by_ref()
            .filter(|sample| sample.gil == gil)
            .map(|sample| sample.count)
            .sum::<u64>()
    };
    let (held, free) = (sum(Gil::Held), sum(Gil::Free));
    let known = held + free;
    (known > 0).then(|| format!("{GIL}: {} of Python threads", percent(held, known)))
}

/// The exact time of all threads together, by what they did.
fn times_of_threads(account: &Account) -> impl Iterator<Item = String> {
    account.threads.iter().map(|(part, time)| {
        let (text, time) = (part.text(), exact_seconds(*time));
        format!("{THREADS}, {text}: {time}")
    })
}

fn lost(account: &Account) -> Vec<String> {
    if !account.is_known() {
        return vec![format!(
            "{LOST}: not known, the recording carries no account"
        )];
    }
    let causes = account.lost.iter().filter(|(_, count)| **count > 0);
    let by_cause =
        causes.map(|(cause, count)| format!("{LOST}, {}: {}", cause.text(), samples(*count)));
    std::iter::once(format!("{LOST}: {}", samples(account.lost_total())))
        .chain(by_cause)
        .collect()
}

fn stacks(account: &Account, shown: u64) -> Vec<String> {
    let known: u64 = account.stacks.values().sum();
    if known == 0 {
        return Vec::new();
    }
    let complete = account.complete();
    let mut lines = group(
        account,
        COMPLETE,
        StopReason::is_complete,
        (complete, known),
    );
    lines.extend(group(
        account,
        CUT,
        |reason| !reason.is_complete(),
        (known - complete, known),
    ));
    if known < shown {
        lines.push(format!(
            "stacks whose end is not known: {}",
            samples(shown - known)
        ));
    }
    lines
}

/// The sum of one kind of ends with its share, then each reason of that kind.
fn group(
    account: &Account,
    key: &str,
    belongs: impl Fn(StopReason) -> bool,
    (part, whole): (u64, u64),
) -> Vec<String> {
    let mut lines = vec![format!(
        "{key}: {}, {}",
        samples(part),
        percent(part, whole)
    )];
    for (reason, count) in &account.stacks {
        if *count > 0 && belongs(*reason) {
            lines.push(format!("{key}, {}: {}", reason.text(), samples(*count)));
        }
    }
    lines
}

fn cost(account: &Account) -> Vec<String> {
    if account.cost.bpf.is_zero() && account.cost.process.is_zero() {
        return Vec::new();
    }
    vec![
        format!("{COST_BPF}: {}", exact_seconds(account.cost.bpf)),
        format!("{COST_PROCESS}: {}", exact_seconds(account.cost.process)),
    ]
}

fn times(count: u64) -> String {
    format!(
        "{} time{}",
        super::figures::grouped(count),
        if count == 1 { "" } else { "s" }
    )
}

#[cfg(test)]
mod tests {
    use super::{Profile, lines};
    use crate::output::example;

    /// Every fact has its line, and the figures are those of the account.
    #[test]
    fn account_says_everything_it_knows() {
        assert_eq!(
            lines(&example::profile()),
            [
                "taken: 104 samples",
                "shown: 100 samples",
                "lost: 4 samples",
                "lost, ring buffer full: 3 samples",
                "lost, unexplained: 1 sample",
                "complete stacks: 90 samples, 90.0 %",
                "complete stacks, end of the frame pointer chain: 90 samples",
                "cut stacks: 10 samples, 10.0 %",
                "cut stacks, no unwind table and no frame pointer: 10 samples",
                "time of threads, followed: 2.500000 s",
                "note, kernel stack not readable: 2 times",
                "own CPU time, BPF programs: 0.012000 s",
                "own CPU time, profiler: 0.431000 s",
            ]
        );
    }

    /// A profile without an account says so instead of claiming that nothing was lost.
    #[test]
    fn unknown_loss_is_called_unknown() {
        assert_eq!(
            lines(&Profile::default()),
            [
                "shown: 0 samples",
                "lost: not known, the recording carries no account"
            ]
        );
    }

    /// No line ends in a digit: readers of folded stacks would take it for a count.
    #[test]
    fn lines_end_in_words() {
        for line in lines(&example::profile()) {
            assert!(
                !line.ends_with(|last: char| last.is_ascii_digit()),
                "{line}"
            );
        }
    }
}
