//! What the signals ask for, before any limit: how many to grow to, how many to keep.
//!
//! Growing looks at a short window, shrinking at the stable one, and both leave a gap
//! of the policy's tolerance between them: a load that only jitters by the tolerance
//! around its mean never makes the tier shrink and then grow again.

use std::time::Duration;

use crate::history::History;
use crate::policy::Policy;
use crate::pool::PoolView;
use crate::reason::{Driver, HoldReason};
use crate::signal::Signal;

/// A latency far over its target at most doubles the tier at a time: latency does not
/// fall in proportion, and a slow dependency would drive the tier to its maximum.
const LATENCY_GROWTH: f64 = 2.0;

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
    /// A signal of the policy without a fresh value.
    pub(crate) missing: Option<Signal>,
    /// How long all signals have been seen without a gap.
    pub(crate) seen: Duration,
}

/// What the wish is made from.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) history: &'a History,
    pub(crate) pool: &'a PoolView,
    pub(crate) now: Duration,
    /// Whether a panic is on.
    pub(crate) panicking: bool,
    /// Whether latency can have answered to the last growth.
    pub(crate) settled: bool,
}

impl Wish {
    /// Asks all signals of the policy.
    pub(crate) fn of(inputs: Inputs<'_>) -> Result<Self, HoldReason> {
        let targets = &inputs.policy.targets;
        let loads = [
            (Signal::Concurrency, targets.concurrency),
            (Signal::RequestsPerSecond, targets.requests_per_second),
        ];
        let mut wish: Option<Self> = None;
        let mut missing = None;
        let mut youngest: Option<Duration> = None;
        for (signal, target) in loads.into_iter().filter_map(|(signal, target)| Some((signal, target?))) {
            let age = inputs.history.age(signal, inputs.now);
            if age.is_some_and(|age| age <= inputs.policy.stale_after) {
                let asked = Self::of_load(inputs, signal, target);
                wish = Some(wish.map_or(asked, |wish| wish.or(asked)));
            } else {
                missing = Some(signal);
                youngest = youngest.into_iter().chain(age).min();
            }
        }
        let limit = inputs.policy.stale_after;
        let mut wish = wish.ok_or(match youngest {
            Some(age) => HoldReason::Stale { age, limit },
            None => HoldReason::NoSamplesYet,
        })?;
        wish.missing = missing;
        Ok(wish.with_latency(inputs))
    }

    fn of_load(inputs: Inputs<'_>, signal: Signal, target: f64) -> Self {
        let Inputs { policy, pool, .. } = inputs;
        let mean = |window| inputs.history.mean(signal, window, inputs.now).unwrap_or(0.0);
        let driver = |window: Duration, value: f64, share_of_target: f64| {
            let wants = ceil(value / (target * share_of_target));
            Driver { signal, value, window, target, wants }
        };
        let short = mean(policy.panic_window);
        let over_threshold = short >= policy.panic_threshold * target * f64::from(pool.ready.max(1));
        let growing = mean(policy.scale_up.window);
        let up = if (over_threshold || inputs.panicking) && short > growing {
            driver(policy.panic_window, short, 1.0)
        } else {
            driver(policy.scale_up.window, growing, 1.0)
        };
        let capacity = target * f64::from(pool.capacity());
        let beyond = up.value > capacity * (1.0 + policy.tolerance) || over_threshold;
        Self {
            up,
            grow: Some(up).filter(|up| beyond && up.wants > pool.capacity()),
            keep: driver(policy.stable_window, mean(policy.stable_window), 1.0 - policy.tolerance),
            over_threshold,
            missing: None,
            seen: inputs.history.seen_for(signal, inputs.now),
        }
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
            missing: None,
            seen: self.seen.min(other.seen),
        }
    }

    /// Latency only adds: it grows the tier when over its target, and keeps it while near.
    /// Missing latency says nothing; a tier without requests has none.
    fn with_latency(self, inputs: Inputs<'_>) -> Self {
        let Inputs { policy, history, pool, now, .. } = inputs;
        let signal = Signal::P95Latency;
        let fresh = history.age(signal, now).is_some_and(|age| age <= policy.stale_after);
        let Some(target) = policy.targets.p95_latency.map(|target| target.as_secs_f64()).filter(|_| fresh)
        else {
            return self;
        };
        let window = policy.scale_up.window;
        let value = history.mean(signal, window, now).unwrap_or(0.0);
        let over = value > target * (1.0 + policy.tolerance);
        let near = value > target * (1.0 - policy.tolerance);
        let scaled = ceil(f64::from(pool.ready) * (value / target).min(LATENCY_GROWTH));
        let wants = if over && inputs.settled { scaled.max(pool.capacity()) } else { pool.capacity() };
        let driver = Driver { signal, value, window, target, wants };
        let mut wish = self;
        if over && wants > pool.capacity() {
            wish.up = greater(wish.up, driver);
            wish.grow = Some(wish.grow.map_or(driver, |grow| greater(grow, driver)));
        }
        if near {
            wish.keep = greater(wish.keep, driver);
        }
        wish
    }
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
