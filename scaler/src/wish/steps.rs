//! Steps: beyond a threshold, so many more or fewer; then they wait for the effect.

use std::time::Duration;

use super::{Inputs, Wish, greater};
use crate::goal::StepOf;
use crate::reason::{Driver, Way};
use crate::signal::Measure;
use crate::step::{Step, Threshold};

/// What the steps ask for, one wish for each signal that has a value.
pub(super) fn wishes(inputs: Inputs<'_>) -> impl Iterator<Item = Wish> + '_ {
    let steps = &inputs.goals.steps;
    let is_first =
        move |index: usize| !steps[..index].iter().any(|of| of.step.signal == steps[index].step.signal);
    let firsts = (0..steps.len()).filter(move |index| is_first(*index));
    firsts.filter_map(move |index| of_signal(inputs, &steps[index]))
}

fn of_signal(inputs: Inputs<'_>, first: &StepOf) -> Option<Wish> {
    let Inputs { policy, pool, goals, .. } = inputs;
    let (signal, source) = (first.step.signal, &first.source);
    if !inputs.is_fresh(source) {
        return None;
    }
    // What counts for the whole tier counts for each ready backend here.
    let over = if first.measure == Measure::Total { f64::from(pool.ready.max(1)) } else { 1.0 };
    let mean = |window: Duration| inputs.mean(source, window).map(|value| value / over);
    let (short, stable) = (mean(policy.scale_up.window)?, mean(policy.stable_window)?);
    let capacity = pool.capacity();
    let settled = |time: Duration| inputs.changed_for.is_some_and(|since| since >= time);
    let driver = |value: f64, window: Duration, target: f64, wants: u32, way: Way| Driver {
        signal,
        value,
        window,
        target,
        wants,
        way,
    };
    let steps = goals.steps.iter().map(|of| of.step).filter(|step| step.signal == signal);
    let above = |step: &Step| matches!(step.when, Threshold::Above(_)) && step.when.is_met(short);
    let add = steps.clone().filter(above).map(|step| (step.change.of(capacity), step)).max_by_key(|it| it.0);
    let up = add.map(|(by, step)| {
        let wants = if settled(policy.scale_up.window) { capacity.saturating_add(by) } else { capacity };
        driver(short, policy.scale_up.window, step.when.value(), wants, Way::StepUp { by })
    });
    let below = |step: &Step| matches!(step.when, Threshold::Below(_)) && step.when.is_met(stable);
    let remove = steps.filter(below).map(|step| (step.change.of(capacity), step)).max_by_key(|it| it.0);
    let down = remove.filter(|_| up.is_none() && settled(policy.stable_window)).map(|(by, step)| {
        let wants = capacity.saturating_sub(by);
        driver(stable, policy.stable_window, step.when.value(), wants, Way::StepDown { by })
    });
    let stay = driver(short, policy.scale_up.window, short, capacity, Way::BetweenSteps);
    let up = up.unwrap_or(stay);
    Some(Wish {
        up,
        grow: Some(up).filter(|up| up.wants > capacity),
        keep: down.map_or(greater(stay, up), |down| down),
        over_threshold: false,
        demand: None,
        missing: None,
        seen: goals.seen_for(source, inputs.history, inputs.now),
    })
}
