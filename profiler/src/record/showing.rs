//! What is shown on standard output while a recording runs.

use std::io::{self, IsTerminal, Write};

use crate::error::Error;

/// Writes to it; not so where nobody reads it any more.
pub(crate) fn show(bytes: &[u8]) -> Result<bool, Error> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(source) => Err(Error::System {
            action: "write to standard output",
            source,
        }),
        Ok(()) => Ok(true),
    }
}

/// Likewise, of a terminal in place of what it shows.
pub(crate) fn show_view(mut text: String) -> Result<bool, Error> {
    text.push('\n');
    if io::stdout().is_terminal() {
        // To the upper left corner, and nothing below.
        text.insert_str(0, "\x1b[H\x1b[2J");
    }
    show(text.as_bytes())
}
