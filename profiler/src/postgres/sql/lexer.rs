//! Tokens of a text by the rules of the server's `src/backend/parser/scan.l`.
//!
//! Any bytes are tokens of some kind, and each byte is looked at a bounded number of times. What the server would
//! refuse is read so that more of it is a literal: `12ab` is a number, `$` before anything but a digit or a tag a
//! string.

use super::{
    Strings,
    quotes::{Backslash, comment_end, dollar_end, quoted_end, string_end},
};

/// Stands for the omitted part of a list. A comment, but one that is told of where it stands: so that a normal form
/// is its own normal form.
pub(super) const MARK: &str = "/*, ... */";

/// Keywords that an operand follows, so that `+` and `-` after them are signs.
const BEFORE_OPERAND: &str = "absolute all and any backward between by cache case cost default distinct else escape fetch \
    first for forward from having ilike in increment is like limit maxvalue minvalue move next not offset on or range \
    relative restart return returning rows select set similar some start symmetric then to using values when where with";

/// No operator of the server is longer, so that no long run of signs is looked at again and again.
const OPERATOR_MAX: usize = 63;

/// A piece of a text that is neither blank nor comment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) begin: usize,
    pub(super) end: usize,
    /// Whether [`MARK`] is among the comments after it.
    pub(super) is_marked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A keyword or an identifier without quotes.
    Word,
    /// An identifier in double quotes.
    Quoted,
    /// Such a one that the end of the text cuts.
    Unclosed,
    /// A string constant in any notation.
    Literal,
    /// A numeric constant, without its sign.
    Number,
    /// `$n`.
    Parameter(u16),
    Operator,
    /// One of `( ) [ ] , ; . : :: :=` or a character that has no meaning.
    Punctuation,
}

impl Token {
    /// Its bytes in the text that it is of.
    pub(super) fn of<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        text.get(self.begin..self.end).unwrap_or_default()
    }

    /// Whether it is this word, in any case.
    pub(super) fn is_word(&self, text: &[u8], word: &str) -> bool {
        self.kind == Kind::Word && self.of(text).eq_ignore_ascii_case(word.as_bytes())
    }

    /// Whether it is one of these words, in any case.
    pub(super) fn is_among(&self, text: &[u8], words: &[&str]) -> bool {
        words.iter().any(|word| self.is_word(text, word))
    }

    pub(super) fn is_punctuation(&self, text: &[u8], what: &str) -> bool {
        self.kind == Kind::Punctuation && self.of(text) == what.as_bytes()
    }

    /// Whether it is a keyword that an operand follows.
    pub(super) fn needs_operand(&self, text: &[u8]) -> bool {
        let mut words = BEFORE_OPERAND.split_ascii_whitespace();
        words.any(|word| self.is_word(text, word))
    }

    /// Whether it is a value or stands for one.
    pub(super) fn is_constant(&self) -> bool {
        matches!(self.kind, Kind::Literal | Kind::Number | Kind::Parameter(_))
    }
}

/// Whether a token is the sign of the number after it: after nothing, an operator, a bracket that opens, a comma or a
/// word that needs an operand.
pub(super) fn is_sign(tokens: &[Token], index: usize, text: &[u8]) -> bool {
    let is = |token: &Token| token.kind == Kind::Operator && matches!(token.of(text), b"+" | b"-");
    let is_number = |token: &Token| token.kind == Kind::Number;
    if !tokens.get(index).is_some_and(is) || !tokens.get(index + 1).is_some_and(is_number) {
        return false;
    }
    let Some(before) = index.checked_sub(1).and_then(|before| tokens.get(before)) else {
        return true;
    };
    match before.kind {
        Kind::Operator => true,
        Kind::Punctuation => !matches!(before.of(text), b")" | b"]" | b"."),
        Kind::Word => before.needs_operand(text),
        _ => false,
    }
}

/// Whether a byte can be inside an identifier. Control characters are taken for letters: the server refuses them, and
/// they are shown as letters.
pub(super) fn is_identifier(byte: u8) -> bool {
    byte == b'$' || is_letter(byte) || byte.is_ascii_digit()
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic()
        || byte == b'_'
        || byte >= 0x80
        || (byte.is_ascii_control() && !is_blank(byte))
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn is_operator(byte: u8) -> bool {
    is_free(byte) || matches!(byte, b'+' | b'-' | b'*' | b'/' | b'<' | b'>' | b'=')
}

/// Whether no operator of standard SQL has it.
fn is_free(byte: u8) -> bool {
    matches!(
        byte,
        b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%'
    )
}

/// Gives the tokens of a text one by one.
pub(super) struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    strings: Strings,
    /// Whether the last token was the word ESCAPE.
    after_escape: bool,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a [u8], strings: Strings) -> Self {
        Self {
            text,
            at: 0,
            strings,
            after_escape: false,
        }
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.get(at).copied()
    }

    fn follows(&self, what: &[u8]) -> bool {
        self.text
            .get(self.at..)
            .is_some_and(|rest| rest.starts_with(what))
    }

    /// The first byte from `at` on that is not such a one.
    fn end_of(&self, at: usize, is_part: impl Fn(u8) -> bool) -> usize {
        let rest = self.text.get(at..).unwrap_or_default();
        at + rest.iter().take_while(|byte| is_part(**byte)).count()
    }

    /// Skips blanks and comments; says whether [`MARK`] was among them.
    fn skip_blanks(&mut self) -> bool {
        let mut is_marked = false;
        loop {
            self.at = self.end_of(self.at, is_blank);
            match self.text.get(self.at..) {
                Some([b'-', b'-', ..]) => {
                    self.at = self.end_of(self.at, |byte| byte != b'\n' && byte != b'\r');
                }
                Some(rest @ [b'/', b'*', ..]) => {
                    is_marked |= rest.starts_with(MARK.as_bytes());
                    self.at = comment_end(self.text, self.at);
                }
                _ => return is_marked,
            }
        }
    }

    /// Kind and end of the token that begins here.
    fn token(&self, first: u8) -> (Kind, usize) {
        let (at, next) = (self.at, self.byte(self.at + 1));
        match first {
            b'\'' => (Kind::Literal, self.plain_string(at)),
            b'"' => quoted_end(self.text, at),
            b'$' => self.dollar(),
            b'0'..=b'9' => (Kind::Number, self.number()),
            b'.' if next.is_some_and(|next| next.is_ascii_digit()) => (Kind::Number, self.number()),
            b':' if matches!(next, Some(b':' | b'=')) => (Kind::Punctuation, at + 2),
            _ if is_operator(first) => (Kind::Operator, self.operator()),
            _ if is_letter(first) => self.word(),
            _ => (Kind::Punctuation, at + 1),
        }
    }

    /// A word, unless it is the letter before a quote.
    fn word(&self) -> (Kind, usize) {
        let end = self.end_of(self.at, is_identifier);
        if end > self.at + 1 {
            return (Kind::Word, end);
        }
        let letter = self.byte(self.at).unwrap_or(0).to_ascii_lowercase();
        match (letter, self.byte(end), self.byte(end + 1)) {
            (b'e', Some(b'\''), _) => (
                Kind::Literal,
                string_end(self.text, end, Backslash::Escapes),
            ),
            (b'b' | b'x', Some(b'\''), _) => {
                (Kind::Literal, string_end(self.text, end, Backslash::Plain))
            }
            (b'n', Some(b'\''), _) => (Kind::Literal, self.plain_string(end)),
            (b'u', Some(b'&'), Some(b'\'')) => (
                Kind::Literal,
                string_end(self.text, end + 1, Backslash::Plain),
            ),
            (b'u', Some(b'&'), Some(b'"')) => quoted_end(self.text, end + 1),
            _ => (Kind::Word, end),
        }
    }

    /// The end of a string whose backslashes depend on the session.
    fn plain_string(&self, quote: usize) -> usize {
        let backslash = match self.strings {
            Strings::Conforming => Backslash::Plain,
            Strings::Escaping => Backslash::Escapes,
            Strings::Unknown if self.after_escape && self.follows(br"'\'") => Backslash::Plain,
            Strings::Unknown => Backslash::Unknown,
        };
        string_end(self.text, quote, backslash)
    }

    /// A parameter or a dollar-quoted string. The server knows no parameter above 65535.
    fn dollar(&self) -> (Kind, usize) {
        let digits = self.end_of(self.at + 1, |byte| byte.is_ascii_digit());
        if digits == self.at + 1 {
            let tag = self.end_of(digits, |byte| byte != b'$' && is_identifier(byte));
            return (Kind::Literal, dollar_end(self.text, self.at, tag));
        }
        let number = self.text.get(self.at + 1..digits);
        let number = number.and_then(|digits| str::from_utf8(digits).ok()?.parse().ok());
        (number.map_or(Kind::Literal, Kind::Parameter), digits)
    }

    fn number(&self) -> usize {
        let is_part = |byte| byte == b'.' || (byte != b'$' && is_identifier(byte));
        let end = self.end_of(self.at, is_part);
        let number = self.text.get(self.at..end).unwrap_or_default();
        let is_hexadecimal = matches!(number, [b'0', b'x' | b'X', ..]);
        let exponent = matches!(number, [.., b'e' | b'E']) && !is_hexadecimal;
        let sign = matches!(self.byte(end), Some(b'+' | b'-'));
        let digit = self.byte(end + 1).is_some_and(|byte| byte.is_ascii_digit());
        if exponent && sign && digit {
            return self.end_of(end + 1, is_part);
        }
        end
    }

    /// An operator ends before a comment, and in `+` or `-` only if it has one of the characters that no operator of
    /// standard SQL has: so that `a=-1` is `=` and a sign.
    fn operator(&self) -> usize {
        let run = self.text.get(self.at..).unwrap_or_default();
        let run = run.get(..OPERATOR_MAX).unwrap_or(run);
        let length = run.iter().take_while(|byte| is_operator(**byte)).count();
        let run = run.get(..length).unwrap_or(run);
        let comment = run
            .windows(2)
            .position(|pair| pair == b"--" || pair == b"/*");
        let run = run.get(..comment.unwrap_or(length)).unwrap_or(run);
        if run.iter().any(|byte| is_free(*byte)) {
            return self.at + run.len();
        }
        let is_sign = |byte: &&u8| matches!(byte, b'+' | b'-');
        let signs = run.iter().rev().take_while(is_sign).count();
        self.at + (run.len() - signs).max(1)
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        if self.at == 0 {
            self.skip_blanks();
        }
        let first = self.byte(self.at)?;
        let begin = self.at;
        let (kind, end) = self.token(first);
        self.at = end;
        let token = Token {
            kind,
            begin,
            end,
            is_marked: self.skip_blanks(),
        };
        self.after_escape = token.is_word(self.text, "escape");
        Some(token)
    }
}
