//! Names that a connection has made up for its temporary objects, where it uses them later: a text with such a name is
//! made one with the numbers in it replaced, as they are in the statement that created it.

use std::{borrow::Cow, collections::VecDeque, sync::Arc};

use super::{
    Strings,
    command::name,
    lexer::Lexer,
    writer::{made_up, shown},
};

/// Most names that are remembered of a connection; the oldest go first.
const NAMES_MAX: usize = 32;

/// Temporary objects of a connection whose names have numbers in them, as the server keeps them. One that was dropped
/// stays until there are too many.
#[derive(Debug, Default)]
pub(crate) struct Temporaries(VecDeque<Arc<[u8]>>);

impl Temporaries {
    /// One is created. A name without a number needs no care.
    pub(crate) fn add(&mut self, name: Arc<[u8]>) {
        let has_number = *made_up(&shown(&name)) != *shown(&name);
        if !has_number || self.0.contains(&name) {
            return;
        }
        if self.0.len() >= NAMES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(name);
    }

    /// The text with what its normal form is to have in place of these names.
    pub(crate) fn replace<'a>(&self, text: &'a [u8], strings: Strings) -> Cow<'a, [u8]> {
        if self.0.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut replaced = Vec::new();
        let mut end = 0;
        for token in Lexer::new(text, strings) {
            if name(&token, text).is_some_and(|name| self.0.contains(&name)) {
                replaced.extend_from_slice(text.get(end..token.begin).unwrap_or_default());
                replaced.extend_from_slice(made_up(&shown(token.of(text))).as_bytes());
                end = token.end;
            }
        }
        if end == 0 {
            return Cow::Borrowed(text);
        }
        replaced.extend_from_slice(text.get(end..).unwrap_or_default());
        Cow::Owned(replaced)
    }
}

#[cfg(test)]
mod tests {
    use super::{NAMES_MAX, Strings, Temporaries};

    fn name(name: &str) -> std::sync::Arc<[u8]> {
        name.as_bytes().into()
    }

    /// Names are replaced wherever they stand, but for strings, and no others are.
    #[test]
    fn names_are_replaced() {
        let mut temporaries = Temporaries::default();
        temporaries.add(name("import_8f3a2b1c"));
        temporaries.add(name("plain"));
        let replaced = |text: &str| {
            let replaced = temporaries.replace(text.as_bytes(), Strings::Conforming);
            String::from_utf8(replaced.into_owned()).unwrap()
        };
        assert_eq!(
            replaced(
                "SELECT i.a, IMPORT_8f3a2b1c.b FROM \"import_8f3a2b1c\" i, import_8f3a2b1d, plain"
            ),
            "SELECT i.a, IMPORT_$.b FROM \"import_$\" i, import_8f3a2b1d, plain"
        );
        let quoted = "SELECT 'import_8f3a2b1c', \"Import_8f3a2b1c\" -- import_8f3a2b1c";
        assert_eq!(replaced(quoted), quoted);
    }

    /// The newest names are remembered.
    #[test]
    fn names_are_bounded() {
        let mut temporaries = Temporaries::default();
        for number in 0..=NAMES_MAX {
            temporaries.add(name(&format!("t{number}")));
            temporaries.add(name(&format!("t{number}")));
        }
        let replaced = |text: &'static str| temporaries.replace(text.as_bytes(), Strings::Unknown);
        assert_eq!(*replaced("TABLE t0"), *b"TABLE t0");
        assert_eq!(*replaced("TABLE t1"), *b"TABLE t$");
        assert_eq!(temporaries.0.len(), NAMES_MAX);
    }
}
