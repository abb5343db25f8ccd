//! Folded stacks: one line for each distinct stack, `frame;frame;leaf count`, root first, sorted.
//!
//! The first frame is the process's name; with [`Threads::Split`] the second is the thread's. The
//! flamegraph is drawn from exactly these lines. Names are made safe for the line format here (and
//! only here): `;` becomes `:`, what is not printable is escaped, a name that ends in a lone number gets `_`
//! before it, since a reader would take the number for a second count. A file ends with `# `
//! comments that describe the recording; common readers skip them.

use std::collections::BTreeMap;

use super::{Lines, Options, Threads, frame_class::FrameClass, provenance};
use crate::{
    printable::printable,
    profile::{Frame, Location, Profile},
};

/// Name of a frame that has none.
const UNNAMED: &str = "[unnamed]";

/// Comment that says that the second frame of every stack is a thread.
pub(crate) const THREAD_FRAMES: &str = "frames: process, thread, then the stack from its root";

/// The stacks as lines, merged and in order.
pub fn lines(profile: &Profile, options: &Options) -> Vec<String> {
    let names: Vec<String> = profile
        .locations
        .iter()
        .map(|location| location_text(location, options.lines))
        .collect();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for sample in &profile.samples {
        let mut text = process_text(&profile.process_of(sample.thread).comm);
        if options.threads == Threads::Split {
            text.push(';');
            text.push_str(&safe_name(&profile.thread(sample.thread).name));
        }
        for id in profile.stacks[sample.stack.index()].locations.iter().rev() {
            text.push(';');
            text.push_str(&names[id.index()]);
        }
        *counts.entry(text).or_default() += sample.count;
    }
    counts.retain(|_, count| *count > 0);
    let mut lines: Vec<String> = counts
        .into_iter()
        .map(|(text, count)| format!("{text} {count}"))
        .collect();
    lines.sort_unstable();
    lines
}

/// The lines and the closing comments, as a file.
pub(super) fn render(profile: &Profile, options: Options) -> Vec<u8> {
    let mut text = String::new();
    for line in lines(profile, &options) {
        text.push_str(&line);
        text.push('\n');
    }
    let layout = (options.threads == Threads::Split).then(|| THREAD_FRAMES.to_owned());
    for comment in layout.into_iter().chain(provenance::lines(profile)) {
        text.push_str("# ");
        text.push_str(&comment);
        text.push('\n');
    }
    text.into_bytes()
}

/// A location's functions, outermost first.
fn location_text(location: &Location, lines: Lines) -> String {
    let (outermost, inlined) = FrameClass::of_kind(location.kind);
    let last = location.frames.len().saturating_sub(1);
    let frames = location
        .frames
        .iter()
        .enumerate()
        .rev()
        .map(|(index, frame)| {
            let class = if index == last { outermost } else { inlined };
            if class == FrameClass::Python {
                return class.mark(&safe_name(&python_text(frame, lines)));
            }
            class.mark(&safe_name(&frame.name))
        });
    frames.collect::<Vec<_>>().join(";")
}

/// A Python function with its file and line: `module.function (file.py:12)`.
pub(crate) fn python_text(frame: &Frame, lines: Lines) -> String {
    let Some(file) = &frame.file else {
        return frame.name.clone();
    };
    let file = file.rsplit('/').next().unwrap_or(file);
    let line = match lines {
        Lines::Function => frame.first_line.or(frame.line),
        Lines::Line => frame.line.or(frame.first_line),
    };
    match line {
        Some(line) => format!("{} ({file}:{line})", frame.name),
        None => format!("{} ({file})", frame.name),
    }
}

/// The process's name; a leading `# ` would make the line a comment.
fn process_text(comm: &str) -> String {
    let name = safe_name(comm);
    match name.strip_prefix("# ") {
        Some(rest) => format!("#_{rest}"),
        None => name,
    }
}

fn safe_name(name: &str) -> String {
    let mut name = printable(name).replace(';', ":").trim().to_owned();
    if name.is_empty() {
        UNNAMED.clone_into(&mut name);
    }
    if let Some(at) = name.rfind(' ')
        && is_number(&name[at + 1..])
    {
        name.replace_range(at..=at, "_");
    }
    name
}

/// Whether readers of folded stacks would take this word for a count.
pub(crate) fn is_number(word: &str) -> bool {
    !word.is_empty()
        && word
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::{Options, Threads, lines, safe_name};
    use crate::output::{Format, example, render};

    /// Kinds as suffixes, root first, the process first, sorted.
    #[test]
    fn stacks_are_folded_root_first_with_suffixes() {
        assert_eq!(
            lines(&example::profile(), &Options::default()),
            [
                "worker;[no frame pointer];leaf 10",
                "worker;main;Vec<u8>::push_[i];grow_[i];do_syscall_64_[k];copy_page_[k] 20",
                "worker;main;leaf 69",
                "worker;main;regexp:run_[j] 1",
            ]
        );
    }

    /// The thread's name comes second when asked for, and the file says so.
    #[test]
    fn threads_can_be_told_apart() {
        let options = Options {
            threads: Threads::Split,
            ..Options::default()
        };
        let lines = lines(&example::profile(), &options);
        assert!(
            lines.contains(&"worker;worker;main;leaf 60".to_owned()),
            "{lines:?}"
        );
        assert!(
            lines.contains(&"worker;pool_2;main;leaf 9".to_owned()),
            "{lines:?}"
        );
        let file = render(&example::profile(), Format::Folded, &options).unwrap();
        assert!(
            String::from_utf8(file)
                .unwrap()
                .contains("\n# frames: process, thread, ")
        );
    }

    /// A file ends with what the recording was and what became of its samples.
    #[test]
    fn file_ends_with_the_account() {
        let file = render(&example::profile(), Format::Folded, &Options::default()).unwrap();
        let text = String::from_utf8(file).unwrap();
        assert!(
            text.contains("# command line: \"worker --threads 2\"\n"),
            "{text}"
        );
        assert!(
            text.contains("# lost, ring buffer full: 3 samples\n"),
            "{text}"
        );
    }

    /// What the line format cannot hold is replaced.
    #[test]
    fn names_are_made_safe() {
        assert_eq!(safe_name("[u8; 8]"), "[u8: 8]");
        assert_eq!(safe_name("a\nb\u{1}"), "a\\nb\\x01");
        assert_eq!(safe_name("pool 12"), "pool_12");
        assert_eq!(safe_name("f(int, 1.5)"), "f(int, 1.5)");
        assert_eq!(safe_name("  "), "[unnamed]");
    }
}
