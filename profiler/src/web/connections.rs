//! Connections: each answers one request, and each part of that has its time. `places` bounds how
//! many there are.

use std::{
    io,
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

use super::places::{Peer, Phase, Table};

/// Longest time until the whole header is there.
const HEADER: Duration = Duration::from_secs(5);
/// Longest time until the answer is made: `routes` has a shorter limit.
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
