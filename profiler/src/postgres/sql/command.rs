//! What a statement does, as far as the protocol has to know: told by its first words and by the names of prepared
//! statements. The rest of it is not looked at, and the server may still refuse it.

use std::sync::Arc;

use super::{
    Extent,
    lexer::{Kind, Token},
};

/// Identifiers are cut to so many bytes by the server.
const NAME_MAX: usize = 63;

/// What a statement does. Names are folded and unquoted, as the server keeps them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// SELECT, VALUES, TABLE.
    Select,
    Insert,
    Update,
    Delete,
    Merge,
    Copy,
    /// BEGIN, START TRANSACTION.
    Begin,
    /// COMMIT, END.
    Commit,
    /// ROLLBACK, ABORT: of the whole transaction.
    Rollback,
    /// SAVEPOINT, RELEASE, ROLLBACK TO.
    Savepoint,
    /// PREPARE: the name is one of the protocol's statements from now on.
    Prepare {
        name: Arc<[u8]>,
        /// Where the text of the prepared statement begins in that of this one.
        body: usize,
    },
    Execute {
        name: Arc<[u8]>,
    },
    Deallocate {
        name: Arc<[u8]>,
    },
    /// DEALLOCATE ALL.
    DeallocateAll,
    /// DISCARD ALL: prepared statements, cursors and settings go.
    DiscardAll,
    Declare {
        name: Arc<[u8]>,
        /// Where the text of the query begins in that of this one.
        body: usize,
        /// WITH HOLD.
        is_held: bool,
    },
    Fetch {
        name: Arc<[u8]>,
    },
    Move {
        name: Arc<[u8]>,
    },
    Close {
        name: Arc<[u8]>,
    },
    CloseAll,
    /// CREATE TEMPORARY of a table, a view or a sequence.
    Temporary {
        name: Arc<[u8]>,
    },
    Set,
    Show,
    Explain,
    Call,
    /// What the protocol need not tell apart, and cut texts that do not show what they are.
    Other,
}

impl Command {
    pub(super) fn of(tokens: &[Token], text: &[u8], extent: Extent) -> Self {
        // The last word of a cut text may be a part of one.
        let is_part = |last: &Token| extent == Extent::Cut && last.end == text.len();
        let tokens = match tokens.split_last() {
            Some((last, tokens)) if is_part(last) => tokens,
            _ => tokens,
        };
        let opens = |token: &&Token| token.is_punctuation(text, "(");
        let parentheses = tokens.iter().take_while(opens).count();
        let tokens = tokens.get(parentheses..).unwrap_or_default();
        let Some((first, rest)) = tokens.split_first() else {
            return Self::Other;
        };
        if first.is_word(text, "with") {
            return of_with(rest, text);
        }
        if first.kind == Kind::Word {
            of_word(first, rest, text)
        } else {
            Self::Other
        }
    }
}

fn of_word(first: &Token, rest: &[Token], text: &[u8]) -> Command {
    let second = |word| rest.first().is_some_and(|token| token.is_word(text, word));
    match first.of(text).to_ascii_lowercase().as_slice() {
        b"select" | b"values" | b"table" => Command::Select,
        b"insert" => Command::Insert,
        b"update" => Command::Update,
        b"delete" => Command::Delete,
        b"merge" => Command::Merge,
        b"copy" => Command::Copy,
        b"begin" => Command::Begin,
        b"start" if second("transaction") => Command::Begin,
        b"commit" | b"end" if !second("prepared") => Command::Commit,
        b"rollback" | b"abort" if !second("prepared") => {
            let is_to = |token: &Token| token.is_word(text, "to");
            if rest.iter().take(2).any(is_to) {
                Command::Savepoint
            } else {
                Command::Rollback
            }
        }
        b"savepoint" | b"release" => Command::Savepoint,
        b"prepare" if !second("transaction") => prepare(rest, text),
        b"execute" => named(rest, text, |name| Command::Execute { name }),
        b"deallocate" => {
            let rest = rest.get(usize::from(second("prepare"))..);
            let rest = rest.unwrap_or_default();
            if rest.first().is_some_and(|token| token.is_word(text, "all")) {
                return Command::DeallocateAll;
            }
            named(rest, text, |name| Command::Deallocate { name })
        }
        b"discard" if second("all") => Command::DiscardAll,
        b"declare" => declare(rest, text),
        b"fetch" => named(last(rest), text, |name| Command::Fetch { name }),
        b"move" => named(last(rest), text, |name| Command::Move { name }),
        b"close" if second("all") => Command::CloseAll,
        b"close" => named(rest, text, |name| Command::Close { name }),
        b"create" => temporary(rest, text),
        b"set" | b"reset" => Command::Set,
        b"show" => Command::Show,
        b"explain" => Command::Explain,
        b"call" => Command::Call,
        _ => Command::Other,
    }
}

/// The command after the common table expressions.
fn of_with(tokens: &[Token], text: &[u8]) -> Command {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate() {
        match token.of(text) {
            b"(" => depth += 1,
            b")" => depth = depth.saturating_sub(1),
            _ if depth == 0 && token.kind == Kind::Word => {
                let words = &[
                    "select", "values", "table", "insert", "update", "delete", "merge",
                ];
                if token.is_among(text, words) {
                    let rest = tokens.get(index + 1..).unwrap_or_default();
                    return of_word(token, rest, text);
                }
            }
            _ => {}
        }
    }
    Command::Other
}

fn named(rest: &[Token], text: &[u8], command: impl Fn(Arc<[u8]>) -> Command) -> Command {
    let name = rest.first().and_then(|token| name(token, text));
    name.map_or(Command::Other, command)
}

/// The last token, before which direction and number stand.
fn last(rest: &[Token]) -> &[Token] {
    rest.get(rest.len().saturating_sub(1)..).unwrap_or_default()
}

fn declare(rest: &[Token], text: &[u8]) -> Command {
    let is = |token: &Token, word| token.is_word(text, word);
    let begin = rest.iter().position(|token| is(token, "for"));
    let Some((head, [_, body, ..])) = begin.and_then(|at| rest.split_at_checked(at)) else {
        return Command::Other;
    };
    let is_held = head
        .windows(2)
        .any(|pair| is(&pair[0], "with") && is(&pair[1], "hold"));
    named(rest, text, |name| Command::Declare {
        name,
        body: body.begin,
        is_held,
    })
}

/// A name with a schema is not taken for one of them.
fn temporary(rest: &[Token], text: &[u8]) -> Command {
    let before = |words: &'static [&str]| move |token: &&Token| token.is_among(text, words);
    let mut rest = rest
        .iter()
        .skip_while(before(&["or", "replace", "local", "global"]))
        .peekable();
    if rest.next_if(before(&["temp", "temporary"])).is_none() {
        return Command::Other;
    }
    let what = &[
        "table",
        "view",
        "sequence",
        "recursive",
        "if",
        "not",
        "exists",
    ];
    let name = rest.find(|token| !token.is_among(text, what));
    let is_qualified = rest
        .next()
        .is_some_and(|next| next.is_punctuation(text, "."));
    match name.filter(|_| !is_qualified) {
        Some(found) => named(&[*found], text, |name| Command::Temporary { name }),
        None => Command::Other,
    }
}

fn prepare(rest: &[Token], text: &[u8]) -> Command {
    let is_as = rest.iter().position(|token| token.is_word(text, "as"));
    let body = is_as.and_then(|index| rest.get(index + 1));
    let Some(body) = body.map(|token| token.begin) else {
        return Command::Other;
    };
    named(rest, text, |name| Command::Prepare { name, body })
}

/// A name as the server keeps it. One with Unicode escapes is not worked out.
pub(super) fn name(token: &Token, text: &[u8]) -> Option<Arc<[u8]>> {
    let written = token.of(text);
    let mut name = match (token.kind, written) {
        (Kind::Word, word) => word.to_ascii_lowercase(),
        (Kind::Quoted, [b'"', inner @ .., b'"']) => {
            let mut name = Vec::with_capacity(inner.len());
            let mut bytes = inner.iter();
            while let Some(byte) = bytes.next() {
                name.push(*byte);
                if *byte == b'"' {
                    bytes.next();
                }
            }
            name
        }
        _ => return None,
    };
    if name.len() > NAME_MAX {
        let is_inside = |at: &usize| name.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
        let end = (0..=NAME_MAX).rev().find(|at| !is_inside(at));
        name.truncate(end.unwrap_or(NAME_MAX));
    }
    Some(name.into())
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Reading, normalise},
        Arc, Command, Extent,
    };

    fn command(text: &str) -> Command {
        normalise(text.as_bytes(), Reading::default()).command
    }

    fn name(name: &str) -> Arc<[u8]> {
        name.as_bytes().into()
    }

    /// Statements are told by their first words, behind parentheses and common table expressions.
    #[test]
    fn commands_are_told() {
        for (text, expected) in [
            ("select 1", Command::Select),
            ("((SELECT 1) UNION SELECT 2)", Command::Select),
            ("/* a */ -- b\n VALUES (1)", Command::Select),
            (
                "WITH a AS (DELETE FROM t RETURNING *) SELECT * FROM a",
                Command::Select,
            ),
            (
                "WITH RECURSIVE a(x) AS (SELECT 1), b AS (SELECT 2) INSERT INTO t SELECT",
                Command::Insert,
            ),
            (
                "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE",
                Command::Merge,
            ),
            ("START TRANSACTION READ ONLY", Command::Begin),
            ("end", Command::Commit),
            ("COMMIT PREPARED 'a'", Command::Other),
            ("abort", Command::Rollback),
            ("ROLLBACK TO sp_1", Command::Savepoint),
            ("ROLLBACK WORK TO SAVEPOINT sp_1", Command::Savepoint),
            ("DEALLOCATE ALL", Command::DeallocateAll),
            ("DEALLOCATE PREPARE ALL", Command::DeallocateAll),
            ("DISCARD ALL", Command::DiscardAll),
            ("DISCARD PLANS", Command::Other),
            ("PREPARE TRANSACTION 'a'", Command::Other),
            ("MOVE 5 IN c", Command::Move { name: name("c") }),
            ("FETCH C", Command::Fetch { name: name("c") }),
            (
                "FETCH FORWARD ALL FROM \"C d\";",
                Command::Fetch { name: name("C d") },
            ),
            ("CLOSE ALL", Command::CloseAll),
            ("CLOSE c", Command::Close { name: name("c") }),
            ("CREATE TABLE t (a int)", Command::Other),
            (
                "CREATE TEMP TABLE IF NOT EXISTS T_1 (a int)",
                Command::Temporary { name: name("t_1") },
            ),
            (
                "create local temporary view v1 AS SELECT 1",
                Command::Temporary { name: name("v1") },
            ),
            ("CREATE TEMP TABLE pg_temp.t (a int)", Command::Other),
            ("", Command::Other),
            ("'select'", Command::Other),
            ("\"select\" 1", Command::Other),
        ] {
            assert_eq!(command(text), expected, "{text}");
        }
    }

    /// Names of prepared statements are as the server keeps them.
    #[test]
    fn names_are_those_of_the_server() {
        let deallocate = |text| match command(text) {
            Command::Deallocate { name } => String::from_utf8(name.to_vec()).unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(deallocate("DEALLOCATE PDO_stmt_1;"), "pdo_stmt_1");
        assert_eq!(deallocate("deallocate prepare \"A \"\"b\"\"\""), "A \"b\"");
        let long = "é".repeat(40);
        assert_eq!(
            deallocate(&format!("DEALLOCATE \"{long}\"")),
            "é".repeat(31)
        );
        assert_eq!(
            command("EXECUTE Q(1, 'a')"),
            Command::Execute { name: name("q") }
        );
        let text = "PREPARE q (int) AS SELECT $1";
        let Command::Prepare { name: of, body } = command(text) else {
            panic!("{text}");
        };
        assert_eq!((of, &text[body..]), (name("q"), "SELECT $1"));
        for (text, held) in [
            ("DECLARE q CURSOR FOR SELECT $1", false),
            (
                "DECLARE Q NO SCROLL CURSOR WITHOUT HOLD FOR SELECT $1",
                false,
            ),
            ("DECLARE \"q\" BINARY CURSOR WITH HOLD FOR SELECT $1", true),
        ] {
            let Command::Declare {
                name: of,
                body,
                is_held,
            } = command(text)
            else {
                panic!("{text}");
            };
            assert_eq!((of, &text[body..], is_held), (name("q"), "SELECT $1", held));
        }
    }

    /// A cut name or word is not taken for a whole one.
    #[test]
    fn cut_names_are_unknown() {
        let extent = Extent::Cut;
        let cut = |text: &str| {
            let reading = Reading {
                extent,
                ..Reading::default()
            };
            normalise(text.as_bytes(), reading).command
        };
        assert_eq!(cut("DEALLOCATE pdo_stmt_1"), Command::Other);
        assert_eq!(cut("DEALLOCATE ALL"), Command::Other);
        assert_eq!(cut("EXECUTE q("), Command::Execute { name: name("q") });
        assert_eq!(cut("SELECT"), Command::Other);
        assert_eq!(cut("SELECT a"), Command::Select);
    }
}
