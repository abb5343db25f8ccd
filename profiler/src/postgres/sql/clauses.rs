//! Words that are values, and names that are made up for each use: told by where they stand in a statement.
//!
//! Values are what SET gives to a setting (alone or in ALTER and CREATE) and whatever follows PASSWORD of a role. Names
//! made up by programs and drivers are those of savepoints, cursors, channels, prepared statements and temporary tables;
//! schemas may be one for each tenant.

use super::lexer::{Kind, Token};

/// What a token is shown as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Itself.
    Itself,
    /// A value, though it is a word.
    Value,
    /// A name for one use, often with a counter in it.
    MadeUp,
    /// A name of one of many of a kind, as of a schema for each tenant.
    OneOfMany,
}

/// Where in a statement the next token stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Begin,
    /// After CREATE or ALTER.
    Object,
    Anywhere,
    /// All names are made up.
    Names,
    /// The next name is made up.
    Name,
    /// Between SET and its TO or `=`.
    Setting,
    Value,
    /// After a value of a function's SET, where a comma leads to a further one.
    AfterValue,
    /// All that comes is a value.
    Rest,
    Password,
}

/// Words that the name of a table follows.
const BEFORE_TABLE: &[&str] = &[
    "from", "join", "into", "update", "table", "only", "exists", "truncate", "copy", "analyze",
    "vacuum",
];

/// Which clauses a statement may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Statement {
    #[default]
    Other,
    Set,
    Create,
    /// CREATE or ALTER of a function, whose settings other clauses follow.
    Routine,
    /// CREATE or ALTER of a role, a database or the system, which may have a password or end in a setting.
    Role,
    /// What can be SELECT INTO.
    Select,
}

/// Follows a statement's clauses.
pub(super) struct Clauses<'a> {
    text: &'a [u8],
    place: Place,
    statement: Statement,
    previous: Option<Token>,
}

impl<'a> Clauses<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            place: Place::Begin,
            statement: Statement::Other,
            previous: None,
        }
    }

    /// Takes the next token; the others follow.
    pub(super) fn meaning(&mut self, token: &Token, rest: &[Token]) -> Meaning {
        if token.is_punctuation(self.text, ";") {
            *self = Self::new(self.text);
            return Meaning::Itself;
        }
        let is_name = matches!(token.kind, Kind::Word | Kind::Quoted | Kind::Unclosed);
        let meaning = match self.place {
            Place::Names if is_name => Meaning::MadeUp,
            // What a cursor is of, in the name of a FETCH from it.
            Place::Names if token.is_punctuation(self.text, "(") => {
                self.place = Place::Begin;
                Meaning::Itself
            }
            Place::Name if is_name && !self.is_before_name(token) => {
                self.place = Place::Anywhere;
                Meaning::MadeUp
            }
            Place::Value | Place::Rest | Place::AfterValue | Place::Password => {
                self.value(token, is_name)
            }
            _ => {
                let meaning = if is_name {
                    self.name(token, rest)
                } else {
                    Meaning::Itself
                };
                self.follow(token);
                meaning
            }
        };
        self.previous = Some(*token);
        meaning
    }

    /// Whether a list may follow the last token. Where words are values, one that is none would be one when read again.
    pub(super) fn may_have_lists(&self) -> bool {
        self.place == Place::Anywhere
            && matches!(
                self.statement,
                Statement::Other | Statement::Create | Statement::Select
            )
    }

    /// Whether a name is of a schema, of which there may be one for each tenant, or of a table that calls itself temporary.
    fn name(&self, token: &Token, rest: &[Token]) -> Meaning {
        let dot = |at: usize| {
            rest.get(at)
                .is_some_and(|next| next.is_punctuation(self.text, "."))
        };
        let is_table = (self.previous.as_ref())
            .is_some_and(|previous| previous.is_among(self.text, BEFORE_TABLE));
        let is_schema = dot(0) && (is_table || dot(2));
        let name = token.of(self.text).trim_ascii_start();
        let name = name.strip_prefix(b"\"").unwrap_or(name);
        let begins = |prefix: &[u8]| {
            let beginning = name.get(..prefix.len());
            beginning.is_some_and(|beginning| beginning.eq_ignore_ascii_case(prefix))
        };
        let is_temporary = begins(b"tmp") || begins(b"temp");
        if is_temporary && (is_table || dot(0)) {
            Meaning::MadeUp
        } else if is_schema {
            Meaning::OneOfMany
        } else {
            Meaning::Itself
        }
    }

    fn follow(&mut self, token: &Token) {
        match self.place {
            Place::Begin if token.kind == Kind::Word => self.begin(token),
            Place::Object if !token.is_among(self.text, &["or", "replace"]) => self.object(token),
            Place::Setting => self.setting(token),
            Place::Anywhere if token.kind == Kind::Word => self.word(token),
            Place::Name if token.kind == Kind::Word || token.is_punctuation(self.text, ".") => {}
            Place::Name => self.place = Place::Anywhere,
            _ => {}
        }
    }

    fn begin(&mut self, word: &Token) {
        let is = |words: &[&str]| word.is_among(self.text, words);
        (self.statement, self.place) = if is(&["select", "with"]) {
            (Statement::Select, Place::Anywhere)
        } else if is(&["set"]) {
            (Statement::Set, Place::Setting)
        } else if is(&["create"]) {
            (Statement::Create, Place::Object)
        } else if is(&["alter"]) {
            (Statement::Other, Place::Object)
        } else if is(&["declare", "prepare"]) {
            (Statement::Other, Place::Name)
        } else if is(&["savepoint", "release", "rollback", "close", "fetch", "move"])
            || is(&["deallocate", "listen", "unlisten", "notify"])
        {
            (Statement::Other, Place::Names)
        } else {
            (Statement::Other, Place::Anywhere)
        };
    }

    /// What is created or altered.
    fn object(&mut self, word: &Token) {
        self.place = Place::Anywhere;
        let is = |words: &[&str]| word.is_among(self.text, words);
        if is(&["role", "user", "group", "database", "system"]) {
            self.statement = Statement::Role;
        } else if is(&["function", "procedure", "routine"]) {
            self.statement = Statement::Routine;
        } else {
            self.word(word);
        }
    }

    fn word(&mut self, word: &Token) {
        let is = |what| word.is_word(self.text, what);
        let after = |words: &[&str]| {
            let previous = self.previous.as_ref();
            previous.is_some_and(|previous| previous.is_among(self.text, words))
        };
        let has_settings = matches!(self.statement, Statement::Routine | Statement::Role);
        if is("temp") || is("temporary") {
            let is_new = match self.statement {
                Statement::Create => after(&["create", "replace", "local", "global"]),
                Statement::Select => after(&["into", "local", "global"]),
                _ => false,
            };
            if is_new {
                self.place = Place::Name;
            }
        } else if is("pg_temp") || (is("of") && after(&["current"])) {
            self.place = Place::Name;
        } else if has_settings && is("set") {
            self.place = Place::Setting;
        } else if has_settings && is("begin") {
            // A body in SQL follows, whose SET are those of UPDATE.
            self.statement = Statement::Other;
        } else if self.statement == Statement::Role && is("password") {
            self.place = Place::Password;
        }
    }

    /// Whether a word stands between what announces a made-up name and the name.
    fn is_before_name(&self, word: &Token) -> bool {
        let words = &[
            "table",
            "view",
            "sequence",
            "recursive",
            "if",
            "not",
            "exists",
            "pg_temp",
        ];
        word.is_among(self.text, words)
    }

    fn setting(&mut self, token: &Token) {
        // An operator but `=` is a mistake in front of what was meant as a value. A sign may be gone when read again.
        let is_operator =
            token.kind == Kind::Operator && !matches!(token.of(self.text), b"+" | b"-");
        let is_given = is_operator || token.is_among(self.text, &["to", "zone"]);
        if is_given && self.statement == Statement::Routine {
            self.place = Place::Value;
        } else if is_given {
            self.place = Place::Rest;
        } else if token.is_word(self.text, "from") && self.statement != Statement::Set {
            self.place = Place::Anywhere;
        }
    }

    fn value(&mut self, token: &Token, is_name: bool) -> Meaning {
        let is_word = token.is_among(self.text, &["default", "true", "false", "null"]);
        match self.place {
            Place::AfterValue if token.is_punctuation(self.text, ",") => self.place = Place::Value,
            Place::AfterValue => {
                self.place = Place::Anywhere;
                self.follow(token);
                return Meaning::Itself;
            }
            Place::Value if token.kind != Kind::Operator => self.place = Place::AfterValue,
            Place::Password if is_word || token.is_constant() => self.place = Place::Anywhere,
            // No password that the server takes: but what is in its place may well be meant as one.
            Place::Password => self.place = Place::Rest,
            _ => {}
        }
        if is_name && !is_word {
            Meaning::Value
        } else {
            Meaning::Itself
        }
    }
}
