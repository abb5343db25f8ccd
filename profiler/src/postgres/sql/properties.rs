//! What holds for any text: made of pieces that are close to SQL, of templates with literals whose characters are
//! found again if they are shown, or of any bytes.

use proptest::{
    prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest},
    sample::select,
};

use super::{Extent, Reading, Strings, normalise, statements};

/// Pieces whose sequences are close enough to SQL to meet every rule.
const PIECES: &[&str] = &[
    "SELECT",
    "select",
    " ",
    "  ",
    "\n",
    "\t",
    ",",
    "(",
    ")",
    "[",
    "]",
    ";",
    ":",
    "::",
    ":=",
    ".",
    "..",
    "a",
    "b1",
    "e",
    "E",
    "u&",
    "U&",
    "x",
    "b",
    "n",
    "'",
    "''",
    "'x'",
    "\"",
    "\"\"",
    "\"q 1\"",
    "$",
    "$$",
    "$1",
    "$12",
    "$t$",
    "$70000",
    "1",
    ".5",
    "1e",
    "1e-5",
    "0x1f",
    "-",
    "+",
    "*",
    "/",
    "<",
    "=",
    "@",
    "?",
    "--",
    "/*",
    "*/",
    "/*, ... */",
    " /*, ... */",
    "IN",
    " IN (",
    "IN (1, 2",
    "ARRAY[",
    "VALUES",
    "VALUES (",
    "), (",
    "VALUES (a, c1), (a, c2",
    "pg_temp.",
    "NULL",
    "DEFAULT",
    "SET ",
    " TO ",
    "PASSWORD ",
    "ALTER USER ",
    "CREATE TEMP TABLE ",
    "SAVEPOINT ",
    "sp_1",
    "CURRENT OF ",
    "FETCH ",
    "…",
    " …",
    "é",
    "\\",
    "\\'",
    "\u{1}",
    "\u{7f}",
    "\u{85}",
    "{",
    "BEGIN ",
    "END",
    "CREATE FUNCTION ",
    "ESCAPE '\\'",
    "FROM",
];

fn sql() -> impl Strategy<Value = Vec<u8>> {
    let piece = select(PIECES).prop_map(|piece| piece.as_bytes().to_vec());
    let byte = any::<u8>().prop_map(|byte| vec![byte]);
    let text = prop::collection::vec(proptest::prop_oneof![20 => piece, 1 => byte], 0..40);
    text.prop_map(|pieces| pieces.concat())
}

fn readings() -> impl Strategy<Value = Reading> {
    let extent = select(vec![Extent::Whole, Extent::Cut]);
    let strings = select(vec![
        Strings::Conforming,
        Strings::Escaping,
        Strings::Unknown,
    ]);
    (extent, strings).prop_map(|(extent, strings)| Reading { extent, strings })
}

/// What stands between a literal's quotes, of canary characters and of those that end or escape something.
fn body() -> impl Strategy<Value = String> {
    let canary = "[kqz]{6,12}";
    let trouble = select(vec![
        "", "'", "\"", "\\", "\\\\", "$", "$$", "--", "/*", "*/", ";", "\n", "é", "?", " ",
    ]);
    (canary, trouble, canary, any::<bool>()).prop_map(|(before, trouble, after, is_first)| {
        if is_first {
            format!("{trouble}{before}{after}")
        } else {
            format!("{before}{trouble}{after}")
        }
    })
}

/// A literal that holds the body, in a notation that the server takes with `standard_conforming_strings` on.
fn literal() -> impl Strategy<Value = String> {
    let text = body().prop_flat_map(|body| {
        let doubled = body.replace('\'', "''");
        let escaped = body.replace('\\', "\\\\").replace('\'', "\\'");
        let tag = "[kqz]{6,8}";
        let dollar = body.clone();
        let tagged = tag.prop_map(move |tag| format!("${tag}${dollar}${tag}$"));
        let plain = body.replace('$', "");
        let fixed = select(vec![
            format!("'{doubled}'"),
            format!("N'{doubled}'"),
            format!("E'{}'", doubled.replace('\\', "\\\\")),
            format!("e'{escaped}'"),
            format!("U&'{}'", doubled.replace('\\', "\\\\")),
            format!("'{doubled}'\n  '{doubled}'"),
            format!("$${plain}$$"),
        ]);
        proptest::prop_oneof![3 => fixed, 1 => tagged]
    });
    // Their digits are canaries too.
    let number = proptest::prop_oneof![
        "[789]{6,12}",
        "-[789]{6,12}\\.[789]{6}",
        "\\.[789]{6}[eE][+-]?[789]{6}",
        "0x[789abc]{6,12}",
        "[789]{6}_[789]{6}",
        "[xX]'[789abc]{6}'",
        "[bB]'[789]{6}'",
        "0[bo][789]{6}",
    ];
    proptest::prop_oneof![3 => text, 1 => number]
}

/// Statements in which `@` stands for a literal.
const TEMPLATES: &[&str] = &[
    "SELECT @",
    "SELECT a, @ AS b FROM t WHERE c = @ AND d IN (@, @, @) OR e LIKE @ LIMIT 5",
    "SELECT f(@,@)||@::text, DATE @, a->>@, b ? @, c[@]",
    "SELECT a=@AND b=@",
    "INSERT INTO t (a) VALUES (@, now()), (@, NULL), (@, @) ON CONFLICT (a) DO UPDATE SET b = @ RETURNING @",
    "UPDATE t SET a = @, b = (SELECT @) WHERE c BETWEEN @ AND @",
    "DELETE FROM t WHERE a = ANY(ARRAY[@, @]) -- x\n AND b = @ /* y */ AND c",
    "ALTER USER bob WITH PASSWORD @ VALID UNTIL @",
    "SET app.user TO @, @",
    "SET a = @",
    "COPY t FROM @ WITH (DELIMITER @)",
    "CREATE SUBSCRIPTION s CONNECTION @ PUBLICATION p",
    "DO @",
    "CREATE FUNCTION f() RETURNS int SET x TO @ LANGUAGE sql AS @",
    "NOTIFY c, @",
    "COMMENT ON TABLE t IS @",
    "EXECUTE q(@, @)",
    "WITH w AS (SELECT @) SELECT @ FROM w WHERE a = E'x' AND b = @",
    "SELECT a LIKE @ ESCAPE '\\' AND b = @; ",
];

/// Statements in which `@` stands for a word that is a value.
const WORDS: &[&str] = &[
    "SET x = @",
    "set local x.y to @, @ , @",
    "SET SESSION x TO @-@!@",
    "SET TIME ZONE @",
    "ALTER SYSTEM SET x = @",
    "ALTER ROLE a IN DATABASE b SET x TO @, @",
    "CREATE OR REPLACE FUNCTION f() RETURNS int SET x = @ SET y TO @, @ LANGUAGE sql",
    "ALTER USER a PASSWORD @",
    "CREATE ROLE a LOGIN ENCRYPTED PASSWORD @!@ VALID UNTIL @",
];

/// Long texts that a lexer or a list could look at again and again.
const HOSTILE: &[&str] = &[
    "(",
    "VALUES(",
    "VALUES(1,a),(1,a VALUES",
    "VALUES((VALUES(1),(2)),(VALUES(1),(2))),(",
    "IN (1::in ",
    "IN ((1),",
    "ARRAY[1,",
    "+",
    "+/**/",
    "$a",
    "$a$ ",
    "'a' \n--\n ",
    "'a'\n--\n--\n",
    "/*",
    "/*, ... */",
    ";/*, ... */",
    "\"a\" ",
    "\\'",
    "FETCH ",
    "; …",
    "U&\"",
    "1e+",
    "e'\\'",
];

/// Long hostile texts have final normal forms too, before anyone loses patience.
#[test]
fn long_texts_have_a_normal_form() {
    for piece in HOSTILE {
        let text = piece.repeat(200_000 / piece.len());
        let normal = normalise(text.as_bytes(), Reading::default());
        let again = normalise(normal.text.as_bytes(), Reading::default());
        assert_eq!(again.fingerprint, normal.fingerprint, "{piece}");
        assert!(normal.text == again.text, "{piece}");
        assert!(statements(text.as_bytes(), Strings::Unknown).count() <= text.len());
    }
}

/// Statements in which `@` stands for a literal and `@@` for a list of literals.
const SHAPES: &[&str] = &[
    "SELECT A , @ FROM S . T WHERE B = @ AND C IN ( @@ ) LIMIT @",
    "INSERT INTO T ( A , B ) VALUES ( @ , @ ) RETURNING \"Id\"",
    "UPDATE T SET A = @ , B = ARRAY[ @@ ] WHERE C ->> @ <> @ :: TEXT AND D ? @",
    "DELETE FROM T WHERE A NOT IN ( @@ ) OR B = ANY ( ARRAY [ @@ ] )",
    "SELECT CASE WHEN A > @ THEN @ ELSE B END , COUNT ( * ) FROM T",
    "NOTIFY C , @",
];

/// What may stand between tokens.
const SPACES: &[&str] = &[
    " ",
    "\n",
    "\t \r\n",
    " /* 'x' \" $$ ; /* */ */ ",
    " -- y 'z'\n",
    "/**/",
];

fn has_canary(text: &str) -> bool {
    let is_run = |alphabet: &str| {
        let parts = text.split(|char| !alphabet.contains(char));
        parts.into_iter().any(|part| part.len() >= 6)
    };
    is_run("kqz") || is_run("789")
}

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(2048))]

    /// A normal form is its own normal form, with the same fingerprint.
    #[test]
    fn normal_forms_are_final(text in sql(), reading in readings()) {
        let normal = normalise(&text, reading);
        for strings in [reading.strings, Strings::Unknown] {
            let again = normalise(normal.text.as_bytes(), Reading { extent: Extent::Whole, strings });
            prop_assert_eq!(&again.text, &normal.text);
            prop_assert_eq!(again.fingerprint, normal.fingerprint);
        }
        let cut = normalise(normal.text.as_bytes(), reading);
        prop_assert_eq!(cut.text, normal.text);
    }

    /// Any bytes have a normal form: one line without control characters, not much longer than they are.
    #[test]
    fn bytes_have_a_normal_form(text in prop::collection::vec(any::<u8>(), 0..200), reading in readings()) {
        let normal = normalise(&text, reading).text;
        prop_assert!(!normal.contains(char::is_control), "{normal:?}");
        // A literal of n bytes may become a longer `$n`.
        prop_assert!(normal.len() <= 8 * text.len() + 8);
    }

    /// Blanks, comments, the case of words, a semicolon at the end, values and lengths of lists do not change the
    /// fingerprint, nor the normal form but for the look of what is shown.
    #[test]
    fn looks_do_not_matter(words in select(SHAPES), literals in prop::collection::vec(literal(), 12), spaces in prop::collection::vec(select(SPACES), 40), length in 1..4_usize, lower in any::<bool>()) {
        let mut literals = literals.iter().cycle();
        let mut text = String::new();
        for (word, space) in words.split(' ').zip(spaces.iter().cycle()) {
            let count = if word == "@@" { length } else { 1 };
            let values: Vec<_> = literals.by_ref().take(count).map(String::as_str).collect();
            match word {
                "@" | "@@" => text.push_str(&values.join(&format!("{space},{space}"))),
                word if lower && !word.starts_with('"') => text.push_str(&word.to_ascii_lowercase()),
                word => text.push_str(word),
            }
            text.push_str(space);
        }
        let plain = words.replace("@@", "1, 2").replace('@', "3");
        let [plain, other] = [plain, format!("{text};")]
            .map(|text| normalise(text.as_bytes(), Reading { extent: Extent::Whole, strings: Strings::Conforming }));
        prop_assert_eq!(other.fingerprint, plain.fingerprint, "{}\n{}", text, other.text);
    }

    /// No run of six characters of a literal is shown, wherever the text is cut and whatever the session is.
    #[test]
    fn literals_are_never_shown(template in select(TEMPLATES), literals in prop::collection::vec(literal(), 6), strings in select(vec![Strings::Conforming, Strings::Unknown])) {
        let mut parts = template.split('@');
        let mut text = parts.next().unwrap_or_default().to_owned();
        for (part, literal) in parts.zip(literals.iter().cycle()) {
            text.push_str(literal);
            text.push_str(part);
        }
        let whole = normalise(text.as_bytes(), Reading { extent: Extent::Whole, strings }).text;
        prop_assert!(!has_canary(&whole), "{text}\n{whole}");
        for end in 0..text.len() {
            let cut = normalise(&text.as_bytes()[..end], Reading { extent: Extent::Cut, strings }).text;
            prop_assert!(!has_canary(&cut), "{}\n{cut}", String::from_utf8_lossy(&text.as_bytes()[..end]));
        }
        for range in statements(text.as_bytes(), strings) {
            let piece = normalise(&text.as_bytes()[range], Reading { extent: Extent::Whole, strings }).text;
            prop_assert!(!has_canary(&piece), "{text}\n{piece}");
        }
    }

    /// With the backslashes of an old session nothing is shown either, known or not.
    #[test]
    fn old_strings_are_never_shown(template in select(TEMPLATES), body in body(), strings in select(vec![Strings::Escaping, Strings::Unknown])) {
        let literal = format!("'{}'", body.replace('\\', "\\\\").replace('\'', "\\'"));
        let text = template.replace(" ESCAPE '\\'", "").replace('@', &literal);
        for end in 0..=text.len() {
            let cut = normalise(&text.as_bytes()[..end], Reading { extent: Extent::Cut, strings }).text;
            prop_assert!(!has_canary(&cut), "{text}\n{cut}");
        }
        for range in statements(text.as_bytes(), strings) {
            let piece = normalise(&text.as_bytes()[range], Reading { extent: Extent::Whole, strings }).text;
            prop_assert!(!has_canary(&piece), "{text}\n{piece}");
        }
    }

    /// Words in the place of a setting's value or of a password are not shown, whole or cut.
    #[test]
    fn words_as_values_are_never_shown(template in select(WORDS), words in prop::collection::vec("[kqz]{6,12}|\"[kqz]{6,12}\"", 3)) {
        let mut words = words.iter().cycle();
        let parts = template.split('@').map(str::to_owned);
        let text = parts.reduce(|text, part| text + words.next().map_or("", String::as_str) + &part);
        let text = text.unwrap_or_default();
        for end in 0..=text.len() {
            let cut = normalise(&text.as_bytes()[..end], Reading { extent: Extent::Cut, strings: Strings::Unknown }).text;
            prop_assert!(!has_canary(&cut), "{text}\n{cut}");
        }
    }

    /// Statements lie one after another with only semicolons, blanks and comments between; each is split no further.
    #[test]
    fn statements_are_final(text in sql()) {
        let mut end = 0;
        for range in statements(&text, Strings::Conforming) {
            prop_assert!(end <= range.start && range.start < range.end && range.end <= text.len());
            let between = &text[end..range.start];
            prop_assert_eq!(statements(between, Strings::Conforming).count(), 0);
            let piece = &text[range.clone()];
            let again: Vec<_> = statements(piece, Strings::Conforming).collect();
            prop_assert_eq!(again, vec![0..piece.len()]);
            end = range.end;
        }
        prop_assert_eq!(statements(&text[end..], Strings::Conforming).count(), 0);
    }
}
