//! Leaves out of a statement's beginning, while the rest of it still comes, what its normal form leaves out: so that
//! a list of any length needs no memory. The normal form of what is left and the rest is that of the whole text.

use std::ops::Range;

use super::{
    Strings,
    clauses::Clauses,
    lexer::{Kind, Lexer, MARK, Token},
    lists::Lists,
};

/// Literals up to this length, in bytes, stay as they are.
const LITERAL_KEPT: usize = 16;

/// The text without further elements of lists and without the inside of long literals; `None` where it does not become
/// shorter. The text must be the same in every encoding. Its last token may be incomplete, so it stays.
pub(crate) fn shortened(text: &[u8]) -> Option<Vec<u8>> {
    let mut tokens: Vec<Token> = Lexer::new(text, Strings::Unknown).collect();
    let last = tokens.pop()?;
    let mut omitted = omitted(&tokens, text).into_iter().peekable();
    let mut out = Vec::with_capacity(text.len() / 2);
    let (mut index, mut copied) = (0, 0);
    while let Some(token) = tokens.get(index) {
        if let Some(range) = omitted.next_if(|range| range.start == index) {
            // The mark that may stand here already is among what is left out.
            let before = index.checked_sub(1).and_then(|before| tokens.get(before));
            let end = before.map_or(copied, |before| before.end).max(copied);
            out.extend_from_slice(text.get(copied..end)?);
            out.extend_from_slice(b" ");
            out.extend_from_slice(MARK.as_bytes());
            index = range.end;
            copied = tokens.get(index).map_or(last.begin, |next| next.begin);
            continue;
        }
        let next = tokens.get(index + 1).unwrap_or(&last);
        if let Some(inside) = inside_of_literal(token, next, text) {
            out.extend_from_slice(text.get(copied..inside.start)?);
            copied = inside.end;
        }
        index += 1;
    }
    if let Some(inside) = inside_of_open(&last, text) {
        out.extend_from_slice(text.get(copied..inside.start)?);
        copied = inside.end;
    }
    out.extend_from_slice(text.get(copied..)?);
    (out.len() < text.len()).then_some(out)
}

/// The tokens that lists leave out, in their order; of a list that is still open, whole elements only.
fn omitted(tokens: &[Token], text: &[u8]) -> Vec<Range<usize>> {
    let mut lists = Lists::new(tokens, text);
    let mut clauses = Clauses::new(text);
    let mut pending: Vec<Range<usize>> = Vec::new();
    let mut found = Vec::new();
    let mut index = 0;
    while let Some(token) = tokens.get(index) {
        if let Some(range) = pending.pop_if(|range| range.start == index) {
            index = range.end;
            let end = if range.end == tokens.len() {
                last_element(tokens, text, &range)
            } else {
                range.end
            };
            if range.start < end {
                found.push(range.start..end);
            }
            continue;
        }
        clauses.meaning(token, tokens.get(index + 1..).unwrap_or_default());
        if token.kind == Kind::Word && clauses.may_have_lists() {
            pending.extend(lists.further(index));
        }
        index += 1;
    }
    found
}

/// Where the last element of a list begins: with its comma. What is in front of it is whole.
fn last_element(tokens: &[Token], text: &[u8], range: &Range<usize>) -> usize {
    let mut depth = 0_i64;
    let mut begin = range.start;
    for index in range.clone() {
        let Some(token) = tokens.get(index) else {
            break;
        };
        match token.of(text) {
            b"(" | b"[" => depth += 1,
            b")" | b"]" => depth -= 1,
            b"," if depth == 0 => begin = index,
            _ => {}
        }
    }
    begin
}

/// What is between the quotes of a literal that is long, unless the next one would become a part of it.
fn inside_of_literal(token: &Token, next: &Token, text: &[u8]) -> Option<Range<usize>> {
    let literal = token.of(text);
    if token.kind != Kind::Literal || literal.len() <= LITERAL_KEPT {
        return None;
    }
    let quote = quote_of(literal)?;
    let is_closed = literal.ends_with(b"'") && literal.len() > quote + 1;
    let touches = next.begin == token.end && next.of(text).starts_with(b"'");
    (is_closed && !touches).then_some(token.begin + quote + 1..token.end - 1)
}

/// What is in an open literal without quotes, but for what the next byte's meaning depends on.
fn inside_of_open(last: &Token, text: &[u8]) -> Option<Range<usize>> {
    let literal = last.of(text);
    let quote = quote_of(literal).filter(|_| last.kind == Kind::Literal)?;
    let inside = literal.get(quote + 1..)?;
    let is_kept = |byte: &&u8| **byte == b'\\' || !byte.is_ascii();
    let kept = inside.iter().rev().take_while(is_kept).count();
    let is_plain = !inside.contains(&b'\'') && inside.len() > kept;
    is_plain.then_some(last.begin + quote + 1..last.end - kept)
}

/// Where the quote of a literal opens, if it has one: after a letter or two.
fn quote_of(literal: &[u8]) -> Option<usize> {
    literal.iter().take(3).position(|byte| *byte == b'\'')
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::prop, prop_assert, prop_assert_eq, proptest};

    use super::{super::Reading, Strings, shortened};
    use crate::postgres::sql::normalise;

    fn reading() -> Reading {
        Reading {
            strings: Strings::Unknown,
            ..Reading::default()
        }
    }

    fn short(text: &str) -> String {
        let short = shortened(text.as_bytes()).unwrap_or_else(|| text.as_bytes().to_vec());
        String::from_utf8(short).unwrap()
    }

    /// Elements that are whole are left out, the last one stays, and so does what is no list.
    #[test]
    fn lists_become_short() {
        for (text, expected) in [
            (
                "SELECT a IN (1, 2, 3, 4, 5, 6, 7, 8, 95",
                "SELECT a IN (1 /*, ... */, 95",
            ),
            (
                "SELECT a IN (1 /*, ... */, 2, 3, 4",
                "SELECT a IN (1 /*, ... */, 4",
            ),
            (
                "SELECT a IN (1, 2, 3, 4, 5, 6, 7) AND b",
                "SELECT a IN (1 /*, ... */) AND b",
            ),
            (
                "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'b'), (4, 'cde",
                "INSERT INTO t VALUES (1, 'a') /*, ... */, (4, '",
            ),
            (
                "SELECT f(1, 2, 3, 4), a, b, c",
                "SELECT f(1, 2, 3, 4), a, b, c",
            ),
            (
                "SELECT E'twenty bytes and more', U&'twenty bytes and more' FROM t",
                "SELECT E'', U&'' FROM t",
            ),
            ("SELECT 'no quote in it\\\\", "SELECT '\\\\"),
            (
                "SELECT 'it''s open and has one",
                "SELECT 'it''s open and has one",
            ),
        ] {
            assert_eq!(short(text), expected, "{text}");
        }
    }

    /// No literal becomes a part of the next one.
    #[test]
    fn literals_stay_apart() {
        let text = "SELECT $a$twenty bytes and more$a$'b', 'x'";
        assert_eq!(short(text), text);
    }

    fn statement() -> impl prop::strategy::Strategy<Value = String> {
        use prop::{collection::vec, sample::select, strategy::Strategy};
        let value = select(vec![
            "1",
            "-22",
            "NULL",
            "'a'",
            "'it''s'",
            "E'a\\\\b'",
            "$3",
            "'2020-01-01'::date",
            "1.5e-3",
            "'an unusually long value of text'",
            "$q$x'y$q$",
            "'é'",
        ]);
        let list = vec(value, 1..12).prop_map(|values| values.join(", "));
        let clause = (
            select(vec!["a IN (", "b = ANY (ARRAY[", "(SELECT 1) IN ("]),
            list.clone(),
        )
            .prop_map(|(begin, list)| {
                let end = if begin.contains('[') { "])" } else { ")" };
                format!("{begin}{list}{end}")
            });
        let select_from = vec(clause, 1..4)
            .prop_map(|clauses| format!("SELECT c FROM t WHERE {} LIMIT 7", clauses.join(" AND ")));
        let rows = vec(list, 1..8).prop_map(|rows| {
            format!(
                "INSERT INTO t VALUES ({}) ON CONFLICT DO NOTHING",
                rows.join("), (")
            )
        });
        prop::strategy::Union::new(vec![select_from.boxed(), rows.boxed()])
    }

    proptest! {
        /// Wherever the beginning of a statement is shortened, it is the same statement.
        #[test]
        fn statements_stay_themselves(text in statement(), places in prop::collection::vec(0..400_usize, 0..4)) {
            let whole = normalise(text.as_bytes(), reading());
            let mut kept: Vec<u8> = Vec::new();
            let mut places = places;
            places.sort_unstable();
            let mut rest = text.as_bytes();
            let mut before = 0;
            for place in places {
                let (piece, behind) = rest.split_at((place - before).min(rest.len()));
                (rest, before) = (behind, place);
                kept.extend_from_slice(piece);
                if let Some(short) = shortened(&kept) {
                    prop_assert!(short.len() < kept.len());
                    kept = short;
                }
            }
            kept.extend_from_slice(rest);
            let short = normalise(&kept, reading());
            prop_assert_eq!(short.fingerprint, whole.fingerprint, "{}", String::from_utf8_lossy(&kept));
        }

        /// No bytes are too odd.
        #[test]
        fn any_bytes_are_taken(text in prop::collection::vec(prop::num::u8::ANY, 0..200)) {
            if let Some(short) = shortened(&text) {
                prop_assert!(short.len() < text.len());
            }
        }
    }
}
