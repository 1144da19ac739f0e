//! What the signals ask for, before any limit: how many to grow to, how many to keep.
//!
//! Growing looks at a short window, shrinking at the stable one, and both leave a gap
//! of the policy's tolerance between them: a load that only jitters by the tolerance
//! around its mean never makes the tier shrink and then grow again.

mod guards;
mod steps;

use std::time::Duration;

use crate::goal::{Goal, Goals, Source};
use crate::history::History;
use crate::policy::{Policy, WhenMissing};
use crate::pool::PoolView;
use crate::reason::{Driver, HoldReason, Way};
use crate::signal::{Measure, Signal};

/// In a panic the newest part of its window counts on its own: after a leap the mean of
/// the whole window still holds the time before, and every second counts.
const NEWEST_PART: u32 = 4;

/// What the signals ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    /// The number the load wants by the short window.
    pub(crate) up: Driver,
    /// What to grow to, if the load is beyond tolerance.
    pub(crate) grow: Option<Driver>,
    /// What must be kept at least.
    pub(crate) keep: Driver,
    /// Whether the load is over the panic threshold.
    pub(crate) over_threshold: bool,
    /// Backends that the signals that count load ask for, whatever there is; `None` while none
    /// of them can tell. Steps and guards go from what there is, so they have no part in it.
    pub(crate) demand: Option<u32>,
    /// A signal of the policy without a fresh value.
    pub(crate) missing: Option<Signal>,
    /// How long all signals have been seen without a gap.
    pub(crate) seen: Duration,
}

/// What the wish is made from.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) goals: &'a Goals,
    pub(crate) history: &'a History,
    pub(crate) pool: &'a PoolView,
    pub(crate) now: Duration,
    /// Whether a panic is on.
    pub(crate) panicking: bool,
    /// Time since the tier grew and its clones were ready; `None` while some are on their way.
    pub(crate) grown_for: Option<Duration>,
    /// Time since it grew or shrank, or another number was ready; `None` while clones are on
    /// their way.
    pub(crate) changed_for: Option<Duration>,
}

impl Inputs<'_> {
    fn mean(&self, source: &Source, window: Duration) -> Option<f64> {
        self.goals.mean(source, self.history, window, self.now)
    }

    /// Whether a mean over backends, and over a window, was taken over those there are now.
    fn is_of_these(&self, source: &Source, window: Duration) -> bool {
        let age = self.goals.age(source, self.history, self.now);
        self.changed_for.is_some_and(|changed| changed >= window && age.is_some_and(|age| changed > age))
    }

    fn is_fresh(&self, source: &Source) -> bool {
        self.goals.is_fresh(source, self.history, self.now)
    }
}

impl Wish {
    /// Asks all signals of the policy.
    pub(crate) fn of(inputs: Inputs<'_>) -> Result<Self, HoldReason> {
        let mut wish: Option<Self> = None;
        let mut missing = None;
        let mut youngest: Option<Duration> = None;
        let loads = inputs.goals.all.iter().filter(|goal| goal.measure != Measure::Guard);
        for goal in loads {
            match Self::of_load(inputs, goal) {
                Some(asked) => wish = Some(wish.map_or(asked, |wish| wish.or(asked))),
                None => {
                    missing = Some(goal.signal);
                    let age = inputs.goals.age(&goal.source, inputs.history, inputs.now);
                    youngest = youngest.into_iter().chain(age).min();
                }
            }
        }
        for asked in steps::wishes(inputs) {
            wish = Some(wish.map_or(asked, |wish| wish.or(asked)));
        }
        let limit = inputs.policy.stale_after;
        let mut wish = wish.ok_or(match youngest {
            Some(age) => HoldReason::Stale { age, limit },
            None => HoldReason::NoSamplesYet,
        })?;
        wish.missing = missing.filter(|_| inputs.policy.when_missing == WhenMissing::Keep);
        Ok(guards::add(wish, inputs))
    }

    /// What a signal that counts load asks for; `None` if it is not fresh or no number.
    fn of_load(inputs: Inputs<'_>, goal: &Goal) -> Option<Self> {
        let Inputs { policy, pool, .. } = inputs;
        if !inputs.is_fresh(&goal.source) {
            return None;
        }
        // A mean over backends stands for that times the backends it was taken over.
        let over = if goal.measure == Measure::PerBackend { f64::from(pool.ready) } else { 1.0 };
        let asks = |value: f64| goal.activation.is_none_or(|above| value > above);
        let mean = |window| inputs.mean(&goal.source, window).map(|value| value * over);
        let driver = |window: Duration, value: f64, share_of_target: f64| {
            let wants = if asks(value / over) { ceil(value / (goal.target * share_of_target)) } else { 0 };
            Driver { signal: goal.signal, value, window, target: goal.target, wants, way: Way::Target }
        };
        let short = mean(policy.panic_window)?;
        let threshold = policy.panic_threshold * goal.target * f64::from(pool.ready.max(1));
        let over_threshold = short >= threshold && asks(short / over);
        let panicking = over_threshold || inputs.panicking;
        let windows = [
            panicking.then_some(policy.panic_window),
            over_threshold.then_some(policy.panic_window / NEWEST_PART),
            Some(policy.scale_up.window),
        ];
        let ups = windows.into_iter().flatten().filter_map(|window| Some(driver(window, mean(window)?, 1.0)));
        let up = capped(ups.reduce(greater)?, policy, pool);
        let capacity = goal.target * f64::from(pool.capacity());
        let beyond = up.value > capacity * (1.0 + policy.tolerance_up()) || over_threshold;
        let grow = Some(up).filter(|up| beyond && up.wants > pool.capacity());
        let keep = driver(policy.stable_window, mean(policy.stable_window)?, 1.0 - policy.tolerance_down());
        // What a tier of any size would have grown to, and no more than it would ask for.
        let demand = driver(policy.scale_up.window, up.value, 1.0 + policy.tolerance_up()).wants;
        let wish = Self {
            up,
            grow,
            keep,
            over_threshold,
            demand: Some(demand.min(up.wants)),
            missing: None,
            seen: inputs.goals.seen_for(&goal.source, inputs.history, inputs.now),
        };
        Some(if goal.measure == Measure::PerBackend { wish.of_backends(inputs, goal) } else { wish })
    }

    /// The wish of a mean over backends: what was taken over others than those there are now
    /// is no ground for a change, or one reading would be multiplied again and again.
    fn of_backends(self, inputs: Inputs<'_>, goal: &Goal) -> Self {
        let Inputs { policy, pool, .. } = inputs;
        let settling = |driver: Driver| Driver { wants: pool.capacity(), way: Way::Settling, ..driver };
        let mut wish = self;
        if !inputs.is_of_these(&goal.source, policy.scale_up.window.max(policy.panic_window)) {
            (wish.up, wish.grow, wish.demand) = (settling(wish.up), None, None);
        }
        if !inputs.is_of_these(&goal.source, policy.stable_window) {
            wish.keep = greater(settling(wish.keep), wish.keep);
        }
        wish
    }

    /// The wishes of two signals: the greater one wins in every respect.
    fn or(self, other: Self) -> Self {
        Self {
            up: greater(self.up, other.up),
            grow: match (self.grow, other.grow) {
                (Some(a), Some(b)) => Some(greater(a, b)),
                (one, none) => one.or(none),
            },
            keep: greater(self.keep, other.keep),
            over_threshold: self.over_threshold || other.over_threshold,
            demand: self.demand.max(other.demand),
            missing: None,
            seen: self.seen.min(other.seen),
        }
    }
}

/// While no backend is ready, what waits may be the backlog of minutes: no more is asked
/// for than the policy's cap.
fn capped(driver: Driver, policy: &Policy, pool: &PoolView) -> Driver {
    if pool.ready > 0 || driver.wants <= policy.from_zero_cap {
        return driver;
    }
    Driver { wants: policy.from_zero_cap, way: Way::FromZero, ..driver }
}

/// The driver that wants more; the first one if they agree.
fn greater(a: Driver, b: Driver) -> Driver {
    if b.wants > a.wants { b } else { a }
}

/// The next whole number, but not because of the last bits of a division.
fn ceil(value: f64) -> u32 {
    // A float that is too large becomes the largest number.
    (value - 1e-9).ceil().max(0.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_division_that_misses_by_a_bit_adds_no_backend() {
        assert_eq!(ceil(0.3 / 0.1), 3);
        assert_eq!(ceil(3.0 + 1e-6), 4);
        assert_eq!(ceil(0.0), 0);
        assert_eq!(ceil(1e30), u32::MAX);
        assert_eq!(ceil(f64::NAN), 0);
    }
}
