//! Connections: only so many at a time, and none for long, so that nobody who connects can hold the others up.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};

/// Connections at a time; further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 32;
/// Longest life of one: each answers one request.
const LIFE: Duration = Duration::from_secs(60);

/// What a browser, a proxy or Prometheus reads from and writes to.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A listener of either kind, bounded.
pub(super) struct Connections {
    socket: Socket,
    permits: Arc<Semaphore>,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Connections {
    /// In a runtime.
    pub(super) fn of(socket: super::listen::Socket) -> io::Result<Self> {
        let socket = match socket {
            super::listen::Socket::Tcp(listener) => Socket::Tcp(TcpListener::from_std(listener)?),
            super::listen::Socket::Unix(listener) => {
                Socket::Unix(UnixListener::from_std(listener)?)
            }
        };
        Ok(Self {
            socket,
            permits: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
        })
    }
}

impl Listener for Connections {
    type Io = Connection;
    type Addr = ();

    async fn accept(&mut self) -> (Connection, ()) {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let stream: Box<dyn Stream> = match &mut self.socket {
            Socket::Tcp(listener) => Box::new(Listener::accept(listener).await.0),
            Socket::Unix(listener) => Box::new(Listener::accept(listener).await.0),
        };
        let connection = Connection {
            stream,
            end: Box::pin(sleep(LIFE)),
            _permit: permit,
        };
        (connection, ())
    }

    fn local_addr(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection, which ends by itself.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    end: Pin<Box<Sleep>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.end.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
