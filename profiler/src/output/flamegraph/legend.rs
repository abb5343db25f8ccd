//! What the renderer's SVG lacks: a legend, the kind of each frame in words, the full notes.
//!
//! Works on the finished text of the SVG, whose frames are known by their colours. A picture that
//! is not built as expected is an error, never a picture without a legend. The notes go into a
//! `<desc>`, since an XML comment cannot hold the `--` of a command line.

use std::{collections::BTreeSet, fmt::Write};

use super::{
    caption::Caption,
    palette::{self, Rgb},
};
use crate::output::{OutputError, figures::grouped, frame_class::FrameClass};

/// Height of the strip at the bottom that holds the legend, px.
const STRIP: u64 = 22;
/// Side of a colour sample, px.
const SWATCH: u64 = 10;
/// Space between entries and at the border, px.
const GAP: u64 = 10;
/// Width of one character of the 12 px monospace, px, rounded up.
const CHARACTER: u64 = 8;

/// The renderer all but hides its search button, and cuts a long subtitle on both sides of a narrow
/// window; there it begins at the left, where the figures are.
const STYLE: &str = "\
    #search { opacity:0.7; } \
    @media (max-width:1150px) { \
    #subtitle { text-anchor:start; transform:translate(calc(10px - 50vw)); } }";

/// The finished picture. `frames` is how many there would be if none were too narrow.
pub(super) fn annotate(
    svg: &str,
    caption: &Caption,
    classes: &BTreeSet<FrameClass>,
    frames: usize,
) -> Result<Vec<u8>, OutputError> {
    let (head, body) = split(svg, "<svg id=\"frames\"")?;
    let height: u64 = between(head, " height=\"", "\"")
        .and_then(|height| height.parse().ok())
        .ok_or(OutputError::Legend("a height"))?;
    let taller = height + STRIP;
    let head = replace_once(
        head,
        &format!(" height=\"{height}\""),
        &format!(" height=\"{taller}\""),
    )?;
    let head = replace_once(&head, &format!(" {height}\""), &format!(" {taller}\""))?;
    let head = replace_once(
        &head,
        &format!(" height=\"{height}\""),
        &format!(" height=\"{taller}\""),
    )?;
    let (before, after) = split(&head, "<defs>")?;
    let (body, drawn) = name_kinds(body);
    let notes = notes(caption, frames.saturating_sub(drawn));
    let legend = legend(classes, height + STRIP / 2);
    Ok(format!("{before}{notes}\n    {after}{legend}\n    {body}").into_bytes())
}

fn notes(caption: &Caption, narrow: usize) -> String {
    let mut lines = caption.notes.clone();
    if narrow > 0 {
        let count = grouped(u64::try_from(narrow).unwrap_or(u64::MAX));
        lines.push(format!(
            "too narrow to draw: {count} frame{}",
            if narrow == 1 { "" } else { "s" }
        ));
    }
    format!(
        "<desc id=\"recording\">\n{}\n</desc>",
        escape(&lines.join("\n"))
    )
}

fn legend(classes: &BTreeSet<FrameClass>, middle: u64) -> String {
    let mut text = format!("<style type=\"text/css\">{STYLE}</style>\n    <g id=\"legend\">");
    let mut x = GAP;
    for class in FrameClass::ALL
        .into_iter()
        .filter(|class| classes.contains(class))
    {
        let Rgb { red, green, blue } = palette::base(class);
        let (swatch, baseline) = (middle - SWATCH / 2, middle + 4);
        let word = class.word();
        let word_at = x + SWATCH + 5;
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n        <rect x=\"{x}\" y=\"{swatch}\" width=\"{SWATCH}\" height=\"{SWATCH}\" \
             fill=\"rgb({red},{green},{blue})\"/><text x=\"{word_at}\" y=\"{baseline}\">{word}</text>"
        );
        x = word_at + CHARACTER * u64::try_from(word.len()).unwrap_or(0) + GAP;
    }
    text.push_str("\n    </g>");
    text
}

/// Adds the kind to each frame's hover text, and counts the frames.
fn name_kinds(body: &str) -> (String, usize) {
    let mut out = String::with_capacity(body.len() + body.len() / 16);
    let mut drawn = 0;
    for (index, part) in body.split("</title>").enumerate() {
        if index > 0 {
            // The frame's rectangle follows its title; `out` ends with the title's text.
            let class = between(part, "fill=\"rgb(", ")")
                .and_then(color)
                .and_then(palette::class_of);
            if let Some(class) = class
                && out.ends_with("%)")
            {
                out.pop();
                out.push_str(", ");
                out.push_str(class.word());
                out.push(')');
            }
            drawn += 1;
            out.push_str("</title>");
        }
        out.push_str(part);
    }
    (out, drawn)
}

fn color(text: &str) -> Option<Rgb> {
    let mut parts = text.split(',').map(|part| part.parse().ok());
    Some(Rgb {
        red: parts.next()??,
        green: parts.next()??,
        blue: parts.next()??,
    })
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(inner, _)| inner)
}

fn split<'a>(text: &'a str, at: &'static str) -> Result<(&'a str, &'a str), OutputError> {
    let place = text.find(at).ok_or(OutputError::Legend(at))?;
    Ok(text.split_at(place))
}

fn replace_once(text: &str, old: &str, new: &str) -> Result<String, OutputError> {
    if text.contains(old) {
        Ok(text.replacen(old, new, 1))
    } else {
        Err(OutputError::Legend("its size"))
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::{BTreeSet, Caption, FrameClass, OutputError, annotate, escape};
    use crate::output::example;

    fn caption() -> Caption {
        Caption::of(&example::profile())
    }

    /// A renderer that builds its SVG otherwise is noticed.
    #[test]
    fn foreign_picture_is_an_error() {
        let classes = BTreeSet::from([FrameClass::Native]);
        for svg in ["", "<svg/>", "<svg><defs><svg id=\"frames\"></svg></svg>"] {
            let refused = annotate(svg, &caption(), &classes, 1);
            assert!(matches!(refused, Err(OutputError::Legend(_))), "{svg}");
        }
    }

    /// The strip makes the picture, its view box and its background taller alike; only classes that
    /// are in the picture are in the legend; the notes hold the command line as it is.
    #[test]
    fn picture_gets_legend_and_notes() {
        let svg = "<svg height=\"50\" viewBox=\"0 0 9 50\"><defs></defs><rect height=\"50\"/>\
                   <svg id=\"frames\"></svg></svg>";
        let classes = BTreeSet::from([FrameClass::Native, FrameClass::Kernel]);
        let done = String::from_utf8(annotate(svg, &caption(), &classes, 0).unwrap()).unwrap();
        assert!(
            done.starts_with("<svg height=\"72\" viewBox=\"0 0 9 72\">"),
            "{done}"
        );
        assert!(done.contains("<rect height=\"72\"/>"), "{done}");
        assert!(
            done.contains(">native</text>") && done.contains(">kernel</text>"),
            "{done}"
        );
        assert!(!done.contains(">JIT</text>"), "{done}");
        assert!(
            done.contains("command line: \"worker --threads 2\""),
            "{done}"
        );
    }

    /// Markup in a command line stays text.
    #[test]
    fn notes_are_escaped() {
        assert_eq!(escape("<a> && b"), "&lt;a&gt; &amp;&amp; b");
    }
}
