//! Looks up addresses in sorted ranges. Pure.

/// Whether one of these sorted ranges, which do not overlap, holds a number.
pub(crate) fn holds(ranges: &[(u64, u64)], number: u64) -> bool {
    let after = ranges.partition_point(|&(start, _)| start <= number);
    after > 0 && number < ranges[after - 1].1
}

#[cfg(test)]
mod tests {
    use super::holds;

    /// Ranges are half-open, and between two is nothing.
    #[test]
    fn ranges_hold_their_numbers() {
        let ranges = [(10, 20), (30, 40)];
        let held = [9, 10, 19, 20, 30, 39, 40].map(|number| holds(&ranges, number));
        assert_eq!(held, [false, true, true, false, true, true, false]);
        assert!(!holds(&[], 1));
    }
}
