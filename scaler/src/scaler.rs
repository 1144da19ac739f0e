//! The scaler of one tier: owns the history, turns samples into decisions.
//!
//!   observe(sample, now)   as often as there are samples
//!   decide(pool, now)      as often as is liked; carry out what it says
//!   granted(asked, granted, now)   after every growth that was tried
//!
//! It acts on nothing itself. The same calls give the same decisions.

mod plan;

use std::time::Duration;

use crate::clock::Clock;
use crate::decision::{Action, Decision};
use crate::history::History;
use crate::panic::Panic;
use crate::policy::Policy;
use crate::pool::PoolView;
use crate::rate::Moves;
use crate::reason::{Bound, Reason};
use crate::rolling::RollingMax;
use crate::signal::{Observed, Reading, Sample, Signal};
use crate::yaml::Complaints;

use plan::Plan;

/// The scaler of one tier. Its memory is bounded by the policy.
#[derive(Debug, Clone)]
pub struct Scaler {
    policy: Policy,
    clock: Clock,
    history: History,
    panic: Panic,
    /// What was wanted of late.
    wanted: RollingMax,
    came: Moves,
    went: Moves,
    last_growth: Option<Duration>,
    ask_again_at: Option<Duration>,
}

impl Scaler {
    /// A scaler that has seen nothing yet.
    ///
    /// # Errors
    /// All complaints about the policy.
    pub fn new(policy: Policy) -> Result<Self, Complaints> {
        let complaints = policy.complaints();
        if !complaints.is_empty() {
            return Err(complaints.into());
        }
        let short = policy.panic_window.min(policy.scale_up.window);
        Ok(Self {
            clock: Clock::default(),
            history: History::new(short, policy.stable_window, policy.stale_after),
            panic: Panic::default(),
            wanted: RollingMax::new(policy.scale_down.stabilisation),
            came: Moves::default(),
            went: Moves::default(),
            last_growth: None,
            ask_again_at: None,
            policy,
        })
    }

    /// The policy it follows.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// How long a panic lasts yet as of the last decision, if one is on and the load stays low.
    pub fn panicking_for(&self) -> Option<Duration> {
        self.panic.left(self.policy.stable_window, self.clock.latest())
    }

    /// What each signal of the policy says as of the last call.
    pub fn readings(&self) -> Vec<Reading> {
        let now = self.clock.latest();
        let reading = |(signal, target): (Signal, f64)| Reading {
            signal,
            target,
            value: self.history.mean(signal, self.policy.scale_up.window, now),
            stable: self.history.mean(signal, self.policy.stable_window, now),
            age: self.history.age(signal, now),
        };
        self.policy.targets.all().map(reading).collect()
    }

    /// Takes in a sample; `now` is the time since the caller's start.
    pub fn observe(&mut self, sample: &Sample, now: Duration) -> Observed {
        let now = self.clock.at(now);
        let (taken, refused) = sample.split(self.policy.drain_queue_within);
        for (signal, value) in taken {
            self.history.put(signal, value, now);
        }
        Observed { refused }
    }

    /// Takes note of how many clones the engine granted of those asked for. After a
    /// refusal it waits for the policy's `retry_refused_after` before it asks again.
    pub fn granted(&mut self, asked: u32, granted: u32, now: Duration) {
        let now = self.clock.at(now);
        self.ask_again_at = (granted < asked).then(|| now.saturating_add(self.policy.retry_refused_after));
    }

    /// Decides. The pool has to show what earlier decisions set off, see [`PoolView`].
    pub fn decide(&mut self, pool: &PoolView, now: Duration) -> Decision {
        let at = now;
        let now = self.clock.at(now);
        let from = pool.capacity();
        let plan = self.plan(pool, now).within(&self.policy, from);
        let (to, by, bound) = self.limit(&plan, pool, now);
        let decision = |action, reason| Decision { at, from, to, action, reason };
        if by == 0 {
            return decision(Action::Hold, Reason::Hold(plan.held(bound)));
        }
        if to > from {
            self.last_growth = Some(now);
            self.policy.scale_up.rate.iter().for_each(|rate| self.came.note(by, rate, now));
            decision(Action::Grow { by }, plan.reason(bound))
        } else {
            self.policy.scale_down.rate.iter().for_each(|rate| self.went.note(by, rate, now));
            decision(Action::Shrink { by }, plan.reason(bound))
        }
    }

    /// What of a plan can be done at once: where to, by how many, and what limits it.
    fn limit(&self, plan: &Plan, pool: &PoolView, now: Duration) -> (u32, u32, Option<Bound>) {
        let (from, to) = (pool.capacity(), plan.to);
        if to > from {
            let wanted = to - from;
            if let Some(left) = self.refused_for(now) {
                return (to, 0, Some(Bound::Refused { left }));
            }
            let room = self.policy.surge.saturating_sub(pool.starting);
            let surge = Bound::Surge { starting: pool.starting, surge: self.policy.surge };
            return (to, wanted.min(room), (wanted > room).then_some(surge));
        }
        let wanted = from - to;
        let room = pool.ready.saturating_sub(self.policy.min);
        let few = Bound::FewReady { ready: pool.ready };
        (to, wanted.min(room), (wanted > room).then_some(few))
    }

    /// How long it will not ask for clones yet.
    fn refused_for(&self, now: Duration) -> Option<Duration> {
        self.ask_again_at.map(|at| at.saturating_sub(now)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod tests;
