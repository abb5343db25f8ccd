//! What is left out of long lists: the further elements of `IN (..)` and `ARRAY[..]` when all are constants, and the
//! further rows of VALUES when they are constants or look as the first.

use std::ops::Range;

use super::{
    lexer::{Kind, Token, is_sign},
    writer::{CUT, shown},
};

/// Words that names made up for each use follow.
const BEFORE_MADE_UP: &[&str] = &["of", "pg_temp", "temp", "temporary"];

/// Finds what a statement's lists leave out.
pub(super) struct Lists<'a> {
    tokens: &'a [Token],
    text: &'a [u8],
    /// For each bracket that opens, where it is closed. Made when first needed.
    closing: Option<Vec<usize>>,
}

impl<'a> Lists<'a> {
    pub(super) fn new(tokens: &'a [Token], text: &'a [u8]) -> Self {
        Self {
            tokens,
            text,
            closing: None,
        }
    }

    /// The tokens to leave out of the list that follows the word at `index`, if one does.
    pub(super) fn further(&mut self, index: usize) -> Option<Range<usize>> {
        let word = self.tokens.get(index)?;
        let opens = |what| {
            let next = self.tokens.get(index + 1);
            next.is_some_and(|next| next.is_punctuation(self.text, what))
        };
        match word.of(self.text).len() {
            2 if opens("(") && word.is_word(self.text, "in") => self.elements(index + 1),
            5 if opens("[") && word.is_word(self.text, "array") => self.elements(index + 1),
            6 if opens("(") && word.is_word(self.text, "values") => self.rows(index + 1),
            _ => None,
        }
    }

    fn is(&self, index: usize, what: &str) -> bool {
        let token = self.tokens.get(index);
        token.is_some_and(|token| token.is_punctuation(self.text, what))
    }

    fn is_marked(&self, index: usize) -> bool {
        self.tokens.get(index).is_some_and(|token| token.is_marked)
    }

    fn elements(&self, open: usize) -> Option<Range<usize>> {
        let list = self.constants(open)?;
        Some(list.first_end?..list.close)
    }

    fn rows(&mut self, open: usize) -> Option<Range<usize>> {
        let close = self.close(open);
        let begin = close + 1;
        let mut at = begin;
        while self.is(at, ",") {
            if at + 1 == self.tokens.len() {
                at += 1;
                break;
            }
            let row_close = self.close(at + 1);
            let is_cut = row_close == self.tokens.len();
            let is_further = self.is(at + 1, "(")
                && (is_cut
                    || self.constants(at + 1).is_some()
                    || self.is_alike(open..close, at + 1..row_close));
            if !is_further {
                return None;
            }
            at = (row_close + 1).min(self.tokens.len());
        }
        (begin < at || self.is_marked(close)).then_some(begin..at)
    }

    /// Where the bracket at `open` is closed; the number of tokens, if it is not.
    fn close(&mut self, open: usize) -> usize {
        let (tokens, text) = (self.tokens, self.text);
        let closing = self.closing.get_or_insert_with(|| closing(tokens, text));
        closing.get(open).copied().unwrap_or(tokens.len())
    }

    /// The list that opens at `open`, if it is one of constants: with signs, casts, types and brackets. The last token
    /// of a list that is not closed may be anything, for it may be cut.
    fn constants(&self, open: usize) -> Option<List> {
        let (mut depth, mut is_type) = (1_usize, false);
        let mut first_end = self.is_marked(open).then_some(open + 1);
        for (index, token) in self.tokens.iter().enumerate().skip(open + 1) {
            let is_last = index + 1 == self.tokens.len();
            match (token.kind, token.of(self.text)) {
                (Kind::Punctuation, b"(" | b"[") => depth += 1,
                (Kind::Punctuation, b")" | b"]") => depth -= 1,
                (Kind::Punctuation, b"::") => is_type = true,
                (Kind::Punctuation, b".") if is_type => {}
                (Kind::Punctuation, b",") => {
                    is_type = false;
                    if depth == 1 {
                        first_end.get_or_insert(index);
                    }
                }
                // A sign is not there any more when a normal form is read.
                (Kind::Operator, b"+" | b"-") => {
                    is_type &= is_sign(self.tokens, index, self.text);
                }
                (Kind::Literal | Kind::Number | Kind::Parameter(_), _) => {}
                (Kind::Word | Kind::Quoted, _) if self.may_be_constant(index, is_type) => {}
                _ if is_last => {}
                _ => return None,
            }
            if depth == 0 {
                let close = index;
                return Some(List { first_end, close });
            }
            // Elsewhere it is in the middle of an element, where we never put it.
            let ends_element = |next: &Token| matches!(next.of(self.text), b"," | b")" | b"]");
            let next = self.tokens.get(index + 1);
            if depth == 1 && token.is_marked && next.is_none_or(ends_element) {
                first_end.get_or_insert(index + 1);
            }
        }
        let close = self.tokens.len();
        Some(List { first_end, close })
    }

    /// Whether a name in a list is of a type or one of the constants that are words.
    fn may_be_constant(&self, index: usize, is_type: bool) -> bool {
        let Some(name) = self.tokens.get(index) else {
            return false;
        };
        if name.is_among(self.text, &["null", "true", "false", "default"]) {
            return true;
        }
        // These are no types, even if a constant follows.
        if name.needs_operand(self.text) || name.is_among(self.text, &["array", "row", CUT]) {
            return false;
        }
        let next = self.tokens.get(index + 1);
        is_type || next.is_some_and(Token::is_constant)
    }

    /// Whether two rows differ in constants only, and have no names whose digits are not shown.
    fn is_alike(&self, first: Range<usize>, row: Range<usize>) -> bool {
        let first = self.tokens.get(first).unwrap_or_default();
        let row = self.tokens.get(row).unwrap_or_default();
        first.len() == row.len()
            && first.iter().zip(row).all(|(one, other)| {
                let [a, b] = [one, other].map(|token| shown(token.of(self.text)));
                match (one.kind, other.kind) {
                    (Kind::Word, Kind::Word) => {
                        a.eq_ignore_ascii_case(&b) && !one.is_among(self.text, BEFORE_MADE_UP)
                    }
                    (Kind::Punctuation, _) if a == ";" => false,
                    _ if one.is_constant() => other.is_constant(),
                    _ => one.kind == other.kind && a == b,
                }
            })
    }
}

struct List {
    /// The token after the first element, if further ones are or were there.
    first_end: Option<usize>,
    /// The bracket that closes it.
    close: usize,
}

fn closing(tokens: &[Token], text: &[u8]) -> Vec<usize> {
    let mut closing = vec![tokens.len(); tokens.len()];
    let mut open = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        match token.of(text) {
            b"(" | b"[" => open.push(index),
            b")" | b"]" => {
                if let Some(place) = open.pop().and_then(|open| closing.get_mut(open)) {
                    *place = index;
                }
            }
            _ => {}
        }
    }
    closing
}
