//! What of a foreign name may be shown: names of processes, threads, files, functions, statements and users are
//! chosen by who is looked at, and end on a terminal, in a page or in a spreadsheet.
//!
//! One rule for all of them: a character that controls, is invisible or changes the direction of text is shown as
//! its escape (`\n`, `\x1b`, `\u{202e}`). A backslash stays as it is, since names of units are full of them.

use std::{
    borrow::Cow,
    fmt::{self, Write},
    path::Path,
};

use serde::Serialize;

/// Whether a character can be seen and does nothing but be seen.
///
/// Not so: control characters, marks of direction, format and zero-width characters, separators of lines and all
/// blanks but the space, what is private or not assigned, and what Unicode calls ignorable by default.
pub fn is_printable(character: char) -> bool {
    match character {
        ' '..='~' => true,
        // Controls, and what is ignorable by default though it is a letter or a mark.
        '\0'..='\u{9f}'
        | '\u{34f}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{ffa0}'
        | '\u{e0100}'..='\u{e01ef}' => false,
        _ => {
            // The standard library has the table of the other categories, for `Debug` of texts. A mark that
            // combines is escaped at the beginning only, so another letter stands there.
            let mut bytes = *b"a\0\0\0\0";
            let length = 1 + character.encode_utf8(&mut bytes[1..]).len();
            let text = std::str::from_utf8(&bytes[..length]).unwrap_or_default();
            text.escape_debug().nth(1) == Some(character)
        }
    }
}

/// A foreign text in one line.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// A path in one line.
pub fn shown(path: &Path) -> String {
    printable(&path.to_string_lossy()).into_owned()
}

/// Lines of ours with foreign words in them: their ends stay.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |character| character == '\n')
}

/// At most so many characters of a foreign text in one line.
pub fn shortened(text: &str, characters: usize) -> Cow<'_, str> {
    let (text, is_cut) = match text.char_indices().nth(characters) {
        Some((end, _)) => (&text[..end], true),
        None => (text, false),
    };
    let shown = printable(text);
    match shown.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &shown[..end]).into(),
        None if is_cut => format!("{shown}…").into(),
        None => shown,
    }
}

/// A value as JSON for people and programs, in which what is not printable is escaped.
///
/// # Errors
///
/// Of a value that JSON cannot hold.
pub(crate) fn pretty_json(value: &impl Serialize) -> serde_json::Result<String> {
    let mut text = json(serde_json::to_string_pretty(value)?);
    text.push('\n');
    Ok(text)
}

/// The same without blanks.
///
/// # Errors
///
/// Of a value that JSON cannot hold.
pub(crate) fn compact_json(value: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    Ok(json(serde_json::to_string(value)?).into_bytes())
}

/// JSON that says the same and holds nothing that is not printable: beyond ASCII there are only strings in it.
pub(crate) fn json(text: String) -> String {
    if text.chars().all(is_bare) {
        return text;
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_bare(character) {
            safe.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(safe, "\\u{unit:04x}");
        }
    }
    safe
}

/// Whether it may stand in JSON as it is; line feeds are between values only.
fn is_bare(character: char) -> bool {
    character == '\n' || is_printable(character)
}

fn escaped(text: &str, keeps: impl Fn(char) -> bool) -> Cow<'_, str> {
    let stays = |character: char| keeps(character) || is_printable(character);
    let Some(first) = text.find(|character| !stays(character)) else {
        return Cow::Borrowed(text);
    };
    let mut shown = text[..first].to_owned();
    for character in text[first..].chars() {
        if stays(character) {
            shown.push(character);
        } else {
            // Writing to a string cannot fail.
            let _ = push_escape(&mut shown, character);
        }
    }
    Cow::Owned(shown)
}

fn push_escape(text: &mut String, character: char) -> fmt::Result {
    match character {
        '\n' => text.write_str("\\n"),
        '\r' => text.write_str("\\r"),
        '\t' => text.write_str("\\t"),
        '\0'..='\x7f' => write!(text, "\\x{:02x}", u32::from(character)),
        _ => write!(text, "\\u{{{:x}}}", u32::from(character)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::{is_printable, json, lines, printable, shortened};

    /// What a target may call itself: a title for the terminal, a formula, a line of its own, text that runs backwards.
    pub(crate) const HOSTILE: &str =
        "=\x1b]0;x\x07\n\u{9b}31m\u{202e}cmd|' /C'!A0\u{200b}\r\t\u{2028}";

    /// Whether a terminal shows all of it and obeys none of it.
    pub(crate) fn is_safe(text: &str) -> bool {
        text.chars()
            .all(|character| character == '\n' || is_printable(character))
    }

    /// Each kind of character that is not shown as it is.
    #[test]
    fn unprintable_characters_are_known() {
        let hidden = "\0\x07\x1b\n\r\t\x7f\u{80}\u{9b}\u{a0}\u{ad}\u{34f}\u{61c}\u{115f}\u{180e}\u{200b}\u{200c}\u{200d}\u{200e}\
                      \u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2060}\u{2066}\u{2069}\u{3164}\u{fe0f}\u{feff}\u{fffe}\u{ffff}\
                      \u{e000}\u{e0001}\u{e0100}\u{10ffff}";
        for character in hidden.chars() {
            assert!(!is_printable(character), "{character:?}");
        }
        for character in "az09 ~'\"\\;é\u{301}漢字ñ…·µ→💥�עברית".chars() {
            assert!(is_printable(character), "{character:?}");
        }
    }

    /// Escapes as other tools write them.
    #[test]
    fn escapes_are_readable() {
        assert_eq!(
            printable(HOSTILE),
            "=\\x1b]0;x\\x07\\n\\u{9b}31m\\u{202e}cmd|' /C'!A0\\u{200b}\\r\\t\\u{2028}"
        );
        assert_eq!(printable("dev-disk\\x2dby"), "dev-disk\\x2dby");
        assert_eq!(lines("a\nb\rc\n"), "a\nb\\rc\n");
        assert_eq!(shortened("abcdef", 3), "abc…");
        assert_eq!(shortened("abc", 3), "abc");
        assert_eq!(shortened("\x1b\x1b", 6), "\\x1b\\x…");
    }

    proptest! {
        /// Whatever comes in, nothing comes out that a terminal obeys, and a second turn changes nothing.
        #[test]
        fn nothing_unprintable_comes_out(text in any::<String>(), limit in 0..50_usize) {
            let shown = printable(&text);
            prop_assert!(is_safe(&shown) && !shown.contains('\n'), "{shown:?}");
            prop_assert_eq!(printable(&shown), shown.clone());
            prop_assert!(is_safe(&lines(&text)));
            let short = shortened(&text, limit);
            prop_assert!(is_safe(&short) && short.chars().count() <= limit + 1);
        }

        /// JSON is the same value afterwards.
        #[test]
        fn json_says_the_same(texts in prop::collection::vec(any::<String>(), 0..5)) {
            let plain = serde_json::to_string_pretty(&texts).unwrap();
            let safe = json(plain);
            prop_assert!(is_safe(&safe), "{safe:?}");
            prop_assert_eq!(serde_json::from_str::<Vec<String>>(&safe).unwrap(), texts);
        }
    }
}
