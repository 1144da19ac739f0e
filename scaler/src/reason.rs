//! Why a decision is what it is: the inputs, and the rule that bound it.
//!
//! Every variant displays as one plain sentence without a full stop.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::policy::Direction;
use crate::signal::Signal;
use crate::yaml::show_duration;

/// The signal that spoke for the most backends, and what it said.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Driver {
    /// The signal.
    pub signal: Signal,
    /// Its mean over the window, for the whole tier (seconds for latency).
    pub value: f64,
    /// The window.
    #[serde(serialize_with = "seconds")]
    pub window: Duration,
    /// Its target per backend (seconds for latency).
    pub target: f64,
    /// Backends it wants, before any limit.
    pub wants: u32,
}

/// A rule that kept a decision from going as far as the load asked.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// The policy's `min`.
    Min {
        /// Fewest backends.
        min: u32,
    },
    /// The policy's `max`.
    Max {
        /// Most backends.
        max: u32,
    },
    /// The rate of `scale_up` or `scale_down`.
    Rate {
        /// Which of them.
        direction: Direction,
        /// Backends that may yet move in this period.
        room: u32,
        /// The period.
        #[serde(serialize_with = "seconds")]
        per: Duration,
    },
    /// As many clones are on their way as may be at once.
    Surge {
        /// Clones on their way.
        starting: u32,
        /// Most of them at once.
        surge: u32,
    },
    /// Fewer clones were granted than asked for; asking again comes later.
    Refused {
        /// Time until asking again.
        #[serde(serialize_with = "seconds")]
        left: Duration,
    },
    /// More backends were wanted a while ago, and might be again.
    Stabilised {
        /// Most backends wanted within the window.
        highest: u32,
        /// The window.
        #[serde(serialize_with = "seconds")]
        window: Duration,
    },
    /// Only ready backends can leave, and `min` of them stay.
    FewReady {
        /// Backends that are ready.
        ready: u32,
    },
    /// The policy switched this direction off.
    Disabled {
        /// Which.
        direction: Direction,
    },
}

/// Why nothing is done.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldReason {
    /// No sample has come since the start.
    NoSamplesYet,
    /// The newest sample says nothing about now.
    Stale {
        /// Its age.
        #[serde(serialize_with = "seconds")]
        age: Duration,
        /// The age from which on samples are stale.
        #[serde(serialize_with = "seconds")]
        limit: Duration,
    },
    /// There are as many backends as the load wants.
    Enough(Driver),
    /// The load misses the target by less than is worth a change.
    WithinTolerance(Driver),
    /// It would shrink, but the load was far above capacity a moment ago.
    Panicking {
        /// What it would shrink to.
        driver: Driver,
        /// Time until the panic is over if the load stays low.
        #[serde(serialize_with = "seconds")]
        left: Duration,
    },
    /// It would shrink, but has not watched for a full window yet.
    FirstWindow {
        /// What it would shrink to.
        driver: Driver,
        /// Time watched without a gap.
        #[serde(serialize_with = "seconds")]
        seen: Duration,
        /// Time to watch before shrinking.
        #[serde(serialize_with = "seconds")]
        needed: Duration,
    },
    /// It would shrink, but a signal of the policy is missing.
    SignalMissing {
        /// What it would shrink to.
        driver: Driver,
        /// The signal without a fresh value.
        missing: Signal,
    },
    /// It would grow or shrink, but a limit leaves no room.
    Limited {
        /// What it would grow or shrink to.
        driver: Driver,
        /// The limit.
        bound: Bound,
    },
    /// It is below `min` or above `max`, and a limit leaves no room to change that now.
    OutOfBounds {
        /// The bound that is missed.
        missed: Bound,
        /// The limit.
        bound: Bound,
    },
}

/// Why a decision is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The load wants another number of backends.
    Load {
        /// The signal that decided.
        driver: Driver,
        /// The limit that kept it from going all the way.
        bound: Option<Bound>,
    },
    /// The load is far above capacity.
    Panic {
        /// The signal that decided.
        driver: Driver,
        /// The limit that kept it from going all the way.
        bound: Option<Bound>,
    },
    /// There are fewer backends than `min` or more than `max`.
    OutOfBounds {
        /// The bound that is missed.
        missed: Bound,
        /// The limit that kept it from going all the way.
        bound: Option<Bound>,
    },
    /// Nothing is done.
    Hold(HoldReason),
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let window = show_duration(self.window);
        match self.signal {
            Signal::Concurrency | Signal::RequestsPerSecond => write!(
                f,
                "{} averaged {} over {window}, which at {} per backend wants {}",
                self.signal,
                short(self.value),
                short(self.target),
                self.wants
            ),
            Signal::P95Latency => write!(
                f,
                "{} averaged {} ms over {window} against a target of {} ms, which wants {}",
                self.signal,
                short(self.value * 1e3),
                short(self.target * 1e3),
                self.wants
            ),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Min { min } => write!(f, "min is {min}"),
            Self::Max { max } => write!(f, "max is {max}"),
            Self::Rate { direction, room, per } => {
                write!(f, "the rate of {direction} leaves room for {room} within {}", show_duration(*per))
            }
            Self::Surge { starting, surge } => {
                write!(f, "{starting} of at most {surge} clones are on their way")
            }
            Self::Refused { left } => {
                write!(f, "fewer clones were granted than asked, and it asks again in {}", tenths(*left))
            }
            Self::Stabilised { highest, window } => {
                write!(f, "{highest} were wanted within the last {}", show_duration(*window))
            }
            Self::FewReady { ready } => write!(f, "only {ready} are ready"),
            Self::Disabled { direction } => write!(f, "{direction} is switched off"),
        }
    }
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSamplesYet => write!(f, "no sample has come yet"),
            Self::Stale { age, limit } => {
                let (age, limit) = (tenths(*age), show_duration(*limit));
                write!(f, "the newest sample is {age} old, and after {limit} it says nothing about now")
            }
            Self::Enough(driver) => write!(f, "{driver}, as many as there are"),
            Self::WithinTolerance(driver) => write!(f, "{driver}, too near to change anything"),
            Self::Panicking { driver, left } => {
                write!(f, "{driver}, but load was far above capacity; panic ends in {}", tenths(*left))
            }
            Self::FirstWindow { driver, seen, needed } => {
                let (seen, needed) = (tenths(*seen), show_duration(*needed));
                write!(f, "{driver}, but it has watched for {seen} only and shrinks after {needed}")
            }
            Self::SignalMissing { driver, missing } => {
                write!(f, "{driver}, but {missing} is missing, and without it nothing shrinks")
            }
            Self::Limited { driver, bound } => write!(f, "{driver}, but {bound}"),
            Self::OutOfBounds { missed, bound } => write!(f, "{missed}, but {bound}"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = match self {
            Self::Load { driver, bound } => {
                write!(f, "{driver}")?;
                bound
            }
            Self::Panic { driver, bound } => {
                write!(f, "panic: {driver}")?;
                bound
            }
            Self::OutOfBounds { missed, bound } => {
                write!(f, "{missed}")?;
                bound
            }
            Self::Hold(hold) => return hold.fmt(f),
        };
        bound.iter().try_for_each(|bound| write!(f, "; {bound}"))
    }
}

/// A number with three digits that mean something at least.
fn short(value: f64) -> String {
    let rounded = if value.abs() >= 100.0 { value.round() } else { (value * 100.0).round() / 100.0 };
    rounded.to_string()
}

/// A time to the tenth of a second.
fn tenths(time: Duration) -> String {
    format!("{:.1}s", time.as_secs_f64())
}

pub(crate) fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn driver() -> Driver {
        let (value, window) = (41.234, Duration::from_secs(2));
        Driver { signal: Signal::Concurrency, value, window, target: 4.0, wants: 11 }
    }

    #[test]
    fn a_reason_is_one_sentence_with_inputs_and_the_rule_that_bound() {
        let reason = Reason::Load { driver: driver(), bound: Some(Bound::Max { max: 8 }) };
        assert_eq!(
            reason.to_string(),
            "concurrency averaged 41.23 over 2s, which at 4 per backend wants 11; max is 8"
        );
        let driver = Driver { signal: Signal::P95Latency, value: 0.31, target: 0.2, wants: 6, ..driver() };
        assert_eq!(
            Reason::Panic { driver, bound: None }.to_string(),
            "panic: p95 latency averaged 310 ms over 2s against a target of 200 ms, which wants 6"
        );
    }

    #[test]
    fn every_bound_and_hold_is_a_sentence() {
        let s = Duration::from_secs;
        let bounds = [
            (Bound::Min { min: 2 }, "min is 2"),
            (
                Bound::Rate { direction: Direction::Down, room: 3, per: s(10) },
                "the rate of shrinking leaves room for 3 within 10s",
            ),
            (Bound::Surge { starting: 8, surge: 8 }, "8 of at most 8 clones are on their way"),
            (
                Bound::Refused { left: s(4) },
                "fewer clones were granted than asked, and it asks again in 4.0s",
            ),
            (Bound::Stabilised { highest: 7, window: s(30) }, "7 were wanted within the last 30s"),
            (Bound::FewReady { ready: 1 }, "only 1 are ready"),
            (Bound::Disabled { direction: Direction::Up }, "growing is switched off"),
        ];
        for (bound, sentence) in bounds {
            assert_eq!(bound.to_string(), sentence);
        }
        let load = driver().to_string();
        let holds = [
            (HoldReason::NoSamplesYet, "no sample has come yet".to_owned()),
            (
                HoldReason::Stale { age: s(7), limit: s(3) },
                "the newest sample is 7.0s old, and after 3s it says nothing about now".to_owned(),
            ),
            (HoldReason::Enough(driver()), format!("{load}, as many as there are")),
            (HoldReason::WithinTolerance(driver()), format!("{load}, too near to change anything")),
            (
                HoldReason::Panicking { driver: driver(), left: s(3) },
                format!("{load}, but load was far above capacity; panic ends in 3.0s"),
            ),
            (
                HoldReason::FirstWindow { driver: driver(), seen: s(3), needed: s(10) },
                format!("{load}, but it has watched for 3.0s only and shrinks after 10s"),
            ),
            (
                HoldReason::SignalMissing { driver: driver(), missing: Signal::RequestsPerSecond },
                format!("{load}, but requests per second is missing, and without it nothing shrinks"),
            ),
            (
                HoldReason::Limited { driver: driver(), bound: Bound::Max { max: 8 } },
                format!("{load}, but max is 8"),
            ),
            (
                HoldReason::OutOfBounds {
                    missed: Bound::Min { min: 9 },
                    bound: Bound::Surge { starting: 8, surge: 8 },
                },
                "min is 9, but 8 of at most 8 clones are on their way".to_owned(),
            ),
        ];
        for (hold, sentence) in holds {
            assert_eq!(Reason::Hold(hold).to_string(), sentence);
        }
    }
}
