//! The scaler of one tier: owns the history, turns samples into decisions.
//!
//!   observe(sample, now)   as often as there are samples
//!   decide(pool, now)      as often as is liked; carry out what it says
//!   granted(asked, granted, now)   after every growth that was tried
//!
//! It acts on nothing itself. The same calls give the same decisions.

mod bounds;
mod plan;

use std::time::Duration;

use crate::clock::Clock;
use crate::decision::{Action, Decision};
use crate::forecast::Record;
use crate::goal::{Goal, Goals};
use crate::history::History;
use crate::name::Name;
use crate::panic::Panic;
use crate::policy::{Mode, Policy};
use crate::pool::PoolView;
use crate::rate::Moves;
use crate::reason::{Bound, HoldReason, Reason};
use crate::rolling::{RollingMax, RollingMin};
use crate::sample::{Observed, Refused, Sample, believable};
use crate::schedule::Calendar;
use crate::signal::{Reading, Signal};
use crate::yaml::Complaints;

use bounds::{Bounds, Manual};
use plan::Plan;

/// The scaler of one tier. Its memory is bounded by the policy.
#[derive(Debug, Clone)]
pub struct Scaler {
    policy: Policy,
    goals: Goals,
    clock: Clock,
    /// A time of the clock, and the time since 1970 at that moment.
    wall: Option<(Duration, Duration)>,
    history: History,
    panic: Panic,
    /// Most that was wanted of late.
    wanted: RollingMax,
    /// Fewest that growing wanted of late.
    wanted_all_along: RollingMin,
    came: Moves,
    went: Moves,
    last_growth: Option<Duration>,
    last_shrink: Option<Duration>,
    /// Backends that were ready at the last decision, and since when it is so many if that
    /// was seen.
    ready: Option<(u32, Option<Duration>)>,
    ask_again_at: Option<Duration>,
    /// When a signal was last fresh.
    seen_at: Option<Duration>,
    /// Seconds that a request takes, as last measured.
    usual_service: Option<f64>,
    manual: Option<Manual>,
    calendar: Calendar,
    record: Option<Record>,
    /// The bounds of the last decision.
    held_to: (u32, u32),
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
        let goals = Goals::of(&policy);
        Ok(Self {
            clock: Clock::default(),
            wall: None,
            history: History::new(&goals.gaps(), short, policy.stable_window),
            goals,
            panic: Panic::default(),
            wanted: RollingMax::new(policy.scale_down.stabilisation),
            wanted_all_along: RollingMin::new(policy.scale_up.stabilisation),
            came: Moves::default(),
            went: Moves::default(),
            last_growth: None,
            last_shrink: None,
            ready: None,
            ask_again_at: None,
            seen_at: None,
            usual_service: None,
            manual: None,
            calendar: Calendar::default(),
            record: policy.predict.as_ref().map(Record::new),
            held_to: (policy.min, policy.max),
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

    /// The signals with a target.
    pub(crate) fn goals(&self) -> &[Goal] {
        &self.goals.all
    }

    /// Fewest and most backends as of the last decision: the policy's, raised by a
    /// schedule or a forecast, or a number asked for by hand.
    pub fn held_to(&self) -> (u32, u32) {
        self.held_to
    }

    /// Backends that were wanted at this time before, as far ahead as the policy looks;
    /// `None` without a forecast or a record that reaches so far.
    pub fn forecast(&self) -> Option<u32> {
        self.forecast_at(self.clock.latest())
    }

    /// What is remembered of former days, to be kept; see [`Scaler::remember`].
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// Takes up what an earlier scaler remembered. Says whether it fits the policy.
    pub fn remember(&mut self, record: Record) -> bool {
        let fits = self.policy.predict.is_some_and(|predict| record.fits(&predict));
        if fits {
            self.record = Some(record);
        }
        fits
    }

    /// What each signal of the policy says as of the last call.
    pub fn readings(&self) -> Vec<Reading> {
        let now = self.clock.latest();
        let reading = |goal: &Goal| Reading {
            signal: goal.signal,
            target: goal.target,
            value: self.goals.mean(&goal.source, &self.history, self.policy.scale_up.window, now),
            stable: self.goals.mean(&goal.source, &self.history, self.policy.stable_window, now),
            age: self.goals.age(&goal.source, &self.history, now),
        };
        self.goals.all.iter().map(reading).collect()
    }

    /// Tells the time since 1970, for schedules and forecasts; as often as is liked.
    pub fn set_wall_clock(&mut self, unix: Duration, now: Duration) {
        self.wall = Some((self.clock.at(now), unix));
    }

    /// Holds the tier at so many backends (within `min` and `max`), for a time or until
    /// [`Scaler::resume`].
    pub fn hold_at(&mut self, backends: u32, time: Option<Duration>, now: Duration) {
        let now = self.clock.at(now);
        self.manual = Some(Manual { backends, until: time.map(|time| now.saturating_add(time)) });
    }

    /// Lets the policy decide again.
    pub fn resume(&mut self) {
        self.manual = None;
    }

    /// Acts, recommends, or pauses from now on.
    pub fn set_mode(&mut self, mode: Mode) {
        self.policy.mode = mode;
    }

    /// Takes in a sample; `now` is the time since the caller's start.
    pub fn observe(&mut self, sample: &Sample, now: Duration) -> Observed {
        let now = self.clock.at(now);
        if let Some(service) = sample.service_time() {
            self.usual_service = Some(service);
        }
        let (taken, refused) = sample.split(self.policy.drain_queue_within, self.usual_service);
        for (signal, value) in taken {
            if let Some(line) = self.goals.line_of(signal) {
                self.history.put(line, value, now);
            }
        }
        Observed { refused }
    }

    /// Takes in a value of a signal that the policy defines; others are left out.
    ///
    /// # Errors
    /// The value is no measurement.
    pub fn observe_own(&mut self, name: Name, value: f64, now: Duration) -> Result<(), Refused> {
        let (now, signal) = (self.clock.at(now), Signal::Custom(name));
        if !believable(value) {
            return Err(Refused { signal, value });
        }
        if let Some(line) = self.goals.line_of(signal) {
            self.history.put(line, value, now);
        }
        Ok(())
    }

    /// Takes note of how many clones the engine granted of those asked for. After a
    /// refusal it waits for the policy's `retry_refused_after` before it asks again.
    pub fn granted(&mut self, asked: u32, granted: u32, now: Duration) {
        let now = self.clock.at(now);
        self.ask_again_at = (granted < asked).then(|| now.saturating_add(self.policy.retry_refused_after));
    }

    /// Decides. The pool has to show what earlier decisions set off, see [`PoolView`].
    pub fn decide(&mut self, pool: &PoolView, now: Duration) -> Decision {
        let (at, from) = (now, pool.capacity());
        let now = self.clock.at(now);
        let decision = |to, action, reason| Decision { at, from, to, action, reason };
        if self.policy.mode == Mode::Paused {
            return decision(from, Action::Hold, Reason::Hold(HoldReason::Paused));
        }
        self.count_ready(pool.ready, now);
        let (plan, bounds) = self.plan(pool, now);
        self.held_to = (bounds.min, bounds.max);
        let (to, by, bound) = self.limit(&plan, &bounds, pool, now);
        if by == 0 {
            return decision(to, Action::Hold, Reason::Hold(plan.held(bound)));
        }
        let reason = plan.reason(bound);
        if self.policy.mode == Mode::Recommend {
            return decision(to, Action::Hold, reason.recommended());
        }
        if to > from {
            self.last_growth = Some(now);
            self.policy.scale_up.rate.iter().for_each(|rate| self.came.note(by, rate, now));
            decision(to, Action::Grow { by }, reason)
        } else {
            self.last_shrink = Some(now);
            self.policy.scale_down.rate.iter().for_each(|rate| self.went.note(by, rate, now));
            decision(to, Action::Shrink { by }, reason)
        }
    }

    /// Takes note of how many are ready: means over backends are told from then on.
    fn count_ready(&mut self, ready: u32, now: Duration) {
        self.ready = match self.ready {
            None => Some((ready, None)),
            Some((before, since)) => Some((ready, if before == ready { since } else { Some(now) })),
        };
    }

    /// What of a plan can be done at once: where to, by how many, and what limits it.
    fn limit(
        &self,
        plan: &Plan,
        bounds: &Bounds,
        pool: &PoolView,
        now: Duration,
    ) -> (u32, u32, Option<Bound>) {
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
        let room = pool.ready.saturating_sub(bounds.min);
        let few = Bound::FewReady { ready: pool.ready };
        (to, wanted.min(room), (wanted > room).then_some(few))
    }

    /// How long it will not ask for clones yet.
    fn refused_for(&self, now: Duration) -> Option<Duration> {
        self.ask_again_at.map(|at| at.saturating_sub(now)).filter(|left| !left.is_zero())
    }
}

#[cfg(test)]
mod rule_tests;
#[cfg(test)]
mod tests;
