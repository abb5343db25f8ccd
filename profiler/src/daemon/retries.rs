//! When what has failed is started again, and whether it is told again. Pure.

use std::time::Duration;

/// First pause before it is started again; doubled each time.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// What has run for so long has recovered.
const RECOVERY: Duration = Duration::from_secs(60);

/// Failures in a row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Retries {
    failures: u32,
    why: Option<String>,
}

/// What is to be done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retry {
    /// Failures in a row by now.
    pub(crate) failures: u32,
    /// When it is started again.
    pub(crate) pause: Duration,
    /// Why was not told yet.
    pub(crate) is_news: bool,
}

impl Retries {
    /// It failed once more.
    pub(crate) fn failed(&mut self, why: String) -> Retry {
        let doublings = self.failures.min(16);
        self.failures = self.failures.saturating_add(1);
        let is_news = self.why.as_ref() != Some(&why);
        self.why = Some(why);
        Retry {
            failures: self.failures,
            pause: (PAUSE_MIN * 2_u32.pow(doublings)).min(PAUSE_MAX),
            is_news,
        }
    }

    /// It ran for so long before it failed.
    pub(crate) fn ran(&mut self, time: Duration) {
        if time > RECOVERY {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PAUSE_MAX, RECOVERY, Retries};

    /// The pause doubles up to five minutes; a reason is told once, and again after another one.
    #[test]
    fn same_failure_is_told_once() {
        let mut retries = Retries::default();
        let told: Vec<(u64, bool)> = ["a", "a", "b", "b", "a", "a", "a", "a", "a", "a", "a"]
            .map(|why| retries.failed(why.to_owned()))
            .map(|retry| (retry.pause.as_secs(), retry.is_news))
            .to_vec();
        let pauses: Vec<u64> = told.iter().map(|(pause, _)| *pause).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        let news: Vec<usize> = (0..told.len()).filter(|&index| told[index].1).collect();
        assert_eq!(news, [0, 2, 4]);
        for _ in 0..100 {
            assert_eq!(retries.failed("a".to_owned()).pause, PAUSE_MAX);
        }
    }

    /// What has run for some time begins with a short pause again, and its reason is news.
    #[test]
    fn recovery_is_a_new_beginning() {
        let mut retries = Retries::default();
        let first = retries.failed("a".to_owned());
        retries.ran(RECOVERY);
        let second = retries.failed("a".to_owned());
        assert!(second.pause > first.pause && !second.is_news);
        retries.ran(RECOVERY * 2);
        assert_eq!(retries.failed("a".to_owned()), first);
    }
}
