//! The report for programs. Pure.
//!
//! One object: `version` (1), `title`, `duration_ns`; `statements`, each with `statement` (its normal form; its keywords
//! alone, in `<withheld ..>`, where the server did not take it), `fingerprint` (16 hexadecimal digits), `side` (`client`,
//! `server`), `by`, `via`, `databases`, `users`, `applications`, `peers` (eight at most), `impact_permille`, `calls` (ended without an error), `errors` (by SQLSTATE), `skipped`, `aborted`,
//! `unfinished`, `unseen`, `shared` (calls whose end came together with another's, which are not in the quantiles),
//! `total_ns`, `mean_ns`, `p50_ns`, `p95_ns`, `p99_ns`, `max_ns`, `first_row_ns` (mean), `wait_ns` (behind others of a
//! pipeline), `ready_ns` (from the end to `ReadyForQuery`), `rows`, `sent`, `received` (bytes), `fetches`,
//! `copied_in`, `copied_out`, `prepares`, `prepares_ns`, `prepares_failed` (by SQLSTATE), `queryid` (of
//! `pg_stat_statements`, if a backend was met that ran it when the recording began, at a view or at the end);
//! `under_way` (what runs at the end, or waits in a transaction: `statement`, `fingerprint`, `state`, `age_ns`, `at_least`
//! where that is not all, `transaction_ns`, `wait`, `backend_type` and `queryid` as in `pg_stat_activity`, `backend` and `client` (pids), `peer`,
//! `database`, `user`, `application`); `transactions`, `connections`, `cancels`; `account`. What is not known is null.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{
    now::UnderWay,
    origin::side_text,
    report::{Report, Row},
    statistics::{Sessions, Transactions},
};
use crate::{output::OutputError, printable::pretty_json};

/// Renders a report.
pub(super) fn render(report: &Report<'_>) -> Result<String, OutputError> {
    let statistics = report.statistics;
    let value = json!({
        "version": 1,
        "title": report.title,
        "duration_ns": ns(report.duration),
        "statements": report.rows.iter().map(statement).collect::<Vec<_>>(),
        "under_way": report.under_way.iter().map(under_way).collect::<Vec<_>>(),
        "transactions": transactions(&statistics.transactions),
        "connections": connections(&statistics.sessions),
        "terminated": by_code(&statistics.terminated),
        "cancels": statistics.cancels,
        "account": report.account.map(|account| json!({
            "transfers": account.transfers,
            "connections": {
                "postgres": account.sockets.connections(),
                "other": account.sockets.other,
                "undecided": account.sockets.undecided,
                "decrypted": account.sockets.encrypted.read,
            },
            "calls": account.calls,
            "in_rows": account.in_rows,
            "without_end": account.without_end,
            "opaque": account.opaque,
            "lost": account.lost,
            "notes": account.notes,
            "cost": {
                "bpf_ns": account.bpf.map(ns),
                "process_ns": ns(account.process),
            },
        })),
    });
    Ok(pretty_json(&value)?)
}

fn under_way(one: &UnderWay) -> Value {
    json!({
        "statement": one.statement,
        "fingerprint": one.fingerprint.map(|fingerprint| fingerprint.to_string()),
        "state": one.state,
        "age_ns": one.age_ns,
        "at_least": one.is_at_least,
        "transaction_ns": one.transaction_ns,
        "wait": one.wait,
        "backend_type": one.kind,
        "queryid": one.query_id,
        "backend": one.backend,
        "client": one.client,
        "peer": one.origin.peer.as_deref(),
        "database": one.origin.database.as_deref(),
        "user": one.origin.user.as_deref(),
        "application": one.origin.application.as_deref(),
    })
}

fn statement(row: &Row<'_>) -> Value {
    let figures = row.figures;
    let seen = &figures.seen;
    json!({
        "statement": row.text,
        "fingerprint": row.fingerprint.map(|fingerprint| fingerprint.to_string()),
        "side": side_text(row.side),
        "by": row.by,
        "via": seen.transports,
        "databases": seen.databases.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
        "users": seen.users.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
        "applications": seen.applications.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
        "peers": seen.peers.iter().map(AsRef::as_ref).collect::<Vec<&str>>(),
        "impact_permille": row.share_permille,
        "calls": figures.calls,
        "errors": by_code(&figures.errors),
        "skipped": figures.skipped,
        "aborted": figures.aborted,
        "unfinished": figures.unfinished,
        "unseen": figures.unseen,
        "shared": figures.shared,
        "total_ns": figures.total_ns,
        "mean_ns": figures.mean_ns(),
        "p50_ns": figures.quantile_ns(50),
        "p95_ns": figures.quantile_ns(95),
        "p99_ns": figures.quantile_ns(99),
        "max_ns": figures.longest_ns(),
        "first_row_ns": figures.mean_first_row_ns(),
        "wait_ns": figures.wait_ns,
        "ready_ns": figures.ready_ns,
        "rows": figures.rows,
        "sent": figures.sent,
        "received": figures.received,
        "fetches": figures.fetches,
        "copied_in": figures.copied_in,
        "copied_out": figures.copied_out,
        "prepares": figures.prepares,
        "prepares_ns": figures.prepares_ns,
        "prepares_failed": by_code(&figures.prepares_failed),
        "queryid": row.query_id,
    })
}

fn transactions(all: &Transactions) -> Value {
    json!({
        "committed": all.committed,
        "rolled_back": all.rolled_back,
        "other": all.other,
        "disconnected": all.disconnected,
        "open": all.open,
        "mean_ns": all.total_ns.checked_div(all.timed),
        "idle_ns": all.idle_ns,
        "longest_idle": all.longest_idle.as_ref().map(|(ns, origin)| json!({
            "ns": ns,
            "pid": origin.pid,
            "side": side_text(origin.side),
            "user": origin.user.as_deref(),
            "database": origin.database.as_deref(),
            "peer": origin.peer.as_deref(),
        })),
    })
}

fn connections(all: &Sessions) -> Value {
    json!({
        "opened": all.opened,
        "refused": by_code(&all.refused),
        "authentication_mean_ns": all.total_ns.checked_div(all.opened),
        "authentication_max_ns": (all.opened > 0).then_some(all.max_ns),
    })
}

fn by_code(counts: &std::collections::BTreeMap<super::protocol::SqlState, u64>) -> Value {
    let entries = counts
        .iter()
        .map(|(code, count)| (code.to_string(), json!(count)));
    Value::Object(entries.collect::<Map<_, _>>())
}

fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::render;
    use crate::postgres::example::with_report;

    /// Every figure is there, in its unit.
    #[test]
    fn report_is_one_object() {
        let text = with_report(10, render).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let [select, insert] = value["statements"].as_array().unwrap().as_slice() else {
            panic!("two statements: {value:#}")
        };
        assert_eq!(select["statement"], "SELECT a, \"b\" FROM t");
        assert_eq!(select["fingerprint"].as_str().unwrap().len(), 16);
        assert_eq!((&select["calls"], &select["rows"]), (&3.into(), &9.into()));
        assert_eq!(select["total_ns"], 60_000_000);
        assert_eq!(select["first_row_ns"], 500_000);
        assert_eq!(insert["statement"], "INSERT INTO t VALUES ($1)");
        assert_eq!(insert["errors"]["23505"], 1);
        assert_eq!(
            (&insert["calls"], &insert["unfinished"]),
            (&0.into(), &1.into())
        );
        assert_eq!(value["transactions"]["longest_idle"]["ns"], 1_000_000_000);
        assert_eq!(value["account"]["calls"], 5);
        assert_eq!(value["account"]["lost"], serde_json::json!({}));
    }
}
