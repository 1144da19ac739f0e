//! What stands behind a decision and what would change it, for people.

use serde::Serialize;

use crate::decision::Decision;
use crate::goal::Goal;
use crate::pool::PoolView;
use crate::reason::Bound;
use crate::scaler::Scaler;
use crate::signal::{Measure, Reading};
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
        for goal in self.goals() {
            would_change.extend(self.grows(goal, pool));
            would_change.extend(self.shrinks(goal, pool));
        }
        Explanation { decision: *decision, inputs: self.readings(), would_change }
    }

    fn grows(&self, goal: &Goal, pool: &PoolView) -> Option<String> {
        let policy = self.policy();
        if pool.capacity() >= self.held_to().1 {
            return None;
        }
        let limit = over(goal, pool, goal.target * (1.0 + policy.tolerance_up()), pool.capacity());
        let (value, window) = (goal.signal.shown(limit), show_duration(policy.scale_up.window));
        Some(format!("it grows when {} averages more than {value} over {window}", goal.signal))
    }

    fn shrinks(&self, goal: &Goal, pool: &PoolView) -> Option<String> {
        let policy = self.policy();
        let fewer = pool.capacity().checked_sub(1).filter(|fewer| *fewer >= self.held_to().0)?;
        if goal.measure == Measure::Guard {
            return None;
        }
        let limit = over(goal, pool, goal.target * (1.0 - policy.tolerance_down()), fewer);
        let (value, window) = (goal.signal.shown(limit), show_duration(policy.stable_window));
        let kept = show_duration(policy.scale_down.stabilisation);
        Some(format!(
            "it shrinks when {} averages no more than {value} over {window} and nothing more was wanted for {kept}",
            goal.signal
        ))
    }
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
                "it grows when concurrency averages more than 8.8 over 4s",
                "it shrinks when concurrency averages no more than 3.6 over 10s and nothing more was wanted for 30s",
                "it grows when p95 latency averages more than 220 ms over 4s",
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
}
