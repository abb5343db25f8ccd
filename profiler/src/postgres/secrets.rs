//! No value of a statement is shown, whatever encoding it is in, known or not, and whether the server took it or not.

use proptest::{
    prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest},
    sample::select,
};

use super::{
    dialect::{Dialect, Parameters, Speech},
    encoding::{ALL, Encoding},
    protocol::{Extent, StatementId, Statements, Text},
    sql::Strings,
    texts::Texts,
};

/// One connection.
#[derive(Default)]
struct Said {
    texts: Texts,
    dialect: Dialect,
}

impl Said {
    /// One whose server reports this encoding, and `standard_conforming_strings` on.
    fn reported(encoding: &str) -> Self {
        let mut said = Self::default();
        let mut speech = said.speech();
        speech.parameter(b"client_encoding", encoding.as_bytes());
        speech.parameter(b"standard_conforming_strings", b"on");
        said
    }

    fn speech(&mut self) -> Speech<'_> {
        Speech {
            texts: &mut self.texts,
            dialect: &mut self.dialect,
            time_ns: 10,
        }
    }

    fn query(&mut self, bytes: &[u8], is_settled: bool) -> Vec<StatementId> {
        let mut ids = Vec::new();
        let text = Text {
            bytes,
            extent: Extent::Whole,
            is_settled,
        };
        self.speech().simple(text, &mut ids);
        ids
    }

    fn accept(&mut self, ids: &[StatementId]) {
        for id in ids {
            self.speech().accepted(*id, true);
        }
        self.speech().answered();
    }

    /// What is shown of a text that the server takes.
    fn taken(&mut self, bytes: &[u8]) -> String {
        let ids = self.query(bytes, true);
        self.accept(&ids);
        self.shown(&ids)
    }

    /// What is shown of one that it refuses.
    fn refused(&mut self, bytes: &[u8]) -> String {
        let ids = self.query(bytes, true);
        self.speech().answered();
        self.shown(&ids)
    }

    fn shown(&self, ids: &[StatementId]) -> String {
        let texts: Vec<&str> = ids.iter().map(|id| self.texts.text(*id)).collect();
        texts.join("; ")
    }
}

/// Bytes of a few characters of an encoding that are none of ASCII; second bytes that are backslashes are frequent.
fn characters(name: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let second = proptest::prop_oneof![3 => select(b"\\|@[{`^".to_vec()), 1 => 0x40..=0xfe_u8];
    let pair = (0x81..=0xfe_u8, second).prop_map(|(first, second)| vec![first, second]);
    let others = select(vec!["é", "表", "ソ", "𝄞"]);
    let one = (pair, others).prop_map(move |(pair, other)| {
        match (name, Encoding::named(name.as_bytes())) {
            ("UTF8" | "SQL_ASCII", _) => other.as_bytes().to_vec(),
            (_, Some(encoding)) if is_character(encoding, &pair) => pair,
            (_, Some(Encoding::Double(..))) => b"\x95\\".to_vec(),
            _ => vec![0xe9, 0xe8],
        }
    });
    prop::collection::vec(one, 1..3).prop_map(|parts| parts.concat())
}

fn is_character(encoding: Encoding, pair: &[u8]) -> bool {
    let decoded = encoding.decode(pair);
    let text = str::from_utf8(&decoded).unwrap_or_default();
    matches!(encoding, Encoding::Double(..)) && text.chars().count() == 1
}

/// A value that is written in one of the ways that the server takes, with `@` for characters and `%` for the canary.
const VALUES: &[&str] = &[
    "'@%@'",
    "'%@'",
    "E'@', '%'",
    "E'@\\'%@', E'%@'",
    "E'@\\\\', '%'",
    "N'@%'",
    "U&'@%' UESCAPE '!'",
    "$$@%@$$, '%'",
    "$t$@%$t$",
    "'@''%@'",
    "'@%'\n'%@'",
    "B'1', X'1F', '@%'",
    "INTERVAL '@%'",
    "1_000, '@%'",
];

/// Statements with such values; `#` are characters in a name.
const TEMPLATES: &[&str] = &[
    "SELECT <>",
    "SELECT a FROM t# WHERE b IN (<>) AND \"c#\" = 'x' -- @%\n AND d = 'y' /* %@ */",
    "INSERT INTO t# VALUES (<>), (<>) RETURNING #",
    "UPDATE t SET a = b || 'x', # = f(<>); SELECT 'x', <>",
    "DO $x$ @% $x$; SELECT # FROM t WHERE a ->> 'x' = ANY(ARRAY[<>])",
    "ALTER ROLE # PASSWORD '%@'; COPY t FROM PROGRAM '@%'; SET x = '@%'",
];

/// A text of these, in bytes.
fn text(template: &str, value: &str, characters: &[u8], canary: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for byte in template.replace("<>", value).bytes() {
        match byte {
            b'@' | b'#' => bytes.extend_from_slice(characters),
            b'%' => bytes.extend_from_slice(canary.as_bytes()),
            byte => bytes.push(byte),
        }
    }
    bytes
}

fn named() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    select(ALL.to_vec())
        .prop_flat_map(|name| characters(name).prop_map(move |characters| (name, characters)))
}

/// Statements that the server refuses, with the canary where a lexer sees a name.
const MISTAKES: &[&str] = &[
    "SELECT * FROM users WHERE name = 'O'% x'",
    "SELECT * FROM users WHERE name = \"%\"",
    "SELECT * FROM users WHERE name = %",
    "INSERT INTO t VALUES (%, \"%\", U&\"%\")",
    "%",
    "UPDATE t SET a = 'it's %' WHERE b = 1; DELETE FROM %",
    "ALTER ROLE bob PASSWORD=%",
    "GRANT % TO \"%\"",
    "SELECT $%",
    "CREATE USER a IDENTIFIED BY %",
];

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(2048))]

    /// In an encoding that the server reports, no value of a statement that it takes is shown, and the statement is the
    /// one that it is with other values.
    #[test]
    fn reported_encodings_show_no_value((name, characters) in named(), template in select(TEMPLATES), value in select(VALUES), canary in "[kqz]{8}") {
        let mut said = Said::reported(name);
        let sent = text(template, value, &characters, &canary);
        let shown = said.taken(&sent);
        prop_assert!(!shown.contains(&canary), "{name}: {shown}");
        prop_assert!(!shown.contains("withheld") && !shown.contains('\u{fffd}'), "{name}: {shown}");
        let plain = template.replace(['@', '%'], "x").replace("<>", &value.replace(['@', '%'], "x"));
        let plain = text(&plain, "", &characters, "");
        prop_assert_eq!(said.taken(&plain), shown, "{}: {:02x?}", name, sent);
    }

    /// Nor is one where no parameter is known, or where what was run before may have changed them.
    #[test]
    fn unknown_encodings_show_no_value((name, characters) in named(), template in select(TEMPLATES), value in select(VALUES), canary in "[kqz]{8}", wrong in select(ALL.to_vec()), kind in 0..4) {
        let sent = text(template, value, &characters, &canary);
        let mut said = match kind {
            0 => Said::default(),
            1 => Said::reported(wrong),
            _ => Said::reported(name),
        };
        if kind == 3 {
            // They were read from memory later.
            said.dialect.parameters.since_ns = 11;
        }
        let ids = said.query(&sent, kind == 0 || kind == 3);
        said.accept(&ids);
        let shown = said.shown(&ids);
        prop_assert!(!shown.contains(&canary), "{name}: {shown}\n{sent:02x?}");
    }

    /// A statement that the server refuses shows no word that may be a value; nor does one that it has been busy with
    /// show a name in quotes.
    #[test]
    fn mistakes_show_no_value(template in select(MISTAKES), canary in "[kqz]{8}|[kqz]{4} [kqz]{8}|[kqz]{8}-[789]{8}", strings in any::<bool>()) {
        let sent = template.replace('%', &canary);
        let mut said = Said::reported("UTF8");
        if strings {
            said.dialect.parameters.strings = Strings::Escaping;
        }
        let shown = said.refused(sent.as_bytes());
        prop_assert!(!shown.contains(&canary[..4]) && shown.contains("<withheld "), "{shown}");
        let quoted = format!("SELECT a FROM t WHERE b = \"{canary}\"");
        let ids = said.query(quoted.as_bytes(), true);
        for id in &ids {
            said.texts.is_under_way(*id);
        }
        prop_assert_eq!(said.shown(&ids), "SELECT a FROM t WHERE b = \"…\"");
    }
}

/// Names in other encodings are themselves: two tables are two, known encoding or not.
#[test]
fn names_are_themselves() {
    let mut said = Said::reported("LATIN1");
    assert_eq!(said.taken(b"SELECT a FROM \xe91"), "SELECT a FROM é1");
    assert_eq!(said.taken(b"SELECT a FROM \xe81"), "SELECT a FROM è1");
    let mut unknown = Said::default();
    assert_eq!(unknown.taken(b"SELECT a FROM \xe91"), "SELECT a FROM ‹e9›1");
    assert_eq!(unknown.taken(b"SELECT a FROM \xe81"), "SELECT a FROM ‹e8›1");
    assert_eq!(
        unknown.taken("SELECT a FROM é1".as_bytes()),
        "SELECT a FROM é1"
    );
    let mut sjis = Said::reported("SJIS");
    assert_eq!(
        sjis.taken(b"SELECT E'\x95\\', b FROM \x95\\ WHERE c = 'secret'"),
        "SELECT $1, b FROM 表 WHERE c = $2"
    );
}

/// A backslash is what the session says: `'C:\'` is one value or takes the next one in.
#[test]
fn backslashes_are_those_of_the_session() {
    let text = br"SELECT 'C:\', b FROM t WHERE c = 'x'";
    let mut said = Said::reported("UTF8");
    assert_eq!(said.taken(text), "SELECT $1, b FROM t WHERE c = $2");
    let mut speech = said.speech();
    speech.parameter(b"standard_conforming_strings", b"off");
    assert_eq!(said.taken(br"SELECT 'it\'s', b"), "SELECT $1, b");
    let mut unknown = Said::default();
    assert_eq!(unknown.taken(text), "SELECT $1");
    let parameters = Parameters {
        strings: Strings::Conforming,
        ..Parameters::default()
    };
    unknown.dialect.parameters = parameters;
    assert_eq!(unknown.taken(text), "SELECT $1, b FROM t WHERE c = $2");
}

/// What was refused is shown once the same statement was taken, by whomever; a text that is not sent again is held
/// until it is certain that it was taken.
#[test]
fn what_was_taken_elsewhere_is_shown() {
    let mut said = Said::reported("UTF8");
    let shown = said.refused(b"SELECT a FROM t WHERE b = 1");
    assert!(shown.ends_with(": SELECT … FROM … WHERE …>"), "{shown}");
    let other = said.taken(b"SELECT a FROM t WHERE b = 2");
    assert_eq!(other, "SELECT a FROM t WHERE b = $1");
    assert_eq!(said.refused(b"select a from t where b = 3"), other);

    let id = said.query(b"SELECT q", true)[0];
    said.speech().accepted(id, false);
    said.speech().answered();
    said.speech().answered();
    assert!(said.texts.text(id).starts_with("<withheld"));
    said.speech().accepted(id, true);
    assert_eq!(said.texts.text(id), "SELECT q");
}
