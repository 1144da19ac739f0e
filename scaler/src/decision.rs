//! A decision: how many there are, how many there should be, and why.

use std::fmt;
use std::mem::discriminant;
use std::time::Duration;

use serde::ser::{Serialize, SerializeStruct, Serializer};

use crate::reason::{HoldReason, Reason};

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Ask for this many more clones.
    Grow {
        /// Clones to ask for; 1 or more.
        by: u32,
    },
    /// Retire this many; see [`choose_victims`](crate::choose_victims).
    Shrink {
        /// Backends to retire; 1 or more.
        by: u32,
    },
    /// Nothing.
    Hold,
}

/// A decision and its reason. Counts include the parent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Decision {
    /// When, as the caller's clock had it.
    pub at: Duration,
    /// Backends ready or on their way.
    pub from: u32,
    /// Backends wanted; always within `min` and `max`. It can differ from `from` by more
    /// than the action does when a limit (surge, a refusal) spreads the way over time.
    pub to: u32,
    /// What to do now.
    pub action: Action,
    /// Why.
    pub reason: Reason,
}

impl Action {
    /// `grow`, `shrink` or `hold`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Grow { .. } => "grow",
            Self::Shrink { .. } => "shrink",
            Self::Hold => "hold",
        }
    }

    /// Backends that come or go; 0 for [`Action::Hold`].
    pub fn by(self) -> u32 {
        match self {
            Self::Grow { by } | Self::Shrink { by } => by,
            Self::Hold => 0,
        }
    }
}

impl Decision {
    /// Whether this says something new after `previous`: it acts, wants another number,
    /// or holds by another rule. Deciding happens often, news are few.
    pub fn is_news_after(&self, previous: &Self) -> bool {
        self.action != Action::Hold || self.to != previous.to || !self.same_rule(previous)
    }

    fn same_rule(&self, other: &Self) -> bool {
        match (&self.reason, &other.reason) {
            (
                Reason::Hold(HoldReason::Limited { bound: a, .. }),
                Reason::Hold(HoldReason::Limited { bound: b, .. }),
            ) => discriminant(a) == discriminant(b),
            (Reason::Hold(a), Reason::Hold(b)) => discriminant(a) == discriminant(b),
            (a, b) => discriminant(a) == discriminant(b),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.action {
            Action::Hold if self.to == self.from => write!(f, "hold at {}", self.from)?,
            action => write!(f, "{} from {} to {}", action.name(), self.from, self.to)?,
        }
        write!(f, ": {}", self.reason)
    }
}

/// `at_seconds, action, by, from, to, reason` (the sentence) and `rule` (the same, in parts).
impl Serialize for Decision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Decision", 7)?;
        out.serialize_field("at_seconds", &self.at.as_secs_f64())?;
        out.serialize_field("action", self.action.name())?;
        out.serialize_field("by", &self.action.by())?;
        out.serialize_field("from", &self.from)?;
        out.serialize_field("to", &self.to)?;
        out.serialize_field("reason", &self.reason.to_string())?;
        out.serialize_field("rule", &self.reason)?;
        out.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::{Bound, Driver, Way};
    use crate::signal::Signal;

    fn driver(wants: u32) -> Driver {
        let window = Duration::from_secs(2);
        Driver { signal: Signal::Concurrency, value: 44.0, window, target: 4.0, wants, way: Way::Target }
    }

    fn decision(action: Action, to: u32, reason: Reason) -> Decision {
        Decision { at: Duration::from_millis(1500), from: 3, to, action, reason }
    }

    #[test]
    fn a_decision_reads_as_a_sentence_and_serializes_with_its_parts() {
        let reason = Reason::Load { driver: driver(11), bound: Some(Bound::Max { max: 8 }) };
        let grow = decision(Action::Grow { by: 5 }, 8, reason);
        let sentence = "concurrency averaged 44 over 2s, which at 4 per backend wants 11; max is 8";
        assert_eq!(grow.to_string(), format!("grow from 3 to 8: {sentence}"));
        assert_eq!(
            serde_json::to_value(grow).expect("serializes"),
            serde_json::json!({
                "at_seconds": 1.5, "action": "grow", "by": 5, "from": 3, "to": 8, "reason": sentence,
                "rule": {"load": {
                    "driver": {"signal": "concurrency", "value": 44.0, "window": 2.0, "target": 4.0, "wants": 11,
                        "way": "target"},
                    "bound": {"max": {"max": 8}},
                }},
            })
        );
    }

    #[test]
    fn holding_on_for_the_same_reason_is_no_news() {
        let hold = |reason| decision(Action::Hold, 3, Reason::Hold(reason));
        let enough = hold(HoldReason::Enough(driver(3)));
        let other = hold(HoldReason::Enough(Driver { value: 45.0, ..driver(3) }));
        assert!(!other.is_news_after(&enough));
        assert!(hold(HoldReason::NoSamplesYet).is_news_after(&enough));
        let limited = |bound| hold(HoldReason::Limited { driver: driver(9), bound });
        let at_max = limited(Bound::Max { max: 3 });
        assert!(limited(Bound::Surge { starting: 1, surge: 1 }).is_news_after(&at_max));
        assert!(!limited(Bound::Max { max: 3 }).is_news_after(&at_max));
        assert_eq!(enough.to_string().split(':').next(), Some("hold at 3"));
    }

    #[test]
    fn every_action_is_news() {
        let reason = Reason::Load { driver: driver(4), bound: None };
        let grow = decision(Action::Grow { by: 1 }, 4, reason);
        assert!(grow.is_news_after(&grow));
        assert_eq!((grow.action.by(), Action::Hold.by()), (1, 0));
    }
}
