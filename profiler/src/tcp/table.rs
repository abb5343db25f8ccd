//! The tables for people, and the account below them; and the line of an event. Pure.

use std::{fmt::Write, time::Duration};

use profiler_common::tcp::{TcpEvent, what};

use super::{
    Rows,
    account::Account,
    connections::{Connection, Connections, Role},
    end::state_text,
    peers::{self, Peer},
};
use crate::{
    output::{columns::Columns, figures::bytes},
    printable::printable,
};

/// Everything of one recording.
pub(super) struct Report<'a> {
    /// Whom.
    pub(super) title: &'a str,
    /// How long.
    pub(super) duration: Duration,
    /// Its end, `CLOCK_MONOTONIC`, ns.
    pub(super) end_ns: u64,
    pub(super) rows: Rows,
    pub(super) limit: usize,
    pub(super) connections: &'a Connections,
    pub(super) account: &'a Account,
}

impl Report<'_> {
    /// Open ones first, then those that carried most.
    pub(super) fn sorted(&self) -> Vec<&Connection> {
        let mut list: Vec<&Connection> = self.connections.list().iter().collect();
        list.sort_by_key(|connection| {
            let (sent, received) = connection.bytes();
            (
                connection.ended.is_some(),
                std::cmp::Reverse(sent + received),
            )
        });
        list
    }
}

/// Renders a report.
pub(super) fn render(report: &Report<'_>) -> String {
    let seconds = report.duration.as_secs_f64();
    let mut text = format!(
        "TCP connections of {} in {seconds:.2} s\n\n",
        printable(report.title)
    );
    let peers = peers::group(report.connections.list());
    let table = match report.rows {
        Rows::Connections => connections(report),
        Rows::Peers => of_peers(&peers, report.duration, report.limit),
    };
    push(&mut text, &table);
    text.push('\n');
    for (fate, count) in report.connections.fates() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{fate}: {count} connections");
    }
    push_findings(&mut text, &peers, report.duration);
    text.push('\n');
    for line in report.account.lines() {
        let _ = writeln!(text, "{}", printable(&line));
    }
    text
}

/// A table, and how many rows were left out.
pub(super) fn push(text: &mut String, (table, more): &(Columns, usize)) {
    let _ = write!(text, "{table}");
    if *more > 0 {
        let _ = writeln!(text, " ({more} more: --limit)");
    }
}

/// What the numbers mean, where they mean something.
pub(super) fn push_findings(text: &mut String, peers: &[Peer], duration: Duration) {
    for diagnosis in peers.iter().filter_map(|peer| peer.diagnosis(duration)) {
        let _ = writeln!(text, "finding: {}", printable(&diagnosis));
    }
}

fn connections(report: &Report<'_>) -> (Columns, usize) {
    const LABELS: usize = 4;
    let mut table = Columns::new([
        "local", "role", "remote", "state", "pid", "age", "connect", "accept", "sent", "received",
        "segs out", "segs in", "rtt", "min rtt", "resent", "resets", "recv-q", "send-q",
    ]);
    let sorted = report.sorted();
    for connection in sorted.iter().take(report.limit) {
        let (sent, received) = connection.bytes();
        let (segments_out, segments_in, resent) = connection.segments();
        let figures = &connection.figures;
        let rtt = |us: u32| (us != 0 && us != u32::MAX).then(|| u64::from(us) * 1000);
        let queue = |queue: Option<u32>| queue.map_or("-".to_owned(), |bytes| bytes.to_string());
        table.row([
            connection.ends.local.to_string(),
            connection.role.text().to_owned(),
            connection.ends.remote.to_string(),
            connection.text(),
            match connection.pid {
                0 => "?".to_owned(),
                pid => pid.to_string(),
            },
            age(connection, report),
            time(connection.connect_ns()),
            time(connection.accept_ns()),
            bytes(sent),
            bytes(received),
            segments_out.to_string(),
            segments_in.to_string(),
            time(rtt(figures.rtt_us)),
            time(rtt(figures.min_rtt_us)),
            resent.to_string(),
            resets(connection),
            queue(connection.queues.map(|(receive, _)| receive)),
            queue(connection.queues.map(|(_, send)| send)),
        ]);
    }
    table.right(LABELS..usize::MAX);
    (table, sorted.len().saturating_sub(report.limit))
}

/// How old; at least as old as the recording where it was there before.
fn age(connection: &Connection, report: &Report<'_>) -> String {
    if let Some(ns) = connection.age_ns(report.end_ns) {
        return time(Some(ns));
    }
    let ns = u64::try_from(report.duration.as_nanos()).unwrap_or(u64::MAX);
    match connection.ended {
        None => format!("> {}", time(Some(ns))),
        Some(_) => "-".to_owned(),
    }
}

fn resets(connection: &Connection) -> String {
    match (connection.resets_sent, connection.resets_received) {
        (0, 0) => "-".to_owned(),
        (_, 0) => "us".to_owned(),
        (0, _) => "peer".to_owned(),
        _ => "both".to_owned(),
    }
}

/// A row for each peer, as many as are wanted, and how many more there are.
pub(super) fn of_peers(peers: &[Peer], duration: Duration, limit: usize) -> (Columns, usize) {
    const LABELS: usize = 2;
    let mut table = Columns::new([
        "peer",
        "role",
        "begun",
        "per s",
        "failed",
        "reset",
        "open",
        "life p50",
        "life p95",
        "connect p50",
        "connect p95",
        "sent",
        "received",
        "resent",
        "requests",
        "share",
    ]);
    let exchanges = peers.iter().map(|peer| peer.exchanges).sum();
    for peer in peers.iter().take(limit) {
        table.row([
            peer.name.clone(),
            peer.role.text().to_owned(),
            peer.begun.to_string(),
            format!("{:.1}", peer.per_second(duration)),
            peer.failed.to_string(),
            peer.reset.to_string(),
            peer.open.to_string(),
            time(peer.life_ns(50)),
            time(peer.life_ns(95)),
            time(peer.connect_ns(50)),
            time(peer.connect_ns(95)),
            bytes(peer.sent),
            bytes(peer.received),
            peer.retransmits.to_string(),
            format!("<= {}", peer.exchanges),
            share(peer.exchanges, exchanges),
        ]);
    }
    table.right(LABELS..usize::MAX);
    (table, peers.len().saturating_sub(limit))
}

/// In per cent.
fn share(part: u64, whole: u64) -> String {
    let tenths = (part * 1000).checked_div(whole).unwrap_or(0);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

/// The line of an event: seconds since the beginning, what, between whom.
pub(super) fn event(event: &TcpEvent, connection: &Connection, start_ns: u64) -> String {
    let what = match event.what {
        what::STATE => match connection.ended {
            Some((_, end)) => end.text(),
            None if event.new == profiler_common::tcp::tcp_state::ESTABLISHED => {
                match connection.role {
                    Role::Server => "accepted".to_owned(),
                    Role::Client | Role::Unknown => "connected".to_owned(),
                }
            }
            None => state_text(event.new).to_owned(),
        },
        what::RETRANSMIT => "segment sent again".to_owned(),
        what::RESET_SENT => "reset sent".to_owned(),
        what::ACCEPTED => "taken by its process".to_owned(),
        what::TAKEN => "taken by another process".to_owned(),
        _ => "reset received".to_owned(),
    };
    let at = Duration::from_nanos(event.time_ns.saturating_sub(start_ns)).as_secs_f64();
    let ends = &connection.ends;
    let (sent, received) = connection.bytes();
    format!(
        "{at:.6} {} {} -> {} pid {}: {what}; {sent} bytes sent, {received} received\n",
        connection.role.text(),
        ends.local,
        ends.remote,
        connection.pid
    )
}

fn time(ns: Option<u64>) -> String {
    let Some(ns) = ns else {
        return "-".to_owned();
    };
    let seconds = Duration::from_nanos(ns).as_secs_f64();
    match ns {
        1_000_000_000.. => format!("{seconds:.1} s"),
        1_000_000.. => format!("{:.1} ms", seconds * 1e3),
        _ => format!("{:.0} µs", seconds * 1e6),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use profiler_common::tcp::tcp_state::{CLOSE, ESTABLISHED, SYN_SENT};

    use super::{
        super::{Rows, account::Account, connections::Connections, example::change},
        Report, event, render,
    };

    /// Both tables have a row, what became of the connections, and the account.
    #[test]
    fn tables_have_rows_and_account() {
        let mut connections = Connections::default();
        connections.take(&change(1, 1_000, CLOSE, SYN_SENT));
        let established = change(1, 31_000, SYN_SENT, ESTABLISHED);
        let told = event(&established, connections.take(&established).unwrap(), 0);
        assert_eq!(
            told,
            "0.000031 client 127.0.0.1:1 -> 127.0.0.1:5432 pid 7: connected; 0 bytes sent, 0 received\n"
        );
        let account = Account {
            begun: 1,
            listed: 1,
            ..Account::default()
        };
        let text = |rows| {
            render(&Report {
                title: "app (pid 7)",
                duration: Duration::from_secs(1),
                end_ns: 1_001_000,
                rows,
                limit: 10,
                connections: &connections,
                account: &account,
            })
        };
        let list = text(Rows::Connections);
        assert!(
            list.contains("127.0.0.1:1  client  127.0.0.1:5432  established")
                && list.contains("30 µs")
                && list.contains("1.0 ms"),
            "{list}"
        );
        let peers = text(Rows::Peers);
        assert!(
            peers.contains("127.0.0.1:5432  client      1    1.0"),
            "{peers}"
        );
        for text in [list, peers] {
            assert!(text.contains("established: 1 connections\n"), "{text}");
            assert!(text.contains("lost: nothing\n"), "{text}");
        }
    }
}
