//! Connections, from what is told of them. Pure.

use std::collections::{BTreeMap, HashMap};

use profiler_common::tcp::{Figures, Socket, TcpEvent, role, tcp_state, what};

use super::end::{End, state_text};

use crate::sockets::tcp::{Ends, Listed, address};

/// Most connections that are remembered; further ones are counted only.
pub(super) const CONNECTIONS_MAX: usize = 500_000;

/// `errno` values of include/uapi/asm-generic/errno.h that a connection ends with.
const EPIPE: u32 = 32;
const ECONNRESET: u32 = 104;
const ETIMEDOUT: u32 = 110;
const ECONNREFUSED: u32 = 111;

/// Which side we are.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    Client,
    Server,
    Unknown,
}

impl Role {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Unknown => "?",
        }
    }
}

/// Whose a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Targets,
    /// Of a process that has accepted it and is no target.
    Others,
}

/// One connection.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) ends: Ends,
    pub(super) role: Role,
    /// Process that connected or listens; 0 if not known.
    pub(super) pid: u32,
    /// State now or before the end.
    pub(super) state: u8,
    /// When it was begun, if that was seen, ns.
    pub(super) begun_ns: Option<u64>,
    /// When it was established, if that was seen, ns.
    pub(super) established_ns: Option<u64>,
    /// When a process accepted it, if that was seen, ns.
    pub(super) accepted_ns: Option<u64>,
    /// When it ended and how.
    pub(super) ended: Option<(u64, End)>,
    /// Its figures at the beginning of the recording, if it was there.
    pub(super) before: Option<Figures>,
    /// Its figures last told.
    pub(super) figures: Figures,
    /// Bytes that wait to be read and to be acknowledged, at the end.
    pub(super) queues: Option<(u32, u32)>,
    pub(super) resets_sent: u64,
    pub(super) resets_received: u64,
    /// Who closed first, once one has.
    first: Option<End>,
    /// It was there when the recording ended.
    is_there: bool,
    /// The kernel's number of its socket, where it was listed as one that was there before; else 0.
    pub(super) cookie: u64,
    whose: Whose,
    /// Lists in a row in which it should have been and was not.
    absences: u32,
    /// Of windows: an earlier one has told of it, and how long connecting took.
    pub(super) is_told: bool,
    pub(super) is_connect_told: bool,
}

impl Connection {
    /// Time from the first segment to the answer, of a client's whose beginning was seen, ns.
    pub(super) fn connect_ns(&self) -> Option<u64> {
        if self.role != Role::Client {
            return None;
        }
        Some(self.established_ns? - self.begun_ns?)
    }

    /// Time that it waited to be accepted, of a server's of which both was seen, ns.
    pub(super) fn accept_ns(&self) -> Option<u64> {
        Some(self.accepted_ns?.saturating_sub(self.established_ns?))
    }

    /// How long it has been, or was, there, ns; not known of those that were there before.
    pub(super) fn age_ns(&self, now_ns: u64) -> Option<u64> {
        let begin = self.begun_ns.or(self.established_ns)?;
        let end = self.ended.map_or(now_ns, |(at, _)| at);
        Some(end.saturating_sub(begin))
    }

    /// State or end in words.
    pub(super) fn text(&self) -> String {
        match self.ended {
            Some((_, end)) => end.text(),
            None => state_text(self.state).to_owned(),
        }
    }

    /// Bytes of its data sent and received in the recording.
    pub(super) fn bytes(&self) -> (u64, u64) {
        let (sent, received) = data(&self.figures);
        let (sent_before, received_before) = self.before.as_ref().map_or((0, 0), data);
        (
            sent.saturating_sub(sent_before),
            received.saturating_sub(received_before),
        )
    }

    /// Requests with their answers in the recording, at most: the lesser number of segments with data each way. One that
    /// takes several segments both ways counts several times.
    pub(super) fn exchanges(&self) -> u32 {
        let (now, before) = (&self.figures, self.before.unwrap_or_default());
        let sent = now.data_segments_out.wrapping_sub(before.data_segments_out);
        let received = now.data_segments_in.wrapping_sub(before.data_segments_in);
        sent.min(received)
    }

    /// Segments sent, received and sent again in the recording.
    pub(super) fn segments(&self) -> (u32, u32, u32) {
        let (now, before) = (&self.figures, self.before.unwrap_or_default());
        (
            now.segments_out.wrapping_sub(before.segments_out),
            now.segments_in.wrapping_sub(before.segments_in),
            now.retransmits.wrapping_sub(before.retransmits),
        )
    }
}

/// Bytes sent, each once, and received, without the end of the stream.
fn data(figures: &Figures) -> (u64, u64) {
    (
        figures.bytes_sent - figures.bytes_retransmitted.min(figures.bytes_sent),
        figures
            .bytes_received
            .saturating_sub(u64::from(figures.peer_ended != 0)),
    )
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Connections {
    list: Vec<Connection>,
    /// Last one at the address of a socket.
    by_socket: HashMap<u64, usize>,
    /// Last one between these ends.
    by_ends: HashMap<Ends, usize>,
    /// Connections that were begun in the recording and told.
    pub(super) begun: u64,
    /// Connections that found the list full.
    pub(super) overflowed: u64,
    /// Events of connections that are not in the list.
    pub(super) strangers: u64,
    /// Connections that were begun in the recording, and that processes have accepted which are no targets.
    pub(super) others: u64,
}

impl Connections {
    /// All, in the order in which they were met.
    pub(super) fn list(&self) -> &[Connection] {
        &self.list
    }

    /// A connection that was there when the recording began.
    pub(super) fn there_before(&mut self, listed: &Listed, cookie: u64, owner: Socket) {
        // Told of already: it changed while it was listed.
        if self.by_ends.contains_key(&listed.ends) {
            return;
        }
        let mut connection = new(listed.ends, owner);
        connection.cookie = cookie;
        connection.state = listed.state;
        connection.figures = listed.figures;
        connection.before = Some(listed.figures);
        connection.queues = Some(listed.queues);
        self.push(connection);
    }

    /// A connection that is there when the recording ends.
    pub(super) fn still_there(&mut self, listed: &Listed) {
        let at = self.by_ends.get(&listed.ends).copied();
        let Some(at) = at.or_else(|| self.without_port(&listed.ends)) else {
            return;
        };
        let connection = &mut self.list[at];
        if connection.ended.is_none() {
            connection.absences = 0;
            connection.is_there = true;
            connection.ends = listed.ends;
            connection.state = listed.state;
            connection.figures = listed.figures;
            connection.queues = Some(listed.queues);
        }
    }

    /// A connection that is not answered yet and was begun before it had a port.
    fn without_port(&self, ends: &Ends) -> Option<usize> {
        self.list.iter().position(|connection| {
            let known = &connection.ends;
            connection.ended.is_none()
                && known.local.port() == 0
                && (known.net, known.remote, known.local.ip())
                    == (ends.net, ends.remote, ends.local.ip())
        })
    }

    /// Ends what is not there any more when the recording ends.
    pub(super) fn close(&mut self, end_ns: u64) {
        for connection in &mut self.list {
            if !connection.is_there {
                connection.ended.get_or_insert((end_ns, End::Unseen));
            }
        }
    }

    /// Something happened. Gives the connection.
    pub(super) fn take(&mut self, event: &TcpEvent) -> Option<&Connection> {
        let at = self.find(event)?;
        let connection = &mut self.list[at];
        connection.figures = event.figures;
        match event.what {
            what::RESET_SENT => {
                connection.resets_sent += 1;
                // The state changes first where a program closes without having read everything.
                if let Some((_, end @ (End::Closed | End::ClosedByUs | End::ClosedByPeer))) =
                    &mut connection.ended
                {
                    *end = End::ResetByUs;
                }
            }
            what::RESET_RECEIVED => connection.resets_received += 1,
            what::STATE => changed(connection, event),
            what::ACCEPTED => {
                connection.accepted_ns = Some(event.time_ns);
                connection.pid = event.owner.tgid;
            }
            what::TAKEN => connection.whose = Whose::Others,
            _ => {}
        }
        Some(&self.list[at])
    }

    /// The connection that an event is of: a new one if it begins.
    fn find(&mut self, event: &TcpEvent) -> Option<usize> {
        let ends = Ends {
            net: event.net,
            local: address(event.local, event.local_port),
            remote: address(event.remote, event.remote_port),
        };
        let change = (event.old, event.new);
        let begins = event.what == what::STATE
            && matches!(
                change,
                (tcp_state::CLOSE, tcp_state::SYN_SENT)
                    | (tcp_state::SYN_RECV, tcp_state::ESTABLISHED)
            );
        if begins {
            self.begun += 1;
            let mut connection = new(ends, event.owner);
            connection.begun_ns = (event.new == tcp_state::SYN_SENT).then_some(event.time_ns);
            let at = self.push(connection)?;
            self.by_socket.insert(event.socket, at);
            return Some(at);
        }
        let known = self.by_socket.get(&event.socket).copied();
        if let Some(at) = known {
            // A client's own address is chosen after it begins.
            if self.list[at].ends != ends && event.local_port != 0 {
                self.list[at].ends = ends;
                self.by_ends.insert(ends, at);
            }
            return Some(at);
        }
        let Some(&at) = self.by_ends.get(&ends) else {
            self.strangers += 1;
            return None;
        };
        self.by_socket.insert(event.socket, at);
        Some(at)
    }

    fn push(&mut self, connection: Connection) -> Option<usize> {
        if self.list.len() >= CONNECTIONS_MAX {
            self.overflowed += 1;
            return None;
        }
        let at = self.list.len();
        self.by_ends.insert(connection.ends, at);
        self.list.push(connection);
        Some(at)
    }

    /// Ends what was missing in this list of its namespace and in the one before: its end was not told. One that is
    /// missing once may be on its way, and told of next.
    pub(super) fn miss(&mut self, was_listed: impl Fn(u32) -> bool, now_ns: u64) {
        for connection in &mut self.list {
            if connection.is_there || !was_listed(connection.ends.net) {
                connection.is_there = false;
                continue;
            }
            connection.absences += 1;
            if connection.absences > 1 {
                connection.ended.get_or_insert((now_ns, End::Unseen));
            }
        }
    }

    /// Takes those out that ended before that time, and hands them on.
    pub(super) fn settle(&mut self, before_ns: u64, each: impl FnMut(&Connection)) {
        self.forget_others();
        self.take_out(|one| one.ended.is_some_and(|(at, _)| at < before_ns), each);
    }

    /// Takes those out that processes have accepted which are no targets.
    pub(super) fn forget_others(&mut self) {
        let mut others = 0;
        let count = |one: &Connection| others += u64::from(one.before.is_none());
        self.take_out(|one| one.whose == Whose::Others, count);
        self.others += others;
    }

    fn take_out(
        &mut self,
        is_over: impl Fn(&Connection) -> bool,
        mut each: impl FnMut(&Connection),
    ) {
        if !self.list.iter().any(&is_over) {
            return;
        }
        let list = std::mem::take(&mut self.list);
        let mut places = Vec::with_capacity(list.len());
        for connection in list {
            if is_over(&connection) {
                each(&connection);
                places.push(None);
            } else {
                places.push(Some(self.list.len()));
                self.list.push(connection);
            }
        }
        let keep = |at: &mut usize| match places.get(*at).copied().flatten() {
            Some(place) => {
                *at = place;
                true
            }
            None => false,
        };
        self.by_socket.retain(|_, at| keep(at));
        self.by_ends.retain(|_, at| keep(at));
    }

    /// Hands those on that are open, and begins anew with them: what they have by now is no part of what comes.
    pub(super) fn roll(&mut self, mut each: impl FnMut(&Connection)) {
        let open = self.list.iter_mut().filter(|one| one.ended.is_none());
        for connection in open {
            each(connection);
            connection.before = Some(connection.figures);
            connection.is_told = true;
            connection.is_connect_told = connection.connect_ns().is_some();
        }
    }

    /// How many there are by how they ended, or by their state.
    pub(super) fn fates(&self) -> BTreeMap<String, u64> {
        let mut fates = BTreeMap::new();
        for connection in &self.list {
            *fates.entry(connection.text()).or_default() += 1;
        }
        fates
    }
}

fn new(ends: Ends, owner: Socket) -> Connection {
    Connection {
        ends,
        role: match owner.role {
            role::CLIENT => Role::Client,
            role::SERVER => Role::Server,
            _ => Role::Unknown,
        },
        pid: owner.tgid,
        state: tcp_state::CLOSE,
        begun_ns: None,
        established_ns: None,
        accepted_ns: None,
        ended: None,
        before: None,
        figures: Figures::default(),
        queues: None,
        resets_sent: 0,
        resets_received: 0,
        first: None,
        is_there: false,
        cookie: 0,
        whose: Whose::Targets,
        absences: 0,
        is_told: false,
        is_connect_told: false,
    }
}

fn changed(connection: &mut Connection, event: &TcpEvent) {
    match event.new {
        tcp_state::ESTABLISHED => connection.established_ns = Some(event.time_ns),
        tcp_state::FIN_WAIT1 => {
            connection.first.get_or_insert(End::ClosedByUs);
        }
        tcp_state::CLOSE_WAIT => {
            connection.first.get_or_insert(End::ClosedByPeer);
        }
        tcp_state::CLOSE => {
            let end = end_of(connection, event);
            connection.ended.get_or_insert((event.time_ns, end));
            return;
        }
        _ => {}
    }
    connection.state = event.new;
}

/// How it ended, from what it was in and the error that it has for its owner.
fn end_of(connection: &Connection, event: &TcpEvent) -> End {
    let was_connecting = event.old == tcp_state::SYN_SENT;
    match event.error {
        ECONNREFUSED => End::Refused,
        ETIMEDOUT => End::TimedOut,
        ECONNRESET | EPIPE => End::ResetByPeer,
        0 if connection.resets_received > 0 => End::ResetByPeer,
        0 if connection.resets_sent > 0 => End::ResetByUs,
        0 if was_connecting => End::GivenUp,
        0 => connection.first.unwrap_or(match event.old {
            tcp_state::FIN_WAIT1 | tcp_state::FIN_WAIT2 => End::ClosedByUs,
            tcp_state::LAST_ACK => End::ClosedByPeer,
            _ => End::Closed,
        }),
        error => End::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    use profiler_common::tcp::{
        Figures, Socket, TcpEvent,
        tcp_state::{
            CLOSE, CLOSE_WAIT, ESTABLISHED, FIN_WAIT1, FIN_WAIT2, LAST_ACK, SYN_RECV, SYN_SENT,
        },
        what,
    };

    use super::{
        super::example::{LOOPBACK, change},
        Connections, End, Ends, Listed, Role, address,
    };

    fn ended(events: &[TcpEvent]) -> Option<End> {
        let mut connections = Connections::default();
        for event in events {
            connections.take(event);
        }
        assert_eq!((connections.list().len(), connections.strangers), (1, 0));
        connections.list()[0].ended.map(|(_, end)| end)
    }

    /// Every way to end has its name.
    #[test]
    fn ends_are_named() {
        let begin = [
            change(1, 10, CLOSE, SYN_SENT),
            change(1, 30, SYN_SENT, ESTABLISHED),
        ];
        let after = |events: &[TcpEvent]| ended(&[&begin, events].concat());
        let with = |event: TcpEvent, what: u32, error: u32| TcpEvent {
            what,
            error,
            ..event
        };
        let us = [
            change(1, 40, ESTABLISHED, FIN_WAIT1),
            change(1, 41, FIN_WAIT1, FIN_WAIT2),
            change(1, 42, FIN_WAIT2, CLOSE),
        ];
        assert_eq!(after(&us), Some(End::ClosedByUs));
        let peer = [
            change(1, 40, ESTABLISHED, CLOSE_WAIT),
            change(1, 41, CLOSE_WAIT, LAST_ACK),
            change(1, 42, LAST_ACK, CLOSE),
        ];
        assert_eq!(after(&peer), Some(End::ClosedByPeer));
        let reset = change(1, 40, 0, 0);
        let close = change(1, 41, ESTABLISHED, CLOSE);
        let by_peer = [with(reset, what::RESET_RECEIVED, 0), with(close, 0, 104)];
        assert_eq!(after(&by_peer), Some(End::ResetByPeer));
        assert_eq!(
            after(&[close, with(reset, what::RESET_SENT, 0)]),
            Some(End::ResetByUs)
        );
        assert_eq!(after(&[with(close, 0, 110)]), Some(End::TimedOut));
        let failed = |error| {
            let close = with(change(1, 20, SYN_SENT, CLOSE), what::STATE, error);
            ended(&[begin[0], close])
        };
        assert_eq!(failed(111), Some(End::Refused));
        assert_eq!(failed(110), Some(End::TimedOut));
        assert_eq!(failed(113), Some(End::Failed(113)));
        assert_eq!(failed(0), Some(End::GivenUp));
        assert_eq!(End::Failed(113).text(), "failed: EHOSTUNREACH");
        assert_eq!(after(&[]), None);
    }

    /// Times are those between the events; the figures are the last ones.
    #[test]
    fn times_and_figures() {
        let mut connections = Connections::default();
        connections.take(&change(1, 10, CLOSE, SYN_SENT));
        connections.take(&change(1, 30, SYN_SENT, ESTABLISHED));
        let mut close = change(1, 110, LAST_ACK, CLOSE);
        close.figures.bytes_sent = 12;
        close.figures.bytes_retransmitted = 2;
        close.figures.bytes_received = 21;
        close.figures.peer_ended = 1;
        connections.take(&close);
        let connection = &connections.list()[0];
        assert_eq!(connection.connect_ns(), Some(20));
        assert_eq!(connection.age_ns(1000), Some(100));
        assert_eq!(connection.bytes(), (10, 20));
        assert_eq!(connection.role, Role::Client);
    }

    /// A socket's address and a pair of ends may be used again; each use is a connection of its own.
    #[test]
    fn reuse_is_another_connection() {
        let mut connections = Connections::default();
        for start in [10, 100] {
            connections.take(&change(1, start, SYN_RECV, ESTABLISHED));
            connections.take(&change(1, start + 5, ESTABLISHED, CLOSE));
        }
        assert_eq!((connections.list().len(), connections.begun), (2, 2));
        assert!(connections.list().iter().all(|c| c.ended.is_some()));
    }

    /// A connection is in every window in which it lived, each time with what it carried in it; it is begun in one and
    /// ended in one.
    #[test]
    fn windows_follow_a_connection() {
        let mut connections = Connections::default();
        connections.take(&change(1, 10, CLOSE, SYN_SENT));
        let told = |connections: &mut Connections| {
            let mut told = Vec::new();
            let mut each = |one: &super::Connection| {
                told.push((one.bytes().0, one.before.is_none(), one.ended.is_some()));
            };
            connections.settle(1_000, &mut each);
            connections.roll(&mut each);
            told
        };
        assert_eq!(told(&mut connections), [(0, true, false)]);
        let mut event = change(1, 30, SYN_SENT, ESTABLISHED);
        event.figures.bytes_sent = 100;
        connections.take(&event);
        assert_eq!(connections.list()[0].connect_ns(), Some(20));
        assert_eq!(told(&mut connections), [(100, false, false)]);
        assert!(connections.list()[0].is_connect_told);
        let mut event = change(1, 50, LAST_ACK, CLOSE);
        event.figures.bytes_sent = 130;
        connections.take(&event);
        // Of one that has just ended something may still be told: it is settled later.
        let mut later = change(2, 995, SYN_RECV, ESTABLISHED);
        connections.take(&later);
        (later.old, later.new, later.time_ns) = (ESTABLISHED, CLOSE, 1_000);
        connections.take(&later);
        assert_eq!(told(&mut connections), [(30, false, true)]);
        assert_eq!(connections.list().len(), 1);
        // Its address is free for another one, and so are its ends.
        connections.take(&change(1, 2_000, CLOSE, SYN_SENT));
        assert_eq!((connections.list().len(), connections.strangers), (2, 0));
    }

    /// Who is missing in two lists of its namespace has ended, unseen; who was not looked for has not.
    #[test]
    fn missing_twice_is_gone() {
        let mut connections = Connections::default();
        connections.take(&change(1, 10, SYN_RECV, ESTABLISHED));
        connections.miss(|_| false, 20);
        connections.miss(|_| true, 30);
        assert_eq!(connections.list()[0].ended, None);
        connections.miss(|net| net == 1, 40);
        assert_eq!(connections.list()[0].ended, Some((40, End::Unseen)));
    }

    /// What was there before counts from what it had; what is still there has its queues.
    #[test]
    fn listed_connections() {
        let mut connections = Connections::default();
        let ends = Ends {
            net: 1,
            local: address(LOOPBACK, 9),
            remote: address(LOOPBACK, 5432),
        };
        assert_eq!(ends.remote.to_string(), "127.0.0.1:5432");
        let mut listed = Listed {
            ends,
            state: ESTABLISHED,
            figures: Figures {
                bytes_sent: 100,
                ..Figures::default()
            },
            queues: (0, 0),
        };
        connections.there_before(&listed, 1, Socket::default());
        listed.figures.bytes_sent = 150;
        listed.queues = (3, 4);
        listed.state = CLOSE_WAIT;
        connections.still_there(&listed);
        let connection = &connections.list()[0];
        assert_eq!((connection.bytes(), connection.age_ns(5)), ((50, 0), None));
        assert_eq!(connection.text(), "half-closed by peer");
        assert_eq!(connection.queues, Some((3, 4)));
        // The kernel side tells of it under the address of its socket.
        connections.take(&change(9, 7, ESTABLISHED, CLOSE));
        assert_eq!(connections.list().len(), 1);
        connections.take(&change(10, 7, ESTABLISHED, CLOSE));
        assert_eq!(connections.strangers, 1);
    }
}
