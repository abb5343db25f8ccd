//! Reads what messages carry: strings, an error's code, a command's tag, the parameters of a start-up packet.

use super::event::{Failure, Severity, SqlState};

/// Longest name that is kept as it is. Servers cut portals' and tables' names, but not prepared statements'.
const NAME_MAX: usize = 255;

/// Name of a statement or a portal.
pub(super) type Name = Box<[u8]>;

/// Takes a string that ends in a zero byte.
pub(super) fn string<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = bytes.iter().position(|byte| *byte == 0)?;
    let string = &bytes[..length];
    *bytes = &bytes[length + 1..];
    Some(string)
}

/// Takes a name. Of an overlong one a part stands for the whole, with its length and a sum of it: behind a zero
/// byte, which no other name has.
pub(super) fn name(bytes: &mut &[u8]) -> Option<Name> {
    let name = string(bytes)?;
    if name.len() <= NAME_MAX {
        return Some(name.into());
    }
    // FNV-1a
    let sum = name.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mark = [&[0], &name.len().to_be_bytes()[..], &sum.to_be_bytes()].concat();
    Some([&name[..NAME_MAX / 2], &mark].concat().into())
}

/// A big-endian number at the beginning.
pub(super) fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}

/// Severity and code of an error; its text is not looked at. Before 9.6 the severity came in the server's
/// language only, so that one which is not known is taken for the mildest.
pub(super) fn failure(mut body: &[u8]) -> Failure {
    let mut failure = Failure {
        severity: Severity::Error,
        sqlstate: SqlState::UNKNOWN,
    };
    while let Some((&field, rest)) = body.split_first() {
        body = rest;
        let Some(value) = string(&mut body) else {
            break;
        };
        match (field, value) {
            (b'S' | b'V', b"FATAL") => failure.severity = Severity::Fatal,
            (b'S' | b'V', b"PANIC") => failure.severity = Severity::Panic,
            (b'C', code) => {
                failure.sqlstate = SqlState::read(code);
                break;
            }
            _ => {}
        }
    }
    failure
}

/// Commands whose tags tell rows, in the last word.
const COUNTING: [&[u8]; 8] = [
    b"SELECT", b"INSERT", b"UPDATE", b"DELETE", b"MERGE", b"MOVE", b"FETCH", b"COPY",
];

/// What a command's tag says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CommandTag<'a> {
    pub(super) command: &'a [u8],
    /// Rows, of the commands that count them.
    pub(super) rows: Option<u64>,
}

/// The tag of a completed command; nothing if it is none.
pub(super) fn command_tag(body: &[u8]) -> Option<CommandTag<'_>> {
    let tag = string(&mut &*body)?;
    if !tag.first()?.is_ascii_uppercase() {
        return None;
    }
    let word = tag
        .iter()
        .position(|byte| *byte == b' ')
        .unwrap_or(tag.len());
    if !COUNTING.contains(&&tag[..word]) {
        return Some(CommandTag {
            command: tag,
            rows: None,
        });
    }
    let last = tag.rsplit(|byte| *byte == b' ').next()?;
    let rows = last.iter().try_fold(0_u64, |rows, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        rows.checked_mul(10)?.checked_add(digit)
    });
    Some(CommandTag {
        command: &tag[..word],
        rows,
    })
}

#[cfg(test)]
mod tests {
    use super::{command_tag, failure, name};
    use crate::postgres::protocol::event::Severity;

    /// Tags of commands tell rows where Postgres counts them, and nothing else is one.
    #[test]
    fn tags_tell_rows() {
        let rows = |tag: &str| {
            let body = [tag.as_bytes(), b"\0"].concat();
            command_tag(&body).map(|tag| (tag.command.to_vec(), tag.rows))
        };
        let counted = |command: &str, rows| Some((command.as_bytes().to_vec(), rows));
        assert_eq!(rows("SELECT 5"), counted("SELECT", Some(5)));
        assert_eq!(rows("INSERT 0 12"), counted("INSERT", Some(12)));
        assert_eq!(rows("COPY 7"), counted("COPY", Some(7)));
        // Before 8.2 COPY counted nothing.
        assert_eq!(rows("COPY"), counted("COPY", None));
        assert_eq!(rows("CREATE TABLE"), counted("CREATE TABLE", None));
        assert_eq!(rows("DEALLOCATE ALL"), counted("DEALLOCATE ALL", None));
        assert_eq!(rows(""), None);
        assert_eq!(rows("x SELECT 1"), None);
        assert_eq!(command_tag(b"SELECT 1"), None);
    }

    /// An error is known by its code and a severity that is not in the server's language.
    #[test]
    fn errors_have_codes() {
        let fatal = failure(b"SFATAL\0VFATAL\0C57P01\0Mterminating\0\0");
        assert_eq!(fatal.sqlstate.to_string(), "57P01");
        assert_eq!(fatal.severity, Severity::Fatal);
        let error = failure("SFEHLER\0VERROR\0C42P01\0".as_bytes());
        assert_eq!(error.sqlstate.to_string(), "42P01");
        assert_eq!(error.severity, Severity::Error);
        assert_eq!(failure(b"C42\0").sqlstate.to_string(), "?????");
        assert_eq!(failure(b"Mtext").sqlstate.to_string(), "?????");
    }

    /// Overlong names are shortened and stay apart.
    #[test]
    fn names_are_bounded() {
        let long = |last: u8| [&[b'a'; 5000][..], &[last, 0]].concat();
        let names = [long(b'x'), long(b'y')].map(|text| name(&mut &text[..]).unwrap());
        assert_ne!(names[0], names[1]);
        assert!(names[0].len() < 256);
        assert_eq!(name(&mut &b"s1\0rest"[..]).as_deref(), Some(&b"s1"[..]));
        assert_eq!(name(&mut &b"s1"[..]), None);
    }
}
