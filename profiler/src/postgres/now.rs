//! What connections are in the middle of: statements that run, and transactions that wait for their client. Taken from the
//! server's own memory where it is on this host, as what was asked before the recording was not seen. Pure.

use std::sync::Arc;

use super::{
    backends::{Activity, Reading},
    idle::Doing,
    origin::Origin,
    protocol::{Extent, StatementId, TransactionState},
    sql::Fingerprint,
    texts::Texts,
};

/// So long the server is hardly busy with a text that it refuses, ns.
const BUSY_NS: u64 = 100_000_000;

/// One connection.
#[derive(Clone, Debug)]
pub(super) struct UnderWay {
    /// What runs, or ran last in the transaction.
    pub(super) statement: String,
    pub(super) fingerprint: Option<Fingerprint>,
    /// As `pg_stat_activity` calls it.
    pub(super) state: &'static str,
    /// For how long, ns; at least so long, where its beginning was not seen.
    pub(super) age_ns: u64,
    pub(super) is_at_least: bool,
    /// Age of the transaction, ns.
    pub(super) transaction_ns: Option<u64>,
    /// The class of what the server waits for.
    pub(super) wait: Option<&'static str>,
    /// What the server calls such a process, and its number for the statement, where they are known.
    pub(super) kind: Option<&'static str>,
    pub(super) query_id: Option<i64>,
    /// The server's process, and the client's where it is a target.
    pub(super) backend: Option<u32>,
    pub(super) client: Option<u32>,
    /// Who it is for.
    pub(super) origin: Arc<Origin>,
}

/// What is known of a backend at one time.
pub(super) struct Found {
    pub(super) doing: Doing,
    pub(super) activity: Option<Activity>,
    pub(super) reading: Option<Reading>,
    /// The system's clock, microseconds since 1970.
    pub(super) now_us: i64,
    /// For how long it was watched, ns.
    pub(super) watched_ns: u64,
}

/// What a connection does while it runs something or is in a transaction.
struct State {
    word: &'static str,
    is_working: bool,
}

impl Found {
    fn state(&self) -> Option<State> {
        let waits = |word| State {
            word,
            is_working: false,
        };
        let active = State {
            word: "active",
            is_working: true,
        };
        match self.doing {
            Doing::Waiting(TransactionState::Idle) => None,
            Doing::Waiting(TransactionState::Open) => Some(waits("idle in transaction")),
            Doing::Waiting(TransactionState::Failed) => {
                Some(waits("idle in transaction (aborted)"))
            }
            Doing::Working => Some(active),
            // By what it waits for.
            Doing::Unknown => {
                let activity = self.activity.as_ref()?;
                match (activity.wait, activity.status.transaction_us) {
                    (Some("Client"), None) => None,
                    (Some("Client"), Some(_)) => Some(waits("idle in transaction")),
                    _ => Some(active),
                }
            }
        }
    }

    /// For how long it has been so, ns, and whether that is all.
    fn age(&self, is_working: bool) -> (u64, bool) {
        let Some(activity) = &self.activity else {
            return (self.watched_ns, true);
        };
        let since_us = if is_working {
            activity.status.activity_us
        } else {
            activity.status.state_us
        };
        (self.age_ns(since_us), false)
    }

    fn age_ns(&self, since_us: i64) -> u64 {
        let us = self.now_us.saturating_sub(since_us);
        u64::try_from(us).unwrap_or(0).saturating_mul(1000)
    }

    /// Whether it is in a transaction.
    pub(super) fn is_within(&self) -> bool {
        let status = self.activity.as_ref().map(|activity| activity.status);
        status.is_some_and(|status| status.transaction_us.is_some())
    }

    /// Remembers the server's number for a statement. Of several in one text it is that of one of them.
    fn learn(&self, id: Option<StatementId>, texts: &mut Texts) {
        let query_id = (self.activity.as_ref()).and_then(|activity| activity.query_id);
        if let (Some(id), Some(query_id), Some(reading)) = (id, query_id, &self.reading)
            && reading.is_whole
            && Texts::pieces(&reading.text, Extent::Whole, reading.strings).count() == 1
        {
            texts.learn_query_id(id, query_id);
        }
    }

    /// The statement that it runs, for how long, ns.
    pub(super) fn runs(&self, texts: &mut Texts) -> Option<(StatementId, u64)> {
        let state = self.state().filter(|state| state.is_working)?;
        let id = texts.read(self.reading.as_ref()?);
        self.learn(Some(id), texts);
        let (age_ns, _) = self.age(state.is_working);
        Some((id, age_ns))
    }

    /// What is shown of it; nothing of one that waits for a first statement.
    pub(super) fn told(
        self,
        (backend, client): (u32, Option<u32>),
        (kind, origin): (&'static str, Origin),
        texts: &mut Texts,
    ) -> Option<UnderWay> {
        let state = self.state()?;
        let (age_ns, is_at_least) = self.age(state.is_working);
        let id = self.reading.as_ref().map(|reading| texts.read(reading));
        if let Some(id) = id
            && (age_ns > BUSY_NS || !state.is_working)
        {
            texts.is_under_way(id);
        }
        self.learn(id, texts);
        let began_us = (self.activity.as_ref()).and_then(|activity| activity.status.transaction_us);
        let application = (self.activity.as_ref()).and_then(Activity::application);
        Some(UnderWay {
            statement: id.map_or_else(
                || "<statement not seen>".to_owned(),
                |id| texts.text(id).to_owned(),
            ),
            fingerprint: id.and_then(|id| texts.fingerprint(id)),
            state: state.word,
            age_ns,
            is_at_least,
            transaction_ns: began_us.map(|us| self.age_ns(us)),
            wait: (self.activity.as_ref())
                .and_then(|activity| activity.wait)
                .filter(|_| state.is_working),
            kind: Some(kind),
            query_id: (self.activity.as_ref()).and_then(|activity| activity.query_id),
            backend: Some(backend),
            client,
            origin: Arc::new(Origin {
                application: application.or(origin.application),
                ..origin
            }),
        })
    }
}
