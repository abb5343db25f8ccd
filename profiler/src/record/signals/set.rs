//! The system calls of signals: the three that end or change something, and masks of them.

use std::{mem::MaybeUninit, time::Duration};

/// A signal that ends a recording or changes the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caught {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP.
    Hangup,
}

impl Caught {
    pub(super) const ALL: [Self; 3] = [Self::Interrupt, Self::Terminate, Self::Hangup];

    fn number(self) -> libc::c_int {
        match self {
            Self::Interrupt => libc::SIGINT,
            Self::Terminate => libc::SIGTERM,
            Self::Hangup => libc::SIGHUP,
        }
    }

    /// The exit status by which a shell names it.
    pub(super) fn status(self) -> i32 {
        128 + self.number()
    }
}

/// Ends the process without waiting for any thread.
pub(super) fn exit(signal: Caught) -> ! {
    // SAFETY: always callable; what other threads do ends with them.
    unsafe { libc::_exit(signal.status()) }
}

/// Ends the process as if nobody had waited for the signal, which has no handler yet.
pub(super) fn die_of(signal: Caught) -> ! {
    change_mask(libc::SIG_UNBLOCK, &of(&[signal]));
    // SAFETY: always callable.
    unsafe { libc::raise(signal.number()) };
    exit(signal)
}

pub(super) fn of(signals: &[Caught]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the set is written to, whatever was in it.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: it has just been made.
    let mut set = unsafe { set.assume_init() };
    for signal in signals {
        // SAFETY: a set and a signal that exists.
        unsafe { libc::sigaddset(&raw mut set, signal.number()) };
    }
    set
}

/// Changes the mask of this thread; gives what was blocked before.
pub(super) fn change_mask(how: libc::c_int, set: &libc::sigset_t) -> libc::sigset_t {
    let mut before = of(&[]);
    // SAFETY: both sets live until it comes back.
    unsafe { libc::pthread_sigmask(how, set, &raw mut before) };
    before
}

/// Waits for one of a set, for ever or below a second.
pub(super) fn wait(set: &libc::sigset_t, longest: Option<Duration>) -> Option<Caught> {
    let longest = longest.map(|longest| libc::timespec {
        tv_sec: 0,
        tv_nsec: longest.subsec_nanos().into(),
    });
    let longest = longest
        .as_ref()
        .map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the set and the time live until it comes back; nothing is asked about the sender.
    let number = unsafe { libc::sigtimedwait(set, std::ptr::null_mut(), longest) };
    let is_it = |signal: &Caught| signal.number() == number;
    Caught::ALL.into_iter().find(is_it)
}

/// Shows in `/proc` that a signal has an orderly end from now on. Every thread blocks it, so that
/// the handler never runs.
pub(super) fn show_as_caught(signal: Caught) {
    extern "C" fn nothing(_signal: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: the handler does nothing, which any thread may do at any time.
    unsafe { libc::signal(signal.number(), handler as libc::sighandler_t) };
}
