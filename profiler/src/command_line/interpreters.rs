//! Programs that run others or scripts, and which of their options take the next word: without that a value could be
//! taken for the name of a script.

/// A program, by its name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Program {
    /// Runs a script.
    Interpreter(Options),
    /// The same, with options of a dash and a word.
    Java,
    /// Runs a command.
    Wrapper(Options),
    /// Nothing is known of its arguments.
    Other,
}

/// Letters of options.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    /// Those without a value.
    flags: &'static str,
    /// Those with one, in the same word or the next.
    valued: &'static str,
    /// Those whose value is never in the next word.
    attached: &'static str,
    /// Those whose value names what is run.
    script: &'static str,
    /// Those whose value is what is run.
    code: &'static str,
    /// Long ones without a value.
    long: &'static [&'static str],
}

/// What a word before the script or the command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Options that say nothing of the next word, with a value or without.
    Flag,
    /// The same, without.
    Named,
    /// The next word is its value.
    BeforeValue,
    /// The next word is code.
    BeforeCode,
    /// The next word is the script.
    BeforeScript,
    /// Of the environment.
    Assignment,
    /// It is the script.
    Script,
    /// It is the command.
    Command,
    /// It cannot be known, so that the next one cannot either.
    Unknown,
}

const PYTHON: Options = Options {
    flags: "bBdEhiIOPqRsStuvVx",
    valued: "WX",
    attached: "",
    script: "m",
    code: "c",
    long: &[],
};
const PERL: Options = Options {
    flags: "acnpsStTuUvVwWX",
    valued: "I",
    attached: "FiMm",
    script: "",
    code: "eE",
    long: &[],
};
const RUBY: Options = Options {
    flags: "acdhlnpsSUvwy",
    valued: "CEIrX",
    attached: "Fi",
    script: "",
    code: "e",
    long: &["--yjit", "--jit", "--verbose"],
};
const NODE: Options = Options {
    flags: "chiv",
    valued: "Cr",
    attached: "",
    script: "",
    code: "ep",
    long: &[
        "--enable-source-maps",
        "--experimental-vm-modules",
        "--expose-gc",
        "--inspect",
        "--inspect-brk",
        "--interpreted-frames-native-stack",
        "--no-deprecation",
        "--no-warnings",
        "--perf-basic-prof",
        "--perf-basic-prof-only-functions",
        "--perf-prof",
        "--preserve-symlinks",
        "--trace-deprecation",
        "--trace-uncaught",
        "--trace-warnings",
    ],
};
/// With `-s` there is no script: what follows are its arguments.
const SHELL: Options = Options {
    flags: "abefhiklmnpruvxBCEHPT",
    valued: "oO",
    attached: "",
    script: "",
    code: "c",
    long: &[
        "--login",
        "--noprofile",
        "--norc",
        "--posix",
        "--restricted",
        "--verbose",
    ],
};
const PHP: Options = Options {
    flags: "Cenq",
    valued: "cdz",
    attached: "",
    script: "f",
    code: "BErR",
    long: &[],
};
const LUA: Options = Options {
    flags: "Eiv",
    valued: "l",
    attached: "",
    script: "",
    code: "e",
    long: &[],
};
const WRAPPER: Options = Options {
    flags: "",
    valued: "",
    attached: "",
    script: "",
    code: "",
    long: &[],
};
const ENV: Options = Options {
    flags: "0iv",
    valued: "Cu",
    long: &["--ignore-environment", "--null", "--debug"],
    ..WRAPPER
};
const NICE: Options = Options {
    valued: "n",
    ..WRAPPER
};
const SETSID: Options = Options {
    flags: "cfw",
    long: &["--ctty", "--fork", "--wait"],
    ..WRAPPER
};
const STDBUF: Options = Options {
    valued: "eio",
    ..WRAPPER
};

/// Java's options that take the next word.
const JAVA_VALUED: [&str; 9] = [
    "-cp",
    "-classpath",
    "--class-path",
    "-p",
    "--module-path",
    "--add-exports",
    "--add-modules",
    "--add-opens",
    "--add-reads",
];
const JAVA_SCRIPTS: [&str; 3] = ["-jar", "-m", "--module"];
const JAVA_FLAGS: [&str; 8] = [
    "-server",
    "-client",
    "-ea",
    "-esa",
    "-da",
    "-dsa",
    "-enableassertions",
    "--enable-preview",
];
/// Beginnings of options that carry their values with them.
const JAVA_ATTACHED: [&str; 7] = [
    "-D",
    "-X",
    "-agentlib:",
    "-agentpath:",
    "-javaagent:",
    "-verbose",
    "-ea:",
];

impl Program {
    pub(super) fn of(program: &str) -> Self {
        let name = program.rsplit('/').next().unwrap_or(program);
        // A login shell; a version.
        let name = name.strip_prefix('-').unwrap_or(name);
        let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == '-');
        match name {
            "python" | "pypy" => Self::Interpreter(PYTHON),
            "perl" => Self::Interpreter(PERL),
            "ruby" => Self::Interpreter(RUBY),
            "node" | "nodejs" => Self::Interpreter(NODE),
            "sh" | "bash" | "dash" | "ash" | "zsh" | "ksh" | "mksh" => Self::Interpreter(SHELL),
            "php" => Self::Interpreter(PHP),
            "lua" | "luajit" => Self::Interpreter(LUA),
            "java" => Self::Java,
            "env" => Self::Wrapper(ENV),
            "nice" => Self::Wrapper(NICE),
            "setsid" => Self::Wrapper(SETSID),
            "stdbuf" => Self::Wrapper(STDBUF),
            "nohup" => Self::Wrapper(WRAPPER),
            _ => Self::Other,
        }
    }

    /// What the next word is, all before it being known.
    pub(super) fn meaning(&self, word: &str) -> Meaning {
        match self {
            Self::Interpreter(_) | Self::Java if !word.starts_with(['-', '+']) => Meaning::Script,
            Self::Wrapper(_) if !word.starts_with('-') => {
                if word.contains('=') {
                    Meaning::Assignment
                } else {
                    Meaning::Command
                }
            }
            Self::Interpreter(options) | Self::Wrapper(options) => options.meaning(word),
            Self::Java => java(word),
            Self::Other => Meaning::Unknown,
        }
    }
}

impl Options {
    fn meaning(&self, word: &str) -> Meaning {
        if word.starts_with("--") {
            let is_whole = word.contains('=') || self.long.contains(&word);
            return if is_whole {
                Meaning::Flag
            } else {
                Meaning::Unknown
            };
        }
        let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            return Meaning::Unknown;
        };
        for (at, letter) in letters.char_indices() {
            let is_last = at + letter.len_utf8() == letters.len();
            let has = |list: &str| list.contains(letter);
            return match () {
                () if has(self.flags) => continue,
                () if has(self.attached) => Meaning::Flag,
                () if has(self.valued) && is_last => Meaning::BeforeValue,
                () if has(self.valued) => Meaning::Flag,
                () if has(self.code) && is_last => Meaning::BeforeCode,
                () if has(self.script) && is_last => Meaning::BeforeScript,
                // Code and all else.
                () => Meaning::Unknown,
            };
        }
        Meaning::Flag
    }
}

fn java(word: &str) -> Meaning {
    if JAVA_SCRIPTS.contains(&word) {
        return Meaning::BeforeScript;
    }
    if JAVA_VALUED.contains(&word) {
        return Meaning::BeforeValue;
    }
    if JAVA_FLAGS.contains(&word) {
        return Meaning::Named;
    }
    let is_whole = JAVA_ATTACHED.iter().any(|begin| word.starts_with(begin))
        || word.starts_with("--") && word.contains('=');
    if is_whole {
        Meaning::Flag
    } else {
        Meaning::Unknown
    }
}
