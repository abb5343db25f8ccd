//! Values as users write them, with their units.

use std::time::Duration;

use profiler_common::comm::CommGlob;
use serde::Deserialize;

/// Shorter windows would cost more to write than to take.
const WINDOW_MIN: Duration = Duration::from_millis(100);
/// Longer ones would keep too much in memory.
const WINDOW_MAX: Duration = Duration::from_secs(3600);

/// A number, or text with a unit.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number that is not negative, or text with a unit"
)]
pub(super) enum Word {
    Number(u64),
    Text(String),
}

/// `60s`, `100ms`, `90m`, `1h`, `7d`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "Word")]
pub(super) struct Span(pub(super) Duration);

/// How long a window is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "Word")]
pub(super) struct Length(pub(super) Duration);

/// A pattern of processes' names, as typed and compiled.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "String")]
pub(super) struct Glob(pub(super) String, pub(super) CommGlob);

/// `512MB`, `2GB`; powers of ten, as disks are sold. `KiB`, `MiB`, `GiB` are powers of two.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "Word")]
pub(super) struct Bytes(pub(super) u64);

/// `1%`, `0.5%`: of all CPUs together, in millionths.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "Word")]
pub(super) struct Share(pub(super) u32);

/// `19`, `"19"` or `"19Hz"`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(try_from = "Word")]
pub(super) struct Hertz(pub(super) u64);

impl TryFrom<Word> for Span {
    type Error = String;

    fn try_from(word: Word) -> Result<Self, String> {
        let Word::Text(text) = word else {
            return Err("a time needs a unit, such as \"60s\", \"1h\" or \"7d\"".to_owned());
        };
        parse_span(&text).map(Self)
    }
}

impl TryFrom<Word> for Length {
    type Error = String;

    fn try_from(word: Word) -> Result<Self, String> {
        let Span(length) = word.try_into()?;
        (WINDOW_MIN..=WINDOW_MAX)
            .contains(&length)
            .then_some(Self(length))
            .ok_or_else(|| "a window is from 100ms to 1h long".to_owned())
    }
}

impl TryFrom<String> for Glob {
    type Error = String;

    fn try_from(typed: String) -> Result<Self, String> {
        match CommGlob::compile(typed.as_bytes()) {
            Ok(compiled) => Ok(Self(typed, compiled)),
            Err(_) => Err(format!(
                "`{typed}` can match no process: the kernel keeps 15 bytes of a name"
            )),
        }
    }
}

impl TryFrom<Word> for Bytes {
    type Error = String;

    fn try_from(word: Word) -> Result<Self, String> {
        let Word::Text(text) = word else {
            return Err("a size needs a unit, such as \"512MB\"".to_owned());
        };
        let (number, unit) = split(&text)?;
        let unit: u64 = match unit {
            "kB" | "KB" => 1000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            unit => return Err(format!("unknown unit `{unit}`: use kB, MB, GB, MiB or GiB")),
        };
        let number: u64 = number
            .parse()
            .map_err(|_| format!("`{number}` is no whole number"))?;
        let bytes = number.checked_mul(unit);
        bytes
            .filter(|bytes| *bytes > 0)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is out of range"))
    }
}

impl TryFrom<Word> for Share {
    type Error = String;

    fn try_from(word: Word) -> Result<Self, String> {
        let wanted = || "expected a share such as \"1%\" or \"0.5%\"".to_owned();
        let Word::Text(text) = word else {
            return Err(wanted());
        };
        let number = text.strip_suffix('%').ok_or_else(wanted)?;
        let percent: f64 = number.trim().parse().map_err(|_| wanted())?;
        if !(0.01..=100.0).contains(&percent) {
            return Err(format!("`{text}` is out of range: 0.01% to 100%"));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "0.01 to 100, as was just checked"
        )]
        Ok(Self((percent * 10_000.0).round() as u32))
    }
}

impl TryFrom<Word> for Hertz {
    type Error = String;

    fn try_from(word: Word) -> Result<Self, String> {
        let hertz = match &word {
            Word::Number(hertz) => Some(*hertz),
            Word::Text(text) => text.trim_end_matches("Hz").trim().parse().ok(),
        };
        hertz
            .filter(|hertz| *hertz > 0)
            .map(Self)
            .ok_or_else(|| "expected samples per second and CPU, such as 19".to_owned())
    }
}

/// A time with its unit.
pub(crate) fn parse_span(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text)?;
    let unit = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err(format!("`{text}` needs a unit: ms, s, m, h or d")),
        unit => return Err(format!("unknown unit `{unit}`: use ms, s, m, h or d")),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| format!("`{number}` is no whole number"))?;
    number
        .checked_mul(unit)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("`{text}` is out of range"))
}

fn split(text: &str) -> Result<(&str, &str), String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    if digits == 0 {
        return Err(format!("`{text}` does not begin with a whole number"));
    }
    let (number, unit) = text.split_at(digits);
    Ok((number, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::{Bytes, Duration, Glob, Hertz, Length, Share, Span, Word, parse_span};

    fn text(text: &str) -> Word {
        Word::Text(text.to_owned())
    }

    /// Each unit means what it says; a number without one is not guessed at.
    #[test]
    fn units() {
        assert_eq!(parse_span("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(parse_span("90m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_span("7d"), Ok(Duration::from_secs(604_800)));
        assert!(Span::try_from(Word::Number(60)).is_err());
        assert_eq!(Bytes::try_from(text("512MB")), Ok(Bytes(512_000_000)));
        assert_eq!(Bytes::try_from(text("1 GiB")), Ok(Bytes(1 << 30)));
        assert_eq!(Share::try_from(text("1%")), Ok(Share(10_000)));
        assert_eq!(Share::try_from(text("0.5 %")), Ok(Share(5_000)));
        assert_eq!(Hertz::try_from(text("19Hz")), Ok(Hertz(19)));
        assert_eq!(Hertz::try_from(Word::Number(19)), Ok(Hertz(19)));
    }

    /// What is out of range or no value at all is refused, with what would be one.
    #[test]
    fn nonsense_is_refused() {
        for span in ["60", "s", "-1s", "1 week", "99999999999999999999d"] {
            assert!(parse_span(span).is_err(), "{span}");
        }
        for size in ["0MB", "1.5GB", "1", "99999999999TB", "MB"] {
            assert!(Bytes::try_from(text(size)).is_err(), "{size}");
        }
        for share in ["1", "0%", "101%", "one%"] {
            assert!(Share::try_from(text(share)).is_err(), "{share}");
        }
        for length in ["99ms", "2h"] {
            assert!(Length::try_from(text(length)).is_err(), "{length}");
        }
        assert!(Glob::try_from("sixteen-bytes-xx".to_owned()).is_err());
        assert!(Hertz::try_from(Word::Number(0)).is_err());
        assert!(Hertz::try_from(text("often")).is_err());
    }
}
