//! From the front door's samples to the scaler's, and the time of day.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use scaler::Sample;

use crate::load;

/// Below this throughput Little's law says nothing about times.
const LEAST_THROUGHPUT: f64 = 1.0;

/// What the scaler is told of the load; `cpu_share` is how busy the guests' processors are.
pub(super) fn sample(seen: &load::Sample, cpu_share: Option<f64>) -> Sample {
    let in_flight = seen.in_flight as f64;
    let throughput = seen.requests_per_second;
    // Where nothing is being served just now, nothing is known of how long it takes.
    let busy = throughput >= LEAST_THROUGHPUT && seen.in_flight > 0;
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    Sample {
        in_flight: Some(in_flight),
        queued: Some(seen.queued as f64),
        requests_per_second: Some(seen.arrived_per_second),
        p50_seconds: seconds(seen.p50),
        p95_seconds: seconds(seen.p95),
        p99_seconds: seconds(seen.p99),
        // Little's law: requests in service = throughput x time of service.
        service_seconds: busy.then(|| in_flight / throughput),
        queue_wait_seconds: seconds(Some(seen.oldest_wait.unwrap_or_default())),
        error_share: seen.error_share,
        cpu_share,
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
    fn the_time_of_service_follows_from_the_throughput_and_the_wait_is_that_of_the_first_in_line() {
        let waiting = load::Sample {
            oldest_wait: Some(Duration::from_millis(200)),
            arrived_per_second: 900.0,
            ..seen(200.0, 8, 40)
        };
        let sample = sample(&waiting, Some(0.5));
        assert_eq!((sample.service_seconds, sample.queue_wait_seconds), (Some(0.04), Some(0.2)));
        assert_eq!((sample.p95_seconds, sample.p50_seconds), (Some(0.03), None));
        assert_eq!((sample.requests_per_second, sample.cpu_share), (Some(900.0), Some(0.5)));
    }

    #[test]
    fn without_requests_in_service_their_time_is_not_known() {
        assert_eq!(sample(&seen(0.0, 0, 40), None).service_seconds, None);
        assert_eq!(sample(&seen(200.0, 0, 40), None).service_seconds, None);
        assert_eq!(sample(&seen(0.0, 0, 0), None).queue_wait_seconds, Some(0.0));
    }
}
