//! What the daemon has kept of connections, as plain rows for a page.

use std::path::Path;

use super::{history::sum, peers::Peer};
use crate::{
    error::Error,
    store::{Span, Who},
};

/// Most rows of a page.
const ROWS_MAX: usize = 200;

/// Connections of a span.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// By connections begun, the most first.
    pub(crate) rows: Vec<ShownRow>,
    /// Peers that are not among them.
    pub(crate) more: usize,
    /// What their numbers mean, where they mean something.
    pub(crate) findings: Vec<String>,
    /// How connections ended, and how often.
    pub(crate) ends: Vec<(String, u64)>,
    /// What became of everything, a fact a line.
    pub(crate) account: Vec<String>,
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ShownRow {
    pub(crate) peer: String,
    /// Which side the targets are.
    pub(crate) role: &'static str,
    /// Connections begun, failed, reset, and open at the end.
    pub(crate) counts: [u64; 4],
    /// Life p50 and p95, time to connect p50 and p95, where they are known.
    pub(crate) times_ns: [Option<u64>; 4],
    /// Bytes sent and received.
    pub(crate) bytes: [u64; 2],
    /// Segments sent again.
    pub(crate) retransmits: u64,
}

/// Adds up the windows of a span, as long as the caller says to go on; `None` where that was not long enough.
pub(crate) fn of_span(
    state: &Path,
    span: Span,
    who: &Who,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Option<Shown>, Error> {
    let Some((peers, sum)) = sum(state, span, who, go_on)? else {
        return Ok(None);
    };
    let findings = peers.iter().filter_map(|peer| peer.diagnosis(sum.duration));
    Ok(Some(Shown {
        rows: peers.iter().take(ROWS_MAX).map(row).collect(),
        more: peers.len().saturating_sub(ROWS_MAX),
        findings: findings.take(ROWS_MAX).collect(),
        account: sum.account.lines(),
        ends: sum.ends.into_iter().collect(),
    }))
}

fn row(peer: &Peer) -> ShownRow {
    ShownRow {
        peer: peer.name.clone(),
        role: peer.role.text(),
        counts: [peer.begun, peer.failed, peer.reset, peer.open],
        times_ns: [
            peer.life_ns(50),
            peer.life_ns(95),
            peer.connect_ns(50),
            peer.connect_ns(95),
        ],
        bytes: [peer.sent, peer.received],
        retransmits: peer.retransmits,
    }
}
