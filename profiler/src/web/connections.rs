//! Connections: so many at a time, none for long, and nobody can have them all.
//!
//! A connection waits until its header is there. Of those that wait one gives way to each new one that finds no room:
//! the oldest of the peer that has most of them. A request then takes a place among the answers, of which each peer
//! has only so many; `/healthz` needs none. A connection answers one request.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::Router;
use hyper::{Request, body::Incoming, server::conn::http1, service::Service};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Notify,
    task::AbortHandle,
    time::{sleep, timeout},
};

/// Connections at a time.
const CONNECTIONS_MAX: usize = 96;
/// Requests that are answered at a time, but for those of `/healthz`.
const ANSWERS_MAX: usize = 32;
/// Of these, requests of one peer.
const PEER_ANSWERS_MAX: usize = 24;
/// Longest time until the whole header is there.
const HEADER: Duration = Duration::from_secs(5);
/// Longest time until the answer is made, which has a limit of its own: see `routes`.
const ANSWER: Duration = Duration::from_secs(50);
/// Longest time in which the answer is read.
const READ: Duration = Duration::from_secs(20);
/// Most bytes of a header.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// Most lines of a header.
const HEADERS_MAX: usize = 64;
/// Pause where no connection can be accepted, for want of descriptors.
const PAUSE: Duration = Duration::from_secs(1);

/// The path that needs no place among the answers.
pub(super) const HEALTH: &str = "/healthz";

/// A listener of either kind.
pub(super) enum Connections {
    /// Of an address.
    Tcp(TcpListener),
    /// Of a path.
    Unix(UnixListener),
}

impl Connections {
    /// In a runtime.
    pub(super) fn of(socket: super::listen::Socket) -> io::Result<Self> {
        Ok(match socket {
            super::listen::Socket::Tcp(listener) => Self::Tcp(TcpListener::from_std(listener)?),
            super::listen::Socket::Unix(listener) => Self::Unix(UnixListener::from_std(listener)?),
        })
    }

    /// Answers until dropped.
    pub(super) async fn serve(self, router: Router) -> io::Result<()> {
        let places = Places::default();
        loop {
            let accepted = match &self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, address)| {
                    places.start(stream, Peer::at(address.ip()), &router);
                }),
                Self::Unix(listener) => listener.accept().await.map(|(stream, _)| {
                    let uid = stream.peer_cred().map_or(u32::MAX, |peer| peer.uid());
                    places.start(stream, Peer::User(uid), &router);
                }),
            };
            if let Err(error) = accepted
                && error.kind() != io::ErrorKind::ConnectionAborted
            {
                sleep(PAUSE).await;
            }
        }
    }
}

/// Who has a connection, as far as that can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Peer {
    /// Anybody on this machine: everybody has all of its addresses.
    Loopback,
    V4(Ipv4Addr),
    /// A network of 64 bits, which one machine may have.
    V6([u8; 8]),
    /// Of a unix socket.
    User(u32),
}

impl Peer {
    fn at(address: IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self::Loopback,
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let mut network = [0; 8];
                network.copy_from_slice(&address.octets()[..8]);
                Self::V6(network)
            }
        }
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its header is not there yet.
    Waits,
    /// It is answered.
    Answered,
    /// It has got no place, or needs none.
    Passing,
}

/// All connections. `A` ends one of them.
#[derive(Debug)]
struct Table<A> {
    next: u64,
    connections: BTreeMap<u64, (Peer, Phase, Option<A>)>,
}

impl<A> Table<A> {
    /// Takes a new one in; gives the one that has to give way, if there was no room.
    fn admit(&mut self, peer: Peer) -> (u64, Option<A>) {
        let full = self.connections.len() >= CONNECTIONS_MAX;
        let out = full.then(|| self.least_worthy()).flatten();
        let out = out.and_then(|id| self.connections.remove(&id)?.2);
        let id = self.next;
        self.next += 1;
        self.connections.insert(id, (peer, Phase::Waits, None));
        (id, out)
    }

    /// The one of those that wait that has waited longest, of the peer that has most of them.
    fn least_worthy(&self) -> Option<u64> {
        let mut waiting = BTreeMap::<Peer, (usize, u64)>::new();
        for (&id, (peer, phase, _)) in &self.connections {
            if *phase == Phase::Waits {
                waiting.entry(*peer).or_insert((0, id)).0 += 1;
            }
        }
        let most = waiting.into_values().max_by_key(|(count, _)| *count);
        most.map(|(_, oldest)| oldest)
    }

    /// Takes a place among the answers; says whether there was one.
    fn answer(&mut self, id: u64) -> bool {
        let Some((peer, ..)) = self.connections.get(&id) else {
            return false;
        };
        let all = self.connections.values();
        let answered = all.filter(|(_, phase, _)| *phase == Phase::Answered);
        let (count, of_peer) = answered.fold((0, 0), |(count, of_peer), (other, ..)| {
            (count + 1, of_peer + usize::from(other == peer))
        });
        let has_place = count < ANSWERS_MAX && of_peer < PEER_ANSWERS_MAX;
        let phase = if has_place {
            Phase::Answered
        } else {
            Phase::Passing
        };
        self.set(id, phase);
        has_place
    }

    fn set(&mut self, id: u64, phase: Phase) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.1 = phase;
        }
    }
}

impl<A> Default for Table<A> {
    fn default() -> Self {
        Self {
            next: 0,
            connections: BTreeMap::new(),
        }
    }
}

/// The table, shared by the connections.
#[derive(Clone, Debug, Default)]
struct Places(Arc<Mutex<Table<AbortHandle>>>);

impl Places {
    /// A panic in one connection does not concern the others.
    fn lock(&self) -> MutexGuard<'_, Table<AbortHandle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        peer: Peer,
        router: &Router,
    ) {
        let (id, out) = self.lock().admit(peer);
        if let Some(out) = out {
            out.abort();
        }
        let place = Arc::new(Place {
            id,
            places: self.clone(),
        });
        let task = tokio::spawn(converse(stream, place, router.clone()));
        if let Some(connection) = self.lock().connections.get_mut(&id) {
            connection.2 = Some(task.abort_handle());
        }
    }
}

/// Of one connection, as long as it lives.
#[derive(Debug)]
struct Place {
    id: u64,
    places: Places,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().connections.remove(&self.id);
    }
}

/// Whether a request has got a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Admitted(pub(super) bool);

/// From the first byte to the last one, each part within its time.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    place: Arc<Place>,
    router: Router,
) {
    let (begun, made) = (Arc::<Notify>::default(), Arc::<Notify>::default());
    let answering = Answering {
        router: TowerToHyperService::new(router),
        place,
        begun: Arc::clone(&begun),
        made: Arc::clone(&made),
    };
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answering);
    let mut connection = pin!(connection);
    // Whether it ends well or not is the other side's affair.
    for (patience, next) in [(HEADER, begun), (ANSWER, made)] {
        tokio::select! {
            _ = connection.as_mut() => return,
            () = next.notified() => {}
            () = sleep(patience) => return,
        }
    }
    let _ = timeout(READ, connection).await;
}

/// The router, with a place for each request.
struct Answering {
    router: TowerToHyperService<Router>,
    place: Arc<Place>,
    begun: Arc<Notify>,
    made: Arc<Notify>,
}

impl Service<Request<Incoming>> for Answering {
    type Response = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Error;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let Place { id, places } = self.place.as_ref();
        let has_place = if request.uri().path() == HEALTH {
            places.lock().set(*id, Phase::Passing);
            true
        } else {
            places.lock().answer(*id)
        };
        request.extensions_mut().insert(Admitted(has_place));
        self.begun.notify_one();
        let (answer, made) = (self.router.call(request), Arc::clone(&self.made));
        Box::pin(async move {
            let answer = answer.await;
            made.notify_one();
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{
        ANSWERS_MAX, CONNECTIONS_MAX, IpAddr, Ipv4Addr, PEER_ANSWERS_MAX, Peer, Phase, Table,
    };

    fn peer(last: u8) -> Peer {
        Peer::V4(Ipv4Addr::new(10, 0, 0, last))
    }

    /// Takes in, with its number as what ends it.
    fn admit(table: &mut Table<u64>, peer: Peer) -> (u64, Option<u64>) {
        let (id, out) = table.admit(peer);
        table.connections.get_mut(&id).unwrap().2 = Some(id);
        (id, out)
    }

    /// A full table has room for everybody still: the peer that holds most of it loses its oldest connection, and
    /// nobody whose request is there.
    #[test]
    fn newcomers_displace_who_holds_most() {
        let mut table = Table::default();
        let (answered, _) = admit(&mut table, peer(1));
        assert!(table.answer(answered));
        let (modest, _) = admit(&mut table, peer(2));
        while table.connections.len() < CONNECTIONS_MAX {
            assert_eq!(admit(&mut table, peer(1)).1, None);
        }
        let (newcomer, out) = admit(&mut table, peer(3));
        assert_eq!(out, Some(2));
        for _ in 0..1000 {
            assert!(admit(&mut table, peer(1)).1 > Some(2));
        }
        assert_eq!(table.connections.len(), CONNECTIONS_MAX);
        for kept in [answered, modest, newcomer] {
            assert!(table.connections.contains_key(&kept));
        }
    }

    /// One peer cannot have all answers, all together have so many, and what ended makes room.
    #[test]
    fn answers_are_shared() {
        let mut table = Table::default();
        let answered = |table: &mut Table<u64>, of: Peer| {
            let (id, _) = admit(table, of);
            table.answer(id).then_some(id)
        };
        let first = answered(&mut table, peer(1)).unwrap();
        for _ in 1..PEER_ANSWERS_MAX {
            assert!(answered(&mut table, peer(1)).is_some());
        }
        assert_eq!(answered(&mut table, peer(1)), None);
        for _ in PEER_ANSWERS_MAX..ANSWERS_MAX {
            assert!(answered(&mut table, peer(2)).is_some());
        }
        assert_eq!(answered(&mut table, peer(3)), None);
        table.connections.remove(&first);
        assert!(answered(&mut table, peer(1)).is_some());
        let waiting = |table: &Table<u64>| {
            let all = table.connections.values();
            all.filter(|connection| connection.1 == Phase::Waits)
                .count()
        };
        assert_eq!(waiting(&table), 0);
    }

    /// Everybody on this machine is one peer, and so is a network that one machine may have.
    #[test]
    fn peers_are_who_can_be_told_apart() {
        let at = |text: &str| Peer::at(text.parse::<IpAddr>().unwrap());
        for text in ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.2"] {
            assert_eq!(at(text), Peer::Loopback, "{text}");
        }
        assert_eq!(at("::ffff:10.0.0.1"), peer(1));
        assert_eq!(at("2001:db8::1"), at("2001:db8::2:3"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
    }
}
