//! Signals, in one place: a thread of its own waits for them, so that they are heard when no other thread turns.
//!
//! The first signal asks for an orderly end. The second one ends the process at once. So does a time without
//! progress after the first one. Files are whole or not there, so that nothing is left half-written, and the kernel
//! takes probes away with the process.
//!
//! Every other thread blocks these signals: one that hangs in a system call cannot be chosen to take them.

use std::{
    io::{self, Write},
    mem::MaybeUninit,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc::sync_channel,
    },
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::sync::{Notify, watch};

use crate::{daemon::privileges, error::Error, record::finish::process_cpu_time, symbolize};

/// How often progress is looked at after the first signal.
const LOOK: Duration = Duration::from_millis(100);
/// CPU time of the other threads that counts as progress.
const MOVED: Duration = Duration::from_millis(1);
/// Longest time that the last words may take: standard error may block, too.
const WORDS: Duration = Duration::from_millis(100);

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
    const ALL: [Self; 3] = [Self::Interrupt, Self::Terminate, Self::Hangup];

    fn number(self) -> libc::c_int {
        match self {
            Self::Interrupt => libc::SIGINT,
            Self::Terminate => libc::SIGTERM,
            Self::Hangup => libc::SIGHUP,
        }
    }

    /// The exit status by which a shell names it.
    fn status(self) -> i32 {
        128 + self.number()
    }
}

/// How long an orderly end may take, and what SIGHUP means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// Longest time without progress after the first signal.
    stalled: Duration,
    /// Longest time in all after the first signal.
    whole: Duration,
    /// SIGHUP asks for the configuration to be read again, and ends nothing.
    reloads: bool,
}

impl Patience {
    /// Of a recording: large ones take long to name and write. A pipe that nobody reads is no progress.
    pub(crate) const RECORDING: Self = Self {
        stalled: Duration::from_secs(30),
        whole: Duration::from_secs(600),
        reloads: false,
    };
    /// Of the daemon: it ends within five seconds, whatever hangs.
    pub(crate) const DAEMON: Self = Self {
        stalled: Duration::from_millis(4500),
        whole: Duration::from_millis(4500),
        reloads: true,
    };
}

/// What the thread shares with the others.
struct Shared {
    /// The first signal that asks for the end.
    end: watch::Sender<Option<Caught>>,
    reload: Notify,
    /// Somebody makes an orderly end of the first signal.
    is_orderly: AtomicBool,
    /// Everything is written: only the recorded command is waited for.
    is_written: AtomicBool,
    mask_before: libc::sigset_t,
}

static SHARED: OnceLock<Shared> = OnceLock::new();

/// Starts the thread. To be called by the only thread there is: those that it starts inherit what it blocks.
/// Until somebody [subscribes](Signals::subscribe) each signal ends the process as it always does.
pub(crate) fn begin(patience: Patience) -> Result<(), Error> {
    let set = set_of(&Caught::ALL);
    let mask_before = change_mask(libc::SIG_BLOCK, &set);
    let shared = SHARED.get_or_init(|| Shared {
        end: watch::Sender::new(None),
        reload: Notify::new(),
        is_orderly: AtomicBool::new(false),
        is_written: AtomicBool::new(false),
        mask_before,
    });
    let work = move || {
        privileges::give_up();
        listen(shared, &set, Course::new(patience));
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(work)
        .map(drop)
        .map_err(|source| Error::System {
            action: "start the thread that waits for signals",
            source,
        })
}

/// Gives a child the signals that this process was started with. To be called between fork and exec.
pub(crate) fn restore_mask() {
    if let Some(shared) = SHARED.get() {
        change_mask(libc::SIG_SETMASK, &shared.mask_before);
    }
}

/// The deadline is off from now on: only the recorded command is waited for, which may take any time.
pub(crate) fn written() {
    if let Some(shared) = SHARED.get() {
        shared.is_written.store(true, Ordering::Relaxed);
    }
}

/// What came in, for an event loop.
pub(crate) struct Signals {
    end: watch::Receiver<Option<Caught>>,
    reload: &'static Notify,
}

impl Signals {
    /// From now on the first signal does not end the process; whoever has this does.
    pub(crate) fn subscribe() -> Result<Self, Error> {
        let shared = SHARED.get().ok_or_else(|| Error::System {
            action: "watch for signals",
            source: io::Error::other("nobody waits for them"),
        })?;
        if !shared.is_orderly.swap(true, Ordering::Relaxed) {
            for signal in Caught::ALL {
                show_as_caught(signal);
            }
        }
        Ok(Self {
            end: shared.end.subscribe(),
            reload: &shared.reload,
        })
    }

    /// Comes back with the first signal that asks for the end, also where it came before. May be dropped.
    pub(crate) async fn end(&self) -> Caught {
        let mut end = self.end.clone();
        if let Ok(first) = end.wait_for(Option::is_some).await
            && let Some(signal) = *first
        {
            return signal;
        }
        // The other end is never dropped.
        std::future::pending().await
    }

    /// Comes back when the configuration is to be read again. May be dropped.
    pub(crate) async fn reload(&self) {
        self.reload.notified().await;
    }
}

/// The thread.
fn listen(shared: &Shared, set: &libc::sigset_t, mut course: Course) {
    loop {
        let caught = wait(set, course.first.map(|_| LOOK));
        if let Some(signal) = caught
            && !shared.is_orderly.load(Ordering::Relaxed)
        {
            die_of(signal);
        }
        let now = Now {
            at: Instant::now(),
            used: others_cpu_time(),
            is_written: shared.is_written.load(Ordering::Relaxed),
        };
        let step = match caught {
            Some(signal) => course.caught(signal, now),
            None => course.look(now),
        };
        match step {
            Step::Nothing => {}
            Step::Reload => shared.reload.notify_one(),
            Step::End(signal) => {
                shared.end.send_replace(Some(signal));
            }
            Step::Exit(signal, why) => exit(signal, why),
        }
    }
}

/// What is known at one moment.
#[derive(Clone, Copy, Debug)]
struct Now {
    at: Instant,
    /// CPU time of all other threads so far.
    used: Duration,
    is_written: bool,
}

/// What follows from a signal or a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Reload,
    End(Caught),
    Exit(Caught, &'static str),
}

/// From the first signal to the end. Pure.
#[derive(Debug)]
struct Course {
    patience: Patience,
    first: Option<(Caught, Instant)>,
    /// When progress was last seen, and the CPU time by then.
    moved: Option<(Instant, Duration)>,
}

impl Course {
    fn new(patience: Patience) -> Self {
        Self {
            patience,
            first: None,
            moved: None,
        }
    }

    fn caught(&mut self, signal: Caught, now: Now) -> Step {
        if signal == Caught::Hangup && self.patience.reloads {
            return Step::Reload;
        }
        if self.first.is_some() {
            return Step::Exit(signal, "a second signal");
        }
        self.first = Some((signal, now.at));
        self.moved = Some((now.at, now.used));
        Step::End(signal)
    }

    fn look(&mut self, now: Now) -> Step {
        let (Some((signal, began)), Some((moved, used))) = (self.first, self.moved) else {
            return Step::Nothing;
        };
        if now.is_written {
            return Step::Nothing;
        }
        if now.used >= used + MOVED {
            self.moved = Some((now.at, now.used));
        } else if now.at - moved >= self.patience.stalled {
            return Step::Exit(signal, "no progress after the signal");
        }
        if now.at - began >= self.patience.whole {
            return Step::Exit(signal, "too long a time after the signal");
        }
        Step::Nothing
    }
}

/// CPU time of this process without that of the thread that asks, and of the child that it may wait for.
fn others_cpu_time() -> Duration {
    let own = clock_gettime(ClockId::ThreadCPUTime);
    let own = Duration::new(
        u64::try_from(own.tv_sec).unwrap_or_default(),
        u32::try_from(own.tv_nsec).unwrap_or_default(),
    );
    process_cpu_time().saturating_sub(own) + symbolize::time_of_children()
}

/// Ends the process without waiting for any thread.
fn exit(signal: Caught, why: &str) -> ! {
    let words = format!("profiler: ended by {why}; what was not written yet is lost\n");
    let (said, heard) = sync_channel(1);
    let say = move || {
        let _ = io::stderr().write_all(words.as_bytes());
        let _ = said.send(());
    };
    if std::thread::Builder::new().spawn(say).is_ok() {
        let _ = heard.recv_timeout(WORDS);
    }
    // SAFETY: always callable; what other threads do ends with them.
    unsafe { libc::_exit(signal.status()) }
}

/// Ends the process as if nobody had waited for the signal.
fn die_of(signal: Caught) -> ! {
    change_mask(libc::SIG_UNBLOCK, &set_of(&[signal]));
    // SAFETY: always callable; nobody has set a handler before there is an orderly end.
    unsafe { libc::raise(signal.number()) };
    // SAFETY: as above.
    unsafe { libc::_exit(signal.status()) }
}

fn set_of(signals: &[Caught]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: the set is written to, whatever was in it.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: it has just been made.
    let mut set = unsafe { set.assume_init() };
    for signal in signals {
        // SAFETY: a set and a signal that there is.
        unsafe { libc::sigaddset(&raw mut set, signal.number()) };
    }
    set
}

/// Of this thread; gives what was blocked before.
fn change_mask(how: libc::c_int, set: &libc::sigset_t) -> libc::sigset_t {
    let mut before = set_of(&[]);
    // SAFETY: both sets live until it comes back.
    unsafe { libc::pthread_sigmask(how, set, &raw mut before) };
    before
}

/// Waits for one of a set, for so long at most.
fn wait(set: &libc::sigset_t, longest: Option<Duration>) -> Option<Caught> {
    let longest = longest.map(|longest| libc::timespec {
        tv_sec: 0,
        tv_nsec: longest.subsec_nanos().into(),
    });
    let longest = longest
        .as_ref()
        .map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the set and the time live until it comes back; nothing is said of who has sent it.
    let number = unsafe { libc::sigtimedwait(set, std::ptr::null_mut(), longest) };
    let is_it = |signal: &Caught| signal.number() == number;
    Caught::ALL.into_iter().find(is_it)
}

/// Lets others see in `/proc` that the signal has an orderly end from now on. Every thread blocks it, so that the
/// handler never runs.
fn show_as_caught(signal: Caught) {
    extern "C" fn nothing(_signal: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: the handler does nothing, which any thread may do at any time.
    unsafe { libc::signal(signal.number(), handler as libc::sighandler_t) };
}

#[cfg(test)]
mod tests {
    use super::{Caught, Course, Duration, Instant, Now, Patience, Step};

    fn course(patience: Patience) -> (Course, impl Fn(u64, u64) -> Now) {
        let start = Instant::now();
        let now = move |ms, used_ms| Now {
            at: start + Duration::from_millis(ms),
            used: Duration::from_millis(used_ms),
            is_written: false,
        };
        (Course::new(patience), now)
    }

    /// The first signal asks for an orderly end; the second one, whichever it is, ends the process under its number.
    #[test]
    fn second_signal_ends_at_once() {
        let (mut course, now) = course(Patience::RECORDING);
        assert_eq!(course.look(now(0, 0)), Step::Nothing);
        let first = course.caught(Caught::Interrupt, now(0, 0));
        assert_eq!(first, Step::End(Caught::Interrupt));
        let Step::Exit(signal, _) = course.caught(Caught::Terminate, now(1, 0)) else {
            panic!("it goes on");
        };
        assert_eq!(signal.status(), 143);
        assert_eq!(Caught::Interrupt.status(), 130);
    }

    /// After the first signal a time without progress ends the process; progress begins that time again, up to a
    /// time that nothing prolongs.
    #[test]
    fn only_standstill_counts() {
        let (mut course, now) = course(Patience::RECORDING);
        course.caught(Caught::Interrupt, now(0, 0));
        assert_eq!(course.look(now(29_900, 0)), Step::Nothing);
        assert_eq!(course.look(now(29_901, 1)), Step::Nothing);
        assert_eq!(course.look(now(59_900, 1)), Step::Nothing);
        let stalled = course.look(now(59_901, 1));
        assert!(matches!(stalled, Step::Exit(Caught::Interrupt, _)));
        for second in 60..600 {
            assert_eq!(course.look(now(second * 1000, second)), Step::Nothing);
        }
        assert!(matches!(course.look(now(600_000, 600)), Step::Exit(..)));
    }

    /// Once everything is written the recorded command may take any time; a second signal still ends the process.
    #[test]
    fn command_may_take_its_time() {
        let (mut course, now) = course(Patience::RECORDING);
        course.caught(Caught::Terminate, now(0, 0));
        let later = Now {
            is_written: true,
            ..now(3_600_000, 0)
        };
        assert_eq!(course.look(later), Step::Nothing);
        let second = course.caught(Caught::Terminate, later);
        assert!(matches!(second, Step::Exit(..)));
    }

    /// The daemon ends within five seconds even where it is busy; SIGHUP is no signal to end.
    #[test]
    fn daemon_ends_within_five_seconds() {
        let (mut course, now) = course(Patience::DAEMON);
        for _ in 0..3 {
            assert_eq!(course.caught(Caught::Hangup, now(0, 0)), Step::Reload);
        }
        assert_eq!(course.look(now(3_600_000, 0)), Step::Nothing);
        course.caught(Caught::Terminate, now(0, 0));
        assert_eq!(course.caught(Caught::Hangup, now(1, 0)), Step::Reload);
        for ms in 1..45 {
            assert_eq!(course.look(now(ms * 100, ms * 100)), Step::Nothing);
        }
        let step = course.look(now(4500, 4500));
        assert!(matches!(step, Step::Exit(Caught::Terminate, _)));
    }
}
