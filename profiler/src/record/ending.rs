//! What ends a recording from outside: the user, the time, the command.

use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    time::Instant,
};

use super::running::{Running, ended};
use crate::error::{Error, Exit};

/// Runs a recording, of whatever kind, on this thread.
pub(crate) fn event_loop(
    recording: impl Future<Output = Result<Exit, Error>>,
) -> Result<Exit, Error> {
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
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    deadline: Option<Instant>,
}

impl Ending {
    /// From now on the signals do not end the profiler.
    pub(crate) fn watch(deadline: Option<std::time::Instant>) -> Result<Self, Error> {
        let system = |action| move |source| Error::System { action, source };
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(system("watch for Ctrl-C"))?,
            terminate: signal(SignalKind::terminate()).map_err(system("watch for SIGTERM"))?,
            hangup: signal(SignalKind::hangup()).map_err(system("watch for SIGHUP"))?,
            deadline: deadline.map(Instant::from_std),
        })
    }

    /// Comes back when one of these has happened. May be dropped and called again.
    pub(crate) async fn reached(&mut self, command: Option<&Running>) -> End {
        tokio::select! {
            () = at(self.deadline) => End::Duration,
            _ = self.interrupt.recv() => End::Interrupted,
            _ = self.terminate.recv() => End::Terminated,
            _ = self.hangup.recv() => End::Terminated,
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
