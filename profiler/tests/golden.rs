//! The gallery as a test: every `flamegraphs/NAME.folded` is read, drawn and compared with
//! `NAME.svg`. `PROFILER_BLESS=1` writes the pictures anew instead; look at them before committing.

#![expect(
    clippy::expect_used,
    reason = "a test stops where its ground gives way"
)]

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use profiler::{
    output::{self, Format, Options, Threads},
    report,
};

fn gallery() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../flamegraphs")
}

/// Files of the gallery with this suffix, in order.
fn files(suffix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(gallery()).expect("the gallery is there");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == suffix)
    });
    files.sort();
    files
}

fn draw(folded: &Path) -> Vec<u8> {
    let text = fs::read(folded).expect("the stacks can be read");
    let has_threads = String::from_utf8_lossy(&text).contains("\n# frames: process, thread");
    let threads = if has_threads {
        Threads::Split
    } else {
        Threads::Merge
    };
    let profile = report::read(&text).expect("they are folded stacks");
    let notes = &profile.account.notes;
    assert!(
        notes.keys().all(|note| !note.contains("file")),
        "{}: {notes:?}",
        folded.display()
    );
    let options = Options {
        threads,
        ..Options::default()
    };
    output::render(&profile, Format::Svg, &options).expect("they can be drawn")
}

/// Every picture of the gallery is what its stacks give today.
#[test]
fn pictures_are_drawn_from_their_stacks() {
    let folded = files("folded");
    assert!(
        folded.len() >= 4,
        "the gallery has lost pictures: {folded:?}"
    );
    let bless = env::var_os("PROFILER_BLESS").is_some_and(|value| value == "1");
    let mut different = Vec::new();
    for stacks in folded {
        let golden = stacks.with_extension("svg");
        let actual = draw(&stacks);
        if bless {
            fs::write(&golden, &actual).expect("the picture can be written");
        } else if fs::read(&golden).ok().as_ref() != Some(&actual) {
            let name = golden.file_name().expect("it has a name");
            let left = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
            fs::write(&left, &actual).expect("the picture can be left behind");
            different.push(format!(
                "{} differs, now {}",
                golden.display(),
                left.display()
            ));
        }
    }
    assert!(
        different.is_empty(),
        "{}\nPROFILER_BLESS=1 accepts",
        different.join("\n")
    );
}

/// Stacks that the profiler reads from the gallery it writes the same, account included.
#[test]
fn stacks_of_the_gallery_are_in_normal_form() {
    for path in files("folded") {
        let text = fs::read(&path).expect("the stacks can be read");
        let has_threads = String::from_utf8_lossy(&text).contains("\n# frames: process, thread");
        let threads = if has_threads {
            Threads::Split
        } else {
            Threads::Merge
        };
        let profile = report::read(&text).expect("they are folded stacks");
        let options = Options {
            threads,
            ..Options::default()
        };
        let again =
            output::render(&profile, Format::Folded, &options).expect("they can be written");
        assert_eq!(
            String::from_utf8_lossy(&again),
            String::from_utf8_lossy(&text),
            "{}",
            path.display()
        );
    }
}

/// Every picture has its stacks and its line in the gallery's page.
#[test]
fn every_picture_is_explained() {
    let page = fs::read_to_string(gallery().join("README.md")).expect("the page is there");
    for picture in files("svg") {
        assert!(
            picture.with_extension("folded").exists(),
            "{} has no stacks",
            picture.display()
        );
        let name = picture
            .file_name()
            .expect("it has a name")
            .to_string_lossy()
            .into_owned();
        assert!(
            page.contains(&format!("({name})")),
            "{name} is not in README.md"
        );
    }
}
