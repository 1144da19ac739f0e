//! The scaler of one tier: owns the history, turns samples into decisions.
//!
//!   observe(sample, now)   as often as there are samples
//!   decide(pool, now)      as often as is liked; carry out what it says
//!   granted(asked, granted, now)   after every growth that was tried
//!   births(born, failed, now)   when clones answer, and when they never will
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
use crate::sample::{Refused, Sample, believable};
use crate::schedule::Calendar;
use crate::signal::{Reading, Signal};
use crate::yaml::Complaints;

use bounds::{Bounds, Manual};
use plan::Plan;

/// The longest wait after clones that were not born, unless the policy waits longer anyway.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(300);

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
    /// The growth before the last one, which counts again if nothing came of that.
    growth_before: Option<Duration>,
    last_shrink: Option<Duration>,
    /// Backends that were ready at the last decision, and since when it is so many if that
    /// was seen.
    ready: Option<(u32, Option<Duration>)>,
    ask_again_at: Option<Duration>,
    /// Tries in a row of which no clone was born.
    failed_tries: u32,
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
            growth_before: None,
            last_shrink: None,
            ready: None,
            ask_again_at: None,
            failed_tries: 0,
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

    /// Whether any rule of the policy needs a signal.
    pub fn goes_by(&self, signal: Signal) -> bool {
        self.goals.line_of(signal).is_some()
    }

    /// The signals with a target, and the steps.
    pub(crate) fn goals(&self) -> &Goals {
        &self.goals
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

    /// Takes in a sample; `now` is the time since the caller's start. Returns the values
    /// that cannot be; the others are taken.
    pub fn observe(&mut self, sample: &Sample, now: Duration) -> Vec<Refused> {
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
        refused
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
    /// refusal it waits for the policy's `retry_refused_after` before it asks again; what
    /// was not granted uses up no rate, and a growth of nothing starts no cool-down.
    pub fn granted(&mut self, asked: u32, granted: u32, now: Duration) {
        let now = self.clock.at(now);
        self.ask_again_at = (granted < asked).then(|| now.saturating_add(self.policy.retry_refused_after));
        self.came.give_back(asked.saturating_sub(granted));
        if granted == 0 && asked > 0 {
            self.last_growth = self.growth_before;
        }
    }

    /// Takes note of clones that answer for the first time, and of those that were never
    /// born or never answered. After a try that failed it waits before it asks again,
    /// twice as long after each one in a row.
    pub fn births(&mut self, born: u32, failed: u32, now: Duration) {
        let now = self.clock.at(now);
        if born > 0 {
            self.failed_tries = 0;
        }
        if failed == 0 || (self.failed_tries > 0 && self.refused_for(now).is_some()) {
            // Clones of one try fail one by one.
            return;
        }
        let doubled = 1 << self.failed_tries.min(16);
        let wait = self.policy.retry_refused_after.saturating_mul(doubled);
        self.failed_tries = self.failed_tries.saturating_add(1);
        self.ask_again_at =
            Some(now.saturating_add(wait.min(LONGEST_BACK_OFF.max(self.policy.retry_refused_after))));
    }

    /// Takes note of how long clones take to answer. Times of the policy that were not
    /// given follow it, see [`Policy::for_clones_of`].
    pub fn clones_take(&mut self, clone_time: Duration) {
        let policy = self.policy.for_clones_of(clone_time);
        if policy == self.policy {
            return;
        }
        let short = policy.panic_window.min(policy.scale_up.window);
        self.history = self.history.for_windows(short, policy.stable_window);
        self.wanted.set_window(policy.scale_down.stabilisation);
        self.policy = policy;
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
            self.growth_before = self.last_growth.replace(now);
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
                let tries = self.failed_tries;
                let bound = if tries > 0 { Bound::NotBorn { tries, left } } else { Bound::Refused { left } };
                return (to, 0, Some(bound));
            }
            let room = self.policy.surge.saturating_sub(pool.starting);
            let surge = Bound::Surge { starting: pool.starting, surge: self.policy.surge };
            let occupied = from.saturating_add(pool.unready);
            let free = bounds.max.saturating_sub(occupied);
            if wanted > free && free < room {
                return (to, free, Some(Bound::Unready { unready: pool.unready }));
            }
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
