//! Reasons in words: a sentence for people, one word for labels.

use std::fmt;
use std::time::Duration;

use super::{Bound, Driver, HoldReason, Reason, Way};
use crate::yaml::show_duration;

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (signal, window, wants) = (self.signal, show_duration(self.window), self.wants);
        let (value, target) = (signal.shown(self.value), signal.shown(self.target));
        write!(f, "{signal} averaged {value} over {window}")?;
        match self.way {
            Way::Guard => {
                write!(f, " against a target of {target}, which wants {wants}")
            }
            Way::Target => write!(f, ", which at {target} per backend wants {wants}"),
            Way::FromZero => write!(f, ", of which no more than {wants} count while nobody is ready"),
            Way::Settling => write!(f, ", in which the last change does not show yet; it keeps {wants}"),
            Way::StepUp { by } => write!(f, ", above {target}, which adds {by}"),
            Way::StepDown { by } => write!(f, ", below {target}, which removes {by}"),
            Way::BetweenSteps => write!(f, ", which asks for no step"),
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
            Self::NotBorn { tries, left } => {
                write!(
                    f,
                    "clones were not born {tries} times in a row, and it asks again in {}",
                    tenths(*left)
                )
            }
            Self::Unready { unready } => write!(f, "{unready} that do not answer take up room"),
            Self::Stabilised { highest, window } => {
                write!(f, "{highest} were wanted within the last {}", show_duration(*window))
            }
            Self::StabilisedUp { lowest, window } => {
                write!(f, "only {lowest} were wanted all the time within the last {}", show_duration(*window))
            }
            Self::CoolDown { direction, left } => {
                write!(f, "{direction} waits for another {} after the last change", tenths(*left))
            }
            Self::Scheduled { min, left } => {
                write!(f, "the schedule asks for {min} at least for another {}", about(*left))
            }
            Self::Forecast { min, ahead } => {
                write!(f, "{min} were wanted at this time before, looking {} ahead", show_duration(*ahead))
            }
            Self::Fallback { min, blind } => {
                write!(f, "nothing is known of the load for {}, and {min} are kept at least", tenths(*blind))
            }
            Self::Manual { backends, left: Some(left) } => {
                write!(f, "{backends} were asked for by hand, for another {}", about(*left))
            }
            Self::Manual { backends, left: None } => {
                write!(f, "{backends} were asked for by hand, until further notice")
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
            Self::Recommends { driver, bound } => {
                write!(f, "recommended only: ")?;
                driver.iter().try_for_each(|driver| write!(f, "{driver}"))?;
                let separator = if driver.is_some() { "; " } else { "" };
                bound.iter().try_for_each(|bound| write!(f, "{separator}{bound}"))
            }
            Self::Paused => write!(f, "scaling is paused"),
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
            Self::NotBorn { .. } => "not_born",
            Self::Unready { .. } => "unready",
            Self::Stabilised { .. } => "stabilised",
            Self::FewReady { .. } => "few_ready",
            Self::StabilisedUp { .. } => "stabilised_up",
            Self::CoolDown { .. } => "cool_down",
            Self::Scheduled { .. } => "scheduled",
            Self::Forecast { .. } => "forecast",
            Self::Fallback { .. } => "fallback",
            Self::Manual { .. } => "manual",
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
            Self::Recommends { .. } => "recommends",
            Self::Paused => "paused",
            Self::OutOfBounds { .. } => "out_of_bounds",
        }
    }

    /// The rule that bound, if one did.
    fn bound(&self) -> Option<Bound> {
        match self {
            Self::Limited { bound, .. } | Self::OutOfBounds { bound, .. } => Some(*bound),
            Self::Recommends { bound, .. } => *bound,
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

/// A time to the second, or to the minute if it is long.
fn about(time: Duration) -> String {
    let seconds = time.as_secs_f64().ceil() as u64;
    let seconds = if seconds >= 3600 { seconds.div_ceil(60) * 60 } else { seconds };
    show_duration(Duration::from_secs(seconds))
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
    use crate::signal::Signal;

    fn driver() -> Driver {
        let (value, window) = (41.234, Duration::from_secs(2));
        Driver { signal: Signal::Concurrency, value, window, target: 4.0, wants: 11, way: Way::Target }
    }

    #[test]
    fn a_reason_is_one_sentence_with_inputs_and_the_rule_that_bound() {
        let reason = Reason::Load { driver: driver(), bound: Some(Bound::Max { max: 8 }) };
        assert_eq!(
            reason.to_string(),
            "concurrency averaged 41.23 over 2s, which at 4 per backend wants 11; max is 8"
        );
        let (signal, way) = (Signal::P95Latency, Way::Guard);
        let driver = Driver { signal, value: 0.31, target: 0.2, wants: 6, way, ..driver() };
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
            (
                Bound::NotBorn { tries: 2, left: s(9) },
                "clones were not born 2 times in a row, and it asks again in 9.0s",
            ),
            (Bound::Unready { unready: 2 }, "2 that do not answer take up room"),
            (Bound::FewReady { ready: 1 }, "only 1 are ready"),
            (
                Bound::StabilisedUp { lowest: 3, window: s(5) },
                "only 3 were wanted all the time within the last 5s",
            ),
            (
                Bound::CoolDown { direction: Direction::Down, left: s(4) },
                "shrinking waits for another 4.0s after the last change",
            ),
            (Bound::Scheduled { min: 4, left: s(3661) }, "the schedule asks for 4 at least for another 1h2m"),
            (
                Bound::Forecast { min: 4, ahead: s(300) },
                "4 were wanted at this time before, looking 5m ahead",
            ),
            (
                Bound::Fallback { min: 4, blind: s(31) },
                "nothing is known of the load for 31.0s, and 4 are kept at least",
            ),
            (
                Bound::Manual { backends: 5, left: Some(s(599)) },
                "5 were asked for by hand, for another 9m59s",
            ),
            (Bound::Manual { backends: 5, left: None }, "5 were asked for by hand, until further notice"),
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
                HoldReason::Recommends { driver: Some(driver()), bound: Some(Bound::Max { max: 8 }) },
                format!("recommended only: {load}; max is 8"),
            ),
            (
                HoldReason::Recommends { driver: None, bound: Some(Bound::Min { min: 2 }) },
                "recommended only: min is 2".to_owned(),
            ),
            (HoldReason::Paused, "scaling is paused".to_owned()),
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

    #[test]
    fn a_signal_says_how_it_comes_to_its_number() {
        let cpu = Driver { signal: Signal::Cpu, value: 0.91, target: 0.9, ..driver() };
        for (way, sentence) in [
            (Way::StepUp { by: 2 }, "cpu averaged 91% over 2s, above 90%, which adds 2"),
            (Way::StepDown { by: 1 }, "cpu averaged 91% over 2s, below 90%, which removes 1"),
            (Way::Guard, "cpu averaged 91% over 2s against a target of 90%, which wants 11"),
            (
                Way::Settling,
                "cpu averaged 91% over 2s, in which the last change does not show yet; it keeps 11",
            ),
            (Way::BetweenSteps, "cpu averaged 91% over 2s, which asks for no step"),
            (Way::FromZero, "cpu averaged 91% over 2s, of which no more than 11 count while nobody is ready"),
        ] {
            assert_eq!(Driver { way, ..cpu }.to_string(), sentence);
        }
    }
}
