//! Between the protocol and the SQL: texts of statements go in as they are read, numbers come out. Pure.

use std::{collections::HashMap, sync::Arc};

use super::{
    backends,
    encoding::Encoding,
    protocol::{Call, Extent, Statement, StatementId},
    readings::Readings,
    sql::{
        self, Command, Fingerprint, Interned, Interner, Kept, Reading, Standing, Strings,
        Unanswered,
    },
};

/// Names that DEALLOCATE gave up and that are told apart: clients number them, and begin again with each connection.
const NAMES_MAX: usize = 100_000;
/// Numbers from here on are of DEALLOCATE with a name.
const NAMES_FROM: u32 = 1 << 31;

/// Every statement that was seen.
#[derive(Default)]
pub(super) struct Texts {
    /// What was read from the memory of backends.
    readings: Readings,
    interner: Interner,
    /// What DEALLOCATE gives up, and the statement that this is.
    names: Vec<(Arc<[u8]>, sql::StatementId)>,
    by_name: HashMap<Arc<[u8]>, u32>,
}

impl Texts {
    /// What is shown of a statement: its normal form once the server took it.
    pub(super) fn text(&self, id: StatementId) -> &str {
        self.kept(id).map_or("", |kept| kept.shown)
    }

    pub(super) fn fingerprint(&self, id: StatementId) -> Option<Fingerprint> {
        self.kept(id).map(|kept| kept.fingerprint)
    }

    pub(super) fn kept(&self, id: StatementId) -> Option<Kept<'_>> {
        self.interner.kept(self.statement(id))
    }

    /// How often a statement was one too many to be told apart.
    pub(super) fn overflows(&self) -> u64 {
        self.interner.overflows()
    }

    /// The same number for all texts of one statement.
    pub(super) fn canonical(&self, statement: Statement) -> Statement {
        match statement {
            Statement::Known(id) => Statement::Known(StatementId(self.statement(id).number())),
            other => other,
        }
    }

    /// Takes what was read from the memory of a backend: it is in the encoding of the server, all of which are safe.
    pub(super) fn read(&mut self, reading: &backends::Reading) -> StatementId {
        let extent = if reading.is_whole {
            Extent::Whole
        } else {
            Extent::Cut
        };
        let text = Encoding::Extended.decode(&reading.text);
        let (id, unanswered) = self.intern(&text, extent, reading.strings);
        let read = (id, unanswered);
        let when = (reading.when, reading.between_ns);
        self.readings.add(reading.pid, when, read);
        id
    }

    /// A backend is gone.
    pub(super) fn forget(&mut self, backend: u32) {
        self.readings.forget(backend);
    }

    /// What a backend ran in a call, if the server took that.
    pub(super) fn of_call(&mut self, backend: u32, call: &Call) -> Option<StatementId> {
        let id = self.readings.of(backend, call)?;
        if call.outcome.is_of_accepted() {
            self.accept(id);
        }
        let standing = self.interner.standing(self.statement(id));
        (standing == Standing::Accepted).then_some(id)
    }

    /// What a backend ran in a call that was its last one up to that time, ns, if the server took that.
    pub(super) fn of_last(
        &mut self,
        backend: u32,
        call: &Call,
        until_ns: u64,
    ) -> Option<StatementId> {
        let id = self.readings.of_last(backend, call, until_ns)?;
        if call.outcome.is_of_accepted() {
            self.accept(id);
        }
        let standing = self.interner.standing(self.statement(id));
        (standing == Standing::Accepted).then_some(id)
    }

    /// A server took a statement.
    pub(super) fn accept(&mut self, id: StatementId) {
        self.interner.accept(self.statement(id));
    }

    /// A server has been busy with a statement for a while.
    pub(super) fn is_under_way(&mut self, id: StatementId) {
        self.interner.is_under_way(self.statement(id));
    }

    /// A statement by what was shown of it elsewhere.
    pub(super) fn restore(&mut self, kept: Kept<'_>) -> StatementId {
        StatementId(self.interner.restore(kept).number())
    }

    /// A statement by its normal form, which was shown elsewhere.
    pub(super) fn known(&mut self, normal: &str) -> StatementId {
        let (id, _unanswered) = self.intern(normal.as_bytes(), Extent::Whole, Strings::Unknown);
        self.accept(id);
        id
    }

    /// The statements of a simple Query, and how much of each is there.
    pub(super) fn pieces(
        text: &[u8],
        extent: Extent,
        strings: Strings,
    ) -> impl Iterator<Item = (&[u8], Extent)> {
        sql::statements(text, strings).map(move |range| {
            // Of a text that was cut the last statement is.
            let of_this = match extent {
                Extent::Cut if range.end < text.len() => Extent::Whole,
                extent => extent,
            };
            (text.get(range).unwrap_or_default(), of_this)
        })
    }

    /// The statement of a text in UTF-8, and its normal form where the server has not taken it so far.
    pub(super) fn intern(
        &mut self,
        text: &[u8],
        extent: Extent,
        strings: Strings,
    ) -> (StatementId, Option<Arc<Unanswered>>) {
        let interned = self.interner.intern(text, reading(extent, strings));
        let Interned {
            id,
            command,
            unanswered,
        } = interned;
        let Command::Deallocate { name } = command else {
            return (StatementId(id.number()), unanswered);
        };
        (self.named(name, id), unanswered)
    }

    /// The statement of a text of which it is not clear where its values are.
    pub(super) fn intern_unclear(
        &mut self,
        text: &[u8],
        extent: Extent,
        strings: Strings,
    ) -> StatementId {
        let reading = reading(extent, strings);
        StatementId(self.interner.intern_unclear(text, reading).number())
    }

    /// The name that a DEALLOCATE gives up.
    pub(super) fn deallocates(&self, id: StatementId) -> Option<&[u8]> {
        let index = usize::try_from(id.0.checked_sub(NAMES_FROM)?).ok()?;
        self.names.get(index).map(|(name, _)| name.as_ref())
    }

    fn statement(&self, id: StatementId) -> sql::StatementId {
        let name = id.0.checked_sub(NAMES_FROM).and_then(|index| {
            let index = usize::try_from(index).ok()?;
            self.names.get(index)
        });
        name.map_or(sql::StatementId::from_number(id.0), |(_, id)| *id)
    }

    fn named(&mut self, name: Arc<[u8]>, id: sql::StatementId) -> StatementId {
        if let Some(known) = self.by_name.get(&name) {
            return StatementId(*known);
        }
        let index = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        if self.names.len() >= NAMES_MAX {
            return StatementId(id.number());
        }
        self.names.push((Arc::clone(&name), id));
        self.by_name.insert(name, NAMES_FROM + index);
        StatementId(NAMES_FROM + index)
    }
}

fn reading(extent: Extent, strings: Strings) -> Reading {
    Reading {
        extent: match extent {
            Extent::Whole => sql::Extent::Whole,
            Extent::Cut => sql::Extent::Cut,
        },
        strings,
    }
}

#[cfg(test)]
mod tests {
    use super::{Extent, Statement, Strings, Texts};

    /// Texts with different values and names are one statement, and what DEALLOCATE gives up is known all the same.
    #[test]
    fn statements_are_one_and_names_are_kept() {
        let mut texts = Texts::default();
        let text = b"SELECT 1; DEALLOCATE a1; select 2; DEALLOCATE a2;";
        let pieces = Texts::pieces(text, Extent::Whole, Strings::Unknown);
        let ids: Vec<_> = pieces
            .map(|(piece, extent)| {
                let (id, _unanswered) = texts.intern(piece, extent, Strings::Unknown);
                texts.accept(id);
                id
            })
            .collect();
        assert_eq!(ids.len(), 4);
        assert_eq!(ids[0], ids[2]);
        let known = |id| texts.canonical(Statement::Known(id));
        assert_eq!(known(ids[1]), known(ids[3]));
        assert_ne!(known(ids[0]), known(ids[1]));
        let given_up = |id| texts.deallocates(id);
        assert_eq!(given_up(ids[1]), Some(&b"a1"[..]));
        assert_eq!(given_up(ids[3]), Some(&b"a2"[..]));
        assert_eq!(given_up(ids[0]), None);
        assert_eq!(texts.text(ids[0]), "SELECT $1");
    }
}
