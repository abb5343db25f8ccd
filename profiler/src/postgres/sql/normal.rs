//! The normal form of a statement: its text without values.
//!
//! Each constant becomes `$n`, counted from the text's own highest parameter, with its sign where it is one; TRUE,
//! FALSE and NULL stay. Comments go, blanks become one. The further elements of a list become `/*, ... */`, digits in
//! made-up names `$`, and hexadecimal ones (`sp_1` is `sp_$`, which is a name of its own to the server, so that a normal form is its own
//! normal form). ` …` at the end says that the text is cut. Words stay as written, bytes that are no UTF-8 become
//! U+FFFD and control characters their pictures, so that a text is one line that no terminal acts upon.

use std::ops::Range;

use super::{
    Command, Extent, Fingerprint, Reading,
    clauses::Clauses,
    lexer::{Kind, Lexer, Token, is_sign},
    lists::Lists,
    writer::{CUT, Writer},
};

/// What is left of a statement without its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normal {
    /// With `$n` in place of values.
    pub text: String,
    /// Which statement it is.
    pub fingerprint: Fingerprint,
    /// What it does: of this text, with the names in it.
    pub(crate) command: Command,
}

/// The normal form of one statement. No part of a literal is in it, wherever the text is cut.
pub fn normalise(statement: &[u8], reading: Reading) -> Normal {
    let mut tokens: Vec<Token> = Lexer::new(statement, reading.strings).collect();
    let was_cut = trim(&mut tokens, statement);
    let extent = if was_cut { Extent::Cut } else { reading.extent };
    let command = Command::of(&tokens, statement, extent);
    let mut writer = Writer::new(&tokens, statement);
    write(&mut writer, &tokens, statement);
    if extent == Extent::Cut {
        writer.cut();
    }
    let (text, fingerprint) = writer.finish();
    Normal {
        text,
        fingerprint,
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
        let rest = tokens.get(index + 1..).unwrap_or_default();
        let meaning = clauses.meaning(token, rest);
        if token.kind == Kind::Word && clauses.may_have_lists() {
            omitted.extend(lists.further(index));
        }
        let number = tokens.get(index + 1);
        if let Some(number) = number.filter(|_| is_sign(tokens, index, text)) {
            clauses.meaning(number, rest.get(1..).unwrap_or_default());
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
