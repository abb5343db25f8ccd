//! Flamegraph: the folded lines as an SVG that zooms and searches in any browser, without network.
//!
//! This is the only file that names inferno, which lays the frames out and brings the script.
//! Colours, caption and legend are ours ([`palette`], [`caption`], [`legend`]). The picture is a
//! function of the lines and the recording's description alone, so that it can be compared with a
//! stored one byte by byte.

mod caption;
mod legend;
mod palette;

use std::collections::BTreeMap;

use inferno::flamegraph::{
    self as renderer, TextTruncateDirection,
    color::{BackgroundColor, Color, PaletteMap},
};

use self::{caption::Caption, palette::Rgb};
use super::{Options, OutputError, Threads, folded, frame_class::FrameClass};
use crate::profile::Profile;

/// Narrowest frame that is drawn, per cent of the width; what it leaves out is counted in the notes.
const MIN_WIDTH_PERCENT: f64 = 0.01;

/// The profile as an SVG.
pub(super) fn render(profile: &Profile, options: Options) -> Result<Vec<u8>, OutputError> {
    let heads = match options.threads {
        Threads::Merge => 1,
        Threads::Split => 2,
    };
    draw(
        &folded::lines(profile, &options),
        &Caption::of(profile),
        heads,
    )
}

/// Draws folded lines of which the first `heads` frames are processes and threads.
fn draw(lines: &[String], caption: &Caption, heads: usize) -> Result<Vec<u8>, OutputError> {
    if lines.is_empty() {
        return Err(OutputError::NoSamples);
    }
    let classes = classes(lines, heads);
    let mut colors = PaletteMap::default();
    for (text, class) in &classes {
        let Rgb {
            red: r,
            green: g,
            blue: b,
        } = palette::shade(*class, text);
        colors.insert(text, Color { r, g, b });
    }
    let Rgb {
        red: r,
        green: g,
        blue: b,
    } = palette::ALL_FRAME;
    colors.insert("", Color { r, g, b });
    let Rgb {
        red: r,
        green: g,
        blue: b,
    } = palette::BACKGROUND;

    let mut options = renderer::Options::default();
    options.title.clone_from(&caption.title);
    options.subtitle = Some(caption.subtitle.clone());
    options.deterministic = true;
    options.palette_map = Some(&mut colors);
    options.bgcolors = Some(BackgroundColor::Flat(Color { r, g, b }));
    options.min_width = MIN_WIDTH_PERCENT;
    options.text_truncate_direction = TextTruncateDirection::Right;
    options.pretty_xml = true;
    caption.unit.clone_into(&mut options.count_name);
    let mut svg = Vec::new();
    renderer::from_lines(&mut options, lines.iter().map(String::as_str), &mut svg)
        .map_err(OutputError::Flamegraph)?;
    let present = classes.values().copied().collect();
    legend::annotate(
        &String::from_utf8_lossy(&svg),
        caption,
        &present,
        frames(lines),
    )
}

/// Every distinct frame's class. One name has one colour: a process named like a function that it
/// calls is drawn as the function.
fn classes(lines: &[String], heads: usize) -> BTreeMap<&str, FrameClass> {
    let mut classes = BTreeMap::new();
    for (place, text) in lines
        .iter()
        .flat_map(|line| stack(line).split(';').enumerate())
    {
        if place < heads {
            classes.entry(text).or_insert(FrameClass::Process);
        } else {
            classes.insert(text, FrameClass::of_text(text).0);
        }
    }
    classes
}

/// Frames of the whole picture, those too narrow to draw included, and the one for everything.
fn frames(lines: &[String]) -> usize {
    let mut count = 1;
    let mut last: Vec<&str> = Vec::new();
    for line in lines {
        let stack: Vec<&str> = stack(line).split(';').collect();
        let shared = stack
            .iter()
            .zip(&last)
            .take_while(|(new, old)| new == old)
            .count();
        count += stack.len() - shared;
        last = stack;
    }
    count
}

/// A line without its count.
fn stack(line: &str) -> &str {
    line.rsplit_once(' ').map_or(line, |(stack, _)| stack)
}

#[cfg(test)]
mod tests {
    use super::{BTreeMap, Caption, FrameClass, classes, draw, folded, frames, renderer};
    use crate::{
        output::{Format, Options, OutputError, example, render},
        profile::Profile,
    };

    fn svg() -> String {
        let svg = render(&example::profile(), Format::Svg, &Options::default()).unwrap();
        String::from_utf8(svg).unwrap()
    }

    /// Hover texts of a picture, without the words for the kind of frame.
    fn hover_texts(svg: &str) -> Vec<String> {
        let titles = svg
            .split("<title>")
            .skip(1)
            .map(|rest| rest.split("</title>").next().unwrap());
        let plain = titles.map(|title| match title.rsplit_once("%, ") {
            Some((head, _)) => format!("{head}%)"),
            None => title.to_owned(),
        });
        plain.collect()
    }

    /// The picture holds the very frames and counts that inferno draws from the folded output.
    #[test]
    fn picture_is_drawn_from_the_folded_lines() {
        let lines = folded::lines(&example::profile(), &Options::default());
        let mut plain = Vec::new();
        let mut options = renderer::Options::default();
        renderer::from_lines(&mut options, lines.iter().map(String::as_str), &mut plain).unwrap();
        assert_eq!(
            hover_texts(&svg()),
            hover_texts(&String::from_utf8(plain).unwrap())
        );
    }

    /// Hover text says function, samples, share and kind; no suffix is left in sight.
    #[test]
    fn hover_text_says_function_samples_share_and_kind() {
        let svg = svg();
        for expected in [
            "<title>copy_page (20 samples, 20.00%, kernel)</title>",
            "<title>leaf (69 samples, 69.00%, native)</title>",
            "<title>grow (20 samples, 20.00%, inlined)</title>",
            "<title>regexp:run (1 samples, 1.00%, JIT)</title>",
            "<title>[no frame pointer] (10 samples, 10.00%, not code)</title>",
            "<title>worker (100 samples, 100.00%, process or thread)</title>",
            "<title>all (100 samples, 100%)</title>",
        ] {
            assert!(svg.contains(expected), "{expected} not in {svg}");
        }
        for suffix in ["_[k]", "_[i]", "_[j]"] {
            assert!(!svg.contains(suffix), "{suffix} is shown");
        }
    }

    /// Nothing is fetched: the only addresses are names of XML vocabularies and a comment.
    #[test]
    fn picture_needs_no_network() {
        let svg = svg();
        for attribute in ["href=\"http", "src=", "@import", "url(http"] {
            assert!(!svg.contains(attribute), "{attribute}");
        }
    }

    /// The same profile gives the same bytes.
    #[test]
    fn picture_is_deterministic() {
        assert_eq!(svg(), svg());
    }

    /// Nothing to draw is an error, not an empty picture.
    #[test]
    fn empty_profile_is_refused() {
        let refused = render(&Profile::default(), Format::Svg, &Options::default());
        assert!(matches!(refused, Err(OutputError::NoSamples)));
    }

    /// Frames too narrow to draw are counted in the notes.
    #[test]
    fn narrow_frames_are_counted() {
        let lines = ["p;narrow 1".to_owned(), "p;wide 1000000".to_owned()];
        assert_eq!(frames(&lines), 4);
        let svg = draw(&lines, &Caption::of(&example::profile()), 1).unwrap();
        assert!(
            String::from_utf8(svg)
                .unwrap()
                .contains("too narrow to draw: 1 frame")
        );
    }

    /// A name that is both process and function takes the function's class.
    #[test]
    fn function_wins_over_process_of_the_same_name() {
        let lines = ["main;main;f_[k] 1".to_owned()];
        let expected =
            BTreeMap::from([("main", FrameClass::Native), ("f_[k]", FrameClass::Kernel)]);
        assert_eq!(classes(&lines, 1), expected);
    }
}
