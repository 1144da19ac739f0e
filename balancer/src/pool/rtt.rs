//! How soon a backend answers: an average that jumps up at once and comes down slowly.
//!
//! Peak EWMA, as in Finagle and linkerd: one slow answer counts at once, and is forgotten over
//! ten seconds, also without requests, so that a backend that was slow once is tried again.
//! Two workers that write at once lose one of their samples, no more.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Time after which a former value counts 1/e.
const DECAY: Duration = Duration::from_secs(10);
/// What a failure counts as: failing fast is not answering soon.
pub(super) const FAILURE: Duration = Duration::from_secs(5);
/// What a backend counts as while its first request is under way.
const UNKNOWN: Duration = Duration::from_secs(1);

/// The average of one backend.
#[derive(Debug)]
pub struct PeakEwma {
    since: Instant,
    /// Microseconds, as the bits of a float; 0 before the first answer.
    value: AtomicU64,
    /// When the value was true, in microseconds from `since`.
    at: AtomicU64,
}

impl PeakEwma {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, value: AtomicU64::new(0), at: AtomicU64::new(0) }
    }

    /// Notes the time from a request to the head of its answer.
    pub(super) fn note(&self, rtt: Duration, now: Instant) {
        let sample = micros(rtt).max(1.0);
        let known = self.value.load(Relaxed) != 0;
        let old = f64::from_bits(self.value.load(Relaxed));
        let kept = self.kept(now);
        let new = if !known || sample > old * kept { sample } else { old * kept + sample * (1.0 - kept) };
        self.value.store(new.to_bits(), Relaxed);
        self.at.store(self.offset(now), Relaxed);
    }

    /// The average; `None` before the first answer.
    pub fn average(&self, now: Instant) -> Option<Duration> {
        let value = f64::from_bits(self.value.load(Relaxed));
        (value > 0.0).then(|| Duration::from_secs_f64(value * self.kept(now) / 1e6))
    }

    /// What one more request costs with so many in flight, in microseconds. Who has never answered
    /// costs nothing until it has a request.
    pub(super) fn cost(&self, in_flight: u32, now: Instant) -> f64 {
        let value = f64::from_bits(self.value.load(Relaxed));
        if value == 0.0 {
            return micros(UNKNOWN) * f64::from(in_flight);
        }
        value * self.kept(now) * f64::from(in_flight.saturating_add(1))
    }

    /// The part of the value that is left of it by now.
    fn kept(&self, now: Instant) -> f64 {
        let age = self.offset(now).saturating_sub(self.at.load(Relaxed)) as f64;
        (-age / micros(DECAY)).exp()
    }

    fn offset(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.since).as_micros()).unwrap_or(u64::MAX)
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn average_ms(rtt: &PeakEwma, now: Instant) -> f64 {
        rtt.average(now).unwrap().as_secs_f64() * 1e3
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_is_forgotten_slowly() {
        let now = Instant::now();
        let rtt = PeakEwma::new(now);
        rtt.note(10 * MS, now);
        rtt.note(100 * MS, now + MS);
        assert!((average_ms(&rtt, now + MS) - 100.0).abs() < 0.1);
        rtt.note(10 * MS, now + 2 * MS);
        assert!(average_ms(&rtt, now + 2 * MS) > 99.0, "a quick one soon after changes little");
        let later = now + DECAY;
        rtt.note(10 * MS, later);
        assert!((average_ms(&rtt, later) - (100.0 / std::f64::consts::E + 6.3)).abs() < 1.0);
    }

    #[test]
    fn who_was_slow_is_tried_again_after_a_while() {
        let now = Instant::now();
        let (slow, quick) = (PeakEwma::new(now), PeakEwma::new(now));
        slow.note(FAILURE, now);
        quick.note(10 * MS, now);
        let later = now + 7 * DECAY;
        quick.note(10 * MS, later);
        assert!(slow.cost(0, now) > quick.cost(0, now));
        assert!(slow.cost(0, later) < quick.cost(0, later));
    }

    #[test]
    fn who_is_new_gets_one_request_and_no_second_before_its_answer() {
        let now = Instant::now();
        let (new, known) = (PeakEwma::new(now), PeakEwma::new(now));
        known.note(10 * MS, now);
        assert!(new.average(now).is_none());
        assert!(new.cost(0, now) < known.cost(0, now));
        assert!(new.cost(1, now) > known.cost(9, now));
    }
}
