//! What is said on the terminal: results on standard output, talk on standard error. Whoever stops reading ends
//! neither with a panic.

use std::io::{self, IsTerminal, Write};

use crate::{error::Error, printable};

/// Writes to standard output; `false` where nobody reads it any more.
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

/// The same, on a terminal in place of what it shows.
pub(crate) fn show_view(mut text: String) -> Result<bool, Error> {
    text.push('\n');
    if io::stdout().is_terminal() {
        // To the upper left corner, and nothing below.
        text.insert_str(0, "\x1b[H\x1b[2J");
    }
    show(text.as_bytes())
}

/// Says a line on standard error, made printable.
pub fn say(line: &str) {
    hear(&printable::printable(line));
}

/// The same, of what may have several lines: the kernel's verifier says a lot.
pub fn say_lines(lines: &str) {
    hear(&printable::lines(lines));
}

/// Where nobody hears it, it is lost: that is no reason to fail.
fn hear(words: &str) {
    let text = format!("{words}\n");
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
