//! What stands behind a decision and what would change it, for people.

use serde::Serialize;

use crate::decision::Decision;
use crate::goal::{Goal, StepOf};
use crate::policy::Mode;
use crate::pool::PoolView;
use crate::rate::{Rate, Select};
use crate::reason::Bound;
use crate::scaler::Scaler;
use crate::signal::{Measure, Reading, Signal};
use crate::step::Threshold;
use crate::yaml::show_duration;

/// A decision with its inputs and with what would change it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The decision.
    pub decision: Decision,
    /// What every signal said.
    pub inputs: Vec<Reading>,
    /// One sentence for each thing that would lead to another decision.
    pub would_change: Vec<String>,
}

impl Scaler {
    /// Explains the newest decision, made for this pool.
    pub fn explain(&self, decision: &Decision, pool: &PoolView) -> Explanation {
        let mut would_change: Vec<String> = decision.reason.bound().iter().map(lifted).collect();
        match self.policy().mode {
            Mode::Active => {
                would_change.extend(self.grows(pool));
                would_change.extend(self.shrinks(pool));
            }
            // Nothing that a signal says changes anything now.
            Mode::Recommend | Mode::Paused => would_change.push("`flurry scale --mode active`".to_owned()),
        }
        Explanation { decision: *decision, inputs: self.readings(), would_change }
    }

    /// The limits of single signals, each of which makes it grow.
    fn grows(&self, pool: &PoolView) -> Vec<String> {
        let (policy, capacity) = (self.policy(), pool.capacity());
        let enabled = policy.scale_up.enabled && !disabled(policy.scale_up.rate);
        if !enabled || capacity.saturating_add(pool.unready) >= self.held_to().1 {
            return Vec::new();
        }
        let window = show_duration(policy.scale_up.window);
        let says = |signal: Signal, limit: f64| {
            format!("it grows when {signal} averages more than {} over {window}", signal.shown(limit))
        };
        let of_goal = |goal: &Goal| {
            let limit = over(goal, pool, goal.target * (1.0 + policy.tolerance_up()), capacity);
            says(goal.signal, limit.max(goal.activation.unwrap_or(0.0)))
        };
        let of_step = |of: &StepOf| match of.step.when {
            Threshold::Above(above) => Some(says(of.step.signal, above * shared(of.measure, pool))),
            Threshold::Below(_) => None,
        };
        self.goals().all.iter().map(of_goal).chain(self.goals().steps.iter().filter_map(of_step)).collect()
    }

    /// What must come together for it to shrink.
    fn shrinks(&self, pool: &PoolView) -> Option<String> {
        let policy = self.policy();
        let enabled = policy.scale_down.enabled && !disabled(policy.scale_down.rate);
        let fewer = pool.capacity().checked_sub(1).filter(|fewer| enabled && *fewer >= self.held_to().0)?;
        let of_goal = |goal: &Goal| {
            let limit = over(goal, pool, goal.target * (1.0 - policy.tolerance_down()), fewer);
            let limit = limit.max(goal.activation.unwrap_or(0.0));
            let window =
                if goal.measure == Measure::Guard { policy.scale_up.window } else { policy.stable_window };
            format!(
                "{} averages no more than {} over {}",
                goal.signal,
                goal.signal.shown(limit),
                show_duration(window)
            )
        };
        let mut needed: Vec<String> = self.goals().all.iter().map(of_goal).collect();
        for (signal, limit) in self.lowest_steps(pool) {
            // A signal with steps keeps what there is unless one of them removes.
            let limit = signal.shown(limit?);
            needed.push(format!(
                "{signal} averages less than {limit} over {}",
                show_duration(policy.stable_window)
            ));
        }
        needed
            .push(format!("nothing more was wanted for {}", show_duration(policy.scale_down.stabilisation)));
        Some(format!("it shrinks when {}", needed.join(" and ")))
    }

    /// For each signal with steps, below what one of them removes, if one does.
    fn lowest_steps(&self, pool: &PoolView) -> Vec<(Signal, Option<f64>)> {
        let mut signals: Vec<(Signal, Option<f64>)> = Vec::new();
        for of in &self.goals().steps {
            let below = match of.step.when {
                Threshold::Below(below) => Some(below * shared(of.measure, pool)),
                Threshold::Above(_) => None,
            };
            match signals.iter_mut().find(|(signal, _)| *signal == of.step.signal) {
                Some((_, highest)) => {
                    *highest = highest.map_or(below, |one| Some(below.map_or(one, |two| one.max(two))))
                }
                None => signals.push((of.step.signal, below)),
            }
        }
        signals
    }
}

fn disabled(rate: Option<Rate>) -> bool {
    rate.is_some_and(|rate| rate.select == Select::Disabled)
}

/// How many backends share what a step counts for each of them.
fn shared(measure: Measure, pool: &PoolView) -> f64 {
    if measure == Measure::Total { f64::from(pool.ready.max(1)) } else { 1.0 }
}

/// What a signal says when so many backends carry so much each.
fn over(goal: &Goal, pool: &PoolView, each: f64, backends: u32) -> f64 {
    match goal.measure {
        Measure::Guard => each,
        Measure::Total => each * f64::from(backends),
        Measure::PerBackend => each * f64::from(backends) / f64::from(pool.ready.max(1)),
    }
}

/// What lifts a rule that bound.
fn lifted(bound: &Bound) -> String {
    match bound {
        Bound::Min { .. } => "a lower min".to_owned(),
        Bound::Max { .. } => "a higher max".to_owned(),
        Bound::Rate { per, .. } => format!("the end of the period of {}", show_duration(*per)),
        Bound::Surge { .. } => "the arrival of clones on their way, or a greater surge".to_owned(),
        Bound::Refused { .. } => "room on the host: the engine grants no more clones".to_owned(),
        Bound::NotBorn { .. } => "the birth of a clone: the log says why none was born".to_owned(),
        Bound::Unready { .. } => "an answer of those clones, or their end at vm.clone_deadline".to_owned(),
        Bound::Stabilised { window, .. } | Bound::StabilisedUp { window, .. } => {
            format!("{} without that demand", show_duration(*window))
        }
        Bound::CoolDown { .. } => "the end of the cool-down".to_owned(),
        Bound::Scheduled { .. } => "the end of the scheduled time".to_owned(),
        Bound::Forecast { .. } => "another forecast".to_owned(),
        Bound::Fallback { .. } => "a fresh sample of the load".to_owned(),
        Bound::Manual { .. } => "`flurry scale --auto`".to_owned(),
        Bound::FewReady { .. } => "more backends that are ready".to_owned(),
        Bound::Disabled { direction } => format!("switching {direction} on"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::Policy;
    use crate::sample::Sample;

    fn explained(in_flight: f64, ready: u32) -> Explanation {
        let mut policy = Policy::default();
        policy.targets.p95_latency = Some(Duration::from_millis(200));
        let mut scaler = Scaler::new(policy).expect("valid");
        let pool = PoolView { ready, ..PoolView::default() };
        let sample = Sample { in_flight: Some(in_flight), p95_seconds: Some(0.05), ..Sample::default() };
        scaler.observe(&sample, Duration::ZERO);
        let decision = scaler.decide(&pool, Duration::ZERO);
        scaler.explain(&decision, &pool)
    }

    #[test]
    fn the_limits_at_which_it_would_decide_otherwise_are_named() {
        let explanation = explained(8.0, 2);
        assert_eq!(
            explanation.would_change,
            [
                "it grows when concurrency averages more than 8.8 over 2s",
                "it grows when p95 latency averages more than 220 ms over 2s",
                "it shrinks when concurrency averages no more than 3.6 over 10s and p95 latency averages no \
                 more than 180 ms over 2s and nothing more was wanted for 30s",
            ]
        );
        assert_eq!(explanation.inputs.len(), 2);
    }

    #[test]
    fn what_bound_it_comes_first_and_what_cannot_be_is_left_out() {
        let full = explained(100.0, 8);
        assert_eq!(full.would_change[0], "a higher max");
        assert!(full.would_change.iter().all(|line| !line.starts_with("it grows")), "{full:?}");
        let least = explained(1.0, 1);
        assert!(least.would_change.iter().all(|line| !line.starts_with("it shrinks")), "{least:?}");
    }

    fn sentences(change: impl FnOnce(&mut Policy)) -> Vec<String> {
        let mut policy = Policy::default();
        change(&mut policy);
        let mut scaler = Scaler::new(policy).expect("valid");
        let pool = PoolView { ready: 2, ..PoolView::default() };
        scaler.observe(&Sample { in_flight: Some(8.0), ..Sample::default() }, Duration::ZERO);
        let decision = scaler.decide(&pool, Duration::ZERO);
        scaler.explain(&decision, &pool).would_change
    }

    #[test]
    fn nothing_is_said_that_would_not_come_true() {
        assert_eq!(sentences(|policy| policy.mode = Mode::Paused), ["`flurry scale --mode active`"]);
        let only_down = sentences(|policy| policy.scale_up.enabled = false);
        assert!(only_down.iter().all(|line| line.starts_with("it shrinks")), "{only_down:?}");
        let only_up = sentences(|policy| policy.scale_down.enabled = false);
        assert!(only_up.iter().all(|line| line.starts_with("it grows")), "{only_up:?}");
        let quiet = sentences(|policy| policy.activation = vec![(Signal::Concurrency, 20.0)]);
        assert_eq!(quiet[0], "it grows when concurrency averages more than 20 over 2s");
    }

    #[test]
    fn a_tier_with_steps_shrinks_only_if_one_removes() {
        let step = |when| crate::Step { signal: Signal::QueueWait, when, change: crate::Change::Backends(1) };
        let adding = sentences(|policy| policy.steps = vec![step(Threshold::Above(0.2))]);
        assert_eq!(adding[1], "it grows when queue wait averages more than 200 ms over 2s");
        assert_eq!(adding.len(), 2, "{adding:?}");
        let both = [Threshold::Above(0.2), Threshold::Below(0.01)].map(step);
        let both = sentences(|policy| policy.steps = both.to_vec());
        assert!(
            both[2].contains(" and queue wait averages less than 10 ms over 10s and nothing"),
            "{both:?}"
        );
    }
}
