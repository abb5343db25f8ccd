//! What SQL's own names stand for: EXECUTE runs what PREPARE gave a name, FETCH and MOVE read what DECLARE did. Names
//! of prepared statements are those of the protocol; cursors are kept here.

use rustc_hash::FxHashMap;

use super::{
    event::{Event, Outcome, Statement, StatementId},
    exchange::{Context, Exchange},
    fields::Name,
    statements::{Deed, Part, Statements},
};

/// Most cursors that are remembered of a connection; those beyond have no statement.
const CURSORS_MAX: usize = 1_000;

/// Cursors of a connection.
#[derive(Debug, Default)]
pub(super) struct Cursors(FxHashMap<Name, Cursor>);

#[derive(Debug)]
struct Cursor {
    query: StatementId,
    /// WITH HOLD: it outlives its transaction.
    is_held: bool,
}

impl Cursors {
    fn declare(&mut self, name: Name, cursor: Cursor) {
        if self.0.len() < CURSORS_MAX || self.0.contains_key(&name) {
            self.0.insert(name, cursor);
        }
    }

    fn query(&self, name: &[u8]) -> Option<StatementId> {
        self.0.get(name).map(|cursor| cursor.query)
    }

    fn close(&mut self, name: &[u8]) {
        self.0.remove(name);
    }

    /// The transaction is over.
    pub(super) fn transaction_ends(&mut self) {
        self.0.retain(|_, cursor| cursor.is_held);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Exchange {
    /// A statement was completed with this tag: does what it does to names, and says what has run.
    pub(super) fn carry_out<S: Statements>(
        &mut self,
        statement: Statement,
        tag: &[u8],
        statements: &mut S,
    ) -> Statement {
        if tag == b"DISCARD ALL" {
            self.cursors.clear();
        }
        if matches!(tag, b"DEALLOCATE ALL" | b"DISCARD ALL") {
            self.statements.clear();
        }
        let Statement::Known(id) = statement else {
            return statement;
        };
        let Some(deed) = statements.deed(id) else {
            return statement;
        };
        // A tag of something else is an answer to something else.
        match (&*deed, tag) {
            (Deed::Prepares { name }, b"PREPARE") => {
                let name: Name = name.as_ref().into();
                match statements.part(id, Part::Body) {
                    Some(body) => self.statements.insert(name, Statement::Known(body)),
                    None => self.statements.remove(&name),
                }
            }
            (Deed::Deallocates { name }, b"DEALLOCATE") => self.statements.remove(name),
            (Deed::Declares { name, is_held }, b"DECLARE CURSOR") => {
                let is_held = *is_held;
                let name: Name = name.as_ref().into();
                match statements.part(id, Part::Body) {
                    Some(query) => self.cursors.declare(name, Cursor { query, is_held }),
                    None => self.cursors.close(&name),
                }
            }
            (Deed::Closes { name }, b"CLOSE CURSOR") => self.cursors.close(name),
            (Deed::ClosesAll, b"CLOSE CURSOR ALL") => self.cursors.clear(),
            (Deed::Executes { .. }, _)
            | (Deed::Fetches { .. }, b"FETCH")
            | (Deed::Moves { .. }, b"MOVE") => return self.run_by(id, &deed, statements),
            _ => {}
        }
        Statement::Known(id)
    }

    /// What a statement runs: that which the name in it stands for, if that is known.
    pub(super) fn run<S: Statements>(&self, statement: Statement, statements: &mut S) -> Statement {
        let Statement::Known(id) = statement else {
            return statement;
        };
        match statements.deed(id) {
            Some(deed) => self.run_by(id, &deed, statements),
            None => statement,
        }
    }

    fn run_by<S: Statements>(&self, id: StatementId, deed: &Deed, statements: &mut S) -> Statement {
        let run = match deed {
            Deed::Executes { name } => self.statements.text(name),
            Deed::Fetches { name } => {
                let query = self.cursors.query(name);
                query.and_then(|query| statements.part(query, Part::Fetch))
            }
            Deed::Moves { name } => {
                let query = self.cursors.query(name);
                query.and_then(|query| statements.part(query, Part::Move))
            }
            _ => None,
        };
        Statement::Known(run.unwrap_or(id))
    }

    /// Calls among the events from one on that were not completed are of what their names stand for by now.
    pub(super) fn settle_names<S: Statements>(&self, from: usize, context: &mut Context<'_, S>) {
        for event in context.events.iter_mut().skip(from) {
            if let Event::Call(call) = event
                && !matches!(call.outcome, Outcome::Completed)
            {
                call.statement = self.run(call.statement.clone(), context.statements);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{CURSORS_MAX, Cursor, Cursors, StatementId};

    /// Cursors are bounded, and only those WITH HOLD outlive their transaction.
    #[test]
    fn cursors_are_bounded_and_end() {
        let mut cursors = Cursors::default();
        let name = |n: usize| n.to_be_bytes().to_vec().into_boxed_slice();
        for n in 0..2 * CURSORS_MAX {
            let query = StatementId(n as u64);
            let is_held = n % 2 == 0;
            cursors.declare(name(n), Cursor { query, is_held });
        }
        assert_eq!(cursors.len(), CURSORS_MAX);
        assert_eq!(cursors.query(&name(7)), Some(StatementId(7)));
        assert_eq!(cursors.query(&name(CURSORS_MAX)), None);
        cursors.transaction_ends();
        assert_eq!(cursors.query(&name(7)), None);
        assert_eq!(cursors.query(&name(8)), Some(StatementId(8)));
        cursors.close(&name(8));
        assert_eq!(cursors.len(), CURSORS_MAX / 2 - 1);
    }
}
