//! What is wrong with a file of the configuration: where, what, and what was probably meant.

use std::{
    fmt,
    path::{Path, PathBuf},
};

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    path: PathBuf,
    /// From 1, where it is known.
    line: Option<usize>,
    message: String,
    /// The word that was probably meant.
    meant: Option<String>,
}

impl Complaint {
    /// Of a text that is no configuration.
    pub(super) fn of_text(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let line = error.span().map(|span| line_at(text, span.start));
        Self {
            path: path.to_owned(),
            line,
            message: error.message().lines().collect::<Vec<_>>().join(", "),
            meant: meant(error.message()),
        }
    }

    /// Of a value that cannot be: the line is that of its key.
    pub(super) fn of_value(path: &Path, message: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            line: None,
            message: message.into(),
            meant: None,
        }
    }

    /// What mends it.
    pub fn hint(&self) -> Option<String> {
        let meant = self.meant.as_ref()?;
        Some(format!("did you mean `{meant}`?"))
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", crate::printable::shown(&self.path))?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        write!(f, ": {}", self.message)
    }
}

fn line_at(text: &str, at: usize) -> usize {
    let before = text.get(..at).unwrap_or(text);
    before.matches('\n').count() + 1
}

/// Out of "unknown field `a`, expected one of `b`, `c`" the one of those that resembles it most, if any does.
fn meant(message: &str) -> Option<String> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let is_unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    let word = quoted.next().filter(|_| is_unknown)?;
    let near = quoted.map(|known| (strsim::damerau_levenshtein(word, known), known));
    let (distance, known) = near.min()?;
    let is_near = distance <= 1 + word.len() / 3;
    is_near.then(|| known.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{super::file::File, Complaint};

    fn complaint(text: &str) -> Complaint {
        let error = toml::from_str::<File>(text).unwrap_err();
        Complaint::of_text(Path::new("p.toml"), text, &error)
    }

    /// An unknown key has its line, and the key that was meant.
    #[test]
    fn unknown_keys_have_a_line_and_a_suggestion() {
        let unknown = complaint("[windows]\nlength = '60s'\n\n[sampling]\nfrequencey = 19\n");
        assert!(
            unknown
                .to_string()
                .starts_with("p.toml:5: unknown field `frequencey`")
        );
        assert_eq!(unknown.hint().unwrap(), "did you mean `frequency`?");
        let section = complaint("[smapling]\n");
        assert!(
            section
                .to_string()
                .starts_with("p.toml:1: unknown field `smapling`")
        );
        assert_eq!(section.hint().unwrap(), "did you mean `sampling`?");
        assert_eq!(complaint("[sampling]\nvoltage = 1\n").hint(), None);
    }

    /// A bad value and broken text have their line too.
    #[test]
    fn bad_values_have_a_line() {
        let value = complaint("[windows]\nlength = '60'\n").to_string();
        assert_eq!(value, "p.toml:2: `60` needs a unit: ms, s, m, h or d");
        let level = complaint("[log]\nlevel = 'inof'\n");
        assert!(level.to_string().starts_with("p.toml:2: unknown variant"));
        assert_eq!(level.hint().unwrap(), "did you mean `info`?");
        assert!(
            complaint("[sampling\n")
                .to_string()
                .starts_with("p.toml:1: ")
        );
    }
}
