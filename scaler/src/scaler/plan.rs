//! From what the load wants to what the policy's rules leave of it.

use std::time::Duration;

use super::Scaler;
use crate::policy::{Direction, Policy};
use crate::pool::PoolView;
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

    /// The plan, or the way back to `min` or `max` if the tier is beyond them: these
    /// hold whatever the load is, and whether or not it is known.
    pub(super) fn within(self, policy: &Policy, from: u32) -> Self {
        let missed = if from < policy.min && self.to <= policy.min {
            Bound::Min { min: policy.min }
        } else if from > policy.max && self.to >= policy.max {
            Bound::Max { max: policy.max }
        } else {
            return Self { to: self.to.clamp(policy.min, policy.max), ..self };
        };
        let to = from.clamp(policy.min, policy.max);
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
    /// What the load wants and the rules of the policy allow, but for the bounds.
    pub(super) fn plan(&mut self, pool: &PoolView, now: Duration) -> Plan {
        let from = pool.capacity();
        let policy = &self.policy;
        let stable = policy.stable_window;
        let settled =
            pool.starting == 0 && self.last_growth.is_none_or(|growth| now.saturating_sub(growth) >= stable);
        let panicking = self.panic.left(stable, now).is_some();
        let history = &self.history;
        let wish = match Wish::of(Inputs { policy, history, pool, now, panicking, settled }) {
            Ok(wish) => wish,
            Err(hold) => return Plan::hold(from, hold),
        };
        self.panic.update(wish.over_threshold, stable, now);
        if self.wanted.is_empty() {
            // After a restart what is there was wanted by someone: forget it no sooner
            // than anything else.
            self.wanted.push(from.clamp(policy.min, policy.max), now);
        }
        // Keeping has the tolerance on top, but that alone never made a tier grow.
        let kept = wish.keep.wants.min(from);
        let wanted = wish.grow.map_or(kept, |grow| grow.wants.max(kept));
        let highest = self.wanted.push(wanted.clamp(policy.min, policy.max), now);
        match wish.grow {
            Some(driver) => self.grow(driver, from, now),
            None if wish.keep.wants < from => self.shrink(&wish, highest, from, now),
            None if wish.up.wants == from => Plan::hold(from, HoldReason::Enough(wish.up)),
            None => Plan::hold(from, HoldReason::WithinTolerance(wish.up)),
        }
    }

    fn grow(&self, driver: Driver, from: u32, now: Duration) -> Plan {
        let policy = &self.policy;
        let cause = if self.panic.left(policy.stable_window, now).is_some() {
            Cause::Panic(driver)
        } else {
            Cause::Load(driver)
        };
        if !policy.scale_up.enabled {
            let bound = Bound::Disabled { direction: Direction::Up };
            return Plan { to: from, cause, bound: Some(bound) };
        }
        let (mut to, mut bound) = (driver.wants, None);
        if to > policy.max {
            (to, bound) = (policy.max, Some(Bound::Max { max: policy.max }));
        }
        if let Some(rate) = &policy.scale_up.rate {
            let room = self.came.room_to_grow(rate, from, now);
            if to > from.saturating_add(room) {
                let direction = Direction::Up;
                (to, bound) = (from + room, Some(Bound::Rate { direction, room, per: rate.per }));
            }
        }
        Plan { to: to.max(from.min(policy.max)), cause, bound }
    }

    fn shrink(&self, wish: &Wish, highest: u32, from: u32, now: Duration) -> Plan {
        let policy = &self.policy;
        let driver = wish.keep;
        if let Some(hold) = self.too_early_to_shrink(wish, now) {
            return Plan::hold(from, hold);
        }
        let (mut to, mut bound) = (driver.wants, None);
        if to < policy.min {
            (to, bound) = (policy.min, Some(Bound::Min { min: policy.min }));
        }
        if to < highest {
            let window = policy.scale_down.stabilisation;
            (to, bound) = (highest.min(from), Some(Bound::Stabilised { highest, window }));
        }
        if let Some(rate) = &policy.scale_down.rate {
            let room = self.went.room_to_shrink(rate, from, now);
            if to < from.saturating_sub(room) {
                let direction = Direction::Down;
                (to, bound) = (from - room, Some(Bound::Rate { direction, room, per: rate.per }));
            }
        }
        if !policy.scale_down.enabled {
            (to, bound) = (from, Some(Bound::Disabled { direction: Direction::Down }));
        }
        Plan { to, cause: Cause::Load(driver), bound }
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
