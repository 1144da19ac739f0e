//! Step scaling: when a signal is beyond a threshold, add or remove so many.

use std::fmt;

use crate::signal::Signal;

/// A step of a policy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// The signal; what counts for the whole tier counts per ready backend here.
    pub signal: Signal,
    /// When it is taken.
    pub when: Threshold,
    /// How far it goes.
    pub change: Change,
}

/// The side of a threshold that a step waits for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Threshold {
    /// Adds when the signal is above.
    Above(f64),
    /// Removes when the signal is below.
    Below(f64),
}

/// How far a step goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// So many backends.
    Backends(u32),
    /// A share of those there are, one at least.
    Share(f64),
}

impl Threshold {
    /// The value of the threshold.
    pub fn value(self) -> f64 {
        match self {
            Self::Above(value) | Self::Below(value) => value,
        }
    }

    /// Whether a value is beyond it.
    pub(crate) fn is_met(self, value: f64) -> bool {
        match self {
            Self::Above(threshold) => value > threshold,
            Self::Below(threshold) => value < threshold,
        }
    }
}

impl Change {
    /// How many of `from` backends.
    pub(crate) fn of(self, from: u32) -> u32 {
        match self {
            Self::Backends(count) => count,
            Self::Share(share) => ((f64::from(from) * share - 1e-9).ceil() as u32).max(1),
        }
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Above(_) => "above",
            Self::Below(_) => "below",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_up_and_one_at_least() {
        assert_eq!(Change::Share(0.5).of(5), 3);
        assert_eq!(Change::Share(0.01).of(5), 1);
        assert_eq!(Change::Backends(2).of(5), 2);
    }

    #[test]
    fn a_threshold_is_not_met_at_its_value() {
        assert!(!Threshold::Above(0.7).is_met(0.7) && Threshold::Above(0.7).is_met(0.71));
        assert!(!Threshold::Below(0.3).is_met(0.3) && Threshold::Below(0.3).is_met(0.29));
    }
}
