//! What follows from signals, from the first one to the end of the process. Pure.

use std::time::{Duration, Instant};

use super::set::Caught;

/// CPU time of the other threads that counts as progress.
const MOVED: Duration = Duration::from_millis(1);

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
    /// A large recording takes long to name and write. A pipe that nobody reads is no progress.
    pub(crate) const RECORDING: Self = Self {
        stalled: Duration::from_secs(30),
        whole: Duration::from_secs(600),
        reloads: false,
    };
    /// The daemon ends within five seconds, whatever hangs.
    pub(crate) const DAEMON: Self = Self {
        stalled: Duration::from_millis(4500),
        whole: Duration::from_millis(4500),
        reloads: true,
    };
}

/// What is known at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) at: Instant,
    /// CPU time of all other threads so far.
    pub(super) used: Duration,
    /// Only the recorded command is waited for.
    pub(super) is_written: bool,
}

/// What follows from a signal or a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    Reload,
    End(Caught),
    /// With the reason in words.
    Exit(Caught, &'static str),
}

/// From the first signal to the end.
#[derive(Debug)]
pub(super) struct Course {
    patience: Patience,
    first: Option<(Caught, Instant)>,
    /// When progress was last seen, and the CPU time by then.
    moved: Option<(Instant, Duration)>,
}

impl Course {
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            patience,
            first: None,
            moved: None,
        }
    }

    /// Whether the first signal has come.
    pub(super) fn has_begun(&self) -> bool {
        self.first.is_some()
    }

    pub(super) fn caught(&mut self, signal: Caught, now: Now) -> Step {
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

    pub(super) fn look(&mut self, now: Now) -> Step {
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

    /// The first signal asks for an orderly end. The second one ends the process under its number.
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

    /// After the first signal a time without progress ends the process. Progress begins that time
    /// again, up to a limit that nothing prolongs.
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

    /// Once everything is written the recorded command may take any time. A second signal still
    /// ends the process.
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
