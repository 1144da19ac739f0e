//! Reasons in words: a sentence for people, one word for labels.

use std::fmt;
use std::time::Duration;

use super::{Bound, Driver, HoldReason, Reason};
use crate::signal::Signal;
use crate::yaml::show_duration;

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

impl Bound {
    /// One word for it, e.g. for the label of a metric.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Min { .. } => "min",
            Self::Max { .. } => "max",
            Self::Rate { .. } => "rate",
            Self::Surge { .. } => "surge",
            Self::Refused { .. } => "refused",
            Self::Stabilised { .. } => "stabilised",
            Self::FewReady { .. } => "few_ready",
            Self::Disabled { .. } => "disabled",
        }
    }
}

impl HoldReason {
    /// One word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NoSamplesYet => "no_samples_yet",
            Self::Stale { .. } => "stale",
            Self::Enough(_) => "enough",
            Self::WithinTolerance(_) => "within_tolerance",
            Self::Panicking { .. } => "panicking",
            Self::FirstWindow { .. } => "first_window",
            Self::SignalMissing { .. } => "signal_missing",
            Self::Limited { .. } => "limited",
            Self::OutOfBounds { .. } => "out_of_bounds",
        }
    }

    /// The rule that bound, if one did.
    fn bound(&self) -> Option<Bound> {
        match self {
            Self::Limited { bound, .. } | Self::OutOfBounds { bound, .. } => Some(*bound),
            _ => None,
        }
    }
}

impl Reason {
    /// One word for it; there are few, so that it can be the label of a metric.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Load { .. } => "load",
            Self::Panic { .. } => "panic",
            Self::OutOfBounds { .. } => "out_of_bounds",
            Self::Hold(hold) => hold.name(),
        }
    }

    /// The rule that kept it from going all the way, if one did.
    pub fn bound(&self) -> Option<Bound> {
        match self {
            Self::Load { bound, .. } | Self::Panic { bound, .. } | Self::OutOfBounds { bound, .. } => *bound,
            Self::Hold(hold) => hold.bound(),
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Direction;
    use crate::reason::Driver;

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
