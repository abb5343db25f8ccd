//! The wall clock beside the one that only runs, which tells when it was set: windows say so, and none is deleted for
//! an age that it has only by that.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};

use super::milliseconds;

/// Below, ms, it was not set: it is kept right little by little, and two clocks are never read at once.
const STEP_MIN_MS: i64 = 2000;
/// Steps ahead that are told apart.
const STEPS_MAX: usize = 16;

/// Watches the wall clock.
#[derive(Debug)]
pub(crate) struct Clock {
    last: Reading,
    /// Steps ahead, by time: when it was right after one, and by how much it was set, ms.
    ahead: Vec<(u64, u64)>,
    /// What the next window says.
    later: Option<Step>,
}

/// Both clocks, ms: since the Unix epoch, and since the machine was started, which goes on while it sleeps.
#[derive(Clone, Copy, Debug)]
struct Reading {
    wall_ms: u64,
    running_ms: u64,
}

/// It was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// By so much, ms.
    Ahead(u64),
    /// By so much, ms.
    Back(u64),
}

impl Step {
    /// In words, to the second: what came meanwhile is within what it says.
    pub(crate) fn text(self) -> String {
        let (way, ms) = match self {
            Self::Ahead(ms) => ("ahead", ms),
            Self::Back(ms) => ("back", ms),
        };
        let seconds = Duration::from_millis(ms + 500).as_secs();
        format!("wall clock set {way} by {seconds} s")
    }
}

impl Clock {
    /// From now on.
    pub(crate) fn watch() -> Self {
        Self {
            last: Reading::now(),
            ahead: Vec::new(),
            later: None,
        }
    }

    /// Whether it was set since the last look.
    pub(crate) fn look(&mut self) -> Option<Step> {
        self.take(Reading::now())
    }

    /// Has a window say that it was set meanwhile; of a step back the next window does, as the one in which it happened
    /// lies ahead by then, where nobody looks.
    pub(crate) fn note(&mut self, notes: &mut BTreeMap<String, u64>) {
        let step = self.look();
        self.tell(step, notes);
    }

    fn tell(&mut self, step: Option<Step>, notes: &mut BTreeMap<String, u64>) {
        let (now, later) = match step {
            Some(Step::Back(_)) => (None, step),
            now => (now, None),
        };
        let before = std::mem::replace(&mut self.later, later);
        for step in [before, now].into_iter().flatten() {
            *notes.entry(step.text()).or_default() += 1;
        }
    }

    fn take(&mut self, now: Reading) -> Option<Step> {
        let last = std::mem::replace(&mut self.last, now);
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let wall = signed(now.wall_ms) - signed(last.wall_ms);
        let step_ms = wall - signed(now.running_ms.saturating_sub(last.running_ms));
        if step_ms.abs() < STEP_MIN_MS {
            return None;
        }
        let by_ms = step_ms.unsigned_abs();
        if step_ms > 0 {
            self.set_ahead(now.wall_ms, by_ms);
            return Some(Step::Ahead(by_ms));
        }
        self.set_back(by_ms);
        Some(Step::Back(by_ms))
    }

    fn set_ahead(&mut self, at_ms: u64, by_ms: u64) {
        if self.ahead.len() == STEPS_MAX {
            // Together at the later time: what lies between is kept for too long rather than too short.
            let (_, first_ms) = self.ahead.remove(0);
            self.ahead[0].1 += first_ms;
        }
        self.ahead.push((at_ms, by_ms));
    }

    /// Takes back what it was set ahead by, the last of it first.
    fn set_back(&mut self, mut by_ms: u64) {
        while let Some((_, ahead_ms)) = self.ahead.last_mut()
            && by_ms > 0
        {
            let taken_ms = by_ms.min(*ahead_ms);
            by_ms -= taken_ms;
            *ahead_ms -= taken_ms;
            if *ahead_ms == 0 {
                self.ahead.pop();
            }
        }
    }

    /// When something was by the clock as it is now, that was then by the clock as it was then, ms.
    pub(crate) fn as_now(&self, then_ms: u64) -> u64 {
        let since = self.ahead.iter().filter(|(at_ms, _)| then_ms < *at_ms);
        since.fold(then_ms, |ms, (_, by_ms)| ms.saturating_add(*by_ms))
    }
}

impl Reading {
    fn now() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let running = clock_gettime(ClockId::Boottime);
        // It counts from zero.
        let running = Duration::try_from(running).unwrap_or_default();
        Self {
            wall_ms: milliseconds(wall.unwrap_or_default()),
            running_ms: milliseconds(running),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, Reading, STEPS_MAX, Step};

    const HOUR: u64 = 3_600_000;

    fn clock(wall_ms: u64) -> Clock {
        Clock {
            last: reading(wall_ms, 0),
            ahead: Vec::new(),
            later: None,
        }
    }

    fn reading(wall_ms: u64, running_ms: u64) -> Reading {
        Reading {
            wall_ms,
            running_ms,
        }
    }

    /// What was before a step ahead is as old as before it, what came after is not touched, and a clock that only runs,
    /// or is a little off, has no steps.
    #[test]
    fn a_step_makes_nothing_old() {
        let mut clock = clock(10 * HOUR);
        assert_eq!(clock.take(reading(11 * HOUR + 1500, HOUR)), None);
        assert_eq!(clock.as_now(9 * HOUR), 9 * HOUR);
        let ahead = clock.take(reading(1012 * HOUR + 1500, 2 * HOUR));
        assert_eq!(ahead, Some(Step::Ahead(1000 * HOUR)));
        assert_eq!(clock.as_now(11 * HOUR), 1011 * HOUR);
        assert_eq!(clock.as_now(1013 * HOUR), 1013 * HOUR);
    }

    /// A clock that was set ahead by mistake and is set right again is as if it never was.
    #[test]
    fn a_step_back_takes_a_step_ahead_back() {
        let mut clock = clock(10 * HOUR);
        clock.take(reading(110 * HOUR, 0));
        clock.take(reading(210 * HOUR, 0));
        assert_eq!(clock.as_now(9 * HOUR), 209 * HOUR);
        let back = clock.take(reading(60 * HOUR, 0));
        assert_eq!(back, Some(Step::Back(150 * HOUR)));
        assert_eq!(clock.as_now(9 * HOUR), 59 * HOUR);
        clock.take(reading(0, 0));
        assert_eq!(clock.as_now(9 * HOUR), 9 * HOUR);
    }

    /// However often it is set, the list stays short and nothing gets older.
    #[test]
    fn many_steps_are_bounded() {
        let mut clock = clock(0);
        for hour in 1..100 {
            clock.take(reading(hour * HOUR, 0));
        }
        assert_eq!(clock.ahead.len(), STEPS_MAX);
        assert_eq!(clock.as_now(0), 99 * HOUR);
        assert_eq!(clock.as_now(98 * HOUR), 99 * HOUR);
    }

    /// A step ahead is told by the window in which it happened, a step back by the next, each once.
    #[test]
    fn steps_are_told_where_they_are_seen() {
        let mut clock = clock(0);
        let mut told = |step| {
            let mut notes = super::BTreeMap::new();
            clock.tell(step, &mut notes);
            notes.into_keys().collect::<Vec<_>>().join("; ")
        };
        assert_eq!(
            told(Some(Step::Ahead(HOUR))),
            "wall clock set ahead by 3600 s"
        );
        assert_eq!(told(None), "");
        assert_eq!(told(Some(Step::Back(HOUR))), "");
        assert_eq!(
            told(Some(Step::Ahead(2 * HOUR))),
            "wall clock set ahead by 7200 s; wall clock set back by 3600 s"
        );
        assert_eq!(told(None), "");
    }

    /// A note counts whole seconds, rounded.
    #[test]
    fn a_step_is_told_in_seconds() {
        let text = Step::Back(3_599_600).text();
        assert_eq!(text, "wall clock set back by 3600 s");
    }
}
