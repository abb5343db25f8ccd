//! The recorded command while it runs, and its end.

use std::{
    io,
    os::fd::OwnedFd,
    process::{Child, ExitStatus},
};

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    command,
    ending::End,
    signals::{self, Caught, Signals},
};
use crate::error::{Error, Exit};

/// The command while it runs.
pub(crate) struct Running {
    child: Child,
    ended: AsyncFd<OwnedFd>,
    status: Option<ExitStatus>,
}

impl Running {
    pub(crate) fn new(child: Child) -> Result<Self, Error> {
        let system = |source: io::Error| Error::System {
            action: "watch the command",
            source,
        };
        let pidfd = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty())
            .map_err(|error| system(error.into()))?;
        Ok(Self {
            child,
            ended: watch_readable(pidfd).map_err(system)?,
            status: None,
        })
    }

    pub(crate) fn reap(&mut self) -> Result<ExitStatus, Error> {
        let status = self.child.wait().map_err(|source| Error::System {
            action: "wait for the command",
            source,
        })?;
        self.status = Some(status);
        Ok(status)
    }

    /// Waits for the command, which outlives its recording after `-d` or Ctrl-C; SIGTERM is passed
    /// on to it, Ctrl-C it has had from the terminal. A second signal ends only the profiler.
    pub(crate) async fn conclude(mut self, end: End) -> Result<Exit, Error> {
        if let Some(status) = self.status {
            return Ok(Exit::Command(command::exit_code(status)));
        }
        signals::written();
        if end == End::Terminated {
            self.terminate();
        }
        if !matches!(end, End::Terminated | End::Interrupted) {
            let signals = Signals::subscribe()?;
            tokio::select! {
                () = ended(Some(&self)) => {}
                signal = signals.end() => if signal != Caught::Interrupt {
                    self.terminate();
                },
            }
        }
        ended(Some(&self)).await;
        self.reap()
            .map(|status| Exit::Command(command::exit_code(status)))
    }

    /// Gone already is as good.
    fn terminate(&self) {
        let _ = rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM);
    }
}

/// How to exit with this result: as the command did, once it has ended, where there is one.
pub(crate) async fn conclude(
    command: Option<Running>,
    end: End,
    result: Result<(), Error>,
) -> Result<Exit, Error> {
    match command {
        Some(command) => {
            let exit = command.conclude(end).await?;
            result.map(|()| exit)
        }
        None => result.map(|()| Exit::Done),
    }
}

/// A descriptor that tokio watches.
pub(crate) fn watch_readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor is open, and the same one, as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}

/// Ends when the command does; never without one.
pub(crate) async fn ended(command: Option<&Running>) {
    match command {
        Some(command) => {
            // An error of the descriptor would mean that it is not one; then waiting ends.
            let _ = command.ended.readable().await;
        }
        None => std::future::pending().await,
    }
}
