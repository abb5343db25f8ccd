//! Sums of numbers that come from files: a number that is as large as can be stays so, and stops nobody.

use std::time::Duration;

/// Adds a number.
pub(crate) fn add_count(sum: &mut u64, more: u64) {
    *sum = sum.saturating_add(more);
}

/// Adds a time.
pub(crate) fn add_time(sum: &mut Duration, more: Duration) {
    *sum = sum.saturating_add(more);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{add_count, add_time};

    /// What is too much stays the most there is.
    #[test]
    fn sums_end_at_the_most() {
        let (mut sum, mut time) = (u64::MAX - 1, Duration::MAX);
        add_count(&mut sum, 7);
        add_time(&mut time, Duration::MAX);
        assert_eq!((sum, time), (u64::MAX, Duration::MAX));
    }
}
