//! Statements under small numbers. Texts repeat, so that most cost two hashes and a look.
//!
//! A text is remembered by 128 bits of hash under keys drawn at the start, never by its bytes: values are to be gone
//! with the buffer that they came in. Texts seen least recently are forgotten, statements never: those beyond the
//! bounds are all one, with a name of its own, and counted.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
};

use super::{Command, Fingerprint, Reading, normal::Normal, normalise};

/// Texts remembered in each of two generations: about 80 bytes each.
const TEXTS_MAX: usize = 8_192;

/// Statements told apart, and the bytes that their normal forms may have together.
const STATEMENTS_MAX: usize = 10_000;
const BYTES_MAX: usize = 32 << 20;

/// Stands for the text of all statements beyond the bounds.
const OTHERS: &str = "<other statements>";

/// A statement's number in its [`Interner`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StatementId(u32);

impl StatementId {
    /// As a plain number.
    pub(crate) fn number(self) -> u32 {
        self.0
    }

    /// From [`Self::number`].
    pub(crate) fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// All statements beyond the bounds.
    pub(crate) const OTHERS: Self = Self(0);
}

/// What is known of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interned {
    pub(crate) id: StatementId,
    /// What this very text does; texts of one statement may differ in names.
    pub(crate) command: Command,
}

/// What a text is remembered by.
type Key = (u64, u64, Reading);

/// Bounds of an [`Interner`].
#[derive(Clone, Copy, Debug)]
struct Bounds {
    texts: usize,
    statements: usize,
    bytes: usize,
}

/// Remembers texts and their statements.
pub(crate) struct Interner {
    keys: [RandomState; 2],
    bounds: Bounds,
    /// Texts seen since the older generation was given up.
    young: HashMap<Key, Interned>,
    /// Texts not seen since.
    old: HashMap<Key, Interned>,
    by_fingerprint: HashMap<Fingerprint, StatementId>,
    statements: Vec<(Box<str>, Fingerprint)>,
    /// Bytes of all normal forms.
    bytes: usize,
    overflows: u64,
}

impl Default for Interner {
    fn default() -> Self {
        Self::with_bounds(Bounds {
            texts: TEXTS_MAX,
            statements: STATEMENTS_MAX,
            bytes: BYTES_MAX,
        })
    }
}

impl Interner {
    fn with_bounds(bounds: Bounds) -> Self {
        let others = normalise(OTHERS.as_bytes(), Reading::default());
        Self {
            keys: [RandomState::new(), RandomState::new()],
            bounds,
            young: HashMap::new(),
            old: HashMap::new(),
            by_fingerprint: HashMap::new(),
            statements: vec![(OTHERS.into(), others.fingerprint)],
            bytes: 0,
            overflows: 0,
        }
    }

    /// The statement of a text, which is a single one.
    pub(crate) fn intern(&mut self, text: &[u8], reading: Reading) -> Interned {
        let [one, other] = &self.keys;
        let key = (one.hash_one(text), other.hash_one(text), reading);
        if let Some(known) = self.young.get(&key) {
            let known = known.clone();
            self.count(known.id);
            return known;
        }
        let interned = match self.old.remove(&key) {
            Some(known) => known,
            None => self.take(normalise(text, reading)),
        };
        self.count(interned.id);
        if self.young.len() >= self.bounds.texts {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, interned.clone());
        interned
    }

    /// The normal form.
    pub(crate) fn text(&self, id: StatementId) -> &str {
        self.statement(id).map_or(OTHERS, |(text, _)| text)
    }

    pub(crate) fn fingerprint(&self, id: StatementId) -> Option<Fingerprint> {
        self.statement(id).map(|(_, fingerprint)| *fingerprint)
    }

    /// How often a text was one of the [`StatementId::OTHERS`].
    pub(crate) fn overflows(&self) -> u64 {
        self.overflows
    }

    fn statement(&self, id: StatementId) -> Option<&(Box<str>, Fingerprint)> {
        self.statements.get(usize::try_from(id.0).ok()?)
    }

    fn count(&mut self, id: StatementId) {
        self.overflows += u64::from(id == StatementId::OTHERS);
    }

    fn take(&mut self, normal: Normal) -> Interned {
        let Normal {
            text,
            fingerprint,
            command,
        } = normal;
        let id = match self.by_fingerprint.get(&fingerprint) {
            Some(id) => *id,
            None => self.add(text, fingerprint),
        };
        Interned { id, command }
    }

    fn add(&mut self, text: String, fingerprint: Fingerprint) -> StatementId {
        let bytes = self.bytes.saturating_add(text.len());
        let number = u32::try_from(self.statements.len());
        let Ok(number) = number else {
            return StatementId::OTHERS;
        };
        if self.statements.len() > self.bounds.statements || bytes > self.bounds.bytes {
            return StatementId::OTHERS;
        }
        let id = StatementId(number);
        self.bytes = bytes;
        self.statements.push((text.into_boxed_str(), fingerprint));
        self.by_fingerprint.insert(fingerprint, id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, Command, Interner, OTHERS, Reading, StatementId};

    fn small() -> Interner {
        Interner::with_bounds(Bounds {
            texts: 4,
            statements: 3,
            bytes: 60,
        })
    }

    fn id(interner: &mut Interner, text: &str) -> StatementId {
        interner.intern(text.as_bytes(), Reading::default()).id
    }

    /// Texts that differ in values are one statement, under the normal form of the first.
    #[test]
    fn values_share_a_statement() {
        let mut interner = small();
        let first = id(&mut interner, "SELECT 1");
        assert_eq!(id(&mut interner, "select  2 -- b"), first);
        assert_eq!(id(&mut interner, "SELECT 1"), first);
        assert_ne!(id(&mut interner, "SELECT a"), first);
        assert_eq!(interner.text(first), "SELECT $1");
        let normal = super::normalise(b"SELECT 3", Reading::default());
        assert_eq!(interner.fingerprint(first), Some(normal.fingerprint));
    }

    /// A text known already keeps the names of its own, not those of the first text.
    #[test]
    fn commands_are_of_the_text() {
        let mut interner = small();
        for _ in 0..2 {
            for name in ["s1", "s2"] {
                let text = format!("DEALLOCATE {name}");
                let interned = interner.intern(text.as_bytes(), Reading::default());
                let name = name.as_bytes().into();
                assert_eq!(interned.command, Command::Deallocate { name });
                assert_eq!(interner.text(interned.id), "DEALLOCATE s$");
            }
        }
    }

    /// Texts are forgotten, those seen least recently first, and come back to the same statement.
    #[test]
    fn texts_are_bounded() {
        let mut interner = small();
        let statement = id(&mut interner, "SELECT 0");
        for value in 1..1000 {
            assert_eq!(id(&mut interner, &format!("SELECT {value}")), statement);
            assert_eq!(id(&mut interner, "SELECT 0"), statement);
            assert!(interner.young.len() <= 4 && interner.old.len() <= 4);
        }
        let zero = super::normalise(b"SELECT 0", Reading::default());
        assert_eq!(interner.fingerprint(statement), Some(zero.fingerprint));
        assert_eq!((interner.statements.len(), interner.overflows()), (2, 0));
    }

    /// Statements beyond the bounds are one with a name and counted; known ones stay known.
    #[test]
    fn statements_are_bounded() {
        let mut interner = small();
        let known: Vec<_> = ["a", "b", "c"]
            .map(|column| id(&mut interner, &format!("SELECT {column}")))
            .into();
        assert!(!known.contains(&StatementId::OTHERS));
        for column in ["d", "e", "d"] {
            let text = format!("SELECT {column}");
            assert_eq!(id(&mut interner, &text), StatementId::OTHERS);
        }
        assert_eq!(interner.text(StatementId::OTHERS), OTHERS);
        assert_eq!(interner.overflows(), 3);
        assert_eq!(id(&mut interner, "SELECT b"), known[1]);
        let mut interner = small();
        let long = format!("SELECT {}", "a".repeat(60));
        assert_eq!(id(&mut interner, &long), StatementId::OTHERS);
        assert_ne!(id(&mut interner, "SELECT a"), StatementId::OTHERS);
    }
}
