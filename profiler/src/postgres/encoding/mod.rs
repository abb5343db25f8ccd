//! How the texts of a connection are written: bytes in, UTF-8 out, so that nothing behind it is misread. Pure.
//!
//! Six of the encodings that a client may choose have characters whose second byte is one of ASCII: a backslash, a
//! bracket, a letter. So characters are told from one another first, by the bytes that the server takes for them
//! (`src/common/wchar.c`), and only then looked up. What has no table, or no character there, is shown by its bytes,
//! `‹e9›`: so that two names stay two, and both are words. `doubt` says whether a text is the same to all encodings.

use std::borrow::Cow;

use encoding_rs::Encoding as Table;

mod doubt;
mod names;

pub(super) use doubt::{is_clear, is_plain};
#[cfg(test)]
pub(super) use names::ALL;

/// How text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// No byte of a longer character is one of ASCII, and how those are read is not known: UTF-8, if they are.
    Extended,
    /// A byte is the character of that number.
    Latin1,
    /// No byte of a longer character is one of ASCII.
    Safe(&'static Table),
    /// A second byte may be one.
    Double(Steps, Option<&'static Table>),
}

/// How long the characters of such an encoding are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Steps {
    /// Of `SJIS`: one byte from 0xa1 to 0xdf, else two.
    Sjis,
    /// Two bytes.
    Two,
    /// Two bytes, or four where the second one is a digit.
    Gb18030,
}

impl Steps {
    /// Bytes of the character at the beginning, which is none of ASCII; one, if it is none at all.
    fn of(self, text: &[u8]) -> usize {
        match (self, text) {
            (Self::Sjis, [0xa1..=0xdf, ..]) => 1,
            (Self::Gb18030, [_, b'0'..=b'9', 0x81..=0xfe, b'0'..=b'9', ..]) => 4,
            (_, [_, second, ..]) if !second.is_ascii() || is_second(*second) => 2,
            _ => 1,
        }
    }
}

/// Whether a byte of ASCII can be the second one of a character. The server refuses others, before it parses.
fn is_second(byte: u8) -> bool {
    matches!(byte, 0x40..=0x7e)
}

impl Encoding {
    /// The text in UTF-8. Each byte of ASCII that is a character stays one, and there are no others.
    pub(super) fn decode(self, text: &[u8]) -> Cow<'_, [u8]> {
        let is_utf8 = || self == Self::Extended && str::from_utf8(text).is_ok();
        if text.is_ascii() || is_utf8() {
            return Cow::Borrowed(text);
        }
        let mut decoded = String::with_capacity(2 * text.len());
        let mut rest = text;
        while let Some((&first, behind)) = rest.split_first() {
            if first.is_ascii() {
                decoded.push(char::from(first));
                rest = behind;
                continue;
            }
            let (piece, behind) = rest.split_at(self.step(rest).min(rest.len()));
            self.push(piece, &mut decoded);
            rest = behind;
        }
        Cow::Owned(decoded.into_bytes())
    }

    /// Bytes at the beginning, which are none of ASCII, that can be looked up together.
    fn step(self, rest: &[u8]) -> usize {
        match self {
            Self::Double(steps, _) => steps.of(rest),
            _ => rest.iter().take_while(|byte| !byte.is_ascii()).count(),
        }
    }

    fn push(self, piece: &[u8], decoded: &mut String) {
        let table = match self {
            Self::Extended => None,
            Self::Latin1 => {
                return decoded.extend(piece.iter().map(|byte| char::from(*byte)));
            }
            Self::Safe(table) => Some(table),
            Self::Double(_, table) => table,
        };
        let known = table.and_then(|table| {
            let known = table.decode_without_bom_handling_and_without_replacement(piece)?;
            // No character but those of ASCII may be read as one of these.
            (!known.bytes().any(|byte| byte.is_ascii())).then_some(known)
        });
        match known {
            Some(known) => decoded.push_str(&known),
            None => escape(piece, decoded),
        }
    }
}

/// Writes bytes as numbers, in a way that is a word of SQL.
fn escape(piece: &[u8], decoded: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    decoded.push('‹');
    for byte in piece {
        for digit in [byte >> 4, byte & 0xf] {
            decoded.push(char::from(DIGITS[usize::from(digit)]));
        }
    }
    decoded.push('›');
}

/// A name that is written in nobody knows what.
pub(super) fn legible(name: &[u8]) -> String {
    String::from_utf8_lossy(&Encoding::Extended.decode(name)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{Encoding, legible};

    fn decode(encoding: &str, text: &[u8]) -> String {
        let encoding = Encoding::named(encoding.as_bytes()).unwrap();
        String::from_utf8(encoding.decode(text).into_owned()).unwrap()
    }

    /// Characters are those of the server's own tables, and second bytes are part of them.
    #[test]
    fn characters_are_found() {
        for (encoding, text, expected) in [
            ("UTF8", "naïve 表".as_bytes(), "naïve 表"),
            ("LATIN1", b"\xe91 \xe81", "é1 è1"),
            ("LATIN9", b"\xa4", "€"),
            ("WIN1251", b"\xcf\xf0\xe8", "При"),
            ("KOI8R", b"\xf0\xd2\xc9", "При"),
            ("SJIS", b"'\x95\\' \xb1 \x83\\", "'表' ｱ ソ"),
            ("BIG5", b"\xb3\\ \xa5|", "許 四"),
            ("GBK", b"\xb1\\ \x81@", "盶 丂"),
            ("UHC", b"\x81A \xb0\xa1", "갂 가"),
            ("GB18030", b"\x81\x30\x84\x36| \xb1\\", "¥| 盶"),
            ("EUC_JP", b"\xc9\xbd\x8e\xb1", "表ｱ"),
            ("EUC_KR", b"\xb0\xa1", "가"),
            ("EUC_CN", b"\xb1\xed", "表"),
        ] {
            assert_eq!(decode(encoding, text), expected, "{encoding}");
        }
    }

    /// Where there is no table, or no character, bytes are told by their numbers, and ASCII stays.
    #[test]
    fn bytes_without_a_character_are_told() {
        assert_eq!(decode("EUC_TW", b"a\xa4\xa1\xa4\xa2b"), "a‹a4a1a4a2›b");
        assert_eq!(decode("SHIFT_JIS_2004", b"\x95\\'"), "‹955c›'");
        assert_eq!(decode("SJIS", b"\xfc\xfca"), "‹fcfc›a");
        assert_eq!(decode("SJIS", b"a\x95"), "a‹95›");
        assert_eq!(decode("SQL_ASCII", b"\xe91"), "‹e9›1");
        assert_eq!(legible(b"\xe91\xe8"), "‹e9›1‹e8›");
        assert_eq!(Encoding::named(b"KLINGON"), None);
    }

    /// No two bytes of any encoding become a character of ASCII that is not one of them.
    #[test]
    fn nothing_becomes_ascii() {
        for name in super::names::ALL {
            let encoding = Encoding::named(name.as_bytes()).unwrap();
            for first in 0x80..=0xff_u8 {
                for second in 0..=0xff_u8 {
                    let decoded = encoding.decode(&[first, second]).into_owned();
                    let text = str::from_utf8(&decoded).unwrap();
                    let outside = text.split('‹').map(|part| part.rsplit('›').next());
                    let ascii: Vec<u8> = outside
                        .flat_map(|part| part.unwrap_or_default().bytes())
                        .filter(u8::is_ascii)
                        .collect();
                    let is_second = ascii.is_empty() || ascii == [second];
                    assert!(is_second, "{name} {first:02x} {second:02x}: {text}");
                }
            }
        }
    }
}
