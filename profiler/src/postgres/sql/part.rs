//! Statements that others are made of: what PREPARE prepares and DECLARE declares, and what FETCH and MOVE are of a
//! cursor.

use super::{super::protocol::Part, Command, Reading, Strings, normal::normalise, writer::CUT};

/// The text of a part of a statement, or of what reads it from a cursor, by its normal form.
pub(crate) fn part(normal: &str, part: Part) -> Option<String> {
    let read_by = |verb| {
        // Of what is cut the mark stays at the end.
        let close = if normal.ends_with(CUT) { "" } else { ")" };
        format!("{verb} ({normal}{close}")
    };
    match part {
        Part::Fetch => Some(read_by("FETCH FROM")),
        Part::Move => Some(read_by("MOVE FROM")),
        Part::Body => {
            let reading = Reading {
                strings: Strings::Conforming,
                ..Reading::default()
            };
            let (Command::Prepare { body, .. } | Command::Declare { body, .. }) =
                normalise(normal.as_bytes(), reading).command
            else {
                return None;
            };
            Some(normal.get(body..)?.to_owned())
        }
    }
}
