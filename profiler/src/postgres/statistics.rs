//! What is told of connections, added up: calls by statement, transactions, connections, and what was not understood.
//! Pure.

use crate::sums::add_count;
use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::{
    figures::Figures,
    origin::Origin,
    protocol::{
        Call, Cause, Event, Lost, Opaque, Prepared, Session, Side, SqlState, Statement,
        Transaction, TransactionEnd,
    },
};

/// Most groups: statements, by what they are told apart. Further calls are in one group of their own.
pub(super) const GROUPS_MAX: usize = 20_000;

/// By what calls of one statement are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    /// The database.
    Database,
    /// The role.
    User,
    /// The other end of the connection.
    Peer,
    /// What the client calls itself.
    Application,
    /// The process whose calls are seen.
    Pid,
}

/// What a group has in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// `None` for the group of all that found no room.
    pub(super) statement: Option<Statement>,
    pub(super) side: Side,
    /// What [`By`] says.
    pub(super) by: Option<Arc<str>>,
}

/// Transactions that took more than one round trip.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Transactions {
    pub(super) committed: u64,
    pub(super) rolled_back: u64,
    /// Ended in another way, such as `PREPARE TRANSACTION`.
    pub(super) other: u64,
    /// Ended with their connection, which undoes them.
    #[serde(default)]
    pub(super) disconnected: u64,
    /// Open when the recording ended.
    pub(super) open: u64,
    /// Time from their beginning to their end, of those whose beginning was seen, ns, and how many those are.
    pub(super) total_ns: u64,
    pub(super) timed: u64,
    /// Time in which the server waited for the client within one, ns.
    pub(super) idle_ns: u64,
    /// The longest of these times and whose it was.
    pub(super) longest_idle: Option<(u64, Arc<Origin>)>,
}

/// Connections that were set up or refused in the recording.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Sessions {
    pub(super) opened: u64,
    /// By the code of the error.
    pub(super) refused: BTreeMap<SqlState, u64>,
    /// Time from the start-up message to the first `ReadyForQuery`, ns, of all, and the longest.
    pub(super) total_ns: u64,
    pub(super) max_ns: u64,
}

/// Everything.
#[derive(Debug, Default)]
pub(super) struct Statistics {
    pub(super) groups: FxHashMap<Key, Figures>,
    pub(super) transactions: Transactions,
    pub(super) sessions: Sessions,
    pub(super) cancels: u64,
    /// Connections that the server ended, by the code of the error.
    pub(super) terminated: BTreeMap<SqlState, u64>,
    /// Connections that could not be read on, by cause.
    pub(super) opaque: BTreeMap<Cow<'static, str>, u64>,
    /// Stretches that were not understood, by cause.
    pub(super) lost: BTreeMap<Cow<'static, str>, Stretch>,
    /// Calls told, however they ended.
    pub(super) calls: u64,
    /// Of those, calls that found no group of their own.
    pub(super) without_group: u64,
    /// Names that became known, and what they are: what was counted before is renamed too.
    pub(super) learned: Vec<(Statement, Statement)>,
}

/// Stretches of connections that were not understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stretch {
    pub(super) times: u64,
    pub(super) bytes: u64,
    pub(super) duration_ns: u64,
    /// Calls whose answer was not seen for it.
    pub(super) unseen: u64,
}

impl Statistics {
    /// Takes in what a connection tells.
    pub(super) fn take(&mut self, event: &Event, origin: &Arc<Origin>, by: Option<By>) {
        match event {
            Event::Call(call) => self.call(call, origin, by),
            Event::Prepared(prepared) => self.prepared(prepared, origin, by),
            Event::Transaction(transaction) => self.transaction(transaction, origin),
            Event::Session(session) => self.session(session),
            Event::Cancel { .. } => self.cancels += 1,
            Event::Terminated { failure, .. } => {
                *self.terminated.entry(failure.sqlstate).or_default() += 1;
            }
            Event::Opaque(opaque) => {
                *self.opaque.entry(opaque_text(*opaque).into()).or_default() += 1;
            }
            Event::Lost(lost) => self.lost(lost),
            Event::Learned { named, known } => {
                self.rename(named, known);
                self.learned.push((named.clone(), known.clone()));
            }
        }
    }

    /// What was counted under a name is of a statement that is known by now.
    fn rename(&mut self, named: &Statement, known: &Statement) {
        let is_it = |key: &&Key| key.statement.as_ref() == Some(named);
        let keys: Vec<Key> = self.groups.keys().filter(is_it).cloned().collect();
        for mut key in keys {
            let figures = self.groups.remove(&key).unwrap_or_default();
            key.statement = Some(known.clone());
            self.groups.entry(key).or_default().merge(figures);
        }
    }

    fn call(&mut self, call: &Call, origin: &Arc<Origin>, by: Option<By>) {
        self.calls += 1;
        self.group(&call.statement, origin, by).add(call, origin);
    }

    fn prepared(&mut self, prepared: &Prepared, origin: &Arc<Origin>, by: Option<By>) {
        self.group(&prepared.statement, origin, by)
            .add_prepare(prepared, origin);
    }

    fn group(&mut self, statement: &Statement, origin: &Origin, by: Option<By>) -> &mut Figures {
        let by = by.map(|by| match by {
            By::Database => origin.database.clone(),
            By::User => origin.user.clone(),
            By::Peer => origin.peer.clone(),
            By::Application => origin.application.clone(),
            By::Pid => Some(Arc::from(origin.pid.to_string())),
        });
        let mut key = Key {
            statement: Some(statement.clone()),
            side: origin.side,
            by: by.map(|value| value.unwrap_or_else(|| Arc::from("?"))),
        };
        if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&key) {
            self.without_group += 1;
            (key.statement, key.by) = (None, None);
        }
        self.groups.entry(key).or_default()
    }

    fn transaction(&mut self, transaction: &Transaction, origin: &Arc<Origin>) {
        let all = &mut self.transactions;
        match transaction.end {
            TransactionEnd::Committed => all.committed += 1,
            TransactionEnd::RolledBack => all.rolled_back += 1,
            TransactionEnd::Other => all.other += 1,
            TransactionEnd::Disconnected => all.disconnected += 1,
            TransactionEnd::Open => all.open += 1,
        }
        if let Some(begin_ns) = transaction.begin_ns {
            all.total_ns += transaction.end_ns.saturating_sub(begin_ns);
            all.timed += 1;
        }
        all.idle_ns += transaction.idle_ns;
        let longest_ns = transaction.longest_idle_ns;
        if longest_ns > all.longest_idle.as_ref().map_or(0, |(ns, _)| *ns) {
            all.longest_idle = Some((longest_ns, Arc::clone(origin)));
        }
    }

    fn session(&mut self, session: &Session) {
        let all = &mut self.sessions;
        if let Some(failure) = session.failure {
            *all.refused.entry(failure.sqlstate).or_default() += 1;
            return;
        }
        let time_ns = session.end_ns.saturating_sub(session.start_ns);
        all.opened += 1;
        all.total_ns += time_ns;
        all.max_ns = all.max_ns.max(time_ns);
    }

    fn lost(&mut self, lost: &Lost) {
        let all = self.lost.entry(cause_text(lost.cause).into()).or_default();
        all.times += 1;
        all.bytes += lost.bytes;
        all.duration_ns += lost.until_ns.saturating_sub(lost.since_ns);
        all.unseen += lost.unseen;
    }

    /// Takes all of another one in.
    pub(super) fn merge(&mut self, other: Self) {
        for (named, known) in &other.learned {
            self.rename(named, known);
        }
        for (mut key, figures) in other.groups {
            if self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&key) {
                add_count(&mut self.without_group, figures.all_calls());
                (key.statement, key.by) = (None, None);
            }
            self.groups.entry(key).or_default().merge(figures);
        }
        self.transactions.merge(other.transactions);
        let (mine, others) = (&mut self.sessions, other.sessions);
        add_count(&mut mine.opened, others.opened);
        add_count(&mut mine.total_ns, others.total_ns);
        mine.max_ns = mine.max_ns.max(others.max_ns);
        add(&mut mine.refused, others.refused);
        add_count(&mut self.cancels, other.cancels);
        add(&mut self.terminated, other.terminated);
        add(&mut self.opaque, other.opaque);
        for (cause, stretch) in other.lost {
            let all = self.lost.entry(cause).or_default();
            add_count(&mut all.times, stretch.times);
            add_count(&mut all.bytes, stretch.bytes);
            add_count(&mut all.duration_ns, stretch.duration_ns);
            add_count(&mut all.unseen, stretch.unseen);
        }
        add_count(&mut self.calls, other.calls);
        add_count(&mut self.without_group, other.without_group);
    }
}

impl Transactions {
    /// However they ended.
    pub(super) fn count(&self) -> u64 {
        self.committed + self.rolled_back + self.other + self.disconnected + self.open
    }

    fn merge(&mut self, other: Self) {
        add_count(&mut self.committed, other.committed);
        add_count(&mut self.rolled_back, other.rolled_back);
        add_count(&mut self.other, other.other);
        add_count(&mut self.disconnected, other.disconnected);
        add_count(&mut self.open, other.open);
        add_count(&mut self.total_ns, other.total_ns);
        add_count(&mut self.timed, other.timed);
        add_count(&mut self.idle_ns, other.idle_ns);
        let longest = |of: &Option<(u64, Arc<Origin>)>| of.as_ref().map_or(0, |(ns, _)| *ns);
        if longest(&other.longest_idle) > longest(&self.longest_idle) {
            self.longest_idle = other.longest_idle;
        }
    }
}

pub(super) fn add<K: Ord>(all: &mut BTreeMap<K, u64>, more: BTreeMap<K, u64>) {
    for (key, count) in more {
        add_count(all.entry(key).or_default(), count);
    }
}

fn opaque_text(opaque: Opaque) -> &'static str {
    match opaque {
        Opaque::Tls | Opaque::DirectTls => "encrypted (TLS)",
        Opaque::Gss => "encrypted (GSSAPI)",
        Opaque::Replication => "replication",
    }
}

fn cause_text(cause: Cause) -> &'static str {
    match cause {
        Cause::Attached => "under way when the recording began",
        Cause::Missing => "bytes not seen",
        Cause::NotCopied => "bytes not copied",
        Cause::Malformed => "bytes that are no message",
        Cause::Unexpected => "answers to nothing that was seen",
        Cause::TooMany => "too many requests without an answer",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{By, GROUPS_MAX, Statistics};
    use crate::postgres::{
        example::{call, statistics},
        origin::tests::origin,
        protocol::{Event, Statement},
        texts::Texts,
    };

    /// Two halves of a recording are what the whole would be.
    #[test]
    fn halves_merge() {
        let mut texts = Texts::default();
        let mut merged = statistics(&mut texts);
        merged.merge(statistics(&mut texts));
        assert_eq!((merged.calls, merged.groups.len()), (10, 2));
        assert_eq!(
            (merged.transactions.count(), merged.sessions.opened),
            (2, 2)
        );
        assert_eq!(merged.cancels, 2);
        assert_eq!(merged.transactions.longest_idle.unwrap().0, 1_000_000_000);
    }

    /// Groups are bounded: what finds no room is together in one, and counted.
    #[test]
    fn groups_are_bounded() {
        let mut statistics = Statistics::default();
        let origin = Arc::new(origin());
        let more = 5;
        for oid in 0..u32::try_from(GROUPS_MAX).unwrap() + more {
            let event = Event::Call(call(Statement::Function(oid), 1));
            statistics.take(&event, &origin, Some(By::Pid));
        }
        assert_eq!(statistics.groups.len(), GROUPS_MAX + 1);
        assert_eq!(statistics.without_group, u64::from(more));
        let all: u64 = statistics
            .groups
            .values()
            .map(|figures| figures.calls)
            .sum();
        assert_eq!(all, statistics.calls);
    }
}
