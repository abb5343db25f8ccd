//! What became of the tests, summed up at the end.

use std::{fmt, time::Duration};

/// As many of the slowest tests are named.
const SLOWEST: usize = 20;

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: u64,
    pub(super) failed: u64,
    pub(super) skipped: u64,
}

impl Counts {
    /// Reads the last line of a program with tests, and the lines of tests that say why they are
    /// skipped. `None` where the program did not come to its last line.
    pub(super) fn read(talk: &str) -> Option<Self> {
        let last = talk
            .lines()
            .rev()
            .find_map(|line| line.strip_prefix("test result: "))?;
        let number = |what: &str| {
            let part = last.split("; ").find_map(|part| part.strip_suffix(what))?;
            part.rsplit(' ').next()?.parse::<u64>().ok()
        };
        let skipped = skips(talk).count() as u64;
        Some(Self {
            passed: number(" passed")?.saturating_sub(skipped),
            failed: number(" failed")?,
            skipped: number(" ignored")? + skipped,
        })
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// Lines by which tests that pass say that they have shown nothing.
pub(super) fn skips(talk: &str) -> impl Iterator<Item = &str> {
    talk.lines().filter(|line| line.starts_with("skipped: "))
}

/// Everything that the end tells.
#[derive(Default)]
pub(super) struct Tally {
    counts: Counts,
    times: Vec<(Duration, String)>,
    failed: Vec<String>,
    flaky: Vec<String>,
}

impl Tally {
    /// Takes what a test or a program with tests came to.
    pub(super) fn take(&mut self, name: &str, counts: Counts, time: Duration) {
        self.counts.add(counts);
        self.times.push((time, name.to_owned()));
        if counts.failed > 0 {
            self.failed.push(name.to_owned());
        }
    }

    /// Takes a test that failed and then passed.
    pub(super) fn take_flaky(&mut self, name: &str, counts: Counts, time: Duration) {
        self.take(name, counts, time);
        self.flaky.push(name.to_owned());
    }

    /// Whether something failed.
    pub(super) fn has_failed(&self) -> bool {
        self.counts.failed > 0
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut times: Vec<_> = self.times.iter().collect();
        times.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        writeln!(f, "\nthe slowest:")?;
        for (time, name) in times.into_iter().take(SLOWEST) {
            writeln!(f, "{:6.1} s  {name}", time.as_secs_f64())?;
        }
        for name in &self.flaky {
            writeln!(f, "flaky: {name}")?;
        }
        for name in &self.failed {
            writeln!(f, "failed: {name}")?;
        }
        let Counts {
            passed,
            failed,
            skipped,
        } = self.counts;
        write!(f, "{passed} passed, {failed} failed")?;
        if skipped > 0 {
            write!(f, ", {skipped} skipped")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Counts, Tally};

    /// A program's own sums are read, and tests that say that they are skipped have not passed.
    #[test]
    fn sums_are_read() {
        let talk = "running 5 tests\nskipped: no go\ntest result: FAILED. 3 passed; 1 failed; 1 ignored; 0 measured; 7 \
                    filtered out; finished in 0.02s\n";
        let counts = Counts {
            passed: 2,
            failed: 1,
            skipped: 2,
        };
        assert_eq!(Counts::read(talk), Some(counts));
        assert_eq!(Counts::read("running 5 tests\n"), None, "it was killed");
    }

    /// The last line sums all up, and what failed or was flaky is named above.
    #[test]
    fn the_end_tells_all() {
        let mut tally = Tally::default();
        let of = |passed, failed| Counts {
            passed,
            failed,
            skipped: 0,
        };
        let second = Duration::from_secs(1);
        tally.take("quick", of(40, 0), second);
        tally.take("slow", of(1, 0), 3 * second);
        tally.take_flaky("shy", of(1, 0), 2 * second);
        assert!(!tally.has_failed());
        tally.take("bad", of(0, 1), second);
        let text = tally.to_string();
        let lines: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(lines[0], "   3.0 s  slow");
        assert_eq!(
            lines[4..],
            ["flaky: shy", "failed: bad", "42 passed, 1 failed"]
        );
        assert!(tally.has_failed());
    }
}
