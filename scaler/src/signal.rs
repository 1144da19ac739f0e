//! What the scaler is told about the load, and what of it can be believed.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A measure of load that a policy can have a target for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Requests in flight plus requests queued, over the whole tier.
    Concurrency,
    /// Requests per second, over the whole tier.
    RequestsPerSecond,
    /// 95th percentile of latency in seconds.
    P95Latency,
}

impl Signal {
    /// How many signals there are.
    pub(crate) const COUNT: usize = 3;

    /// The place of this signal in arrays over all signals.
    pub(crate) fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Concurrency => "concurrency",
            Self::RequestsPerSecond => "requests per second",
            Self::P95Latency => "p95 latency",
        })
    }
}

/// The load of a tier at one moment. `None` is "not known", never zero.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sample {
    /// Requests being served by backends.
    pub in_flight: Option<f64>,
    /// Requests waiting for a backend; counts as 0 when not known.
    pub queued: Option<f64>,
    /// Requests that arrived per second.
    pub requests_per_second: Option<f64>,
    /// 95th percentile of latency, seconds; `None` when nothing ended.
    pub p95_seconds: Option<f64>,
}

/// What became of a sample.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Observed {
    /// Values that cannot be; the others of the sample were taken.
    pub refused: Vec<Refused>,
}

/// A value that was not believed: not finite, below zero, or beyond [`Sample::LARGEST`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Refused {
    /// The signal that got no value because of it.
    pub signal: Signal,
    /// The value as given.
    pub value: f64,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} is no measurement and was left out", self.signal, self.value)
    }
}

impl Sample {
    /// Largest value that is believed, for every signal. Beyond it, sums over a window
    /// would lose the small values beside it.
    pub const LARGEST: f64 = 1e9;

    /// The believable values by signal, and the ones refused.
    pub(crate) fn split(&self) -> (Vec<(Signal, f64)>, Vec<Refused>) {
        let concurrency = self.in_flight.map(|in_flight| in_flight + self.queued.unwrap_or(0.0));
        // A negative part must not hide in a sum that looks fine.
        let bad_part = [self.in_flight, self.queued].into_iter().flatten().find(|value| !believable(*value));
        let given = [
            (Signal::Concurrency, bad_part.or(concurrency)),
            (Signal::RequestsPerSecond, self.requests_per_second),
            (Signal::P95Latency, self.p95_seconds),
        ];
        let (mut taken, mut refused) = (Vec::with_capacity(given.len()), Vec::new());
        for (signal, value) in given {
            match value {
                Some(value) if believable(value) => taken.push((signal, value)),
                Some(value) => refused.push(Refused { signal, value }),
                None => {}
            }
        }
        (taken, refused)
    }
}

fn believable(value: f64) -> bool {
    (0.0..=Sample::LARGEST).contains(&value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(in_flight: f64, queued: f64) -> Sample {
        Sample { in_flight: Some(in_flight), queued: Some(queued), ..Sample::default() }
    }

    #[test]
    fn queued_requests_count_as_load() {
        let (taken, refused) = sample(3.0, 4.0).split();
        assert_eq!(taken, [(Signal::Concurrency, 7.0)]);
        assert!(refused.is_empty());
    }

    #[test]
    fn what_is_not_known_is_not_zero() {
        let (taken, refused) = Sample { queued: Some(2.0), ..Sample::default() }.split();
        assert!(taken.is_empty() && refused.is_empty());
    }

    #[test]
    fn values_that_cannot_be_are_refused_and_the_others_taken() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, Sample::LARGEST * 2.0] {
            let given = Sample { requests_per_second: Some(5.0), ..sample(bad, 0.0) };
            let (taken, refused) = given.split();
            assert_eq!(taken, [(Signal::RequestsPerSecond, 5.0)]);
            assert_eq!(refused.len(), 1, "{bad}");
        }
        assert!(sample(Sample::LARGEST, 0.0).split().1.is_empty());
    }

    #[test]
    fn a_negative_queue_does_not_hide_in_the_sum() {
        let (taken, refused) = sample(10.0, -3.0).split();
        assert!(taken.is_empty());
        assert_eq!(refused[0].to_string(), "concurrency of -3 is no measurement and was left out");
    }
}
