//! What a statement does to what, in a few words, as the semantic conventions of OpenTelemetry want `db.query.summary`:
//! `SELECT orders users`, `INSERT log SELECT orders`. Made of the words of a normal form; nothing is parsed. Pure.

use super::{
    Strings,
    lexer::{Kind, Lexer, Token},
};

/// Longest summary, in bytes, as the conventions want it.
const BYTES_MAX: usize = 255;

/// Words that say what is done, wherever they begin a query.
const OPERATIONS: [&str; 5] = ["select", "insert", "update", "delete", "merge"];
/// Words that the name of a table follows.
const BEFORE_NAME: [&str; 5] = ["from", "join", "into", "update", "table"];
/// Words between those and the name.
const FILLERS: [&str; 6] = ["only", "lateral", "if", "not", "exists", "table"];
/// Words that end a list of tables.
const AFTER_LIST: [&str; 12] = [
    "where",
    "group",
    "order",
    "having",
    "limit",
    "union",
    "set",
    "returning",
    "values",
    "window",
    "offset",
    "for",
];

/// The summary of a normal form; empty where there is nothing to tell.
pub(crate) fn summary(normal: &str) -> String {
    let text = normal.as_bytes();
    let tokens: Vec<Token> = Lexer::new(text, Strings::Conforming).collect();
    let mut walk = Walk {
        tokens: &tokens,
        normal,
        levels: vec![Level::default()],
        words: Vec::new(),
    };
    let mut at = 0;
    while at < tokens.len() {
        at = walk.step(at);
    }
    let mut summary = String::new();
    for word in walk.words {
        if summary.len() + 1 + word.len() > BYTES_MAX {
            break;
        }
        if !summary.is_empty() {
            summary.push(' ');
        }
        summary.push_str(&word);
    }
    summary
}

/// A pair of parentheses, or the statement itself.
#[derive(Clone, Copy, Default)]
struct Level {
    /// A query has begun in it: FROM is followed by tables, and is not `extract(epoch FROM a)`.
    has_query: bool,
    /// A comma is followed by another table.
    in_list: bool,
}

struct Walk<'a> {
    tokens: &'a [Token],
    normal: &'a str,
    levels: Vec<Level>,
    words: Vec<String>,
}

impl Walk<'_> {
    /// Looks at a token; gives the position of the next one to look at.
    fn step(&mut self, at: usize) -> usize {
        let text = self.normal.as_bytes();
        let token = self.tokens[at];
        let is = |what| token.is_punctuation(text, what);
        if is("(") {
            self.levels.push(Level::default());
        } else if is(")") {
            self.levels.pop();
            if self.levels.is_empty() {
                self.levels.push(Level::default());
            }
        } else if is(",") && self.level().in_list {
            return self.name(at + 1);
        } else if token.kind == Kind::Word {
            return self.word(at);
        }
        at + 1
    }

    fn word(&mut self, at: usize) -> usize {
        let text = self.normal.as_bytes();
        let token = self.tokens[at];
        let is_after = |words: &[&str]| at > 0 && self.tokens[at - 1].is_among(text, words);
        let begins = at == 0;
        // `FOR UPDATE`, `DO UPDATE`, `DISTINCT FROM`.
        if is_after(&["for", "do", "key", "distinct", "on"])
            && token.is_among(text, &["update", "from", "delete"])
        {
            return at + 1;
        }
        if token.is_among(text, &AFTER_LIST) {
            self.level().in_list = false;
        }
        let is_operation = token.is_among(text, &OPERATIONS);
        if is_operation || (begins && !token.is_word(text, "with")) {
            self.words.push(self.of(token).to_ascii_uppercase());
            let level = self.level();
            level.has_query = true;
            level.in_list = false;
        }
        let takes_name = token.is_among(text, &BEFORE_NAME) && self.level().has_query;
        if takes_name && !(begins && token.is_word(text, "table")) {
            self.level().in_list = token.is_word(text, "from");
            return self.name(at + 1);
        }
        at + 1
    }

    /// Takes the name of a table, if one begins there.
    fn name(&mut self, mut at: usize) -> usize {
        let text = self.normal.as_bytes();
        while self
            .tokens
            .get(at)
            .is_some_and(|token| token.is_among(text, &FILLERS))
        {
            at += 1;
        }
        let begin = at;
        let mut end = at;
        while self
            .tokens
            .get(end)
            .is_some_and(|token| matches!(token.kind, Kind::Word | Kind::Quoted))
        {
            at = end + 1;
            if !self
                .tokens
                .get(at)
                .is_some_and(|token| token.is_punctuation(text, "."))
            {
                break;
            }
            end = at + 1;
        }
        if at > begin {
            let pieces = self.tokens[begin..at].iter();
            let name: String = pieces.map(|token| self.of(*token)).collect();
            self.words.push(name);
        }
        at
    }

    fn level(&mut self) -> &mut Level {
        if self.levels.is_empty() {
            self.levels.push(Level::default());
        }
        let last = self.levels.len() - 1;
        &mut self.levels[last]
    }

    /// Tokens of a text that is UTF-8 begin and end at its characters.
    fn of(&self, token: Token) -> &str {
        self.normal.get(token.begin..token.end).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::{BYTES_MAX, summary};

    /// Operations and tables in the order of the text, and nothing else.
    #[test]
    fn operations_and_tables() {
        for (text, expected) in [
            ("SELECT a, b FROM orders WHERE id = $1", "SELECT orders"),
            ("select 1", "SELECT"),
            (
                "INSERT INTO log (a) SELECT a FROM orders",
                "INSERT log SELECT orders",
            ),
            (
                "INSERT INTO t VALUES ($1) ON CONFLICT (a) DO UPDATE SET b = $2",
                "INSERT t",
            ),
            ("UPDATE ONLY public.\"T\" SET a = $1", "UPDATE public.\"T\""),
            ("DELETE FROM t USING u WHERE a = $1", "DELETE t"),
            (
                "SELECT * FROM a, b c JOIN d ON a.x = d.x WHERE e IN ($1, $2)",
                "SELECT a b d",
            ),
            (
                "SELECT extract(epoch FROM now()) FROM t FOR UPDATE",
                "SELECT t",
            ),
            ("SELECT a IS DISTINCT FROM b FROM t", "SELECT t"),
            ("SELECT * FROM (SELECT x FROM y) z, w", "SELECT SELECT y w"),
            (
                "WITH x AS (SELECT * FROM y) SELECT * FROM x",
                "SELECT y SELECT x",
            ),
            ("CREATE TABLE IF NOT EXISTS t (a int)", "CREATE t"),
            ("BEGIN", "BEGIN"),
            ("", ""),
        ] {
            assert_eq!(summary(text), expected, "{text}");
        }
    }

    /// It is short, whatever the statement.
    #[test]
    fn summaries_are_short() {
        let tables: Vec<String> = (0..100).map(|n| format!("table_{n}")).collect();
        let summary = summary(&format!("SELECT * FROM {}", tables.join(", ")));
        assert!(
            summary.len() <= BYTES_MAX && summary.ends_with(|c: char| c.is_ascii_digit()),
            "{summary}"
        );
    }

    proptest! {
        /// No text makes it fail.
        #[test]
        fn any_text_has_one(text in ".*") {
            prop_assert!(summary(&text).len() <= BYTES_MAX);
        }
    }
}
