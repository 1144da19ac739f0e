//! Makes a time that never goes back out of the times that a caller gives.

use std::time::Duration;

/// Follows the caller's clock. A step back is taken out: time stands still for that
/// one call and then goes on from where it was, so histories stay in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock {
    given: Duration,
    lead: Duration,
}

impl Clock {
    /// The time to use for a caller's `now`; never less than any returned before.
    pub(crate) fn at(&mut self, now: Duration) -> Duration {
        self.lead = self.lead.saturating_add(self.given.saturating_sub(now));
        self.given = now;
        now.saturating_add(self.lead)
    }

    /// The last time returned.
    pub(crate) fn latest(&self) -> Duration {
        self.given.saturating_add(self.lead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_from_where_it_was_after_a_step_back() {
        let s = Duration::from_secs;
        let mut clock = Clock::default();
        let seen: Vec<_> = [5, 9, 2, 3, 3, 1, 4].map(|now| clock.at(s(now))).to_vec();
        assert_eq!(seen, [5, 9, 9, 10, 10, 10, 13].map(s));
    }

    #[test]
    fn the_end_of_time_is_no_overflow() {
        let mut clock = Clock::default();
        clock.at(Duration::MAX);
        clock.at(Duration::ZERO);
        assert_eq!(clock.at(Duration::MAX), Duration::MAX);
    }
}
