//! What is shown of command lines that hold secrets.

use proptest::prelude::{Just, Strategy, prop, prop_assert, prop_oneof, proptest};

use super::CommandLines;

fn names(words: &[&str]) -> String {
    CommandLines::Names.text(words)
}

/// Words, and what is shown of them.
const EXAMPLES: [(&[&str], &str); 31] = [
    (&["psql", "postgresql://user:pw@host/db"], "psql …"),
    (
        &["mysql", "-psecret", "-u", "root", "shop"],
        "mysql -p… -u …",
    ),
    (
        &[
            "python",
            "app.py",
            "--token=abc",
            "--password",
            "abc",
            "positional",
        ],
        "python app.py --token=… --password …",
    ),
    (
        &["java", "-Dpw=x", "-jar", "a.jar", "x"],
        "java -D… -jar a.jar …",
    ),
    (
        &[
            "java", "-cp", "/a:/b", "-Xmx2g", "-server", "com.Main", "x", "-y",
        ],
        "java -cp … -X… -server com.Main … -y",
    ),
    (&["env", "KEY=VALUE", "cmd", "x"], "env … cmd …"),
    (
        &["env", "-u", "HOME", "A=b", "python3", "-u", "x.py", "y"],
        "env -u … python3 -u x.py …",
    ),
    (&["sh", "-c", "export PW=x; app"], "sh -c …"),
    (
        &["bash", "-euo", "pipefail", "/opt/run.sh", "x"],
        "bash -euo … /opt/run.sh …",
    ),
    (&["bash", "-s", "x"], "bash -s …"),
    (&["gunicorn", "app:app", "-b", "0.0.0.0"], "gunicorn … -b …"),
    (
        &["/usr/bin/python3.11", "-m", "http.server", "8000"],
        "/usr/bin/python3.11 -m http.server …",
    ),
    (&["python3", "-c", "-1 + secret", "--x"], "python3 -c … --x"),
    (
        &["python3", "--unknown", "secret", "secret"],
        "python3 --unknown …",
    ),
    (&["perl", "-lne", "print secret", "file"], "perl -l… …"),
    (&["perl", "-pe", "s/secret//", "file"], "perl -pe …"),
    (&["ruby", "-rjson", "app.rb", "x"], "ruby -r… app.rb …"),
    (
        &[
            "node",
            "--max-old-space-size=99",
            "--inspect",
            "app.js",
            "x",
        ],
        "node --max-old-space-size=… --inspect app.js …",
    ),
    (&["node", "--title", "secret", "app.js"], "node --title …"),
    (&["php", "-d", "x=y", "-f", "a.php"], "php -d … -f a.php"),
    (
        &["lua", "https://me:pw@host/a.lua?t=1"],
        "lua https://…@host/a.lua?t=…",
    ),
    (
        &["curl", "-H", "Authorization: x", "--user:me", "--", "-x"],
        "curl -H … --user… -- …",
    ),
    (
        &["app", "--password", "--hunter2", "-v"],
        "app --password … -v",
    ),
    (
        &["app", "-----BEGIN PRIVATE KEY-----", "", "+x", "é"],
        "app …",
    ),
    (&["app", "-", "-é", "--é", "-9"], "app - … -9"),
    (
        &["/opt/chrome/chrome --type=renderer --key=x secret"],
        "/opt/chrome/chrome --type=… --key=… …",
    ),
    (
        &["nginx: master process /usr/sbin/nginx -g secret", "", ""],
        "nginx: master process …",
    ),
    (
        &["postgres: 15/main: bench shop 127.0.0.1(47112) SELECT"],
        "postgres: 15/main: bench shop 127.0.0.1(47112) SELECT",
    ),
    (
        &[
            "/usr/lib/postgresql/15/bin/postgres",
            "-D",
            "/data",
            "-c",
            "x=y",
        ],
        "/usr/lib/postgresql/15/bin/postgres -D … -c …",
    ),
    (&["-bash"], "-bash"),
    (&[], ""),
];

/// Programs, scripts and names of options stay, all else goes.
#[test]
fn names_stay_and_values_go() {
    for (words, expected) in EXAMPLES {
        assert_eq!(names(words), expected, "{words:?}");
    }
    let long = format!("--{}", "x".repeat(65));
    assert_eq!(names(&["app", &long]), "app --…");
}

/// Who asks for everything has it, but for the empty end of a title.
#[test]
fn full_is_full() {
    assert_eq!(
        CommandLines::of(true).text(&["mysql", "-psecret", "", "shop", "", ""]),
        "mysql -psecret  shop"
    );
    assert_eq!(CommandLines::of(false), CommandLines::Names);
}

/// A command line of thousands of commands within each other costs no stack.
#[test]
fn commands_within_commands() {
    let words = vec!["env"; 100_000];
    assert_eq!(names(&words).len(), 4 * words.len() - 1);
}

/// A secret at a place where secrets are, in one or two words; it begins with a capital and an `S`.
fn argument(secret: String) -> impl Strategy<Value = Vec<String>> {
    let one = |text: String| Just(vec![text]);
    prop_oneof![
        one(secret.clone()),
        one(format!("--token={secret}")),
        one(format!("-p{secret}")),
        one(format!("-DKEY={secret}")),
        one(format!("KEY={secret}")),
        one(format!("--header:{secret}")),
        one(format!("https://user:{secret}@host/path?key={secret}")),
        one(format!("export PW={secret}; app")),
        Just(vec!["--password".to_owned(), format!("--{secret}")]),
        Just(vec!["-c".to_owned(), secret.clone()]),
        Just(vec!["-x".to_owned(), "-y".to_owned(), secret.clone()]),
        Just(vec!["--unknown".to_owned(), secret.clone()]),
        Just(vec!["--".to_owned(), format!("-{secret}"), secret]),
    ]
}

fn program() -> impl Strategy<Value = Vec<&'static str>> {
    prop_oneof![
        Just(vec!["app"]),
        Just(vec!["psql", "-h"]),
        Just(vec!["python3", "-u", "-Wignore", "app.py"]),
        Just(vec!["python3", "-um", "app"]),
        Just(vec!["python3", "-X", "S3CRET", "app.py"]),
        Just(vec!["perl", "-w", "-I", "lib", "x.pl"]),
        Just(vec!["perl", "-pe", "S3CRET"]),
        Just(vec!["ruby", "--yjit", "x.rb"]),
        Just(vec!["node", "-r", "S3CRET", "app.js"]),
        Just(vec!["node", "--title"]),
        Just(vec!["bash", "-lc", "S3CRET"]),
        Just(vec!["bash", "-o", "S3CRET", "run.sh"]),
        Just(vec!["bash", "-eu", "run.sh"]),
        Just(vec!["java", "-cp", "x", "Main"]),
        Just(vec!["java", "-jar", "x.jar"]),
        Just(vec!["java", "-Dx", "-unknown"]),
        Just(vec!["php", "-r", "S3CRET"]),
        Just(vec!["lua", "-e", "S3CRET"]),
        Just(vec!["env", "A=b", "app"]),
        Just(vec!["env", "-S"]),
        Just(vec!["nice", "-n", "5", "nohup", "bash", "run.sh"]),
        Just(vec!["postgres:"]),
        Just(vec!["nginx: worker"]),
    ]
}

proptest! {
    /// Wherever secrets stand, none is shown.
    #[test]
    fn no_secret_is_shown(
        program in program(),
        arguments in "[A-Za-z0-9!@#=/:. ?'-]{8,20}".prop_map(|rest| format!("S3CR{rest}"))
            .prop_flat_map(|secret| prop::collection::vec(argument(secret), 0..6)),
        as_title in prop::bool::ANY,
    ) {
        let mut words: Vec<String> = program.iter().map(ToString::to_string).collect();
        words.extend(arguments.into_iter().flatten());
        if as_title {
            words = vec![words.join(" ")];
        }
        let shown = CommandLines::Names.text(&words);
        prop_assert!(!shown.contains("S3CR") || (as_title && shown.starts_with("postgres: ")), "{words:?}: {shown}");
        prop_assert!(shown.starts_with(program[0]));
    }
}
