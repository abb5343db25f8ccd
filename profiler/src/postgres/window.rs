//! What was told in one window of time, as it is stored: one JSON object, compressed. Windows read back add up. Pure.
//!
//! Statements are stored by their normal forms, which read again are the same statements.

use crate::sums::{add_count, add_time};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    io,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    account::Account,
    figures::Figures,
    measured::Measured,
    protocol::{Side, SqlState, Statement},
    report::named,
    sql::{Fingerprint, Kept, Reading, Standing, normalise},
    statistics::{Key, Sessions, Statistics, Stretch, Transactions},
    texts::Texts,
};
use crate::{
    output::{self, OutputError},
    report,
    store::Table,
};

/// Of what is written now.
const VERSION: u32 = 1;

/// Calls of Postgres in a window of time, by statement.
#[derive(Debug, Serialize, Deserialize)]
pub struct Window {
    version: u32,
    /// Whom.
    title: String,
    duration: Duration,
    groups: Vec<Group>,
    transactions: Transactions,
    sessions: Sessions,
    cancels: u64,
    terminated: BTreeMap<SqlState, u64>,
    opaque: BTreeMap<String, u64>,
    lost: BTreeMap<String, Stretch>,
    calls: u64,
    without_group: u64,
    account: Account,
}

/// Calls of a statement.
#[derive(Debug, Serialize, Deserialize)]
struct Group {
    statement: Stored,
    /// Not stored, as it follows from the text.
    #[serde(skip)]
    fingerprint: Option<Fingerprint>,
    side: Side,
    figures: Figures,
}

/// A statement, as it is stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Stored {
    /// Its normal form.
    Text(String),
    /// What is shown of a statement that no server took.
    Partly {
        shown: String,
        fingerprint: Fingerprint,
        is_under_way: bool,
    },
    /// Known by its name only.
    Named(String),
    /// A function by its number.
    Function(u32),
    Empty,
    Unknown,
    /// All that found no room.
    Others,
}

impl Window {
    /// What was told.
    pub(super) fn new(
        (title, duration): (String, Duration),
        texts: &Texts,
        statistics: Statistics,
        account: Account,
    ) -> Self {
        let words = |(cause, count): (Cow<'static, str>, u64)| (cause.into(), count);
        let group = |(key, figures): (Key, Figures)| Group {
            fingerprint: fingerprint(key.statement.as_ref(), texts),
            statement: Stored::new(key.statement.as_ref(), texts),
            side: key.side,
            figures,
        };
        Self {
            version: VERSION,
            title,
            duration,
            groups: statistics.groups.into_iter().map(group).collect(),
            transactions: statistics.transactions,
            sessions: statistics.sessions,
            cancels: statistics.cancels,
            terminated: statistics.terminated,
            opaque: statistics.opaque.into_iter().map(words).collect(),
            lost: statistics
                .lost
                .into_iter()
                .map(|(cause, stretch)| (cause.into(), stretch))
                .collect(),
            calls: statistics.calls,
            without_group: statistics.without_group,
            account,
        }
    }

    /// What it measured of each statement.
    pub(crate) fn measured(&self) -> impl Iterator<Item = Measured<'_>> {
        self.groups.iter().map(|group| Measured {
            side: group.side,
            fingerprint: group.fingerprint.or_else(|| match &group.statement {
                Stored::Text(text) => {
                    Some(normalise(text.as_bytes(), Reading::default()).fingerprint)
                }
                Stored::Partly { fingerprint, .. } => Some(*fingerprint),
                _ => None,
            }),
            text: match &group.statement {
                Stored::Text(text) | Stored::Partly { shown: text, .. } => Some(text),
                _ => None,
            },
            figures: &group.figures,
        })
    }

    /// Reads one back.
    ///
    /// # Errors
    ///
    /// Of what is no window, or one of another version.
    pub fn read(bytes: &[u8]) -> io::Result<Self> {
        let plain = report::inflate(bytes, report::BYTES_MAX).map_err(io::Error::other)?;
        let window: Self = serde_json::from_slice(&plain)?;
        if window.version == VERSION {
            Ok(window)
        } else {
            let text = format!("a window of version {}", window.version);
            Err(io::Error::other(text))
        }
    }
}

impl Table for Window {
    fn title(&self) -> &str {
        &self.title
    }

    fn duration(&self) -> Duration {
        self.duration
    }

    fn events(&self) -> u64 {
        self.calls
    }

    fn lost(&self) -> u64 {
        self.account.lost.values().sum()
    }

    fn note(&mut self, note: String, count: u64) {
        add_count(self.account.notes.entry(note).or_default(), count);
    }

    fn to_bytes(&self) -> Result<Vec<u8>, OutputError> {
        output::gzip(&serde_json::to_vec(self)?)
    }

    fn queries(&self) -> Option<&Window> {
        Some(self)
    }
}

impl Stored {
    fn new(statement: Option<&Statement>, texts: &Texts) -> Self {
        match statement {
            Some(Statement::Known(id)) => match texts.kept(*id) {
                Some(kept) if kept.standing < Standing::Accepted => Self::Partly {
                    shown: kept.shown.to_owned(),
                    fingerprint: kept.fingerprint,
                    is_under_way: kept.standing == Standing::UnderWay,
                },
                _ => Self::Text(texts.text(*id).to_owned()),
            },
            Some(Statement::Named(name, connection)) => Self::Named(named(name, *connection)),
            Some(Statement::Function(oid)) => Self::Function(*oid),
            Some(Statement::Empty) => Self::Empty,
            Some(Statement::Unknown) => Self::Unknown,
            None => Self::Others,
        }
    }

    fn statement(self, texts: &mut Texts) -> Option<Statement> {
        Some(match self {
            Self::Text(text) => {
                let id = texts.known(&text);
                Texts::canonical(Statement::Known(id))
            }
            Self::Partly {
                shown,
                fingerprint,
                is_under_way,
            } => Statement::Known(texts.restore(Kept {
                shown: &shown,
                fingerprint,
                standing: if is_under_way {
                    Standing::UnderWay
                } else {
                    Standing::Withheld
                },
            })),
            Self::Named(name) => Statement::Named(name.into(), 0),
            Self::Function(oid) => Statement::Function(oid),
            Self::Empty => Statement::Empty,
            Self::Unknown => Statement::Unknown,
            Self::Others => return None,
        })
    }
}

fn fingerprint(statement: Option<&Statement>, texts: &Texts) -> Option<Fingerprint> {
    match statement {
        Some(Statement::Known(id)) => texts.fingerprint(*id),
        _ => None,
    }
}

/// Windows together.
#[derive(Default)]
pub(crate) struct Sum {
    pub(super) texts: Texts,
    pub(super) statistics: Statistics,
    pub(super) account: Account,
    pub(super) duration: Duration,
    pub(super) titles: BTreeSet<String>,
}

impl Sum {
    pub(crate) fn add(&mut self, window: Window) {
        let mut statistics = Statistics {
            transactions: window.transactions,
            sessions: window.sessions,
            cancels: window.cancels,
            terminated: window.terminated,
            calls: window.calls,
            without_group: window.without_group,
            ..Statistics::default()
        };
        let opaque = window.opaque.into_iter();
        statistics.opaque = opaque.map(|(cause, count)| (cause.into(), count)).collect();
        let lost = window.lost.into_iter();
        statistics.lost = lost
            .map(|(cause, stretch)| (cause.into(), stretch))
            .collect();
        for group in window.groups {
            let key = Key {
                statement: group.statement.statement(&mut self.texts),
                side: group.side,
                by: None,
            };
            statistics
                .groups
                .entry(key)
                .or_default()
                .merge(group.figures);
        }
        self.statistics.merge(statistics);
        self.account.merge(window.account);
        add_time(&mut self.duration, window.duration);
        self.titles.insert(window.title);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Sum, Table, Window};
    use crate::postgres::{
        example::{statistics, stored},
        report::{self, Selection, SortBy},
        texts::Texts,
    };

    fn window() -> Window {
        stored(Duration::from_secs(60))
    }

    /// Two windows that were stored and read back are the recording of both times.
    #[test]
    fn windows_add_up() {
        let bytes = window().to_bytes().unwrap();
        let mut sum = Sum::default();
        for _ in 0..2 {
            sum.add(Window::read(&bytes).unwrap());
        }
        let mut texts = Texts::default();
        let mut whole = statistics(&mut texts);
        whole.merge(statistics(&mut texts));
        let selection = Selection {
            sort: SortBy::Time,
            limit: 10,
            min_calls: 0,
            by: None,
        };
        let lines = |statistics, texts| {
            let (rows, _) = report::rows(statistics, texts, selection);
            let line = |row: &report::Row<'_>| {
                let figures = row.figures;
                let times = [50, 95, 99].map(|percent| figures.quantile_ns(percent));
                let seen = &figures.seen;
                format!(
                    "{} {:?} {} {} {:?} {:?} {:?} {:?}",
                    row.text,
                    row.fingerprint,
                    figures.calls,
                    figures.total_ns,
                    times,
                    figures.errors,
                    seen.users,
                    seen.transports,
                )
            };
            rows.iter().map(line).collect::<Vec<_>>()
        };
        assert_eq!(lines(&sum.statistics, &sum.texts), lines(&whole, &texts));
        assert_eq!((sum.account.calls, sum.account.in_rows), (10, 10));
        assert_eq!(
            sum.statistics.transactions.longest_idle,
            whole.transactions.longest_idle
        );
        assert_eq!(sum.duration, Duration::from_secs(120));
    }

    /// What is no window is refused, whatever it is.
    #[test]
    fn other_bytes_are_refused() {
        let bytes = window().to_bytes().unwrap();
        for bytes in [&b""[..], b"{}", &bytes[..bytes.len() / 2]] {
            assert!(Window::read(bytes).is_err());
        }
        let mut later = window();
        later.version += 1;
        let refused = Window::read(&later.to_bytes().unwrap()).unwrap_err();
        assert!(refused.to_string().contains("version 2"), "{refused}");
    }
}
