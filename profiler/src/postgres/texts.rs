//! Between the protocol and the SQL: texts of statements go in as they are read, numbers come out. Pure.

use std::{collections::HashMap, sync::Arc};

use super::{
    backends,
    deeds::Deeds,
    encoding::Encoding,
    protocol::{Call, Deed, Extent, Part, Statement, StatementId},
    readings::Readings,
    sql::{
        self, Command, Fingerprint, Interned, Interner, Kept, Reading, Standing, Strings,
        Unanswered,
    },
};

/// Above the number of a statement is that of what a text of it does with a name.
const DEED_SHIFT: u32 = 32;

/// Every statement that was seen.
#[derive(Default)]
pub(super) struct Texts {
    /// What was read from the memory of backends.
    readings: Readings,
    interner: Interner,
    deeds: Deeds,
    /// The server's numbers for statements, of which it may have several: the last one that was met.
    query_ids: HashMap<sql::StatementId, i64>,
    /// Statements that have to do with others; there are as many as statements.
    parts: HashMap<(sql::StatementId, Part), Option<sql::StatementId>>,
    cut: u64,
}

/// What there is not of texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Missing {
    /// How often a statement was one too many to be told apart.
    pub(super) others: u64,
    /// Texts whose end was not copied.
    pub(super) cut: u64,
}

impl Missing {
    /// What has come since then.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            others: self.others.saturating_sub(before.others),
            cut: self.cut.saturating_sub(before.cut),
        }
    }
}

/// A text, as it was taken.
pub(super) struct Taken {
    pub(super) id: StatementId,
    /// Its normal form, where the server has not taken it so far.
    pub(super) unanswered: Option<Arc<Unanswered>>,
    /// The temporary object that it creates.
    pub(super) temporary: Option<Arc<[u8]>>,
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
        self.interner.kept(statement_of(id))
    }

    /// A text was sent whose end was not copied.
    pub(super) fn met_cut(&mut self) {
        self.cut += 1;
    }

    /// What there is not of texts, since the beginning.
    pub(super) fn missing(&self) -> Missing {
        Missing {
            others: self.interner.overflows(),
            cut: self.cut,
        }
    }

    /// The same number for all texts of one statement.
    pub(super) fn canonical(given: Statement) -> Statement {
        match given {
            Statement::Known(id) => Statement::Known(plain(statement_of(id))),
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
        let Taken { id, unanswered, .. } = self.intern(&text, extent, reading.strings);
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
        let standing = self.interner.standing(statement_of(id));
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
        let standing = self.interner.standing(statement_of(id));
        (standing == Standing::Accepted).then_some(id)
    }

    /// The number that a server has for a statement.
    pub(super) fn learn_query_id(&mut self, id: StatementId, query_id: i64) {
        let of = statement_of(id);
        if of != sql::StatementId::OTHERS {
            self.query_ids.insert(of, query_id);
        }
    }

    /// The number that a server was seen to have for a statement.
    pub(super) fn query_id(&self, id: StatementId) -> Option<i64> {
        self.query_ids.get(&statement_of(id)).copied()
    }

    /// A server took a statement.
    pub(super) fn accept(&mut self, id: StatementId) {
        self.interner.accept(statement_of(id));
    }

    /// A server has been busy with a statement for a while.
    pub(super) fn is_under_way(&mut self, id: StatementId) {
        self.interner.is_under_way(statement_of(id));
    }

    /// A statement by what was shown of it elsewhere.
    pub(super) fn restore(&mut self, kept: Kept<'_>) -> StatementId {
        plain(self.interner.restore(kept))
    }

    /// A statement by its normal form, which was shown elsewhere.
    pub(super) fn known(&mut self, normal: &str) -> StatementId {
        // It is held while it is accepted.
        let taken = self.intern(normal.as_bytes(), Extent::Whole, Strings::Unknown);
        self.accept(taken.id);
        taken.id
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

    /// The statement of a text in UTF-8.
    pub(super) fn intern(&mut self, text: &[u8], extent: Extent, strings: Strings) -> Taken {
        let interned = self.interner.intern(text, reading(extent, strings));
        let Interned {
            id,
            command,
            unanswered,
        } = interned;
        let (deed, temporary) = match command {
            Command::Prepare { name, .. } => (Some(Deed::Prepares { name }), None),
            Command::Execute { name } => (Some(Deed::Executes { name }), None),
            Command::Deallocate { name } => (Some(Deed::Deallocates { name }), None),
            Command::Declare { name, is_held, .. } => {
                (Some(Deed::Declares { name, is_held }), None)
            }
            Command::Fetch { name } => (Some(Deed::Fetches { name }), None),
            Command::Move { name } => (Some(Deed::Moves { name }), None),
            Command::Close { name } => (Some(Deed::Closes { name }), None),
            Command::CloseAll => (Some(Deed::ClosesAll), None),
            Command::Temporary { name } => (None, Some(name)),
            _ => (None, None),
        };
        let deed = deed.map_or(0, |deed| self.deeds.number(deed));
        Taken {
            id: StatementId(plain(id).0 | u64::from(deed) << DEED_SHIFT),
            unanswered,
            temporary,
        }
    }

    /// The statement of a text of which it is not clear where its values are.
    pub(super) fn intern_unclear(
        &mut self,
        text: &[u8],
        extent: Extent,
        strings: Strings,
    ) -> StatementId {
        let reading = reading(extent, strings);
        plain(self.interner.intern_unclear(text, reading))
    }

    /// What a text does with a name.
    pub(super) fn deed(&mut self, id: StatementId) -> Option<Arc<Deed>> {
        let number = u32::try_from(id.0 >> DEED_SHIFT).ok()?;
        if number == 0 {
            return None;
        }
        self.deeds.get(number)
    }

    /// The statement that is a part of one that a server took, or reads it from a cursor: what is shown of that is all
    /// that is looked at.
    pub(super) fn part(&mut self, id: StatementId, part: Part) -> Option<StatementId> {
        let of = statement_of(id);
        let kept = self.interner.kept(of)?;
        if kept.standing != Standing::Accepted || of == sql::StatementId::OTHERS {
            return None;
        }
        if let Some(known) = self.parts.get(&(of, part)) {
            return known.map(plain);
        }
        let text = sql::part(kept.shown, part);
        let found = text.map(|text| self.known(&text));
        let found = found.map(statement_of);
        self.parts.insert((of, part), found);
        found.map(plain)
    }
}

/// The statement of a text.
fn statement_of(id: StatementId) -> sql::StatementId {
    let [a, b, c, d, ..] = id.0.to_le_bytes();
    sql::StatementId::from_number(u32::from_le_bytes([a, b, c, d]))
}

/// The number of a statement, whatever its texts do with names.
fn plain(id: sql::StatementId) -> StatementId {
    StatementId(u64::from(id.number()))
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
    use super::{Deed, Extent, Part, Statement, Strings, Texts};

    /// Texts with different values and names are one statement, and what DEALLOCATE gives up is known all the same.
    #[test]
    fn statements_are_one_and_names_are_kept() {
        let mut texts = Texts::default();
        let text = b"SELECT 1; DEALLOCATE a1; select 2; DEALLOCATE a2;";
        let pieces = Texts::pieces(text, Extent::Whole, Strings::Unknown);
        let ids: Vec<_> = pieces
            .map(|(piece, extent)| {
                let taken = texts.intern(piece, extent, Strings::Unknown);
                texts.accept(taken.id);
                taken.id
            })
            .collect();
        assert_eq!(ids.len(), 4);
        assert_eq!(ids[0], ids[2]);
        let known = |id| Texts::canonical(Statement::Known(id));
        assert_eq!(known(ids[1]), known(ids[3]));
        assert_ne!(known(ids[0]), known(ids[1]));
        let mut given_up = |id| match texts.deed(id).as_deref() {
            Some(Deed::Deallocates { name }) => Some(name.to_vec()),
            _ => None,
        };
        assert_eq!(given_up(ids[1]), Some(b"a1".to_vec()));
        assert_eq!(given_up(ids[3]), Some(b"a2".to_vec()));
        assert_eq!(given_up(ids[0]), None);
        assert_eq!(texts.text(ids[0]), "SELECT $1");
    }

    /// What PREPARE and DECLARE are of is the statement of that text; a FETCH from it is one of its own, which its own
    /// normal form is too.
    #[test]
    fn parts_are_statements() {
        let mut texts = Texts::default();
        let mut take = |text: &str| {
            let taken = texts.intern(text.as_bytes(), Extent::Whole, Strings::Conforming);
            let before = texts.part(taken.id, Part::Body);
            texts.accept(taken.id);
            (taken.id, before)
        };
        let of = "a FROM t1 WHERE b IN (1, 2, 3) AND c = 'x' AND d > 5";
        let (select, _) = take(&format!("SELECT {of}"));
        let (prepare, before) = take(&format!("PREPARE p_1 (int) AS SELECT {of}"));
        assert_eq!(before, None, "only what the server took is looked at");
        let (declare, _) = take(&format!("DECLARE c_1 CURSOR WITH HOLD FOR select {of}"));
        for id in [prepare, declare] {
            assert_eq!(texts.part(id, Part::Body), Some(select));
        }
        let fetch = texts.part(select, Part::Fetch).unwrap();
        let shown =
            "FETCH FROM (SELECT a FROM t1 WHERE b IN ($1 /*, ... */) AND c = $2 AND d > $3)";
        assert_eq!(texts.text(fetch), shown);
        assert_eq!(texts.known(shown), fetch);
        assert_ne!(texts.part(select, Part::Move), Some(fetch));
        assert_eq!(texts.part(select, Part::Body), None);
    }
}
