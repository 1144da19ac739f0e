//! Guards: signals of how well a tier does. Over their target they add backends, near it
//! they keep them; they never shrink a tier. Missing ones say nothing: a tier without
//! requests has no latency.

use super::{Inputs, Wish, ceil, greater};
use crate::goal::Goal;
use crate::reason::{Driver, Way};
use crate::sample::LATENCY_WINDOW;
use crate::signal::Measure;

/// A guard far over its target at most doubles the tier at a time: latency does not
/// fall in proportion, and a slow dependency would drive the tier to its maximum.
const MOST_GROWTH: f64 = 2.0;

/// The wish with what the guards ask for.
pub(super) fn add(wish: Wish, inputs: Inputs<'_>) -> Wish {
    let guards = inputs.goals.all.iter().filter(|goal| goal.measure == Measure::Guard);
    guards.fold(wish, |wish, goal| with(wish, inputs, goal))
}

fn with(mut wish: Wish, inputs: Inputs<'_>, goal: &Goal) -> Wish {
    let Inputs { policy, pool, .. } = inputs;
    let window = policy.scale_up.window;
    let value = inputs.mean(&goal.source, window).filter(|_| inputs.is_fresh(&goal.source));
    let asks = |value: &f64| goal.activation.is_none_or(|above| *value > above);
    let Some(value) = value.filter(asks) else { return wish };
    let over = value > goal.target * (1.0 + policy.tolerance_up());
    let near = value > goal.target * (1.0 - policy.tolerance_down());
    let scaled = ceil(f64::from(pool.ready) * (value / goal.target).min(MOST_GROWTH));
    // It must be able to answer to the last growth first: what was slow before it is told
    // for as long as latencies are looked back at, and then leaves the mean.
    let settling = policy.stable_window.max(LATENCY_WINDOW + window);
    let settled = inputs.grown_for.is_some_and(|time| time > settling);
    let wants = if over && settled { scaled.max(pool.capacity()) } else { pool.capacity() };
    let way = if over && !settled { Way::Settling } else { Way::Guard };
    let driver = Driver { signal: goal.signal, value, window, target: goal.target, wants, way };
    if over {
        wish.up = greater(wish.up, driver);
    }
    if over && wants > pool.capacity() {
        wish.grow = Some(wish.grow.map_or(driver, |grow| greater(grow, driver)));
    }
    if near {
        wish.keep = greater(wish.keep, driver);
    }
    wish
}
