//! Where strings, quoted identifiers, dollar quotes and comments end. One that does not end takes the rest.

use super::lexer::Kind;

/// What a backslash is in a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backslash {
    /// A character like others.
    Plain,
    /// It takes the next character with it.
    Escapes,
    /// One of both.
    Unknown,
}

/// The end of the string whose quote opens at `quote`, with the strings on further lines that continue it.
pub(super) fn string_end(text: &[u8], quote: usize, backslash: Backslash) -> usize {
    let mut at = quote + 1;
    while let Some(byte) = text.get(at) {
        let next = text.get(at + 1);
        at += match (byte, next) {
            (b'\'', Some(b'\'')) => 2,
            (b'\'', _) => match continuation(text, at + 1) {
                Some(quote) => quote + 1 - at,
                None => return at + 1,
            },
            (b'\\', Some(b'\'')) if backslash == Backslash::Unknown => return text.len(),
            (b'\\', Some(b'\\')) if backslash == Backslash::Unknown => 2,
            (b'\\', _) if backslash == Backslash::Escapes => 2,
            _ => 1,
        };
    }
    text.len()
}

/// The quote that goes on with a string which ended at `at`: after blanks and line comments with a line's end first.
fn continuation(text: &[u8], at: usize) -> Option<usize> {
    let mut at = at;
    let mut lines = 0;
    loop {
        match text.get(at..)? {
            [b'\'', ..] if lines > 0 => return Some(at),
            [b'\n' | b'\r', ..] => lines += 1,
            [b' ' | b'\t' | 0x0b | 0x0c, ..] => {}
            [b'-', b'-', rest @ ..] => {
                let line = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
                at += 2 + line?;
                lines += 1;
            }
            _ => return None,
        }
        at += 1;
    }
}

/// Kind and end of the identifier whose quote opens at `quote`.
pub(super) fn quoted_end(text: &[u8], quote: usize) -> (Kind, usize) {
    let mut at = quote + 1;
    loop {
        match text.get(at..).unwrap_or_default() {
            [] => return (Kind::Unclosed, text.len()),
            [b'"', b'"', ..] => at += 2,
            [b'"', ..] => return (Kind::Quoted, at + 1),
            _ => at += 1,
        }
    }
}

/// The end of the dollar-quoted string that begins at `begin` and whose tag ends at `tag`; of the tag, if it is none.
pub(super) fn dollar_end(text: &[u8], begin: usize, tag: usize) -> usize {
    if text.get(tag) != Some(&b'$') {
        return tag;
    }
    let delimiter = text.get(begin..=tag).unwrap_or_default();
    let mut at = tag + 1;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let Some(dollar) = rest.iter().position(|byte| *byte == b'$') else {
            return text.len();
        };
        at += dollar;
        if text.get(at..).unwrap_or_default().starts_with(delimiter) {
            return at + delimiter.len();
        }
        at += 1;
    }
}

/// The end of the block comment that begins at `begin`, with those inside it.
pub(super) fn comment_end(text: &[u8], begin: usize) -> usize {
    let mut at = begin + 2;
    let mut depth = 1_usize;
    while depth > 0 {
        match text.get(at..).unwrap_or_default() {
            [] => return text.len(),
            [b'/', b'*', ..] => {
                depth += 1;
                at += 2;
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                at += 2;
            }
            _ => at += 1,
        }
    }
    at
}
