//! How quickly a client takes what waits for it.
//!
//! Looked at now and then, and only while something waits: a client that has taken all there was is
//! never slow. What counts is what the client has taken, not what the kernel has: its buffer for one
//! connection may hold megabytes.

use std::time::{Duration, Instant};

/// What the last looks have seen.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Pace {
    /// Since when something has waited without a break, and what was taken then.
    window: Option<(Instant, u64)>,
    /// What was taken at the last look.
    taken: u64,
}

/// What a look has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Look {
    /// Whether anything was taken since the last one.
    pub(super) moved: bool,
    /// Whether less was taken, over a whole window, than it must be.
    pub(super) too_slow: bool,
}

impl Pace {
    /// Looks: whether something `waits`, and how many bytes were taken so far. `rate` is in bytes a
    /// second, over `window`.
    pub(super) fn look(
        &mut self,
        now: Instant,
        waits: bool,
        taken: u64,
        rate: u64,
        window: Duration,
    ) -> Look {
        let moved = taken > self.taken;
        self.taken = taken;
        let mut too_slow = false;
        self.window = match self.window {
            _ if !waits => None,
            None => Some((now, taken)),
            Some((since, from)) => {
                let time = now.saturating_duration_since(since);
                if time < window {
                    Some((since, from))
                } else {
                    too_slow = (taken.saturating_sub(from) as f64) < rate as f64 * time.as_secs_f64();
                    Some((now, taken))
                }
            }
        };
        Look { moved, too_slow }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    /// Looks once a second at a client that takes so much in each; says when it was too slow.
    fn slow_at(per_second: u64, waits: impl Fn(u64) -> bool) -> Option<u64> {
        let (mut pace, start) = (Pace::default(), Instant::now());
        (0..60).find(|second| {
            let now = start + Duration::from_secs(*second);
            pace.look(now, waits(*second), per_second * second, 100, WINDOW).too_slow
        })
    }

    #[test]
    fn a_client_below_the_rate_is_found_after_one_window_and_one_at_the_rate_is_not() {
        assert_eq!(slow_at(99, |_| true), Some(10));
        assert_eq!(slow_at(100, |_| true), None);
        assert_eq!(slow_at(0, |_| true), Some(10));
    }

    #[test]
    fn a_client_that_waits_for_us_in_between_is_not_slow() {
        assert_eq!(slow_at(1, |second| second % 10 != 9), None);
    }

    #[test]
    fn progress_is_seen_from_look_to_look() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert!(!pace.look(now, true, 0, 1, WINDOW).moved);
        assert!(pace.look(now, true, 1, 1, WINDOW).moved);
        assert!(!pace.look(now, true, 1, 1, WINDOW).moved);
    }
}
