//! The highest value of the last while: what a tier wanted at its busiest.

use std::collections::VecDeque;
use std::time::Duration;

/// Rolling maximum. Keeps only values that may still become the highest, so it holds
/// at most as many as there are distinct values (the maximum number of backends).
#[derive(Debug, Clone)]
pub(crate) struct RollingMax {
    window: Duration,
    /// Times rise, values fall.
    falling: VecDeque<(Duration, u32)>,
}

impl RollingMax {
    pub(crate) fn new(window: Duration) -> Self {
        Self { window, falling: VecDeque::new() }
    }

    /// Looks at another window from now on.
    pub(crate) fn set_window(&mut self, window: Duration) {
        self.window = window;
    }

    /// Whether no value was ever added.
    pub(crate) fn is_empty(&self) -> bool {
        self.falling.is_empty()
    }

    /// Adds a value and returns the highest of the window that ends now.
    pub(crate) fn push(&mut self, value: u32, now: Duration) -> u32 {
        while self.falling.back().is_some_and(|(_, last)| *last <= value) {
            self.falling.pop_back();
        }
        self.falling.push_back((now, value));
        while self.falling.front().is_some_and(|(at, _)| now.saturating_sub(*at) > self.window) {
            self.falling.pop_front();
        }
        self.falling.front().map_or(value, |(_, highest)| *highest)
    }
}

/// Rolling minimum, in the same way.
#[derive(Debug, Clone)]
pub(crate) struct RollingMin(RollingMax);

impl RollingMin {
    pub(crate) fn new(window: Duration) -> Self {
        Self(RollingMax::new(window))
    }

    /// Adds a value and returns the lowest of the window that ends now.
    pub(crate) fn push(&mut self, value: u32, now: Duration) -> u32 {
        u32::MAX - self.0.push(u32::MAX - value, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_value_counts_until_it_leaves_the_window() {
        let s = Duration::from_secs;
        let mut rolling = RollingMax::new(s(30));
        assert_eq!(rolling.push(8, s(0)), 8);
        assert_eq!(rolling.push(3, s(10)), 8);
        assert_eq!(rolling.push(2, s(30)), 8);
        assert_eq!(rolling.push(2, s(31)), 3);
        assert_eq!(rolling.push(2, s(41)), 2);
        assert_eq!(rolling.push(9, s(41)), 9);
    }

    #[test]
    fn the_lowest_value_counts_until_it_leaves_the_window() {
        let s = Duration::from_secs;
        let mut rolling = RollingMin::new(s(5));
        let seen: Vec<u32> =
            [(3, 0), (8, 2), (9, 5), (9, 6), (9, 8)].map(|(value, at)| rolling.push(value, s(at))).to_vec();
        assert_eq!(seen, [3, 3, 3, 8, 9]);
    }

    #[test]
    fn memory_is_bounded_by_the_number_of_values() {
        let mut rolling = RollingMax::new(Duration::from_secs(3600));
        for step in 0..100_000_u32 {
            rolling.push(step.wrapping_mul(7919) % 16, Duration::from_millis(step.into()));
        }
        assert!(rolling.falling.len() <= 16);
    }
}
