//! Whether a text is the same to whatever encoding it may be in, where that is not known.

use super::{
    super::sql::{Strings, are_alike},
    is_second,
};

/// Whether no value of a text would be taken for something else in any encoding that a client may choose. The bytes
/// that second bytes can be are those of every encoding that the server converts from: it refuses others.
pub(in super::super) fn is_clear(text: &[u8], strings: Strings) -> bool {
    if is_plain(text) {
        return true;
    }
    let masked = [
        mask(text, |_| true),
        mask(text, |first| !matches!(first, 0xa1..=0xdf)),
    ];
    masked.iter().all(|masked| are_alike(text, masked, strings))
}

/// Whether a text has no byte that some encoding takes for a part of a character and others for a sign.
pub(in super::super) fn is_plain(text: &[u8]) -> bool {
    let is_odd = |pair: &[u8]| matches!(pair, [0x80..=0xff, second] if means_something(*second));
    !text.windows(2).any(is_odd)
}

/// Whether a second byte would be more than one more letter of a word.
fn means_something(second: u8) -> bool {
    is_second(second) && !(second.is_ascii_alphanumeric() || second == b'_')
}

/// The text with second bytes that are none of ASCII, where characters that begin so have two.
fn mask(text: &[u8], is_lead: impl Fn(u8) -> bool) -> Vec<u8> {
    let mut masked = text.to_vec();
    let mut at = 0;
    while let (Some(&first), Some(second)) = (text.get(at), masked.get_mut(at + 1)) {
        let is_double = !first.is_ascii() && is_lead(first);
        let is_whole = is_second(*second) || !second.is_ascii();
        at += match (is_double, is_whole) {
            (true, true) => {
                *second |= 0x80;
                2
            }
            _ => 1,
        };
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::{Strings, is_clear};

    /// Texts are clear where all encodings agree on where values are.
    #[test]
    fn doubt_is_where_encodings_differ() {
        for (text, expected) in [
            (
                "SELECT 'é', 'ß' || 'a' FROM tablé WHERE x = 'é@b'".as_bytes(),
                true,
            ),
            (b"SELECT 'caf\xe9' FROM \xe91", true),
            ("SELECT E'é\\n', 'a'".as_bytes(), true),
            (b"SELECT E'\x95\\', 'secret'", false),
            ("SELECT E'Ã\u{83}\\', 'secret'".as_bytes(), false),
            (b"SELECT $\x95\\$secret$\x95\\$", false),
            (b"SELECT '\x95\\', 'secret'", true),
        ] {
            let text_shown = String::from_utf8_lossy(text);
            assert_eq!(
                is_clear(text, Strings::Conforming),
                expected,
                "{text_shown}"
            );
        }
        // A backslash of which it is not known what it does may be none.
        assert!(!is_clear(b"SELECT '\x95\\', 'secret'", Strings::Unknown));
    }
}
