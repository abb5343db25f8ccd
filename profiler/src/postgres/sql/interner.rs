//! Statements under small numbers. Texts repeat, so that most cost two hashes and a look.
//!
//! A text is remembered by 128 bits of hash under keys drawn at the start, never by its bytes: values are to be gone
//! with the buffer that they came in. So is the normal form of a statement that the server has not taken: who awaits its
//! answer holds that ([`Unanswered`]), and it is here once the answer says that the text was no mistake. Texts seen
//! least recently are forgotten, statements never: those beyond the bounds are all one, with a name of its own, and
//! counted.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher,
    sync::{Arc, Weak},
};

use super::{
    Command, Fingerprint, Reading,
    normal::Normal,
    normalise,
    withheld::{keywords, without_quoted},
};

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
#[derive(Clone, Debug)]
pub(crate) struct Interned {
    pub(crate) id: StatementId,
    /// What this very text does; texts of one statement may differ in names.
    pub(crate) command: Command,
    /// Its normal form, where it is not known that the server takes it: to be held up to the answer.
    pub(crate) unanswered: Option<Arc<Unanswered>>,
}

/// The normal form of a statement that the server has not taken so far.
#[derive(Debug)]
pub(crate) struct Unanswered(Box<str>);

/// How far a statement is known to be none that the server refuses; more of it is shown the better that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// It was refused, or not answered.
    Withheld,
    /// A server has been busy with it for a while.
    UnderWay,
    Accepted,
}

/// A statement, as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept<'a> {
    pub(crate) shown: &'a str,
    /// Of its normal form.
    pub(crate) fingerprint: Fingerprint,
    pub(crate) standing: Standing,
}

/// A statement.
#[derive(Debug)]
struct Entry {
    shown: Box<str>,
    fingerprint: Fingerprint,
    standing: Standing,
    /// Its normal form, as long as its answer is awaited.
    unanswered: Weak<Unanswered>,
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
    young: HashMap<Key, (StatementId, Command)>,
    /// Texts not seen since.
    old: HashMap<Key, (StatementId, Command)>,
    by_fingerprint: HashMap<Fingerprint, StatementId>,
    statements: Vec<Entry>,
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
        let others = Entry {
            shown: OTHERS.into(),
            fingerprint: normalise(OTHERS.as_bytes(), Reading::default()).fingerprint,
            standing: Standing::Accepted,
            unanswered: Weak::new(),
        };
        Self {
            keys: [RandomState::new(), RandomState::new()],
            bounds,
            young: HashMap::new(),
            old: HashMap::new(),
            by_fingerprint: HashMap::new(),
            statements: vec![others],
            bytes: 0,
            overflows: 0,
        }
    }

    /// The statement of a text, which is a single one.
    pub(crate) fn intern(&mut self, text: &[u8], reading: Reading) -> Interned {
        let [one, other] = &self.keys;
        let key = (one.hash_one(text), other.hash_one(text), reading);
        let young = self.young.get(&key).cloned();
        let known = young.clone().or_else(|| self.old.remove(&key));
        // The normal form of what is not accepted is not kept.
        let known = known.filter(|(id, _)| self.standing(*id) == Standing::Accepted);
        let (interned, is_young) = match known {
            Some((id, command)) => (
                Interned {
                    id,
                    command,
                    unanswered: None,
                },
                young.is_some(),
            ),
            None => (self.take(normalise(text, reading)), false),
        };
        self.count(interned.id);
        if !is_young {
            if self.young.len() >= self.bounds.texts {
                self.old = std::mem::take(&mut self.young);
            }
            let known = (interned.id, interned.command.clone());
            self.young.insert(key, known);
        }
        interned
    }

    /// The statement of a text of which it is not clear where its values are: only its keywords are looked at.
    pub(crate) fn intern_unclear(&mut self, text: &[u8], reading: Reading) -> StatementId {
        let words = keywords(&normalise(text, reading).text);
        let fingerprint = normalise(words.as_bytes(), Reading::default()).fingerprint;
        let id = self.find(fingerprint, &words);
        self.count(id);
        id
    }

    /// The statement of what was shown of one.
    pub(crate) fn restore(&mut self, kept: Kept<'_>) -> StatementId {
        let id = match self.by_fingerprint.get(&kept.fingerprint) {
            Some(id) => *id,
            None => self.add(kept.fingerprint, kept.shown.into(), kept.shown.len()),
        };
        self.show(id, kept.shown.into(), kept.standing);
        self.count(id);
        id
    }

    /// A server took the statement.
    pub(crate) fn accept(&mut self, id: StatementId) {
        if let Some(unanswered) = self.unanswered(id) {
            self.show(id, unanswered.0.clone(), Standing::Accepted);
        }
    }

    /// A server has been busy with the statement for a while.
    pub(crate) fn is_under_way(&mut self, id: StatementId) {
        if let Some(unanswered) = self.unanswered(id) {
            let shown = without_quoted(&unanswered.0).into_boxed_str();
            self.show(id, shown, Standing::UnderWay);
        }
    }

    /// What is shown of a statement.
    pub(crate) fn kept(&self, id: StatementId) -> Option<Kept<'_>> {
        self.entry(id).map(|entry| Kept {
            shown: &entry.shown,
            fingerprint: entry.fingerprint,
            standing: entry.standing,
        })
    }

    /// How often a text was one of the [`StatementId::OTHERS`].
    pub(crate) fn overflows(&self) -> u64 {
        self.overflows
    }

    pub(crate) fn standing(&self, id: StatementId) -> Standing {
        self.entry(id)
            .map_or(Standing::Withheld, |entry| entry.standing)
    }

    fn entry(&self, id: StatementId) -> Option<&Entry> {
        self.statements.get(usize::try_from(id.0).ok()?)
    }

    fn unanswered(&self, id: StatementId) -> Option<Arc<Unanswered>> {
        self.entry(id)?.unanswered.upgrade()
    }

    fn show(&mut self, id: StatementId, shown: Box<str>, standing: Standing) {
        let entry = usize::try_from(id.0).ok();
        let entry = entry.and_then(|index| self.statements.get_mut(index));
        if let Some(entry) = entry.filter(|entry| entry.standing < standing) {
            (entry.shown, entry.standing) = (shown, standing);
        }
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
            None => self.find_new(fingerprint, &text),
        };
        Interned {
            id,
            command,
            unanswered: self.hold(id, text),
        }
    }

    fn find(&mut self, fingerprint: Fingerprint, words: &str) -> StatementId {
        match self.by_fingerprint.get(&fingerprint) {
            Some(id) => *id,
            None => self.find_new(fingerprint, words),
        }
    }

    /// A statement of which no more is shown than the keywords of its normal form.
    fn find_new(&mut self, fingerprint: Fingerprint, normal: &str) -> StatementId {
        let shown = format!("<withheld {fingerprint}: {}>", keywords(normal));
        // That it may become longer is made room for.
        self.add(fingerprint, shown.into(), normal.len())
    }

    /// The normal form for who awaits the answer, where one is awaited.
    fn hold(&mut self, id: StatementId, normal: String) -> Option<Arc<Unanswered>> {
        let index = usize::try_from(id.0).ok()?;
        let entry = self.statements.get_mut(index)?;
        if entry.standing == Standing::Accepted {
            return None;
        }
        Some(entry.unanswered.upgrade().unwrap_or_else(|| {
            let unanswered = Arc::new(Unanswered(normal.into()));
            entry.unanswered = Arc::downgrade(&unanswered);
            unanswered
        }))
    }

    fn add(&mut self, fingerprint: Fingerprint, shown: Box<str>, normal: usize) -> StatementId {
        let bytes = self.bytes.saturating_add(normal.max(shown.len()));
        let number = u32::try_from(self.statements.len());
        let Ok(number) = number else {
            return StatementId::OTHERS;
        };
        if self.statements.len() > self.bounds.statements || bytes > self.bounds.bytes {
            return StatementId::OTHERS;
        }
        let id = StatementId(number);
        self.bytes = bytes;
        self.statements.push(Entry {
            shown,
            fingerprint,
            standing: Standing::Withheld,
            unanswered: Weak::new(),
        });
        self.by_fingerprint.insert(fingerprint, id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, Command, Interner, Kept, OTHERS, Reading, Standing, StatementId};

    fn small() -> Interner {
        Interner::with_bounds(Bounds {
            texts: 4,
            statements: 3,
            bytes: 160,
        })
    }

    /// The id of a text that a server takes.
    fn id(interner: &mut Interner, text: &str) -> StatementId {
        let interned = interner.intern(text.as_bytes(), Reading::default());
        interner.accept(interned.id);
        interned.id
    }

    fn shown(interner: &Interner, id: StatementId) -> &str {
        interner.kept(id).unwrap().shown
    }

    /// Texts that differ in values are one statement, under the normal form of the first.
    #[test]
    fn values_share_a_statement() {
        let mut interner = small();
        let first = id(&mut interner, "SELECT 1");
        assert_eq!(id(&mut interner, "select  2 -- b"), first);
        assert_eq!(id(&mut interner, "SELECT 1"), first);
        assert_ne!(id(&mut interner, "SELECT a"), first);
        assert_eq!(shown(&interner, first), "SELECT $1");
        let normal = super::normalise(b"SELECT 3", Reading::default());
        assert_eq!(
            interner.kept(first).unwrap().fingerprint,
            normal.fingerprint
        );
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
                interner.accept(interned.id);
                assert_eq!(shown(&interner, interned.id), "DEALLOCATE s$");
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
        assert_eq!(
            interner.kept(statement).unwrap().fingerprint,
            zero.fingerprint
        );
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
        assert_eq!(shown(&interner, StatementId::OTHERS), OTHERS);
        assert_eq!(interner.overflows(), 3);
        assert_eq!(id(&mut interner, "SELECT b"), known[1]);
        let mut interner = small();
        let long = format!("SELECT {}", "a".repeat(160));
        assert_eq!(id(&mut interner, &long), StatementId::OTHERS);
        assert_ne!(id(&mut interner, "SELECT a"), StatementId::OTHERS);
    }

    /// Of what no server took there are only keywords, in memory too; once it is taken all of it is shown.
    #[test]
    fn refused_texts_are_not_kept() {
        let mut interner = small();
        let text = b"SELECT \"secret\"";
        let interned = interner.intern(text, Reading::default());
        let id = interned.id;
        let fingerprint = super::normalise(text, Reading::default()).fingerprint;
        let withheld = format!("<withheld {fingerprint}: SELECT \u{2026}>");
        assert_eq!(shown(&interner, id), withheld);
        drop(interned);
        interner.accept(id);
        interner.is_under_way(id);
        assert_eq!(shown(&interner, id), withheld, "the text is gone");
        assert!(!format!("{:?}", interner.statements).contains("secret"));

        let again = interner.intern(text, Reading::default());
        let twice = interner.intern(text, Reading::default());
        assert_eq!((again.id, twice.id), (id, id));
        drop(again);
        interner.is_under_way(id);
        assert_eq!(shown(&interner, id), "SELECT \"\u{2026}\"");
        interner.accept(id);
        assert_eq!(shown(&interner, id), "SELECT \"secret\"");
        assert!(
            interner
                .intern(text, Reading::default())
                .unanswered
                .is_none()
        );
    }

    /// What was shown of a statement elsewhere is the same statement here, and the fuller text of two is shown.
    #[test]
    fn statements_are_restored() {
        let mut here = small();
        let mut there = small();
        let interned = there.intern(b"SELECT \"a\"", Reading::default());
        let (before, id) = (there.kept(interned.id).unwrap(), interned.id);
        let here_id = here.restore(before);
        assert_eq!(here.kept(here_id), Some(before));
        let withheld = before.shown.to_owned();
        there.accept(id);
        let accepted = there.kept(id).unwrap();
        assert_eq!(accepted.standing, Standing::Accepted);
        assert_eq!(here.restore(accepted), here_id);
        let before = Kept {
            shown: &withheld,
            standing: Standing::Withheld,
            ..accepted
        };
        assert_eq!(here.restore(before), here_id);
        assert_eq!(here.kept(here_id), Some(accepted));
    }

    /// A text whose values cannot be told from names never shows more than keywords, whatever the server says.
    #[test]
    fn unclear_texts_stay_withheld() {
        let mut interner = small();
        let id = interner.intern_unclear(b"SELECT secret FROM t", Reading::default());
        let other = interner.intern_unclear(b"SELECT secret2 FROM t", Reading::default());
        interner.accept(id);
        assert_eq!(id, other);
        let shown = shown(&interner, id);
        assert!(
            shown.ends_with(": SELECT \u{2026} FROM \u{2026}>"),
            "{shown}"
        );
    }
}
