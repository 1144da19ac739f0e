//! Runs one test of a policy on a clock of its own: every 250 ms a sample and a decision,
//! which is carried out; clones are ready after their time.

use std::collections::VecDeque;
use std::time::Duration;

use scaler::simulate::Reversals;
use scaler::yaml::Complaints;
use scaler::{Action, DECIDE_EVERY, Policy, PoolView, Sample, Scaler, Signal};

use super::expectations::{Case, Expectation};

/// What came of a test.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The test's name.
    pub name: String,
    /// What was expected and did not come; empty if it passed.
    pub missed: Vec<Missed>,
}

/// An expectation that was missed.
#[derive(Debug, Clone, PartialEq)]
pub struct Missed {
    /// What was expected, and what there was.
    pub what: String,
    /// The newest decision then.
    pub decision: String,
}

struct Run<'a> {
    scaler: Scaler,
    case: &'a Case,
    pool: PoolView,
    due: VecDeque<(Duration, u32)>,
    reversals: Reversals,
}

/// Runs a test.
///
/// # Errors
/// All complaints about the policy.
pub fn run(policy: &Policy, case: &Case) -> Result<Outcome, Complaints> {
    let pool = PoolView { ready: case.ready, ..PoolView::default() };
    let scaler = Scaler::new(policy.clone())?;
    let mut run = Run { scaler, case, pool, due: VecDeque::new(), reversals: Reversals::default() };
    let mut missed = Vec::new();
    let mut waiting: Vec<&Expectation> = case.expect.iter().collect();
    let (mut now, end, mut said) = (Duration::ZERO, case.length(), String::new());
    while now <= end {
        said = run.tick(now);
        let (due, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|it| it.at < now + DECIDE_EVERY);
        missed.extend(due.into_iter().filter_map(|expected| run.check(expected, &said)));
        waiting = later;
        now += DECIDE_EVERY;
    }
    if let Some(most) = case.reversals.filter(|most| run.reversals.count() > *most) {
        let what =
            format!("at most {most} reversals within five minutes, and there were {}", run.reversals.count());
        missed.push(Missed { what, decision: said });
    }
    Ok(Outcome { name: case.name.clone(), missed })
}

impl Run<'_> {
    /// Lets the tier live up to a moment; returns what was decided.
    fn tick(&mut self, now: Duration) -> String {
        while let Some((_, count)) = self.due.front().copied().filter(|(at, _)| *at <= now) {
            self.due.pop_front();
            (self.pool.ready, self.pool.starting) = (self.pool.ready + count, self.pool.starting - count);
        }
        if let Some(starts) = self.case.starts {
            self.scaler.set_wall_clock(starts + now, now);
        }
        self.observe(now);
        let decision = self.scaler.decide(&self.pool, now);
        match decision.action {
            Action::Grow { by } => {
                self.pool.starting += by;
                self.due.push_back((now + self.case.clone_time, by));
                self.reversals.changed(true, now);
            }
            Action::Shrink { by } => {
                self.pool.ready -= by.min(self.pool.ready - 1);
                self.reversals.changed(false, now);
            }
            Action::Hold => {}
        }
        decision.to_string()
    }

    fn observe(&mut self, now: Duration) {
        let mut from = Duration::ZERO;
        let phase = self.case.load.iter().find(|phase| {
            from += phase.lasts;
            now < from
        });
        let Some(phase) = phase.or(self.case.load.last()) else { return };
        let mut sample = Sample::default();
        for (signal, value) in &phase.signals {
            if let Signal::Custom(name) = signal {
                // Values that cannot be are left out, as they are of a Prometheus.
                let _ = self.scaler.observe_own(*name, *value, now);
            }
            sample.set(*signal, *value);
        }
        self.scaler.observe(&sample, now);
    }

    fn check(&self, expected: &Expectation, said: &str) -> Option<Missed> {
        let size = self.pool.capacity();
        let few = expected.at_least.filter(|least| size < *least).map(|least| format!("at least {least}"));
        let many = expected.at_most.filter(|most| size > *most).map(|most| format!("at most {most}"));
        let because = expected.because.as_ref().filter(|words| !said.contains(words.as_str()));
        let other = because.map(|words| format!("a reason with `{words}`"));
        let wrong: Vec<String> = few.into_iter().chain(many).chain(other).collect();
        if wrong.is_empty() {
            return None;
        }
        let at = scaler::yaml::show_duration(expected.at);
        let what = format!("at {at}: {}, and there were {size}", wrong.join(" and "));
        Some(Missed { what, decision: said.to_owned() })
    }
}
