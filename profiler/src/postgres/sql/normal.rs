//! The normal form of a statement: its text without values.
//!
//! Each constant becomes `$n`, counted from the text's own highest parameter, with its sign where it is one; TRUE,
//! FALSE and NULL stay. Comments go, blanks become one. The further elements of a list become `/*, ... */`, digits in
//! made-up names `$` (`sp_1` is `sp_$`, which is a name of its own to the server, so that a normal form is its own
//! normal form). ` …` at the end says that the text is cut. Words stay as written, bytes that are no UTF-8 become
//! U+FFFD and control characters their pictures, so that a text is one line that no terminal acts upon.

use std::ops::Range;

use super::{
    Command, Extent, Fingerprint, Reading,
    clauses::{Clauses, Meaning},
    fingerprint::Fingerprinter,
    lexer::{Kind, Lexer, MARK, Token, is_identifier},
    lists::Lists,
};

/// Ends the normal form of a cut text.
const CUT: &str = "…";

/// Words after which `+` and `-` are signs, not operators.
const BEFORE_SIGN: &[&str] = &[
    "absolute",
    "all",
    "and",
    "any",
    "backward",
    "between",
    "by",
    "cache",
    "case",
    "cost",
    "default",
    "distinct",
    "else",
    "escape",
    "fetch",
    "first",
    "for",
    "forward",
    "from",
    "having",
    "ilike",
    "in",
    "increment",
    "is",
    "like",
    "limit",
    "maxvalue",
    "minvalue",
    "move",
    "next",
    "not",
    "offset",
    "on",
    "or",
    "range",
    "relative",
    "restart",
    "return",
    "returning",
    "rows",
    "select",
    "set",
    "similar",
    "some",
    "start",
    "symmetric",
    "then",
    "to",
    "using",
    "values",
    "when",
    "where",
    "with",
];

/// What is left of a statement without its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Normal {
    pub(crate) text: String,
    pub(crate) fingerprint: Fingerprint,
    /// What it does: of this text, with the names in it.
    pub(crate) command: Command,
}

/// The normal form of one statement. No part of a literal is in it, wherever the text is cut.
pub(crate) fn normalise(statement: &[u8], reading: Reading) -> Normal {
    let mut tokens: Vec<Token> = Lexer::new(statement, reading.strings).collect();
    let was_cut = trim(&mut tokens, statement);
    let extent = if was_cut { Extent::Cut } else { reading.extent };
    let command = Command::of(&tokens, statement, extent);
    let mut writer = Writer::new(&tokens, statement);
    write(&mut writer, &tokens, statement);
    if extent == Extent::Cut {
        writer.cut();
    }
    Normal {
        fingerprint: writer.fingerprinter.finish(),
        text: writer.out,
        command,
    }
}

/// Takes semicolons and the mark of a cut text from the end; says whether there was one.
fn trim(tokens: &mut Vec<Token>, text: &[u8]) -> bool {
    let mut was_cut = false;
    while let Some(last) = tokens.last() {
        let is_cut = last.is_word(text, CUT);
        if !is_cut && !last.is_punctuation(text, ";") {
            break;
        }
        was_cut |= is_cut;
        tokens.pop();
    }
    was_cut
}

fn write(writer: &mut Writer<'_>, tokens: &[Token], text: &[u8]) {
    let mut lists = Lists::new(tokens, text);
    let mut clauses = Clauses::new(text);
    // The inner ones of lists within lists are on top, and begin first.
    let mut omitted: Vec<Range<usize>> = Vec::new();
    let mut index = 0;
    while let Some(token) = tokens.get(index) {
        if let Some(range) = omitted.pop_if(|range| range.start == index) {
            writer.mark();
            index = range.end;
            continue;
        }
        let meaning = clauses.meaning(token);
        if token.kind == Kind::Word && meaning == Meaning::Itself {
            omitted.extend(lists.further(index));
        }
        let next = tokens.get(index + 1);
        let number = next.filter(|next| next.kind == Kind::Number);
        if let Some(number) = number.filter(|_| is_sign(tokens, index, text)) {
            clauses.meaning(number);
            writer.literal(token.begin, number.end);
            index += 2;
            continue;
        }
        writer.token(token, meaning);
        index += 1;
    }
    // Of a list that the end of the text cuts.
    if omitted.pop_if(|range| range.start == index).is_some() {
        writer.mark();
    }
}

/// Whether a token is the sign of the number after it: after nothing, an operator, a bracket that opens, a comma or a
/// word that needs an operand.
fn is_sign(tokens: &[Token], index: usize, text: &[u8]) -> bool {
    let is = |token: &Token| token.kind == Kind::Operator && matches!(token.of(text), b"+" | b"-");
    if !tokens.get(index).is_some_and(is) {
        return false;
    }
    let Some(before) = index.checked_sub(1).and_then(|before| tokens.get(before)) else {
        return true;
    };
    match before.kind {
        Kind::Operator => true,
        Kind::Punctuation => !matches!(before.of(text), b")" | b"]" | b"."),
        Kind::Word => before.is_among(text, BEFORE_SIGN),
        _ => false,
    }
}

/// Writes tokens as a normal form.
struct Writer<'a> {
    text: &'a [u8],
    out: String,
    fingerprinter: Fingerprinter,
    /// Number of the last literal, or the highest parameter of the text.
    last_parameter: u32,
    /// Where the last token ended in the text; nothing before the first.
    last_end: Option<usize>,
}

impl<'a> Writer<'a> {
    fn new(tokens: &[Token], text: &'a [u8]) -> Self {
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

    fn token(&mut self, token: &Token, meaning: Meaning) {
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
                push_shown(&mut self.out, text);
                if kind == Kind::Unclosed {
                    self.out.push('"');
                }
                if meaning == Meaning::MadeUp {
                    without_digits(&mut self.out, begin);
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
    fn literal(&mut self, begin: usize, end: usize) {
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
    fn mark(&mut self) {
        self.out.push(' ');
        self.out.push_str(MARK);
        self.last_end = Some(0);
    }

    fn cut(&mut self) {
        if !self.out.is_empty() {
            self.out.push(' ');
        }
        self.out.push_str(CUT);
        self.fingerprinter.token(CUT);
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

fn push_shown(out: &mut String, bytes: &[u8]) {
    let is_plain = |byte: &u8| matches!(byte, 0x20..0x7f);
    let plain = str::from_utf8(bytes).ok();
    if let Some(plain) = plain.filter(|_| bytes.iter().all(is_plain)) {
        out.push_str(plain);
        return;
    }
    let text = String::from_utf8_lossy(bytes);
    out.extend(text.chars().map(|char| match u32::from(char) {
        code @ 0..0x20 => char::from_u32(0x2400 + code).unwrap_or(char::REPLACEMENT_CHARACTER),
        0x7f => '\u{2421}',
        0x80..0xa0 => char::REPLACEMENT_CHARACTER,
        _ => char,
    }));
}

/// Puts `$` for each run of digits from `begin` on.
fn without_digits(out: &mut String, begin: usize) {
    let name = out.split_off(begin);
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
