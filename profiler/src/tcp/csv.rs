//! The report as comma-separated values (RFC 4180): connections, or peers with `--by-peer`.
//! The account follows in lines that begin with `#`. Pure.

use std::{fmt::Write, time::Duration};

use super::{
    Rows,
    account::Account,
    connections::Connection,
    peers::{self, Peer},
    table::Report,
};
use crate::{output::csv::field, printable::printable};

const CONNECTIONS: &str = "net,local,remote,role,pid,state,open,before,age_ns,connect_ns,accept_ns,sent,received,segments_out,\
                           segments_in,retransmits,rtt_us,min_rtt_us,resets_sent,resets_received,receive_queue,\
                           send_queue";
const PEERS: &str = "peer,role,begun,per_second,failed,reset,open,life_p50_ns,life_p95_ns,connect_p50_ns,\
                     connect_p95_ns,sent,received,retransmits,requests_at_most";

/// Renders a report.
pub(super) fn render(report: &Report<'_>) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    match report.rows {
        Rows::Connections => {
            let _ = writeln!(text, "{CONNECTIONS}");
            for one in report.sorted() {
                let _ = writeln!(text, "{}", connection(one, report.end_ns));
            }
        }
        Rows::Peers => {
            let peers = peers::group(report.connections.list());
            return of_peers(&peers, report.duration, report.account);
        }
    }
    push_account(&mut text, report.account);
    text
}

/// A line for each peer, and the account.
pub(super) fn of_peers(peers: &[Peer], duration: Duration, account: &Account) -> String {
    let mut text = format!("{PEERS}\n");
    for one in peers {
        let fields = [
            field(&one.name),
            one.role.text().to_owned(),
            one.begun.to_string(),
            format!("{:.3}", one.per_second(duration)),
            one.failed.to_string(),
            one.reset.to_string(),
            one.open.to_string(),
            or_empty(one.life_ns(50)),
            or_empty(one.life_ns(95)),
            or_empty(one.connect_ns(50)),
            or_empty(one.connect_ns(95)),
            one.sent.to_string(),
            one.received.to_string(),
            one.retransmits.to_string(),
            one.exchanges.to_string(),
        ];
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", fields.join(","));
    }
    push_account(&mut text, account);
    text
}

fn push_account(text: &mut String, account: &Account) {
    for line in account.lines() {
        let _ = writeln!(text, "# {}", printable(&line));
    }
}

fn connection(connection: &Connection, end_ns: u64) -> String {
    let (sent, received) = connection.bytes();
    let (segments_out, segments_in, retransmits) = connection.segments();
    let figures = &connection.figures;
    let known = |us: u32| or_empty((us != 0 && us != u32::MAX).then_some(us));
    [
        connection.ends.net.to_string(),
        connection.ends.local.to_string(),
        connection.ends.remote.to_string(),
        connection.role.text().to_owned(),
        or_empty((connection.pid != 0).then_some(connection.pid)),
        // Such as `closed, waiting`.
        connection.text().replace(',', ""),
        connection.ended.is_none().to_string(),
        connection.before.is_some().to_string(),
        or_empty(connection.age_ns(end_ns)),
        or_empty(connection.connect_ns()),
        or_empty(connection.accept_ns()),
        sent.to_string(),
        received.to_string(),
        segments_out.to_string(),
        segments_in.to_string(),
        retransmits.to_string(),
        known(figures.rtt_us),
        known(figures.min_rtt_us),
        connection.resets_sent.to_string(),
        connection.resets_received.to_string(),
        or_empty(connection.queues.map(|(receive, _)| receive)),
        or_empty(connection.queues.map(|(_, send)| send)),
    ]
    .join(",")
}

fn or_empty(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use profiler_common::tcp::tcp_state::{CLOSE, SYN_SENT};

    use super::{
        super::{connections::Connections, example::change},
        CONNECTIONS, connection,
    };

    /// Every row has a field for each column.
    #[test]
    fn rows_fit_the_header() {
        let mut connections = Connections::default();
        connections.take(&change(1, 1_000, CLOSE, SYN_SENT));
        let row = connection(&connections.list()[0], 5_000);
        let commas = |line: &str| line.matches(',').count();
        assert_eq!(commas(&row), commas(CONNECTIONS));
        assert!(
            row.starts_with("1,127.0.0.1:1,127.0.0.1:5432,client,7,connecting,true,false,4000,,")
        );
    }
}
