//! Folded stacks read back: kinds from the suffixes, description and account from the comments.
//!
//! The first frame of a line is the process; with the comment that says so, the second the thread.
//! A line that is not `frames count` is counted and skipped, and text that has more of those than
//! stacks is not taken for a recording. Addresses, modules and process ids are not in this format.

use super::{
    LONG_TEXT, MALFORMED_LINE, ReadError, SAMPLES_MAX, TEXT_MAX,
    builder::{Builder, STACK_FRAMES_MAX},
    provenance, shorter,
};
use crate::{
    output::{
        folded::{THREAD_FRAMES, is_number},
        frame_class::FrameClass,
    },
    profile::{Frame, FrameKind, Gil, Location, LocationId, Process, Profile, Thread},
};

/// Most comments that a file may have: our own account is a hundred lines or so.
const COMMENTS_MAX: usize = 1 << 16;

/// The profile in a text. `weight_max` bounds what may become of it.
pub(super) fn read(text: &str, weight_max: usize) -> Result<Profile, ReadError> {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let all = lines().filter_map(|line| line.strip_prefix("# "));
    let comments: Vec<&str> = all.take(COMMENTS_MAX + 1).collect();
    if comments.len() > COMMENTS_MAX {
        return Err(ReadError::TooMany {
            what: "comments",
            limit: COMMENTS_MAX,
        });
    }
    let has_threads = comments.contains(&THREAD_FRAMES);
    let mut builder = Builder::bounded(weight_max);
    let (mut total, mut malformed, mut understood, mut cut) = (0_u64, 0_u64, 0_u64, 0_u64);
    for line in lines().filter(|line| !line.starts_with("# ")) {
        let parsed = parse(line).filter(|(_, count)| total.saturating_add(*count) <= SAMPLES_MAX);
        let Some((stack, count)) = parsed else {
            malformed += 1;
            continue;
        };
        if !add(&mut builder, stack, count, has_threads) {
            malformed += 1;
            continue;
        }
        total += count;
        understood += 1;
        cut += u64::from(stack.split(';').any(|frame| frame.len() > TEXT_MAX));
        builder.check()?;
    }
    if understood <= malformed {
        return Err(ReadError::NotARecording);
    }
    let mut profile = builder.finish();
    provenance::restore(&mut profile, &comments);
    for (note, count) in [(MALFORMED_LINE, malformed), (LONG_TEXT, cut)] {
        if count > 0 {
            *profile.account.notes.entry(note.into()).or_default() += count;
        }
    }
    Ok(profile)
}

/// A line's frames and count. A second number is the mark of a differential file, not of a stack.
fn parse(line: &str) -> Option<(&str, u64)> {
    let (stack, count) = line.rsplit_once(' ')?;
    let stack = stack.trim_end();
    let count = count.parse().ok().filter(|count| *count > 0)?;
    let second = stack
        .rsplit_once(' ')
        .is_some_and(|(_, word)| is_number(word));
    (!stack.is_empty() && !second).then_some((stack, count))
}

/// Takes a stack in; not so where it has more frames than any.
fn add(builder: &mut Builder, stack: &str, count: u64, has_threads: bool) -> bool {
    if stack.bytes().filter(|byte| *byte == b';').count() > STACK_FRAMES_MAX {
        return false;
    }
    let mut frames = stack.split(';').map(shorter);
    let comm = frames.next().unwrap_or_default().to_owned();
    let name = if has_threads {
        frames.next().unwrap_or_default().to_owned()
    } else {
        comm.clone()
    };
    let process = builder.process(Process {
        comm,
        ..Process::default()
    });
    let thread = builder.thread(Thread {
        process,
        tid: 0,
        name,
    });
    let mut locations: Vec<LocationId> = locations(frames)
        .into_iter()
        .map(|location| builder.location(location))
        .collect();
    locations.reverse();
    if !builder.fits(&locations) {
        return false;
    }
    let stack = builder.stack(locations);
    builder.sample(thread, stack, (Gil::Unknown, count));
    true
}

/// Frames from the root as locations: inlined functions join the function they were inlined into.
fn locations<'a>(frames: impl Iterator<Item = &'a str>) -> Vec<Location> {
    let mut locations: Vec<Location> = Vec::new();
    for text in frames {
        let (class, name) = FrameClass::of_text(text);
        let (kind, name) = match class {
            FrameClass::Kernel => (FrameKind::Kernel, name),
            FrameClass::Jit => (FrameKind::Jit, name),
            FrameClass::Python => (FrameKind::Python, name),
            FrameClass::Marker => (FrameKind::Marker, name),
            FrameClass::Native | FrameClass::Process => (FrameKind::Native, name),
            FrameClass::Inlined => match locations.last_mut() {
                Some(outer) if outer.kind == FrameKind::Native => {
                    outer.frames.push(frame(name));
                    continue;
                }
                // Inlined into nothing that is there: kept as it is, suffix and all.
                _ => (FrameKind::Native, text),
            },
        };
        locations.push(Location {
            kind,
            module: None,
            address: 0,
            frames: vec![frame(name)],
        });
    }
    for location in &mut locations {
        location.frames.reverse();
    }
    locations
}

fn frame(name: &str) -> Frame {
    Frame {
        name: name.to_owned(),
        ..Frame::default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, prop, prop_assert_eq, proptest};

    use super::MALFORMED_LINE;
    use crate::{
        output::{Format, Options, Threads, example, folded, render},
        profile::{FrameKind, Profile},
    };

    fn read(text: &str) -> Option<Profile> {
        super::read(text, usize::MAX).ok()
    }

    fn written(profile: &Profile, options: Options) -> String {
        String::from_utf8(render(profile, Format::Folded, &options).unwrap()).unwrap()
    }

    /// Kinds and inlined functions come back from the suffixes.
    #[test]
    fn kinds_come_back() {
        let profile = read("p;main;push_[i];grow_[i];sys_[k];[cut];f_[j] 3\n").unwrap();
        let kinds: Vec<_> = profile
            .locations
            .iter()
            .map(|location| location.kind)
            .collect();
        assert_eq!(
            kinds,
            [
                FrameKind::Native,
                FrameKind::Kernel,
                FrameKind::Marker,
                FrameKind::Jit
            ]
        );
        let names: Vec<_> = profile.locations[0]
            .frames
            .iter()
            .map(|frame| frame.name.as_str())
            .collect();
        assert_eq!(names, ["grow", "push", "main"]);
        assert_eq!(profile.total(), 3);
    }

    /// A file that the profiler wrote is written again as it was, comments and all.
    #[test]
    fn own_file_comes_back_whole() {
        for threads in [Threads::Merge, Threads::Split] {
            let options = Options {
                threads,
                ..Options::default()
            };
            let text = written(&example::profile(), options);
            assert_eq!(written(&read(&text).unwrap(), options), text);
        }
    }

    /// Lines that are no stacks are counted, not dropped silently.
    #[test]
    fn malformed_lines_are_counted() {
        let text = "p;a 1\nnot a stack\np;b 2\np;c -1\np;d 3 4\np;e 5\np;f 6\n";
        let profile = read(text).unwrap();
        assert_eq!(profile.total(), 14);
        assert_eq!(profile.account.notes[MALFORMED_LINE], 3);
    }

    /// Counts that would not add up are malformed.
    #[test]
    fn counts_cannot_overflow() {
        let profile =
            read(&format!("p;a {0}\np;b 1\np;c 1\np;d {0}\n", 1_u64 << 53)).unwrap_or_default();
        assert_eq!(profile.total(), 0, "one line in four");
        let profile = read(&format!("p;b 1\np;c 1\np;d {}\n", u64::MAX)).unwrap();
        assert_eq!(
            (profile.total(), profile.account.notes[MALFORMED_LINE]),
            (2, 1)
        );
    }

    fn stacks() -> impl Strategy<Value = Vec<(Vec<String>, u64)>> {
        let frame = "([a-z: <>#]|\\PC){0,6}(_\\[[kij]\\]|)";
        let frame = prop::strategy::Union::new([frame.boxed(), "\\[[a-z ]{1,4}\\]".boxed()]);
        prop::collection::vec((prop::collection::vec(frame, 1..6), 1..1000_u64), 1..8)
    }

    proptest! {
        /// Whatever frames a file names, reading and writing settles after one turn: the second
        /// turn changes nothing, and no sample is lost on the way.
        #[test]
        fn folded_lines_round_trip(stacks in stacks()) {
            let lines = stacks.iter().map(|(frames, count)| format!("{} {count}", frames.join(";")));
            let text = lines.collect::<Vec<_>>().join("\n");
            let Some(profile) = read(&text) else { return Ok(()) };
            let first = folded::lines(&profile, &Options::default());
            let again = read(&(first.join("\n") + "\n")).unwrap();
            prop_assert_eq!(&folded::lines(&again, &Options::default()), &first);
            prop_assert_eq!(again.total(), profile.total());
        }
    }
}
