//! Connections and calls for the tests of what is made of them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    account::{Account, Sockets},
    origin::{Origin, tests::origin},
    protocol::{
        Call, Event, Failure, Outcome, Rows, Session, Severity, SqlState, Statement, Transaction,
        TransactionEnd,
    },
    report::{Report, Selection, SortBy, rows},
    statistics::Statistics,
    texts::{Missing, Texts},
    window::Window,
};

/// A call of so many ms that began at 1 s.
pub(super) fn call(statement: Statement, ms: u64) -> Call {
    let start_ns = 1_000_000_000;
    let end_ns = start_ns + ms * 1_000_000;
    Call {
        statement,
        index: 0,
        tid: 7,
        start_ns,
        service_ns: start_ns,
        first_row_ns: Some(start_ns + 500_000),
        end_ns: Some(end_ns),
        ready_ns: Some(end_ns + 1000),
        latency_ns: Some(ms * 1_000_000),
        sharing: 1,
        fetches: 1,
        rows: Rows {
            returned: 3,
            ..Rows::default()
        },
        sent_bytes: 40,
        received_bytes: 20_000,
        copy: None,
        outcome: Outcome::Completed,
        transaction: None,
    }
}

pub(super) fn failed() -> Outcome {
    Outcome::Failed(Failure {
        severity: Severity::Error,
        sqlstate: SqlState::read(b"23505"),
    })
}

/// Two statements and what else connections tell.
pub(super) fn statistics(texts: &mut Texts) -> Statistics {
    let mut statistics = Statistics::default();
    let origin = Arc::new(Origin {
        user: Some("bench".into()),
        database: Some("shop".into()),
        peer: Some("10.0.0.7".into()),
        ..origin()
    });
    let mut known = |text: &str| Statement::Known(texts.known(text));
    let (select, insert) = (
        known("SELECT a, \"b\" FROM t"),
        known("INSERT INTO t VALUES (7)"),
    );
    let mut take = |event: Event| statistics.take(&event, &origin, None);
    for ms in [10, 20, 30] {
        take(Event::Call(call(select.clone(), ms)));
    }
    take(Event::Call(Call {
        outcome: failed(),
        ..call(insert.clone(), 1)
    }));
    take(Event::Call(Call {
        outcome: Outcome::Unfinished,
        latency_ns: None,
        ..call(insert, 0)
    }));
    take(Event::Transaction(Transaction {
        begin_ns: Some(0),
        end_ns: 2_000_000_000,
        idle_ns: 1_500_000_000,
        idle_spells: 2,
        longest_idle_ns: 1_000_000_000,
        end: TransactionEnd::Committed,
    }));
    take(Event::Session(Box::new(Session {
        end_ns: 3_000_000,
        ..Session::default()
    })));
    take(Event::Cancel { time_ns: 0 });
    statistics
}

/// The report of them.
pub(super) fn with_report<T>(limit: usize, each: impl FnOnce(&Report<'_>) -> T) -> T {
    let mut texts = Texts::default();
    let statistics = statistics(&mut texts);
    let selection = Selection {
        sort: SortBy::Time,
        limit,
        min_calls: 0,
        by: None,
    };
    let sockets = Sockets {
        postgres: 1,
        records: 10,
        ..Sockets::default()
    };
    let counters = [(profiler_common::outcome::Counter::WireTaken, 10)].into();
    let account = Account::new(&counters, sockets, &statistics, Missing::default());
    let (rows, more) = rows(&statistics, &texts, selection);
    each(&Report {
        title: "app (pid 7)",
        duration: Duration::from_secs(2),
        by: None,
        rows,
        more,
        statistics: &statistics,
        under_way: &[],
        account: Some(&account),
    })
}

/// Two statements, as a window.
pub(crate) fn stored(duration: Duration) -> Window {
    let mut texts = Texts::default();
    let statistics = statistics(&mut texts);
    of(duration, &texts, statistics)
}

/// A window of these statements, each with one call of so many ms.
pub(crate) fn window(duration: Duration, calls: &[(&str, u64)]) -> Window {
    let mut texts = Texts::default();
    let mut statistics = Statistics::default();
    let origin = Arc::new(origin());
    for (text, ms) in calls {
        let statement = Statement::Known(texts.known(text));
        statistics.take(&Event::Call(call(statement, *ms)), &origin, None);
    }
    of(duration, &texts, statistics)
}

fn of(duration: Duration, texts: &Texts, statistics: Statistics) -> Window {
    let account = Account::new(
        &BTreeMap::new(),
        Sockets::default(),
        &statistics,
        Missing::default(),
    );
    Window::new(("server".to_owned(), duration), texts, statistics, account)
}
