//! The report for programs. Pure.
//!
//! One object: `version` (1), `title`, `duration_ns`; `connections`, each with `net` (inode number of the network
//! namespace), `local`, `remote`, `role` (`client`, `server`, `?`), `pid`, `state` (its state, or how it ended),
//! `open`, `before` (it was there when the recording began), `age_ns`, `connect_ns`, `accept_ns` (how long it waited to be
//! accepted), `sent` and `received` (bytes of data in the recording, each once), `segments_out`, `segments_in`,
//! `retransmits` (in the recording), `requests_at_most` (the lesser number of segments with data each way), `rtt_us`,
//! `min_rtt_us`, `resets_sent`, `resets_received`, `receive_queue`, `send_queue` (at the end, of open ones); `peers`, the
//! groups of `--by-peer`, with `finding` where there is one; `account`. What is not known is null. Of what the daemon
//! kept (`--since`), `connections` is null, and `ends` says how many ended how.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    account::Account,
    connections::Connection,
    peers::{self, Peer},
    table::Report,
};
use crate::{output::OutputError, printable::pretty_json};

/// Renders a report.
pub(super) fn render(report: &Report<'_>) -> Result<String, OutputError> {
    let connections = report.sorted();
    let peers = peers::group(report.connections.list());
    let value = json!({
        "version": 1,
        "title": report.title,
        "duration_ns": ns(report.duration),
        "connections": connections.iter().map(|one| connection(one, report.end_ns)).collect::<Vec<_>>(),
        "peers": peers.iter().map(|one| peer(one, report.duration)).collect::<Vec<_>>(),
        "account": account(report.account),
    });
    Ok(pretty_json(&value)?)
}

fn connection(connection: &Connection, end_ns: u64) -> Value {
    let (sent, received) = connection.bytes();
    let (segments_out, segments_in, retransmits) = connection.segments();
    let figures = &connection.figures;
    let known = |us: u32| (us != 0 && us != u32::MAX).then_some(us);
    json!({
        "net": connection.ends.net,
        "local": connection.ends.local.to_string(),
        "remote": connection.ends.remote.to_string(),
        "role": connection.role.text(),
        "pid": (connection.pid != 0).then_some(connection.pid),
        "state": connection.text(),
        "open": connection.ended.is_none(),
        "before": connection.before.is_some(),
        "age_ns": connection.age_ns(end_ns),
        "connect_ns": connection.connect_ns(),
        "accept_ns": connection.accept_ns(),
        "sent": sent,
        "received": received,
        "segments_out": segments_out,
        "segments_in": segments_in,
        "retransmits": retransmits,
        "requests_at_most": connection.exchanges(),
        "rtt_us": known(figures.rtt_us),
        "min_rtt_us": known(figures.min_rtt_us),
        "resets_sent": connection.resets_sent,
        "resets_received": connection.resets_received,
        "receive_queue": connection.queues.map(|(receive, _)| receive),
        "send_queue": connection.queues.map(|(_, send)| send),
    })
}

pub(super) fn account(account: &Account) -> Value {
    json!({
        "before": account.before,
        "begun": account.begun,
        "listed": account.listed,
        "lost": account.lost,
        "notes": account.notes,
        "cost": {
            "bpf_ns": account.bpf.map(ns),
            "process_ns": ns(account.process),
        },
    })
}

pub(super) fn peer(peer: &Peer, duration: Duration) -> Value {
    json!({
        "peer": peer.name,
        "role": peer.role.text(),
        "begun": peer.begun,
        "per_second": peer.per_second(duration),
        "failed": peer.failed,
        "reset": peer.reset,
        "open": peer.open,
        "life_p50_ns": peer.life_ns(50),
        "life_p95_ns": peer.life_ns(95),
        "connect_p50_ns": peer.connect_ns(50),
        "connect_p95_ns": peer.connect_ns(95),
        "sent": peer.sent,
        "received": peer.received,
        "retransmits": peer.retransmits,
        "requests_at_most": peer.exchanges,
        "finding": peer.diagnosis(duration),
    })
}

pub(super) fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
