//! What stands above a flamegraph, and the full account that it carries inside.
//!
//! The subtitle is one line that fits the picture, so the command line is shortened in it; the
//! notes hold everything untrimmed.

use crate::{
    output::{
        figures::{amount, grouped, percent, seconds},
        provenance,
    },
    printable::printable,
    profile::{Event, Profile},
};

/// Longest title, in characters: what fits the width in its larger type.
const TITLE_MAX: usize = 90;

/// Longest subtitle, in characters: what fits a picture 1,200 px wide in 12 px monospace.
const SUBTITLE_MAX: usize = 156;

/// Fewest characters of a command line that are worth showing.
const COMMAND_MIN: usize = 12;

/// Texts of one picture.
#[derive(Clone, Debug)]
pub(super) struct Caption {
    /// First line.
    pub(super) title: String,
    /// Second line: how, how long, how much, how complete, which command.
    pub(super) subtitle: String,
    /// What a count counts.
    pub(super) unit: &'static str,
    /// Everything that is known of the recording, one fact a line.
    pub(super) notes: Vec<String>,
}

impl Caption {
    /// The texts for a profile.
    pub(super) fn of(profile: &Profile) -> Self {
        let title = printable(&profile.meta.title);
        let title = if title.is_empty() {
            default_title(profile.meta.event).to_owned()
        } else {
            title.into_owned()
        };
        let subtitle = subtitle(profile, &title);
        Self {
            title: shorten(&title, TITLE_MAX),
            subtitle,
            unit: if profile.meta.event.is_time() {
                "µs"
            } else {
                "samples"
            },
            notes: provenance::lines(profile),
        }
    }
}

fn default_title(event: Event) -> &'static str {
    match event {
        Event::CpuClock | Event::Cycles => "CPU profile",
        Event::OffCpu => "Off-CPU profile",
        Event::Wall => "Wall-clock profile",
        Event::Syscalls => "Time in system calls",
    }
}

fn subtitle(profile: &Profile, title: &str) -> String {
    let meta = &profile.meta;
    let account = &profile.account;
    let mut facts = Vec::new();
    facts.extend(processes(profile, title));
    if meta.event.is_time() {
        facts.push(meta.event.name().to_owned());
    } else if meta.frequency_hz > 0 {
        facts.push(format!("{} Hz {}", meta.frequency_hz, meta.event.name()));
    }
    if !meta.duration.is_zero() {
        facts.push(seconds(meta.duration));
    }
    facts.push(amount(profile));
    facts.push(if account.is_known() {
        format!("{} lost", grouped(account.lost_total()))
    } else {
        "loss not recorded".to_owned()
    });
    let known: u64 = account.stacks.values().sum();
    if known > 0 {
        facts.push(format!(
            "{} complete stacks",
            percent(account.complete(), known)
        ));
    }
    let line = facts.join(" · ");
    let left = SUBTITLE_MAX.saturating_sub(line.chars().count() + 3);
    if meta.command_line.is_empty() || left < COMMAND_MIN {
        return line;
    }
    format!("{line} · {}", shorten(&printable(&meta.command_line), left))
}

/// Which processes, unless the title says it.
fn processes(profile: &Profile, title: &str) -> Option<String> {
    match profile.processes.as_slice() {
        [process] if process.pid > 0 && !title.contains(&process.pid.to_string()) => {
            Some(format!("pid {}", process.pid))
        }
        [] | [_] => None,
        several => Some(format!("{} processes", several.len())),
    }
}

fn shorten(text: &str, limit: usize) -> String {
    if text.chars().count() <= limit {
        return text.to_owned();
    }
    let kept: String = text.chars().take(limit.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::{Caption, SUBTITLE_MAX};
    use crate::{output::example, profile::Profile};

    /// All facts in one line.
    #[test]
    fn subtitle_says_how_much_and_how_complete() {
        let caption = Caption::of(&example::profile());
        assert_eq!(caption.title, "worker (pid 4711)");
        assert_eq!(
            caption.subtitle,
            "99 Hz cpu-clock · 1.0 s · 100 samples · 4 lost · 90.0 % complete stacks · worker --threads 2"
        );
    }

    /// A long command line is cut in the subtitle and whole in the notes.
    #[test]
    fn long_command_line_is_cut_only_above() {
        let mut profile = example::profile();
        profile.meta.command_line = format!("worker {}", "--option ".repeat(100));
        let caption = Caption::of(&profile);
        assert!(caption.subtitle.chars().count() <= SUBTITLE_MAX);
        assert!(caption.subtitle.ends_with('…'), "{}", caption.subtitle);
        assert!(
            caption
                .notes
                .iter()
                .any(|line| line.contains(profile.meta.command_line.as_str()))
        );
    }

    /// A title that does not say the process leaves it to the subtitle.
    #[test]
    fn pid_is_named_once() {
        let mut profile = example::profile();
        profile.meta.title = "worker".to_owned();
        assert!(Caption::of(&profile).subtitle.starts_with("pid 4711 · "));
    }

    /// Nothing is claimed that is not known.
    #[test]
    fn unknown_recording_claims_nothing() {
        let caption = Caption::of(&Profile::default());
        assert_eq!(caption.title, "CPU profile");
        assert_eq!(caption.subtitle, "0 samples · loss not recorded");
    }
}
