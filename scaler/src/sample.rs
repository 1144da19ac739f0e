//! What the scaler is told about the load, and what of it can be believed.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::signal::Signal;

/// How far back latencies and the share of errors look: a sample tells what ended within
/// this time.
pub const LATENCY_WINDOW: Duration = Duration::from_secs(10);

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
    /// Median latency, seconds; `None` when nothing ended.
    pub p50_seconds: Option<f64>,
    /// 95th percentile of latency, seconds.
    pub p95_seconds: Option<f64>,
    /// 99th percentile of latency, seconds.
    pub p99_seconds: Option<f64>,
    /// How long the request that has waited longest for a backend waits, or a percentile of
    /// the waits, seconds.
    pub queue_wait_seconds: Option<f64>,
    /// Share of the requests that failed; `None` when nothing ended.
    pub error_share: Option<f64>,
    /// Processor time used by the guests over the time there was, mean over the ready ones;
    /// 1 is all processors busy.
    pub cpu_share: Option<f64>,
    /// Mean time that backends took for a request, seconds, without the wait before them;
    /// `None` when nothing ended. With it and `requests_per_second` a queue is not
    /// mistaken for demand.
    pub service_seconds: Option<f64>,
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

    /// Gives the value of a signal, if it is built in: of concurrency as requests in flight.
    pub fn set(&mut self, signal: Signal, value: f64) {
        let place = match signal {
            Signal::Concurrency => &mut self.in_flight,
            Signal::RequestsPerSecond => &mut self.requests_per_second,
            Signal::P50Latency => &mut self.p50_seconds,
            Signal::P95Latency => &mut self.p95_seconds,
            Signal::P99Latency => &mut self.p99_seconds,
            Signal::QueueWait => &mut self.queue_wait_seconds,
            Signal::ErrorShare => &mut self.error_share,
            Signal::Cpu => &mut self.cpu_share,
            Signal::Custom(_) => return,
        };
        *place = Some(value);
    }

    /// The believable values by signal, and the ones refused. A queue should be gone
    /// within `drain`; `usual` is the service time to reckon with if this sample has none.
    pub(crate) fn split(&self, drain: Duration, usual: Option<f64>) -> (Vec<(Signal, f64)>, Vec<Refused>) {
        // A negative part must not hide in a sum that looks fine.
        let bad_part = [self.in_flight, self.queued].into_iter().flatten().find(|value| !believable(*value));
        let given = [
            (Signal::Concurrency, bad_part.or(self.concurrency(drain, usual))),
            (Signal::RequestsPerSecond, self.requests_per_second),
            (Signal::P50Latency, self.p50_seconds),
            (Signal::P95Latency, self.p95_seconds),
            (Signal::P99Latency, self.p99_seconds),
            (Signal::QueueWait, self.queue_wait_seconds),
            (Signal::ErrorShare, self.error_share),
            (Signal::Cpu, self.cpu_share),
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

    /// Requests that want to be served at once.
    ///
    /// All that are in flight and queued, if nothing else is known. With the service time
    /// it is what arrives (Little's law: rate x service time) and what it takes to drain
    /// the queue in time: 400 requests of 20 ms that wait are gone in a second if 8 more
    /// are served at once, not 400. While nothing is served, as when a tier starts from
    /// nothing, the usual service time stands in, so that a backlog is not read as demand.
    fn concurrency(&self, drain: Duration, usual: Option<f64>) -> Option<f64> {
        let (in_flight, queued) = (self.in_flight?, self.queued.unwrap_or(0.0));
        let all = in_flight + queued;
        let Some(service) = self.service_time().or(usual).filter(|_| !drain.is_zero()) else {
            return Some(all);
        };
        let rate = self.requests_per_second.filter(|rate| believable(*rate)).unwrap_or(0.0);
        let arriving = in_flight.max(rate * service);
        Some((arriving + queued * service / drain.as_secs_f64()).min(all))
    }

    /// The service time, if this sample can tell.
    pub(crate) fn service_time(&self) -> Option<f64> {
        self.requests_per_second.filter(|rate| believable(*rate))?;
        // A time of zero is a backend that was not watched, not one without work.
        self.service_seconds.filter(|service| believable(*service) && *service > 0.0)
    }
}

/// Whether a value can be a measurement.
pub(crate) fn believable(value: f64) -> bool {
    (0.0..=Sample::LARGEST).contains(&value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DRAIN: Duration = Duration::from_secs(1);

    fn sample(in_flight: f64, queued: f64) -> Sample {
        Sample { in_flight: Some(in_flight), queued: Some(queued), ..Sample::default() }
    }

    #[test]
    fn queued_requests_count_as_load() {
        let (taken, refused) = sample(3.0, 4.0).split(DRAIN, None);
        assert_eq!(taken, [(Signal::Concurrency, 7.0)]);
        assert!(refused.is_empty());
    }

    fn demand(sample: Sample) -> f64 {
        sample.split(DRAIN, None).0[0].1
    }

    #[test]
    fn a_queue_counts_as_what_it_takes_to_drain_it() {
        let rates =
            Sample { requests_per_second: Some(2000.0), service_seconds: Some(0.02), ..sample(8.0, 400.0) };
        assert_eq!(demand(rates), 48.0);
        let slow =
            Sample { requests_per_second: Some(20.0), service_seconds: Some(3.0), ..sample(8.0, 400.0) };
        assert_eq!(demand(slow), 408.0, "no more than there are");
        let idle = Sample { requests_per_second: Some(0.0), service_seconds: Some(0.02), ..sample(8.0, 0.0) };
        assert_eq!(demand(idle), 8.0, "no fewer than are in flight");
    }

    #[test]
    fn without_a_service_time_that_can_be_a_queue_counts_in_full() {
        for service_seconds in [None, Some(f64::NAN), Some(-1.0), Some(0.0)] {
            let given = Sample { requests_per_second: Some(2000.0), service_seconds, ..sample(8.0, 400.0) };
            assert_eq!(demand(given), 408.0);
        }
        assert_eq!(demand(Sample { service_seconds: Some(0.02), ..sample(8.0, 400.0) }), 408.0);
    }

    #[test]
    fn a_backlog_before_nobody_is_not_read_as_demand() {
        let usual = Some(0.02);
        let waiting = sample(0.0, 400.0).split(DRAIN, usual).0[0].1;
        assert_eq!(waiting, 8.0, "eight at once drain 400 requests of 20 ms within a second");
        assert_eq!(demand(sample(0.0, 400.0)), 400.0, "without any experience all may be demand");
    }

    #[test]
    fn what_is_not_known_is_not_zero() {
        let (taken, refused) = Sample { queued: Some(2.0), ..Sample::default() }.split(DRAIN, None);
        assert!(taken.is_empty() && refused.is_empty());
    }

    #[test]
    fn values_that_cannot_be_are_refused_and_the_others_taken() {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, Sample::LARGEST * 2.0] {
            let given = Sample { requests_per_second: Some(5.0), ..sample(bad, 0.0) };
            let (taken, refused) = given.split(DRAIN, None);
            assert_eq!(taken, [(Signal::RequestsPerSecond, 5.0)]);
            assert_eq!(refused.len(), 1, "{bad}");
        }
        assert!(sample(Sample::LARGEST, 0.0).split(DRAIN, None).1.is_empty());
    }

    #[test]
    fn a_negative_queue_does_not_hide_in_the_sum() {
        let (taken, refused) = sample(10.0, -3.0).split(DRAIN, None);
        assert!(taken.is_empty());
        assert_eq!(refused[0].to_string(), "concurrency of -3 is no measurement and was left out");
    }
}
