//! The statements of a simple Query. The server answers each one that is not empty, so that their number and order are
//! what the protocol goes by; whether one is right is not asked.

use std::ops::Range;

use super::{
    Strings,
    lexer::{Kind, Lexer, Token},
};

/// Splits a simple Query's text into its statements, as psql does: a semicolon in parentheses (of CREATE RULE) or in
/// the BEGIN ATOMIC body of a function does not end one. A range has no semicolon and no comment at its ends; pieces
/// without a token are left out, as the server leaves them out. Of a cut text, only the last statement can be cut.
pub fn statements(text: &[u8], strings: Strings) -> impl Iterator<Item = Range<usize>> {
    let mut tokens = Lexer::new(text, strings);
    std::iter::from_fn(move || {
        let mut piece = Piece::default();
        let mut range: Option<Range<usize>> = None;
        for token in tokens.by_ref() {
            if piece.is_over(&token, text) {
                if range.is_some() {
                    return range;
                }
                piece = Piece::default();
            } else {
                range.get_or_insert(token.begin..token.end).end = token.end;
            }
        }
        range
    })
}

/// What is open in a statement.
#[derive(Default)]
struct Piece {
    parentheses: usize,
    /// BEGIN and CASE without their END, in a body.
    blocks: usize,
    head: Head,
}

/// How far a statement is known to be CREATE [OR REPLACE] FUNCTION or PROCEDURE.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Head {
    #[default]
    Empty,
    Create,
    Routine,
    Other,
}

impl Piece {
    fn is_over(&mut self, token: &Token, text: &[u8]) -> bool {
        match (token.kind, token.of(text)) {
            (Kind::Punctuation, b"(") => self.parentheses += 1,
            (Kind::Punctuation, b")") => self.parentheses = self.parentheses.saturating_sub(1),
            (Kind::Punctuation, b";") => return self.parentheses == 0 && self.blocks == 0,
            (Kind::Word, _) if self.parentheses == 0 => self.take_word(token, text),
            _ => {}
        }
        false
    }

    fn take_word(&mut self, word: &Token, text: &[u8]) {
        let is = |what: &[&str]| word.is_among(text, what);
        match self.head {
            Head::Empty if is(&["create"]) => self.head = Head::Create,
            Head::Create if is(&["or", "replace"]) => {}
            Head::Create if is(&["function", "procedure"]) => self.head = Head::Routine,
            Head::Empty | Head::Create => self.head = Head::Other,
            Head::Routine if is(&["begin"]) || (self.blocks > 0 && is(&["case"])) => {
                self.blocks += 1;
            }
            Head::Routine if is(&["end"]) => self.blocks = self.blocks.saturating_sub(1),
            Head::Routine | Head::Other => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Strings, statements};

    fn split(text: &str) -> Vec<&str> {
        statements(text.as_bytes(), Strings::Unknown)
            .map(|range| &text[range])
            .collect()
    }

    /// Semicolons end statements, and pieces of blanks and comments are none.
    #[test]
    fn empty_pieces_are_left_out() {
        assert_eq!(split("SELECT 1; ; SELECT 2"), ["SELECT 1", "SELECT 2"]);
        assert_eq!(split(" ;/* a; */; -- b;\n;"), Vec::<&str>::new());
        assert_eq!(split(""), Vec::<&str>::new());
        assert_eq!(split("/* a */ SELECT 1 /* b */ ; -- c"), ["SELECT 1"]);
        assert_eq!(split("BEGIN;COMMIT;"), ["BEGIN", "COMMIT"]);
    }

    /// A semicolon in a string, a dollar quote, a quoted identifier, a comment or parentheses ends nothing.
    #[test]
    fn quoted_semicolons_are_text() {
        for whole in [
            "SELECT ';', 'a'';', E'\\';', U&';', $$;$$, $a$;$$;$a$, \";\", \"\"\";\"",
            "SELECT 1 /* ; /* ; */ ; */ + 2",
            "SELECT 1 -- ;\n + 2",
            "CREATE RULE r AS ON INSERT TO t DO (DELETE FROM u; DELETE FROM v)",
            "SELECT 'open; SELECT 2",
            "SELECT $a$ open; SELECT 2 $b$",
            "SELECT 1 + /* open; SELECT 2"
                .trim_end_matches("/* open; SELECT 2")
                .trim_end(),
        ] {
            assert_eq!(split(whole), [whole], "{whole}");
            let twice = format!("SELECT 0; {whole}");
            assert_eq!(split(&twice), ["SELECT 0", whole], "{twice}");
        }
    }

    /// The body of a function in SQL is one statement with it; CASE has an END of its own; other BEGINs are statements.
    #[test]
    fn bodies_are_whole() {
        let function = "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT CASE WHEN true THEN 2 END; END";
        assert_eq!(
            split(&format!("{function}; SELECT 2")),
            [function, "SELECT 2"]
        );
        let procedure = "CREATE PROCEDURE p() BEGIN ATOMIC DELETE FROM t; END";
        assert_eq!(
            split(&format!("{procedure};BEGIN;END")),
            [procedure, "BEGIN", "END"]
        );
        assert_eq!(split("CREATE TABLE begin (a int); SELECT 1").len(), 2);
    }

    /// Where the reading of a backslash decides about the rest, nothing more is split unless it is known.
    #[test]
    fn ambiguous_strings_take_the_rest() {
        let text = r"SELECT 'it\'; SELECT secret'; SELECT 2";
        assert_eq!(split(text), [text]);
        let with = |strings| statements(text.as_bytes(), strings).count();
        assert_eq!(with(Strings::Escaping), 2);
        assert_eq!(with(Strings::Conforming), 2);
        assert_eq!(split(r"SELECT a LIKE 'b' ESCAPE '\'; SELECT 2").len(), 2);
    }
}
