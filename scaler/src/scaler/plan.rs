//! From what the load wants to what the policy's rules leave of it.

use std::time::Duration;

use super::Scaler;
use super::bounds::Bounds;
use crate::policy::Direction;
use crate::pool::PoolView;
use crate::rate::Select;
use crate::reason::{Bound, Driver, HoldReason, Reason};
use crate::wish::{Inputs, Wish};

/// Where to go, and why.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) to: u32,
    cause: Cause,
    bound: Option<Bound>,
}

#[derive(Debug, Clone, Copy)]
enum Cause {
    Load(Driver),
    Panic(Driver),
    OutOfBounds(Bound),
    Hold(HoldReason),
}

impl Plan {
    fn hold(to: u32, reason: HoldReason) -> Self {
        Self { to, cause: Cause::Hold(reason), bound: None }
    }

    /// The plan, or the way back to the bounds if the tier is beyond them: these hold
    /// whatever the load is, and whether or not it is known.
    fn within(self, bounds: &Bounds, from: u32) -> Self {
        let missed = if from < bounds.min && self.to <= bounds.min {
            bounds.min_by
        } else if from > bounds.max && self.to >= bounds.max {
            bounds.max_by
        } else {
            let to = self.to.clamp(bounds.min, bounds.max);
            let met = if to > self.to { Some(bounds.min_by) } else { Some(bounds.max_by) };
            let bound = if to == self.to { self.bound } else { met };
            return Self { to, bound, ..self };
        };
        let to = from.clamp(bounds.min, bounds.max);
        Self { to, cause: Cause::OutOfBounds(missed), bound: None }
    }

    /// Why it is done, given the last limit it met.
    pub(super) fn reason(&self, bound: Option<Bound>) -> Reason {
        let bound = bound.or(self.bound);
        match self.cause {
            Cause::Load(driver) => Reason::Load { driver, bound },
            Cause::Panic(driver) => Reason::Panic { driver, bound },
            Cause::OutOfBounds(missed) => Reason::OutOfBounds { missed, bound },
            Cause::Hold(hold) => Reason::Hold(hold),
        }
    }

    /// Why nothing is done, given the limit that left no room.
    pub(super) fn held(&self, bound: Option<Bound>) -> HoldReason {
        match (self.cause, bound.or(self.bound)) {
            (Cause::Hold(hold), _) => hold,
            (Cause::Load(driver) | Cause::Panic(driver), Some(bound)) => {
                HoldReason::Limited { driver, bound }
            }
            (Cause::Load(driver) | Cause::Panic(driver), None) => HoldReason::Enough(driver),
            (Cause::OutOfBounds(missed), bound) => {
                HoldReason::OutOfBounds { missed, bound: bound.unwrap_or(missed) }
            }
        }
    }
}

impl Scaler {
    /// What the load wants and the rules of the policy allow, and the bounds that hold.
    pub(super) fn plan(&mut self, pool: &PoolView, now: Duration) -> (Plan, Bounds) {
        let asked = Wish::of(self.inputs(pool, now));
        let blind_since = self.seen_at.get_or_insert(now);
        if asked.is_ok() {
            *blind_since = now;
        }
        let blind = asked.is_err().then(|| now.saturating_sub(*blind_since));
        let bounds = self.bounds(blind, now);
        let plan = match asked {
            Ok(wish) => self.by_load(&wish, &bounds, pool.capacity(), now),
            Err(hold) => Plan::hold(pool.capacity(), hold),
        };
        (plan.within(&bounds, pool.capacity()), bounds)
    }

    fn inputs<'a>(&'a self, pool: &'a PoolView, now: Duration) -> Inputs<'a> {
        let since = |at: Option<Duration>| at.map_or(Duration::MAX, |at| now.saturating_sub(at));
        let arrived = pool.starting == 0;
        Inputs {
            policy: &self.policy,
            goals: &self.goals,
            history: &self.history,
            pool,
            now,
            panicking: self.panic.left(self.policy.stable_window, now).is_some(),
            grown_for: arrived.then(|| since(self.last_growth).min(self.same_ready_for(now))),
            changed_for: arrived
                .then(|| since(self.last_growth.max(self.last_shrink)).min(self.same_ready_for(now))),
        }
    }

    /// For how long as many were ready as now; for ever if no change was seen.
    fn same_ready_for(&self, now: Duration) -> Duration {
        let since = self.ready.and_then(|(_, since)| since);
        since.map_or(Duration::MAX, |since| now.saturating_sub(since))
    }

    fn by_load(&mut self, wish: &Wish, bounds: &Bounds, from: u32, now: Duration) -> Plan {
        self.panic.update(wish.over_threshold, self.policy.stable_window, now);
        if self.wanted.is_empty() {
            // After a restart what is there was wanted by someone: forget it no sooner
            // than anything else.
            self.wanted.push(from.clamp(bounds.min, bounds.max), now);
        }
        // Keeping has the tolerance on top, but that alone never made a tier grow.
        let kept = wish.keep.wants.min(from);
        let wanted = wish.grow.map_or(kept, |grow| grow.wants.max(kept));
        let highest = self.wanted.push(wanted.clamp(bounds.min, bounds.max), now);
        let lowest = self.wanted_all_along.push(wish.grow.map_or(from, |grow| grow.wants), now);
        let unix = self.unix(now);
        if let (Some(record), Some(unix), Some(demand)) = (&mut self.record, unix, wish.demand) {
            record.note(demand.min(self.policy.max), unix);
        }
        match wish.grow {
            Some(driver) => self.grow(driver, lowest, bounds, from, now),
            None if wish.keep.wants < from => self.shrink(wish, highest, bounds, from, now),
            None if wish.up.wants == from => Plan::hold(from, HoldReason::Enough(wish.up)),
            None => Plan::hold(from, HoldReason::WithinTolerance(wish.up)),
        }
    }

    fn grow(&self, driver: Driver, lowest: u32, bounds: &Bounds, from: u32, now: Duration) -> Plan {
        let (policy, rules) = (&self.policy, &self.policy.scale_up);
        let panicking = self.panic.left(policy.stable_window, now).is_some();
        let cause = if panicking { Cause::Panic(driver) } else { Cause::Load(driver) };
        let stay = |bound: Bound| Plan { to: from, cause, bound: Some(bound) };
        let direction = Direction::Up;
        if !rules.enabled || rules.rate.is_some_and(|rate| rate.select == Select::Disabled) {
            return stay(Bound::Disabled { direction });
        }
        // A panic waits for nothing.
        if let Some(left) = self.cooling(rules.cool_down, now).filter(|_| !panicking) {
            return stay(Bound::CoolDown { direction, left });
        }
        let (mut to, mut bound) = (driver.wants, None);
        if to > bounds.max {
            (to, bound) = (bounds.max, Some(bounds.max_by));
        }
        if to > lowest && !panicking {
            (to, bound) =
                (lowest.max(from), Some(Bound::StabilisedUp { lowest, window: rules.stabilisation }));
        }
        if let Some(rate) = &rules.rate {
            let room = self.came.room_to_grow(rate, from, now);
            if to > from.saturating_add(room) {
                (to, bound) = (from + room, Some(Bound::Rate { direction, room, per: rate.per }));
            }
        }
        Plan { to: to.max(from.min(bounds.max)), cause, bound }
    }

    fn shrink(&self, wish: &Wish, highest: u32, bounds: &Bounds, from: u32, now: Duration) -> Plan {
        let (rules, driver, direction) = (&self.policy.scale_down, wish.keep, Direction::Down);
        if let Some(hold) = self.too_early_to_shrink(wish, now) {
            return Plan::hold(from, hold);
        }
        let (mut to, mut bound) = (driver.wants, None);
        if to < bounds.min {
            (to, bound) = (bounds.min, Some(bounds.min_by));
        }
        if to < highest {
            let window = rules.stabilisation;
            (to, bound) = (highest.min(from), Some(Bound::Stabilised { highest, window }));
        }
        if let Some(rate) = &rules.rate {
            let room = self.went.room_to_shrink(rate, from, now);
            if to < from.saturating_sub(room) {
                (to, bound) = (from - room, Some(Bound::Rate { direction, room, per: rate.per }));
            }
        }
        if let Some(left) = self.cooling(rules.cool_down, now).filter(|_| to < from) {
            (to, bound) = (from, Some(Bound::CoolDown { direction, left }));
        }
        if !rules.enabled || rules.rate.is_some_and(|rate| rate.select == Select::Disabled) {
            (to, bound) = (from, Some(Bound::Disabled { direction }));
        }
        Plan { to, cause: Cause::Load(driver), bound }
    }

    /// How much of a time after the last change is left.
    fn cooling(&self, time: Duration, now: Duration) -> Option<Duration> {
        let last = self.last_growth.max(self.last_shrink)?;
        let left = last.saturating_add(time).saturating_sub(now);
        (!left.is_zero()).then_some(left)
    }

    /// What speaks against shrinking at all now.
    fn too_early_to_shrink(&self, wish: &Wish, now: Duration) -> Option<HoldReason> {
        let driver = wish.keep;
        let needed = self.policy.stable_window;
        if let Some(missing) = wish.missing {
            return Some(HoldReason::SignalMissing { driver, missing });
        }
        if let Some(left) = self.panic.left(needed, now) {
            return Some(HoldReason::Panicking { driver, left });
        }
        (wish.seen < needed).then_some(HoldReason::FirstWindow { driver, seen: wish.seen, needed })
    }
}
