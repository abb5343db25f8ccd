//! Fields of comma-separated values (RFC 4180), as spreadsheets may open them: a name is made printable, and one that a
//! spreadsheet would take for a formula begins with an apostrophe, as OWASP advises.

use crate::printable::printable;

/// What formulas begin with, also in their wide forms.
const FORMULAS: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];

/// A field of text, in quotation marks where the format wants them.
pub(crate) fn field(text: &str) -> String {
    let text = printable(text);
    let mark = if text.trim_start().starts_with(FORMULAS) {
        "'"
    } else {
        ""
    };
    // The account follows in lines that begin with `#`.
    let wants_quotes =
        !mark.is_empty() || text.contains([',', ';', '"', '\'']) || text.starts_with('#');
    if wants_quotes {
        format!("\"{mark}{}\"", text.replace('"', "\"\""))
    } else {
        text.into_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::{FORMULAS, field};
    use crate::printable::tests::{HOSTILE, is_safe};

    /// Only what needs quotation marks has them, and those within are doubled.
    #[test]
    fn fields_are_quoted() {
        assert_eq!(field("a \"b\", c"), "\"a \"\"b\"\", c\"");
        assert_eq!(field("a b"), "a b");
        assert_eq!(field("#1"), "\"#1\"");
    }

    /// A formula is text, and what controls a terminal is escaped.
    #[test]
    fn formulas_are_text() {
        assert_eq!(field("=1+1"), "\"'=1+1\"");
        assert_eq!(field(" @SUM(A1)"), "\"' @SUM(A1)\"");
        assert_eq!(field("\t=1"), "\\t=1");
        assert!(
            field(HOSTILE).starts_with("\"'=\\x1b]0;x\\x07\\n"),
            "{}",
            field(HOSTILE)
        );
    }

    proptest! {
        /// A field is one field of one line, and no spreadsheet takes it for a formula.
        #[test]
        fn a_field_stays_a_field(text in any::<String>()) {
            let field = field(&text);
            prop_assert!(is_safe(&field) && !field.contains('\n'), "{field:?}");
            let inner = field.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
            match inner {
                Some(inner) => prop_assert!(!inner.replace("\"\"", "").contains('"'), "{field}"),
                None => prop_assert!(!field.contains([',', '"']), "{field}"),
            }
            prop_assert!(!inner.unwrap_or(&field).trim_start().starts_with(FORMULAS), "{field}");
        }
    }
}
