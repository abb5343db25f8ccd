//! Statements by the names that they are prepared under. Their texts are not here: they are given away for an id as
//! soon as they are read.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{
    super::encoding::legible,
    event::{Statement, StatementId},
    fields::Name,
};

/// Most prepared statements that are remembered of a connection. The ones used least recently go first.
pub(super) const STATEMENTS_MAX: usize = 2_000;

/// Whether a text is all of what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// It is.
    Whole,
    /// Its end is missing.
    Cut,
}

/// A text, as a client sent it.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    /// Its bytes, in the encoding of the client.
    pub bytes: &'a [u8],
    /// How much of it is there.
    pub extent: Extent,
    /// The server reads it by the parameters that it reported last: nothing was missed, and it has nothing to do
    /// before that may change them.
    pub is_settled: bool,
}

/// What a statement does with a name. Names are as the server keeps them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "names")]
pub enum Deed {
    /// PREPARE: the name is one of the protocol's statements from now on.
    Prepares { name: Arc<[u8]> },
    /// EXECUTE.
    Executes { name: Arc<[u8]> },
    /// DEALLOCATE, but of all.
    Deallocates { name: Arc<[u8]> },
    /// DECLARE, and whether it is WITH HOLD.
    Declares { name: Arc<[u8]>, is_held: bool },
    /// FETCH.
    Fetches { name: Arc<[u8]> },
    /// MOVE.
    Moves { name: Arc<[u8]> },
    /// CLOSE.
    Closes { name: Arc<[u8]> },
    /// CLOSE ALL.
    ClosesAll,
}

/// A statement that has to do with another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// What PREPARE prepares and DECLARE declares.
    Body,
    /// FETCH from a cursor of it.
    Fetch,
    /// MOVE in a cursor of it.
    Move,
}

/// Gives ids to statements' texts, and hears what shows how to read them and whether they are right.
pub trait Statements {
    /// Adds an id for each statement of a simple Query's text, in order; empty ones have none.
    fn simple(&mut self, text: Text<'_>, ids: &mut Vec<StatementId>);

    /// The id of a text that is prepared.
    fn prepared(&mut self, text: Text<'_>) -> StatementId;

    /// What a statement does with a name of SQL.
    fn deed(&mut self, id: StatementId) -> Option<Arc<Deed>>;

    /// The statement that a part of another one is, or what reads it. Of one that the server took.
    fn part(&mut self, id: StatementId, part: Part) -> Option<StatementId>;

    /// The server reports a parameter.
    fn parameter(&mut self, name: &[u8], value: &[u8]);

    /// The server took a statement of this connection. That is certain, unless it may have been another one.
    fn accepted(&mut self, id: StatementId, is_certain: bool);

    /// All that was sent has been answered.
    fn answered(&mut self);
}

/// Prepared statements of a connection.
#[derive(Debug, Default)]
pub(super) struct PreparedStatements {
    by_name: FxHashMap<Name, Entry>,
    /// Counts uses.
    clock: u64,
    /// Number of the connection.
    connection: u32,
}

#[derive(Debug)]
struct Entry {
    statement: Statement,
    used: u64,
}

impl PreparedStatements {
    /// Of the connection with a number.
    pub(super) fn of(connection: u32) -> Self {
        Self {
            connection,
            ..Self::default()
        }
    }

    pub(super) fn insert(&mut self, name: Name, statement: Statement) {
        self.clock += 1;
        let used = self.clock;
        self.by_name.insert(name, Entry { statement, used });
        if self.by_name.len() > STATEMENTS_MAX {
            self.evict();
        }
    }

    /// The statement of a name. One that is not known is one of that name from now on.
    pub(super) fn find(&mut self, name: &Name) -> Statement {
        self.clock += 1;
        if let Some(entry) = self.by_name.get_mut(name) {
            entry.used = self.clock;
            return entry.statement.clone();
        }
        if name.is_empty() {
            return Statement::Unknown;
        }
        let text = legible(name);
        let statement = Statement::Named(text.replace('\0', "\u{2026}").into(), self.connection);
        self.insert(name.clone(), statement.clone());
        statement
    }

    /// The statement of a name whose text has been seen.
    pub(super) fn text(&self, name: &[u8]) -> Option<StatementId> {
        match self.by_name.get(name)?.statement {
            Statement::Known(id) => Some(id),
            _ => None,
        }
    }

    /// Whether the text of a name has been seen.
    pub(super) fn has_text(&self, name: &[u8]) -> bool {
        let entry = self.by_name.get(name);
        entry.is_some_and(|entry| !matches!(entry.statement, Statement::Named(..)))
    }

    /// The text of a statement that was known by its name only.
    pub(super) fn learn(&mut self, named: &Statement, id: StatementId) {
        let entries = self.by_name.values_mut();
        for entry in entries.filter(|entry| entry.statement == *named) {
            entry.statement = Statement::Known(id);
        }
    }

    pub(super) fn remove(&mut self, name: &[u8]) {
        self.by_name.remove(name);
    }

    pub(super) fn clear(&mut self) {
        self.by_name.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Forgets a quarter, so that this is rare.
    fn evict(&mut self) {
        let mut uses: Vec<u64> = self.by_name.values().map(|entry| entry.used).collect();
        let quarter = STATEMENTS_MAX / 4;
        let (_, oldest_kept, _) = uses.select_nth_unstable(quarter);
        let oldest_kept = *oldest_kept;
        self.by_name.retain(|_, entry| entry.used >= oldest_kept);
    }
}

#[cfg(test)]
mod tests {
    use super::{PreparedStatements, STATEMENTS_MAX, Statement, StatementId};

    /// The statements that were used last are remembered, the others are known by name.
    #[test]
    fn statements_are_bounded() {
        let mut statements = PreparedStatements::default();
        let name = |n: u32| n.to_be_bytes().to_vec().into_boxed_slice();
        let known = |n: u32| Statement::Known(StatementId(n.into()));
        for n in 1..10_000 {
            statements.insert(name(n), known(n));
            assert_eq!(statements.find(&name(1)), known(1));
            assert!(statements.len() <= STATEMENTS_MAX);
        }
        assert_eq!(statements.find(&name(9_999)), known(9_999));
        assert!(matches!(statements.find(&name(2)), Statement::Named(..)));
        assert!(statements.has_text(&name(9_999)) && !statements.has_text(&name(2)));
        let named = statements.find(&name(2));
        statements.learn(&named, StatementId(2));
        assert_eq!(statements.find(&name(2)), known(2));
        statements.clear();
        assert_eq!(statements.find(&Box::default()), Statement::Unknown);
    }
}
