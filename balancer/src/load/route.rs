//! What workers count for each route.

use std::sync::Arc;
use std::time::Duration;

use super::counters::{Counter, DURATION_BOUNDS};

/// The counters of one route and one worker.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct RouteCounters {
    /// Ended requests by the first digit of their status; 0 is for those without one.
    pub by_class: [Counter; 6],
    /// Latencies, sum in microseconds.
    pub latency_sum_us: Counter,
    /// Latencies by [`DURATION_BOUNDS`], with one more for everything above.
    pub by_bound: [Counter; DURATION_BOUNDS.len() + 1],
}

impl RouteCounters {
    /// Counts a request that ended. `status` is that of its answer, 0 without one.
    pub fn request_ended(&self, status: u16, latency: Duration) {
        self.by_class[usize::from(status / 100).min(5)].bump();
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency_sum_us.add(micros);
        let bound = DURATION_BOUNDS.iter().position(|bound| micros as f64 <= *bound * 1e6);
        self.by_bound[bound.unwrap_or(DURATION_BOUNDS.len())].bump();
    }
}

/// The counters of one route; clones are handles of the same ones.
#[derive(Debug, Clone)]
pub struct RouteLoad(Arc<[RouteCounters]>);

impl RouteLoad {
    /// Counters for a number of workers.
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| RouteCounters::default()).collect())
    }

    /// The counters of one worker, which alone may write them.
    pub fn worker(&self, index: usize) -> &RouteCounters {
        &self.0[index]
    }

    /// One counter, added up over the workers.
    pub fn sum(&self, of: impl Fn(&RouteCounters) -> &Counter) -> u64 {
        self.0.iter().map(|worker| of(worker).get()).fold(0, u64::wrapping_add)
    }
}
