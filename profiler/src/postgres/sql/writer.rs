//! Writes a normal form token by token: what is shown and what counts for the fingerprint, side by side.
//!
//! Between two tokens is one blank if there was a blank or a comment, or if both would be read as one word; none
//! inside a bracket's ends and before a comma. What would be read differently the second time is never written.

use std::{borrow::Cow, ops::Range};

use super::{
    Fingerprint,
    clauses::Meaning,
    fingerprint::Fingerprinter,
    lexer::{Kind, MARK, Token, is_identifier},
};

/// Ends the normal form of a cut text.
pub(super) const CUT: &str = "…";

/// Writes tokens as a normal form.
pub(super) struct Writer<'a> {
    text: &'a [u8],
    out: String,
    fingerprinter: Fingerprinter,
    /// Number of the last literal, or the highest parameter of the text.
    last_parameter: u32,
    /// Where the last token ended in the text; nothing before the first.
    last_end: Option<usize>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(tokens: &[Token], text: &'a [u8]) -> Self {
        let parameters = tokens.iter().filter_map(|token| match token.kind {
            Kind::Parameter(number) => Some(u32::from(number)),
            _ => None,
        });
        Self {
            text,
            out: String::with_capacity(text.len().min(1024) + 8),
            fingerprinter: Fingerprinter::default(),
            last_parameter: parameters.max().unwrap_or(0),
            last_end: None,
        }
    }

    pub(super) fn token(&mut self, token: &Token, meaning: Meaning) {
        let text = token.of(self.text);
        match (token.kind, meaning) {
            (Kind::Literal | Kind::Number, _) | (_, Meaning::Value) => {
                self.literal(token.begin, token.end);
            }
            (Kind::Parameter(number), _) => {
                self.separate(token.begin..token.end, b'$');
                self.parameter(u32::from(number));
            }
            (kind, meaning) => {
                self.separate(
                    token.begin..token.end,
                    text.first().copied().unwrap_or(b' '),
                );
                let begin = self.out.len();
                self.out.push_str(&shown(text));
                if kind == Kind::Unclosed {
                    self.out.push('"');
                }
                if matches!(meaning, Meaning::MadeUp | Meaning::OneOfMany) {
                    without_numbers(&mut self.out, begin, meaning);
                }
                let shown = self.out.get(begin..).unwrap_or_default();
                match kind {
                    Kind::Word => self.fingerprinter.word(shown),
                    _ => self.fingerprinter.token(shown),
                }
            }
        }
    }

    /// Writes a parameter in place of what is in this part of the text.
    pub(super) fn literal(&mut self, begin: usize, end: usize) {
        self.separate(begin..end, b'$');
        self.last_parameter = self.last_parameter.saturating_add(1);
        self.parameter(self.last_parameter);
    }

    fn parameter(&mut self, number: u32) {
        self.out.push('$');
        self.out.push_str(&number.to_string());
        self.fingerprinter.token("$");
    }

    /// Says that further elements are left out.
    pub(super) fn mark(&mut self) {
        self.out.push(' ');
        self.out.push_str(MARK);
        self.last_end = Some(0);
    }

    /// Says that the text is cut.
    pub(super) fn cut(&mut self) {
        if !self.out.is_empty() {
            self.out.push(' ');
        }
        self.out.push_str(CUT);
        self.fingerprinter.token(CUT);
    }

    /// The normal form.
    pub(super) fn finish(self) -> (String, Fingerprint) {
        (self.out, self.fingerprinter.finish())
    }

    /// A blank before a token if there was one, or if both would become one word.
    fn separate(&mut self, token: Range<usize>, first: u8) {
        let last = self.out.bytes().next_back();
        let was_apart = self.last_end.is_some_and(|end| end < token.start);
        self.last_end = Some(token.end);
        let is_inside =
            matches!(last, None | Some(b'(' | b'[')) || matches!(first, b')' | b']' | b',' | b';');
        let would_join = last.is_some_and(is_identifier) && is_identifier(first);
        if (was_apart && !is_inside) || would_join {
            self.out.push(' ');
        }
    }
}

/// A text without control characters and broken UTF-8.
pub(super) fn shown(bytes: &[u8]) -> Cow<'_, str> {
    let is_plain = |byte: &u8| matches!(byte, 0x20..0x7f);
    let plain = str::from_utf8(bytes).ok();
    if let Some(plain) = plain.filter(|_| bytes.iter().all(is_plain)) {
        return Cow::Borrowed(plain);
    }
    let text = String::from_utf8_lossy(bytes);
    let shown = text.chars().map(|char| match u32::from(char) {
        code @ 0..0x20 => char::from_u32(0x2400 + code).unwrap_or(char::REPLACEMENT_CHARACTER),
        0x7f => '\u{2421}',
        0x80..0xa0 => char::REPLACEMENT_CHARACTER,
        _ => char,
    });
    shown.collect()
}

/// Fewest hexadecimal digits that are a number, with a digit among them.
const HEX_MIN: usize = 6;
/// Digits of the shorter parts of a UUID.
const UUID_PART: usize = 4;

/// Most hexadecimal digits without a decimal one that are a counter: a longer counter rarely has none.
const LETTERS_MAX: usize = 4;

/// A name for one use with `$` for each number in it.
pub(super) fn made_up(name: &str) -> String {
    let mut made_up = name.to_owned();
    without_numbers(&mut made_up, 0, Meaning::MadeUp);
    made_up
}

/// Puts `$` for each number from `begin` on: parts of hexadecimal digits, and runs of decimal ones. A counter is short and stands
/// behind the name's beginning. Schemas have names that people read: `app_db` has no counter.
fn without_numbers(out: &mut String, begin: usize, meaning: Meaning) {
    let name = out.split_off(begin);
    let is_apart = |char: char| !char.is_ascii_alphanumeric() && char != '$';
    let (mut was_hex, mut has_begun) = (false, false);
    for part in name.split_inclusive(is_apart) {
        let (digits, apart) = match part.char_indices().next_back() {
            Some((at, last)) if is_apart(last) => part.split_at(at),
            _ => (part, ""),
        };
        let is_of_hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let has_digit = digits.bytes().any(|byte| byte.is_ascii_digit());
        let is_counter =
            meaning == Meaning::MadeUp && has_begun && (has_digit || digits.len() <= LETTERS_MAX);
        was_hex = is_of_hex
            && (is_counter
                || digits.len() >= HEX_MIN && has_digit
                || digits.len() == 8
                || digits.len() == UUID_PART && (was_hex || has_digit));
        if !was_hex {
            without_digits(out, digits);
        } else if out.len() == begin {
            // A word begins with a letter.
            out.push_str("x$");
        } else {
            out.push('$');
        }
        out.push_str(apart);
        has_begun |= !digits.is_empty();
    }
}

/// Puts `$` for each run of digits.
fn without_digits(out: &mut String, name: &str) {
    let mut is_run = false;
    for char in name.chars() {
        let is_digit = char.is_ascii_digit();
        if !is_digit {
            out.push(char);
        } else if !is_run {
            out.push('$');
        }
        is_run = is_digit;
    }
}
