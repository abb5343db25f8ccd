//! Between the protocol and the SQL: texts of statements go in as they are read, numbers come out. Pure.

use std::{collections::HashMap, sync::Arc};

use super::{
    backends,
    protocol::{Call, Extent, Statement, StatementId, Statements},
    readings::Readings,
    sql::{self, Command, Fingerprint, Interned, Interner, Reading, Strings},
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
    /// The normal form.
    pub(super) fn text(&self, id: StatementId) -> &str {
        self.interner.text(self.statement(id))
    }

    pub(super) fn fingerprint(&self, id: StatementId) -> Option<Fingerprint> {
        self.interner.fingerprint(self.statement(id))
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

    /// Takes what was read from the memory of a backend.
    pub(super) fn read(&mut self, reading: &backends::Reading) {
        let extent = if reading.is_whole {
            Extent::Whole
        } else {
            Extent::Cut
        };
        let id = self.intern(&reading.text, extent);
        self.readings.add(reading.pid, reading.between_ns, id);
    }

    /// What a backend ran in a call.
    pub(super) fn of_call(&self, backend: u32, call: &Call) -> Option<StatementId> {
        self.readings.of(backend, call)
    }

    fn statement(&self, id: StatementId) -> sql::StatementId {
        let name = id.0.checked_sub(NAMES_FROM).and_then(|index| {
            let index = usize::try_from(index).ok()?;
            self.names.get(index)
        });
        name.map_or(sql::StatementId::from_number(id.0), |(_, id)| *id)
    }

    fn intern(&mut self, text: &[u8], extent: Extent) -> StatementId {
        let reading = Reading {
            extent: match extent {
                Extent::Whole => sql::Extent::Whole,
                Extent::Cut => sql::Extent::Cut,
            },
            strings: Strings::Unknown,
        };
        let Interned { id, command } = self.interner.intern(text, reading);
        let Command::Deallocate { name } = command else {
            return StatementId(id.number());
        };
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

impl Statements for Texts {
    fn simple(&mut self, text: &[u8], extent: Extent, ids: &mut Vec<StatementId>) {
        for range in sql::statements(text, Strings::Unknown) {
            // Of a text that was cut the last statement is.
            let of_this = match extent {
                Extent::Cut if range.end < text.len() => Extent::Whole,
                extent => extent,
            };
            let id = self.intern(&text[range], of_this);
            ids.push(id);
        }
    }

    fn prepared(&mut self, text: &[u8], extent: Extent) -> StatementId {
        self.intern(text, extent)
    }

    fn deallocates(&self, id: StatementId) -> Option<&[u8]> {
        let index = usize::try_from(id.0.checked_sub(NAMES_FROM)?).ok()?;
        self.names.get(index).map(|(name, _)| name.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::{Extent, Statement, Statements, Texts};

    /// Texts with different values and names are one statement, and what DEALLOCATE gives up is known all the same.
    #[test]
    fn statements_are_one_and_names_are_kept() {
        let mut texts = Texts::default();
        let mut ids = Vec::new();
        let text = b"SELECT 1; DEALLOCATE a1; select 2; DEALLOCATE a2;";
        texts.simple(text, Extent::Whole, &mut ids);
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
