//! Latencies in log-linear buckets: eight per octave, so a percentile is off by at
//! most an eighth of itself.

use std::time::Duration;

/// Buckets per octave.
const STEPS: u64 = 8;
/// Octaves above the first, linear one; the last bucket begins at 8 s * 2^4 or so.
const OCTAVES: usize = 25;

/// Number of buckets.
pub const BUCKETS: usize = STEPS as usize * OCTAVES;

/// The bucket of a latency. Below 8 us each microsecond has its own.
pub fn bucket_of(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    if micros < STEPS {
        return micros as usize;
    }
    let octave = micros.ilog2() - STEPS.ilog2();
    let step = (micros >> octave) - STEPS;
    (((u64::from(octave) + 1) * STEPS + step) as usize).min(BUCKETS - 1)
}

/// The smallest latency above everything in a bucket.
pub fn bucket_end(bucket: usize) -> Duration {
    let (octave, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    let micros = match octave {
        0 => step + 1,
        _ => (STEPS + step + 1) << (octave - 1),
    };
    Duration::from_micros(micros)
}

/// The latency below which a share of the counted requests ended. `None` without any.
pub fn percentile(counts: &[u64], share: f64) -> Option<Duration> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return None;
    }
    let rank = ((total as f64 * share).ceil() as u64).clamp(1, total);
    let mut seen = 0;
    let bucket = counts.iter().position(|count| {
        seen += count;
        seen >= rank
    })?;
    Some(bucket_end(bucket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_gap() {
        for bucket in 0..BUCKETS - 1 {
            let end = bucket_end(bucket);
            assert_eq!(bucket_of(end), bucket + 1, "bucket {bucket}");
            assert_eq!(bucket_of(end - Duration::from_micros(1)), bucket);
        }
    }

    #[test]
    fn no_latency_is_too_long_for_the_last_bucket() {
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
        assert!(bucket_end(BUCKETS - 1) > Duration::from_secs(100));
    }

    #[test]
    fn a_percentile_is_off_by_an_eighth_at_most() {
        let mut counts = vec![0; BUCKETS];
        (1..=1000).for_each(|ms| counts[bucket_of(Duration::from_millis(ms))] += 1);
        for (share, truth) in [(0.5, 0.5), (0.95, 0.95), (1.0, 1.0)] {
            let found = percentile(&counts, share).unwrap().as_secs_f64();
            assert!((truth..truth * 1.125).contains(&found), "{share}: {found}");
        }
    }

    #[test]
    fn without_requests_there_is_no_percentile() {
        assert_eq!(percentile(&[0; BUCKETS], 0.5), None);
    }
}
