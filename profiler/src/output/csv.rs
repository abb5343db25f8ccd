//! Fields of comma-separated values (RFC 4180).

/// A field in quotation marks where the format wants them.
pub(crate) fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    /// Only what needs quotation marks has them, and those within are doubled.
    #[test]
    fn fields_are_quoted() {
        assert_eq!(quoted("a \"b\", c"), "\"a \"\"b\"\", c\"");
        assert_eq!(quoted("a b"), "a b");
    }
}
