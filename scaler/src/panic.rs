//! Panic: load so far above capacity that shrinking is out of the question.
//!
//!   calm -- over the threshold --> panicking -- a full stable window not over --> calm

use std::time::Duration;

#[derive(Debug, Clone, Default)]
pub(crate) struct Panic {
    /// While panicking: when the load was last over the threshold.
    last_over: Option<Duration>,
}

impl Panic {
    /// Takes note of whether the load is over the threshold now.
    pub(crate) fn update(&mut self, over: bool, stable_window: Duration, now: Duration) {
        if over {
            self.last_over = Some(now);
        } else if self.left(stable_window, now).is_none() {
            self.last_over = None;
        }
    }

    /// While panicking: how long it will last yet if the load stays low.
    pub(crate) fn left(&self, stable_window: Duration, now: Duration) -> Option<Duration> {
        let left = (self.last_over? + stable_window).saturating_sub(now);
        (!left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_ends_a_full_stable_window_after_the_load_was_last_over() {
        let s = Duration::from_secs;
        let mut panic = Panic::default();
        panic.update(true, s(10), s(0));
        panic.update(true, s(10), s(5));
        panic.update(false, s(10), s(14));
        assert_eq!(panic.left(s(10), s(14)), Some(s(1)));
        panic.update(false, s(10), s(15));
        assert_eq!(panic.left(s(10), s(15)), None);
    }
}
