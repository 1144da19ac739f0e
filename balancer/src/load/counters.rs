//! What each worker counts.
//!
//! A worker's counters have one writer, its thread, so an increment is a load and a
//! store without a locked instruction; readers add the workers up. One reader may see
//! a request in one counter and not yet in another.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::histogram::{BUCKETS, bucket_of};

/// Upper bounds of the exported latency histogram in seconds (OpenTelemetry's for HTTP).
pub const DURATION_BOUNDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one. Only the owning worker's thread may.
    #[inline]
    pub fn bump(&self) {
        self.add(1);
    }

    /// Adds a number. Only the owning worker's thread may.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Takes one off, for a gauge. Only the owning worker's thread may.
    #[inline]
    pub fn drop_one(&self) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(1), Relaxed);
    }

    /// The value, from any thread.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How a request ended, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// A whole answer went out, the backend's or ours.
    Answered,
    /// The answer broke off because the backend did.
    CutOff,
    /// The client went away.
    Abandoned,
}

/// What a scaler goes by: requests for the backends that it scales.
///
/// Those that never had a place at one have arrived and no more: how quickly we refuse
/// says nothing about backends.
#[derive(Debug)]
pub struct ScaledCounters {
    /// Requests that came, whatever became of them.
    pub arrived: Counter,
    /// Requests that had a place at a backend and ended.
    pub ended: Counter,
    /// Of these, failed by our fault or the backend's.
    pub failed: Counter,
    fine: Box<[Counter]>,
}

impl Default for ScaledCounters {
    fn default() -> Self {
        Self {
            arrived: Counter::default(),
            ended: Counter::default(),
            failed: Counter::default(),
            fine: (0..BUCKETS).map(|_| Counter::default()).collect(),
        }
    }
}

impl ScaledCounters {
    /// Counts the end of a request that had a place at a backend. One that we refused
    /// for what its client did is none of the backend's.
    pub fn request_ended(&self, status: u16, own: bool, ending: Ending, latency: Duration) {
        if own && (400..500).contains(&status) {
            return;
        }
        self.ended.bump();
        if is_failure(status, own, ending) {
            self.failed.bump();
        }
        self.fine[bucket_of(latency)].bump();
    }
}

fn is_failure(status: u16, own: bool, ending: Ending) -> bool {
    match ending {
        Ending::Abandoned => false,
        Ending::CutOff => true,
        Ending::Answered => own && status >= 500,
    }
}

/// Requests that ended: of one worker, all of them or those of one route.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct EndedCounters {
    /// By the first digit of their status; 0 is for those without one.
    pub by_class: [Counter; 6],
    /// Latencies, sum in microseconds.
    pub latency_sum_us: Counter,
    /// Latencies by [`DURATION_BOUNDS`], with one more for everything above.
    pub by_bound: [Counter; DURATION_BOUNDS.len() + 1],
}

impl EndedCounters {
    /// Counts a request that ended. `status` is that of its answer, 0 without one.
    pub fn request_ended(&self, status: u16, latency: Duration) {
        self.by_class[usize::from(status / 100).min(5)].bump();
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latency_sum_us.add(micros);
        let bound = DURATION_BOUNDS.iter().position(|bound| micros as f64 <= *bound * 1e6);
        self.by_bound[bound.unwrap_or(DURATION_BOUNDS.len())].bump();
    }
}

/// The counters of one worker.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerCounters {
    /// All requests that ended.
    pub ended: EndedCounters,
    /// Requests that failed by our fault: own 5xx, or cut off.
    pub failed: Counter,
    /// Requests whose client went away before the end.
    pub abandoned: Counter,
    /// Requests refused as malformed or not supported.
    pub refused: Counter,
    /// Requests refused because the queue was full.
    pub queue_full: Counter,
    /// Requests refused because they waited too long.
    pub queue_timeout: Counter,
    /// Requests that stood in the queue.
    pub queued: Counter,
    /// Sent again after a failure.
    pub retries: Counter,
    /// Not sent again because the retry budget was used up.
    pub retries_denied: Counter,
    /// Sent to a second backend because the first one did not answer.
    pub hedges: Counter,
    /// Of these, answered by the second one.
    pub hedges_won: Counter,
    /// Not sent to a second one because the retry budget was used up.
    pub hedges_denied: Counter,
    /// Connections accepted from clients.
    pub accepted: Counter,
    /// Connections of clients that are open now (a gauge).
    pub open: Counter,
    /// Connections cut because their client took nothing, or too slowly.
    pub stalled: Counter,
    /// Connections made to backends.
    pub connects: Counter,
    /// Connections to backends that could not be made.
    pub connect_failures: Counter,
    /// Connections that became tunnels.
    pub tunnels: Counter,
    /// Bytes of tunnels that have ended, from clients.
    pub tunnel_bytes_in: Counter,
    /// Bytes of tunnels that have ended, to clients.
    pub tunnel_bytes_out: Counter,
    /// What the scaler goes by.
    pub scaled: ScaledCounters,
}

impl WorkerCounters {
    /// Counts a request that ended. `status` is that of its answer, 0 without one.
    pub fn request_ended(&self, status: u16, own: bool, ending: Ending, latency: Duration) {
        self.ended.request_ended(status, latency);
        if ending == Ending::Abandoned {
            self.abandoned.bump();
        }
        if is_failure(status, own, ending) {
            self.failed.bump();
        }
    }
}

/// Sums over all workers at one moment.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    /// Requests that ended, all of them.
    pub requests: u64,
    /// Of these, failed by our fault.
    pub failed: u64,
    /// What the scaler goes by.
    pub scaled: ScaledTotals,
}

/// Sums of [`ScaledCounters`] over all workers at one moment.
#[derive(Debug, Clone, Default)]
pub struct ScaledTotals {
    /// Requests that came.
    pub arrived: u64,
    /// Requests that had a place at a backend and ended.
    pub ended: u64,
    /// Of these, failed.
    pub failed: u64,
    /// Latencies of these by [`super::histogram`] bucket.
    pub latencies: Vec<u64>,
}

/// The counters of all workers.
#[derive(Debug, Clone)]
pub struct Load(Arc<[Arc<WorkerCounters>]>);

impl Load {
    /// Counters for a number of workers.
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Arc::default()).collect())
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.0.len()
    }

    /// The counters of one worker, which alone may write them.
    pub fn worker(&self, index: usize) -> Arc<WorkerCounters> {
        Arc::clone(&self.0[index])
    }

    /// One counter, added up over the workers.
    pub fn sum(&self, of: impl Fn(&WorkerCounters) -> &Counter) -> u64 {
        self.0.iter().map(|worker| of(worker).get()).fold(0, u64::wrapping_add)
    }

    /// The sums that samples are made of.
    pub fn totals(&self) -> Totals {
        let class = |class: usize| self.sum(|worker| &worker.ended.by_class[class]);
        Totals {
            requests: (0..6).map(class).sum(),
            failed: self.sum(|worker| &worker.failed),
            scaled: ScaledTotals {
                arrived: self.sum(|worker| &worker.scaled.arrived),
                ended: self.sum(|worker| &worker.scaled.ended),
                failed: self.sum(|worker| &worker.scaled.failed),
                latencies: (0..BUCKETS)
                    .map(|bucket| self.sum(|worker| &worker.scaled.fine[bucket]))
                    .collect(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_own_error_counts_as_failed_and_a_backends_does_not() {
        let counters = WorkerCounters::default();
        counters.request_ended(500, false, Ending::Answered, MS);
        counters.request_ended(404, true, Ending::Answered, MS);
        assert_eq!(counters.failed.get(), 0);
        counters.request_ended(503, true, Ending::Answered, MS);
        counters.request_ended(200, false, Ending::CutOff, MS);
        assert_eq!(counters.failed.get(), 2);
    }

    #[test]
    fn a_client_that_leaves_is_no_failure() {
        let counters = WorkerCounters::default();
        counters.request_ended(0, false, Ending::Abandoned, MS);
        assert_eq!((counters.failed.get(), counters.abandoned.get()), (0, 1));
        assert_eq!(counters.ended.by_class[0].get(), 1);
    }

    #[test]
    fn totals_add_the_workers_up() {
        let load = Load::new(3);
        for index in 0..3 {
            load.worker(index).request_ended(200, false, Ending::Answered, 20 * MS);
        }
        let totals = load.totals();
        assert_eq!((totals.requests, totals.failed), (3, 0));
        assert_eq!(load.sum(|worker| &worker.ended.by_bound[2]), 3);
    }

    #[test]
    fn what_we_refuse_for_the_clients_fault_says_nothing_about_backends() {
        let load = Load::new(1);
        let scaled = &load.worker(0).scaled;
        scaled.request_ended(408, true, Ending::Answered, MS);
        assert_eq!((scaled.ended.get(), scaled.failed.get()), (0, 0));
        scaled.request_ended(404, false, Ending::Answered, MS);
        scaled.request_ended(504, true, Ending::Answered, MS);
        scaled.request_ended(0, false, Ending::Abandoned, MS);
        let totals = load.totals().scaled;
        assert_eq!((totals.ended, totals.failed), (3, 1));
        assert_eq!(totals.latencies.iter().sum::<u64>(), 3);
    }
}
