//! What ends a recording from outside: the user, the time, the command.

use tokio::{runtime::Runtime, time::Instant};

use super::{
    running::{Running, ended},
    signals::{self, Caught, Patience, Signals},
};
use crate::error::{Error, Exit};

/// Runs a recording, of whatever kind, on this thread, which is the only one so far.
pub(crate) fn event_loop(
    recording: impl Future<Output = Result<Exit, Error>>,
) -> Result<Exit, Error> {
    signals::begin(Patience::RECORDING)?;
    runtime()?.block_on(recording)
}

/// An event loop for this thread.
pub(crate) fn runtime() -> Result<Runtime, Error> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::System {
            action: "start the event loop",
            source,
        })
}

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The time was up.
    Duration,
    /// Every named process is gone.
    TargetsGone,
    /// The command has ended.
    Command,
    /// SIGINT: from a terminal, the command has had it too.
    Interrupted,
    /// SIGTERM or SIGHUP.
    Terminated,
}

/// Watches for it.
pub(crate) struct Ending {
    signals: Signals,
    deadline: Option<Instant>,
}

impl Ending {
    /// From now on the first signal does not end the profiler.
    pub(crate) fn watch(deadline: Option<std::time::Instant>) -> Result<Self, Error> {
        Ok(Self {
            signals: Signals::subscribe()?,
            deadline: deadline.map(Instant::from_std),
        })
    }

    /// Comes back when one of these has happened. May be dropped and called again.
    pub(crate) async fn reached(&mut self, command: Option<&Running>) -> End {
        tokio::select! {
            () = at(self.deadline) => End::Duration,
            signal = self.signals.end() => match signal {
                Caught::Interrupt => End::Interrupted,
                Caught::Terminate | Caught::Hangup => End::Terminated,
            },
            () = ended(command) => End::Command,
        }
    }
}

/// Comes back at that time, never without one.
pub(crate) async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
