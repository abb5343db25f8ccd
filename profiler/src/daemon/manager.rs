//! What the service manager is told, if there is one: that we are ready, what we do, that we live.

use std::time::Duration;

use sd_notify::NotifyState;

/// Everything is attached.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is being read again. [`ready`] ends it.
pub(super) fn reloading() {
    let mut states = vec![NotifyState::Reloading];
    // From systemd 253 on it wants to know when.
    states.extend(NotifyState::monotonic_usec_now());
    tell(&states);
}

/// The end has begun.
pub(super) fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// What we do now.
pub(super) fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// We live, and so do our parts.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often it wants to hear that, halved; `None` where it does not watch us.
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled()
        .map(|interval| interval / 2)
        .filter(|interval| !interval.is_zero())
}

/// A manager that does not listen is no reason to end.
fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}
