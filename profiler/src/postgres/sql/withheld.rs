//! What is shown of a statement while it is not known that the server took it. In a text that is no statement what was
//! meant as a value may be a word or a name in quotes to the lexer: so of such a one only keywords are shown. What a
//! server has been busy with for a while is hardly a mistake: of it all but names in quotes. Pure.

use super::{
    Strings,
    lexer::{Kind, Lexer},
    writer::CUT,
};

/// Words that tell what a statement does, and nothing of what it does that to.
const KEYWORDS: &str = "abort all alter analyze and any array as asc begin between by call case cast close cluster \
    column comment commit conflict constraint copy create cross cursor database deallocate declare default delete desc \
    discard distinct do drop else end except execute exists explain extension fetch for foreign from full function \
    grant group having if ilike in index inner insert intersect into is join key lateral left like limit listen load \
    lock materialized merge move natural not nothing notify null offset on only or order outer over owner partition \
    password policy prepare primary procedure publication reassign recursive references refresh reindex release rename \
    replace reset returning revoke right role rollback rule savepoint schema select sequence set show similar start \
    stdin stdout subscription table tablespace temp temporary then to transaction trigger truncate type union unique \
    unlisten update user using vacuum values view when where window with work";

/// The keywords of a normal form, with a mark for whatever is between them.
pub(super) fn keywords(normal: &str) -> String {
    let text = normal.as_bytes();
    let mut shown = String::new();
    let mut is_marked = false;
    for token in Lexer::new(text, Strings::Conforming) {
        let word = token.of(text).to_ascii_lowercase();
        let mut words = KEYWORDS.split_ascii_whitespace();
        let is_keyword =
            token.kind == Kind::Word && words.any(|keyword| keyword.as_bytes() == word);
        let piece = if is_keyword {
            String::from_utf8_lossy(&word).to_ascii_uppercase()
        } else if is_marked {
            continue;
        } else {
            CUT.to_owned()
        };
        is_marked = !is_keyword;
        if !shown.is_empty() {
            shown.push(' ');
        }
        shown.push_str(&piece);
    }
    shown
}

/// A normal form without the names that are in quotes.
pub(super) fn without_quoted(normal: &str) -> String {
    let text = normal.as_bytes();
    let mut shown = String::with_capacity(normal.len());
    let mut end = 0;
    for token in Lexer::new(text, Strings::Conforming) {
        if matches!(token.kind, Kind::Quoted | Kind::Unclosed) {
            shown.push_str(normal.get(end..token.begin).unwrap_or_default());
            shown.push_str("\"…\"");
            end = token.end;
        }
    }
    shown.push_str(normal.get(end..).unwrap_or_default());
    shown
}

/// Whether two texts of one length have tokens of the same kinds at the same places.
pub(crate) fn are_alike(one: &[u8], other: &[u8], strings: Strings) -> bool {
    let tokens = |text| Lexer::new(text, strings).map(|token| (token.kind, token.begin, token.end));
    tokens(one).eq(tokens(other))
}

#[cfg(test)]
mod tests {
    use super::{keywords, without_quoted};
    use crate::postgres::sql::{Reading, normalise};

    /// Only keywords are left of a text that may be a mistake, and no names in quotes of one that hardly is.
    #[test]
    fn values_that_are_words_are_left_out() {
        for (text, words, rest) in [
            (
                "SELECT * FROM t WHERE name = 'O'Brien x' AND b = 1",
                "SELECT … FROM … WHERE …",
                // The last quote begins a string of bits: `x'`.
                "SELECT * FROM t WHERE name = $1 Brien $2",
            ),
            (
                "update t set a = \"secret\" where U&\"id\" = hunter2",
                "UPDATE … SET … WHERE …",
                "update t set a = \"…\" where \"…\" = hunter2",
            ),
            ("COMMIT", "COMMIT", "COMMIT"),
            ("hunter2", "…", "hunter2"),
            ("SELECT 'open", "SELECT …", "SELECT $1"),
            ("", "", ""),
        ] {
            let normal = normalise(text.as_bytes(), Reading::default()).text;
            assert_eq!(keywords(&normal), words, "{text}");
            assert_eq!(without_quoted(&normal), rest, "{text}");
        }
    }

    /// Keywords read again are the same, with the same fingerprint.
    #[test]
    fn keywords_are_final() {
        for text in [
            "SELECT 'O'Brien x'",
            "a b c",
            "INSERT INTO t VALUES (x) RETURNING",
            "x SELECT",
        ] {
            let words = keywords(text);
            let again = normalise(words.as_bytes(), Reading::default());
            assert_eq!(
                (keywords(&again.text), &again.text),
                (words.clone(), &words)
            );
        }
    }
}
