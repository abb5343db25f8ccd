//! What of a command line is kept: its names, not its values. Passwords and tokens stand in command lines, and
//! recordings are handed around.
//!
//! Shown are the program, the script of an interpreter, and the names of options, of short ones the letter. Values of
//! options, what follows the script, users of addresses and `KEY=VALUE` are `…`. What a word is cannot be known of
//! every program: in doubt it is a value. Only a value that itself looks like an option is taken for one, unless the
//! option before it is called a password or the like. Pure.

mod interpreters;

use std::borrow::Cow;

use self::interpreters::{Meaning, Program};

/// What stands for values.
const VALUE: &str = "…";
/// Longest name of an option that is shown.
const OPTION_MAX: usize = 64;
/// Words that servers describe their processes with, after their name and a colon.
const TITLE_WORDS: [&str; 12] = [
    "master",
    "main",
    "worker",
    "process",
    "processes",
    "manager",
    "cache",
    "loader",
    "pool",
    "parent",
    "child",
    "helper",
];
/// In names of options whose next word is a value, whatever it looks like.
const SECRETS: [&str; 7] = ["pass", "pwd", "secret", "token", "key", "auth", "cred"];

/// How much of command lines is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CommandLines {
    /// Their names.
    #[default]
    Names,
    /// All of them.
    Full,
}

impl CommandLines {
    /// By `--full-command`.
    pub fn of(full: bool) -> Self {
        if full { Self::Full } else { Self::Names }
    }

    /// A command line as it is kept.
    pub fn text<W: AsRef<str>>(self, words: &[W]) -> String {
        let mut words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        // A title that is shorter than the arguments it stands in for leaves empty ones.
        while words.last().is_some_and(|word| word.trim().is_empty()) {
            words.pop();
        }
        match self {
            Self::Names => names(&words),
            Self::Full => words.join(" ").trim_end().to_owned(),
        }
    }

    /// Ours: options of the profiler hold no secrets, a command to be recorded may.
    pub fn own(self) -> String {
        let words: Vec<String> = std::env::args().collect();
        let end = words
            .iter()
            .position(|word| word == "--")
            .map_or(words.len(), |at| at + 1);
        let (ours, command) = words.split_at(end);
        format!("{} {}", ours.join(" "), self.text(command))
            .trim_end()
            .to_owned()
    }
}

fn names(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        // User, database and client's address are in the tables of queries too; the text of a statement never is.
        [title] if title.starts_with("postgres: ") => (*title).to_owned(),
        [first, rest @ ..] => {
            let mut line = Line::default();
            // One word with blanks is a title, or what a program has made of its arguments.
            let split: Vec<&str> = first
                .split_whitespace()
                .chain(rest.iter().copied())
                .collect();
            line.command(&split);
            line.shown
        }
    }
}

#[derive(Default)]
struct Line {
    shown: String,
}

impl Line {
    fn push(&mut self, word: &str) {
        if !self.shown.is_empty() {
            self.shown.push(' ');
        }
        self.shown.push_str(word);
    }

    /// Something that is not shown; several in a row are one.
    fn push_value(&mut self) {
        if self.shown != VALUE && !self.shown.ends_with(" …") {
            self.push(VALUE);
        }
    }

    /// A program and its arguments, which may be another command.
    fn command(&mut self, words: &[&str]) {
        let mut next = Some(words);
        while let Some(words) = next {
            next = self.program(words);
        }
    }

    /// Gives the command that is among the arguments.
    fn program<'a, 'b>(&mut self, words: &'a [&'b str]) -> Option<&'a [&'b str]> {
        let (program, arguments) = words.split_first()?;
        self.push(&name(program));
        if program.ends_with(':') {
            self.title(arguments);
            return None;
        }
        self.leading(&Program::of(program), arguments)
    }

    /// What a server says of itself.
    fn title(&mut self, words: &[&str]) {
        let known = words
            .iter()
            .take_while(|word| TITLE_WORDS.contains(word))
            .count();
        words[..known].iter().for_each(|word| self.push(word));
        if known < words.len() {
            self.push_value();
        }
    }

    /// Options up to the name of the script or the command, as long as it is certain which words are values.
    fn leading<'a, 'b>(
        &mut self,
        program: &Program,
        mut words: &'a [&'b str],
    ) -> Option<&'a [&'b str]> {
        while let Some((word, rest)) = words.split_first() {
            let after = rest.get(1..).unwrap_or_default();
            match program.meaning(word) {
                Meaning::Flag => _ = self.option(word),
                Meaning::Named => self.push(word),
                Meaning::Assignment => self.push_value(),
                Meaning::BeforeValue => {
                    self.before_value(word, rest);
                    words = after;
                    continue;
                }
                Meaning::BeforeCode => {
                    self.before_value(word, rest);
                    self.arguments(after);
                    return None;
                }
                Meaning::BeforeScript => {
                    self.push(word);
                    self.script(rest);
                    return None;
                }
                Meaning::Script => {
                    self.script(words);
                    return None;
                }
                Meaning::Command => return Some(words),
                Meaning::Unknown => {
                    self.arguments(words);
                    return None;
                }
            }
            words = rest;
        }
        None
    }

    /// An option all of whose letters are known, and the next word.
    fn before_value(&mut self, option: &str, rest: &[&str]) {
        self.push(option);
        if !rest.is_empty() {
            self.push_value();
        }
    }

    /// The script's name and its arguments.
    fn script(&mut self, words: &[&str]) {
        if let Some((script, arguments)) = words.split_first() {
            self.push(&name(script));
            self.arguments(arguments);
        }
    }

    /// Options whose meaning is not known, and values.
    fn arguments(&mut self, words: &[&str]) {
        let mut is_value = false;
        let mut after_options = false;
        for word in words {
            if is_value || after_options {
                self.push_value();
                is_value = false;
            } else if *word == "--" {
                self.push(word);
                after_options = true;
            } else {
                is_value = self.option(word);
            }
        }
    }

    /// A word that may be an option; whether the next one is a value for certain.
    fn option(&mut self, word: &str) -> bool {
        let Some(shown) = option(word) else {
            self.push_value();
            return false;
        };
        self.push(&shown);
        let is_long = word.starts_with("--");
        let name = word.trim_start_matches('-').to_ascii_lowercase();
        // What follows a short option in its word is a value already.
        let says = |secret: &&str| name.starts_with(*secret) || is_long && name.contains(*secret);
        !name.contains(['=', ':']) && SECRETS.iter().any(says)
    }
}

/// An option without its value; `None` of what is none.
fn option(word: &str) -> Option<Cow<'_, str>> {
    let dashes = if word.starts_with("--") { 2 } else { 1 };
    let name = word.strip_prefix('-')?;
    let name = name.strip_prefix('-').unwrap_or(name);
    let first = match name.chars().next() {
        // Standard input.
        None if dashes == 1 => return Some(Cow::Borrowed(word)),
        first => first.filter(char::is_ascii_alphanumeric)?,
    };
    if dashes == 1 {
        let is_letter = name.len() == first.len_utf8();
        return Some(if is_letter {
            Cow::Borrowed(word)
        } else {
            format!("-{first}…").into()
        });
    }
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let end = name.find(|c| !is_name(c)).unwrap_or(name.len());
    match &name[..end] {
        name if name.len() > OPTION_MAX => Some(Cow::Borrowed("--…")),
        whole if whole.len() == name.len() => Some(Cow::Borrowed(word)),
        begin if name[end..].starts_with('=') => Some(format!("--{begin}=…").into()),
        begin => Some(format!("--{begin}…").into()),
    }
}

/// The name of a program or a script, which may be an address, or look like an assignment.
fn name(word: &str) -> Cow<'_, str> {
    let word = match word.split_once("://") {
        Some((scheme, rest)) => match rest.rsplit_once('@') {
            Some((_, host)) => Cow::Owned(format!("{scheme}://…@{host}")),
            None => Cow::Borrowed(word),
        },
        None => Cow::Borrowed(word),
    };
    match word.split_once('=') {
        Some((before, _)) => format!("{before}=…").into(),
        None => word,
    }
}

#[cfg(test)]
mod tests;
