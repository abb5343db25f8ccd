//! Numbers as people read them: grouped digits, shares, seconds.
//!
//! Integer arithmetic throughout, so that a figure is the same on every machine. What a number
//! means is said by the caller.

use std::{fmt::Write, time::Duration};

use crate::profile::Profile;

/// Digits in groups of three: `1,980`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Grouped digits and the word for samples: `1 sample`, `1,980 samples`.
pub(super) fn samples(count: u64) -> String {
    format!(
        "{} sample{}",
        grouped(count),
        if count == 1 { "" } else { "s" }
    )
}

/// What a profile holds: `1,980 samples`, or `35.204 s` where time was measured.
pub(super) fn amount(profile: &Profile) -> String {
    if profile.meta.event.is_time() {
        format!(
            "{} of threads",
            exact_seconds(Duration::from_micros(profile.total()))
        )
    } else {
        samples(profile.total())
    }
}

/// A share in per cent with one digit, rounded: `97.3 %`; of nothing, `0.0 %`.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    let tenths = (u128::from(part) * 2000 + u128::from(whole)).checked_div(u128::from(whole) * 2);
    let tenths = tenths.unwrap_or(0);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

/// Bytes in a unit in which they are short: `9999 B`, `10 kB`.
pub(crate) fn bytes(count: u64) -> String {
    match count {
        10_000_000_000.. => format!("{} GB", count / 1_000_000_000),
        10_000_000.. => format!("{} MB", count / 1_000_000),
        10_000.. => format!("{} kB", count / 1000),
        _ => format!("{count} B"),
    }
}

/// Seconds with one digit, for a title: `10.0 s`.
pub(super) fn seconds(time: Duration) -> String {
    let tenths = (time.as_millis() + 50) / 100;
    format!("{}.{} s", tenths / 10, tenths % 10)
}

/// Seconds with microseconds, for a statement: `0.431007 s`.
pub(super) fn exact_seconds(time: Duration) -> String {
    format!("{}.{:06} s", time.as_secs(), time.subsec_micros())
}

/// Bytes as digits, two each.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut digits, byte| {
        // Writing to a string cannot fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

#[cfg(test)]
mod tests {
    use super::{Duration, exact_seconds, grouped, percent, samples, seconds};

    /// The forms that appear in outputs.
    #[test]
    fn numbers_read_well() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(samples(1), "1 sample");
        assert_eq!(samples(1_980), "1,980 samples");
        assert_eq!(percent(973, 1000), "97.3 %");
        assert_eq!(percent(2, 3), "66.7 %");
        assert_eq!(percent(0, 0), "0.0 %");
        assert_eq!(percent(u64::MAX, u64::MAX), "100.0 %");
        assert_eq!(seconds(Duration::from_millis(9_960)), "10.0 s");
        assert_eq!(exact_seconds(Duration::from_micros(431_007)), "0.431007 s");
    }
}
