//! Samples of the load for the scaler and the status document.
//!
//! Keeps the totals of the last ten seconds and answers with differences. Reading
//! changes nothing that is measured.
//!
//! All but the two totals since start are of the backends that are scaled (see
//! [`super::ScaledCounters`]).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::counters::{ScaledTotals, Totals};
use super::histogram::percentile;

/// Latencies are those of requests that ended within this time.
const WINDOW: Duration = Duration::from_secs(10);
/// The rate is that of this time.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// What is now, as opposed to what has been counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Requests being served by backends.
    pub in_flight: u64,
    /// Requests waiting for a backend.
    pub queued: u64,
    /// How long the first in line has waited; `None` if nobody waits.
    pub oldest_wait: Option<Duration>,
}

/// The load at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// When it was taken.
    pub at: Instant,
    /// Requests that ended in the last second, per second.
    pub requests_per_second: f64,
    /// Requests that came in the last second, per second; those that were refused for want
    /// of a place are among them.
    pub arrived_per_second: f64,
    /// Requests being served by backends.
    pub in_flight: u64,
    /// Requests waiting for a backend.
    pub queued: u64,
    /// How long the first in line has waited; `None` if nobody waits.
    pub oldest_wait: Option<Duration>,
    /// Median latency of the last ten seconds; `None` if no request ended.
    pub p50: Option<Duration>,
    /// 95th percentile of the same.
    pub p95: Option<Duration>,
    /// 99th percentile of the same.
    pub p99: Option<Duration>,
    /// Failed requests over requests of the last ten seconds; `None` if no request ended.
    pub error_share: Option<f64>,
    /// Requests since start, for whatever backend and none.
    pub requests_total: u64,
    /// Failed ones since start.
    pub failed_total: u64,
}

/// Turns totals into samples.
#[derive(Debug, Default)]
pub struct LoadSampler {
    history: VecDeque<(Instant, Totals)>,
}

impl LoadSampler {
    /// Takes the totals of this moment. Call it every 100 to 250 ms.
    pub fn sample(&mut self, now: Instant, totals: Totals, gauges: Gauges) -> Sample {
        while self.history.len() > 1 && now.saturating_duration_since(self.history[1].0) >= WINDOW {
            self.history.pop_front();
        }
        self.history.push_back((now, totals));
        let (_, newest) = &self.history[self.history.len() - 1];
        let (_, oldest) = &self.history[0];
        let pairs = newest.scaled.latencies.iter().zip(&oldest.scaled.latencies);
        let recent: Vec<u64> = pairs.map(|(new, old)| new.saturating_sub(*old)).collect();
        Sample {
            at: now,
            requests_per_second: self.rate(now, |totals| totals.ended),
            arrived_per_second: self.rate(now, |totals| totals.arrived),
            in_flight: gauges.in_flight,
            queued: gauges.queued,
            oldest_wait: gauges.oldest_wait,
            p50: percentile(&recent, 0.5),
            p95: percentile(&recent, 0.95),
            p99: percentile(&recent, 0.99),
            error_share: share(&newest.scaled, &oldest.scaled),
            requests_total: newest.requests,
            failed_total: newest.failed,
        }
    }

    /// Requests of a kind per second since the newest entry that is a second old, or the oldest.
    fn rate(&self, now: Instant, of: impl Fn(&ScaledTotals) -> u64) -> f64 {
        let old_enough = |(at, _): &&(Instant, Totals)| now.saturating_duration_since(*at) >= RATE_WINDOW;
        let from = self.history.iter().rev().find(old_enough).or(self.history.front());
        let (Some((at, old)), Some((_, new))) = (from, self.history.back()) else { return 0.0 };
        let seconds = now.saturating_duration_since(*at).as_secs_f64();
        if seconds == 0.0 { 0.0 } else { of(&new.scaled).saturating_sub(of(&old.scaled)) as f64 / seconds }
    }
}

/// Failed requests over requests, between two totals.
fn share(newest: &ScaledTotals, oldest: &ScaledTotals) -> Option<f64> {
    let (ended, failed) =
        (newest.ended.saturating_sub(oldest.ended), newest.failed.saturating_sub(oldest.failed));
    (ended > 0).then(|| (failed as f64 / ended as f64).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::histogram::{BUCKETS, bucket_of};

    fn totals(requests: u64, latency: Duration) -> Totals {
        let mut latencies = vec![0; BUCKETS];
        latencies[bucket_of(latency)] = requests;
        let scaled = ScaledTotals { arrived: requests * 2, ended: requests, failed: 0, latencies };
        Totals { requests, failed: 0, scaled }
    }

    #[test]
    fn the_rate_is_that_of_the_last_second() {
        let (start, mut sampler) = (Instant::now(), LoadSampler::default());
        let mut last = (0.0, 0.0);
        for step in 0..=20 {
            let requests = if step <= 10 { 0 } else { (step - 10) * 50 };
            let now = start + Duration::from_millis(100) * step as u32;
            let sample = sampler.sample(now, totals(requests, Duration::ZERO), Gauges::default());
            last = (sample.requests_per_second, sample.arrived_per_second);
        }
        assert!((last.0 - 500.0_f64).abs() < 1.0 && (last.1 - 1000.0_f64).abs() < 1.0, "{last:?}");
    }

    #[test]
    fn the_first_sample_knows_no_rate_and_no_latency() {
        let gauges = Gauges { in_flight: 3, queued: 2, oldest_wait: Some(RATE_WINDOW) };
        let sample = LoadSampler::default().sample(Instant::now(), totals(9, Duration::ZERO), gauges);
        assert_eq!((sample.requests_per_second, sample.p50), (0.0, None));
        assert_eq!((sample.in_flight, sample.queued, sample.requests_total), (3, 2, 9));
        assert_eq!(sample.oldest_wait, Some(RATE_WINDOW));
    }

    #[test]
    fn old_latencies_are_forgotten() {
        let (start, mut sampler) = (Instant::now(), LoadSampler::default());
        let slow = totals(100, Duration::from_secs(1));
        sampler.sample(start, totals(0, Duration::ZERO), Gauges::default());
        let sample = sampler.sample(start + RATE_WINDOW, slow.clone(), Gauges::default());
        assert!(sample.p50.is_some_and(|p50| p50 >= Duration::from_secs(1)));
        sampler.sample(start + 6 * RATE_WINDOW, slow.clone(), Gauges::default());
        let sample = sampler.sample(start + 17 * RATE_WINDOW, slow, Gauges::default());
        assert_eq!(sample.p50, None);
    }
}
