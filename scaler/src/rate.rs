//! Limits on how many backends come or go within a period.

use std::collections::VecDeque;
use std::time::Duration;

/// At most so many backends, or such a share of them, within a period.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Backends per period.
    pub backends: Option<u32>,
    /// Share of the backends there were at the start of the period: 0.5 is half of them.
    pub share: Option<f64>,
    /// The period.
    pub per: Duration,
    /// Which of the two binds when both are given.
    pub select: Select,
}

/// Which of several limits binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// The one that allows the greater change.
    Max,
    /// The one that allows the smaller change.
    Min,
    /// None: nothing changes in this direction.
    Disabled,
}

impl Rate {
    /// How many may move within a period that began with `start` backends. A share is
    /// rounded up, as Kubernetes does: it always allows one.
    fn allowed(&self, start: u32) -> u32 {
        let by_share = self.share.map(|share| (f64::from(start) * share - 1e-9).ceil() as u32);
        match (self.backends, by_share, self.select) {
            (_, _, Select::Disabled) => 0,
            (Some(a), Some(b), Select::Max) => a.max(b),
            (Some(a), Some(b), Select::Min) => a.min(b),
            (Some(only), None, _) | (None, Some(only), _) => only,
            (None, None, _) => u32::MAX,
        }
    }
}

/// The moves of one direction within the last period.
#[derive(Debug, Clone, Default)]
pub(crate) struct Moves {
    done: VecDeque<(Duration, u32)>,
}

impl Moves {
    /// Moves are kept apart down to this part of a period; nearer ones are counted as
    /// one, at the time of the first of them.
    const PARTS: u32 = 100;

    /// How many more may go, of `from` backends.
    pub(crate) fn room_to_shrink(&self, rate: &Rate, from: u32, now: Duration) -> u32 {
        let done = self.within(rate.per, now);
        rate.allowed(from.saturating_add(done)).saturating_sub(done)
    }

    /// How many more may come, to `from` backends.
    pub(crate) fn room_to_grow(&self, rate: &Rate, from: u32, now: Duration) -> u32 {
        let done = self.within(rate.per, now);
        rate.allowed(from.saturating_sub(done)).saturating_sub(done)
    }

    /// Takes note of a move.
    pub(crate) fn note(&mut self, by: u32, rate: &Rate, now: Duration) {
        while self.done.front().is_some_and(|(at, _)| now.saturating_sub(*at) >= rate.per) {
            self.done.pop_front();
        }
        match self.done.back_mut() {
            Some((at, sum)) if now.saturating_sub(*at) < rate.per / Self::PARTS => {
                *sum = sum.saturating_add(by);
            }
            _ => self.done.push_back((now, by)),
        }
    }

    /// Takes back the newest of the moves that did not come about.
    pub(crate) fn give_back(&mut self, mut count: u32) {
        while let Some((_, done)) = self.done.back_mut().filter(|_| count > 0) {
            let back = count.min(*done);
            (*done, count) = (*done - back, count - back);
            if *done == 0 {
                self.done.pop_back();
            }
        }
    }

    fn within(&self, per: Duration, now: Duration) -> u32 {
        let recent = self.done.iter().filter(|(at, _)| now.saturating_sub(*at) < per);
        recent.fold(0, |sum, (_, by)| sum.saturating_add(*by))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    fn rate(backends: Option<u32>, share: Option<f64>, select: Select) -> Rate {
        Rate { backends, share, per: s(10), select }
    }

    #[test]
    fn the_selected_limit_binds() {
        assert_eq!(rate(Some(4), Some(0.1), Select::Max).allowed(80), 8);
        assert_eq!(rate(Some(4), Some(0.1), Select::Min).allowed(80), 4);
        assert_eq!(rate(Some(4), None, Select::Min).allowed(80), 4);
        assert_eq!(rate(None, Some(0.1), Select::Max).allowed(72), 8);
        assert_eq!(rate(None, Some(0.1), Select::Max).allowed(10), 1);
        assert_eq!(rate(None, None, Select::Max).allowed(10), u32::MAX);
        assert_eq!(rate(Some(4), None, Select::Disabled).allowed(10), 0);
    }

    #[test]
    fn moves_use_up_the_room_until_the_period_is_over() {
        let rate = rate(None, Some(0.5), Select::Max);
        let mut moves = Moves::default();
        assert_eq!(moves.room_to_shrink(&rate, 8, s(0)), 4);
        moves.note(3, &rate, s(0));
        assert_eq!(moves.room_to_shrink(&rate, 5, s(5)), 1);
        moves.note(1, &rate, s(5));
        assert_eq!(moves.room_to_shrink(&rate, 4, s(9)), 0);
        assert_eq!(moves.room_to_shrink(&rate, 4, s(10)), 2);
    }

    #[test]
    fn growth_is_measured_from_the_start_of_the_period() {
        let rate = rate(None, Some(1.0), Select::Max);
        let mut moves = Moves::default();
        assert_eq!(moves.room_to_grow(&rate, 2, s(0)), 2);
        moves.note(2, &rate, s(0));
        assert_eq!(moves.room_to_grow(&rate, 4, s(1)), 0);
        assert_eq!(moves.room_to_grow(&rate, 4, s(10)), 4);
    }

    #[test]
    fn memory_is_bounded() {
        let rate = rate(Some(1), None, Select::Max);
        let mut moves = Moves::default();
        for step in 0..100_000 {
            moves.note(1, &rate, Duration::from_millis(step));
        }
        assert!(moves.done.len() <= 101);
        assert_eq!(moves.within(rate.per, Duration::from_millis(99_999)), 10_000);
    }
}
