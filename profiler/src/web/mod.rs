//! A local page, and metrics, of what the daemon has seen: read only, without anything from elsewhere.
//!
//! ```text
//! connection (bounded) ─► guard (whose host? token?) ─► routes ─► history (store) | status ─► page | svg | metrics
//! ```
//!
//! - [`listen`] is where, and what may be listened on; `connections` bounds how long they last, `places` how many
//!   there are.
//! - `guard` decides who may ask, and sets the headers that bound what a page can do.
//! - `history` reads windows back, `overview`, `tables` and `svg` show them, `metrics` shows the daemon itself.
//!
//! It runs on a thread of its own without any capability, so that it can stop neither sampling nor anything else.
//! There is nothing that changes anything.

mod connections;
pub(crate) mod guard;
mod history;
pub mod listen;
mod metrics;
mod overview;
mod own;
mod places;
pub(crate) mod query;
mod routes;
mod statements;
mod svg;
mod tables;

use std::{path::PathBuf, sync::Arc, thread::JoinHandle};

use tokio::sync::oneshot;

pub use self::listen::{Listen, WebError};
use self::{guard::Guard, listen::Bound};
use crate::{
    daemon::{privileges, status::Status},
    error::Error,
    export::Exports,
};

/// The page, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Web {
    /// Where.
    pub listen: Listen,
    /// What must be shown as `Authorization: Bearer`, if anything.
    pub token_file: Option<PathBuf>,
    /// Most statements that have series of their own in the metrics.
    pub top_queries: u32,
}

/// What is shown.
#[derive(Clone)]
pub struct Sources {
    /// The state directory.
    pub state: PathBuf,
    /// How the daemon fares.
    pub status: Arc<Status>,
    /// How the exports fare.
    pub exports: Exports,
}

/// Whether it may be served so: an address that others can reach wants `--listen-publicly` too.
pub fn check(web: Option<&Web>, listen_publicly: bool) -> Result<(), WebError> {
    match web {
        Some(web) if !web.listen.is_local() && !listen_publicly => Err(WebError::Public {
            listen: web.listen.clone(),
        }),
        _ => Ok(()),
    }
}

/// The server. Ends when dropped.
#[derive(Debug)]
pub struct Server {
    bound: Bound,
    /// Dropping it ends the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens, and answers from now on. Who may ask is checked before: see [`check`].
    pub fn start(web: &Web, sources: Sources) -> Result<Self, Error> {
        let guard = Guard::new(web)?;
        let bound = Bound::bind(&web.listen)?;
        let listener = bound.listener()?;
        let (stop, stopped) = oneshot::channel();
        let work = move || {
            privileges::give_up();
            if let Err(error) = routes::serve(listener, guard, sources, stopped) {
                tracing::error!(%error, "the page is served no more");
            }
        };
        let thread = std::thread::Builder::new()
            .name("web".to_owned())
            .spawn(work)
            .map_err(|source| Error::System {
                action: "start the thread that serves the page",
                source,
            })?;
        Ok(Self {
            bound,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens: with the port that the kernel chose where 0 was asked for.
    pub fn address(&self) -> Option<std::net::SocketAddr> {
        self.bound.address()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take();
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            tracing::error!("the thread that serves the page has failed");
        }
    }
}
