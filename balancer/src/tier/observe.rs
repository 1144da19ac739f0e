//! From the front door's samples to the scaler's, and the time of day.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use scaler::Sample;

use crate::load;

/// Below this throughput Little's law says nothing about times.
const LEAST_THROUGHPUT: f64 = 1.0;

/// What the scaler is told of the load. The guests' processors and memory stay unknown
/// until their agents report them.
pub(super) fn sample(seen: &load::Sample) -> Sample {
    let (in_flight, queued) = (seen.in_flight as f64, seen.queued as f64);
    let throughput = seen.requests_per_second;
    let busy = throughput >= LEAST_THROUGHPUT;
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    Sample {
        in_flight: Some(in_flight),
        queued: Some(queued),
        requests_per_second: Some(throughput),
        p50_seconds: seconds(seen.p50),
        p95_seconds: seconds(seen.p95),
        p99_seconds: seconds(seen.p99),
        // Little's law: requests in service = throughput x time of service; the same for the queue.
        service_seconds: busy.then(|| in_flight / throughput),
        queue_wait_seconds: if queued == 0.0 { Some(0.0) } else { busy.then(|| queued / throughput) },
        error_share: seen.error_share,
        cpu_share: None,
        memory_share: None,
    }
}

/// Time since 1970 by this machine's clock.
pub(super) fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn seen(requests_per_second: f64, in_flight: u64, queued: u64) -> load::Sample {
        load::Sample {
            at: Instant::now(),
            requests_per_second,
            arrived_per_second: requests_per_second,
            in_flight,
            queued,
            oldest_wait: None,
            p50: None,
            p95: Some(Duration::from_millis(30)),
            p99: None,
            error_share: None,
            requests_total: 0,
            failed_total: 0,
        }
    }

    #[test]
    fn times_of_service_and_of_waiting_follow_from_the_throughput() {
        let sample = sample(&seen(200.0, 8, 40));
        assert_eq!((sample.service_seconds, sample.queue_wait_seconds), (Some(0.04), Some(0.2)));
        assert_eq!((sample.p95_seconds, sample.p50_seconds), (Some(0.03), None));
    }

    #[test]
    fn next_to_no_throughput_tells_no_times() {
        let waiting = sample(&seen(0.0, 0, 40));
        assert_eq!((waiting.service_seconds, waiting.queue_wait_seconds), (None, None));
        assert_eq!(sample(&seen(0.0, 0, 0)).queue_wait_seconds, Some(0.0));
    }
}
