//! Waiting for the ring, beside whatever else a session waits for.

use std::os::fd::{AsFd, OwnedFd};

use tokio::io::unix::AsyncFd;

use super::running::watch_readable;
use crate::{error::Error, kernel::Ring};

/// A ring that is waited for.
pub(crate) struct RingWatch(AsyncFd<OwnedFd>);

impl RingWatch {
    /// Begins to watch it.
    pub(crate) fn begin(ring: &Ring) -> Result<Self, Error> {
        let descriptor = ring.as_fd().try_clone_to_owned().map_err(failed)?;
        watch_readable(descriptor).map(Self).map_err(failed)
    }

    /// Ends when the kernel side has said that something is there; what comes later wakes again.
    pub(crate) async fn readable(&self) -> Result<(), Error> {
        self.0.readable().await.map_err(failed)?.clear_ready();
        Ok(())
    }
}

fn failed(source: std::io::Error) -> Error {
    Error::System {
        action: "watch the ring buffer",
        source,
    }
}
