//! When a request that is not answered is sent to a second backend.
//!
//! After a fixed time, or after the time within which a share of the route's requests have ended of
//! late. That time is taken anew every few seconds from what the route has counted meanwhile.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::load::{DURATION_BOUNDS, RouteLoad};

/// How long requests are counted before the time is taken anew.
const WINDOW: Duration = Duration::from_secs(5);
/// Requests without which a share says nothing.
const ENOUGH: u64 = 100;
/// Counts of latencies, with one more for everything above.
const BOUNDS: usize = DURATION_BOUNDS.len() + 1;

/// When a second backend is asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HedgeAfter {
    /// After this time without an answer.
    Time(Duration),
    /// After the time within which this share of the requests ended, 0 to 1.
    Share(f64),
}

impl HedgeAfter {
    /// Reads `50ms` or `p95`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(percent) = text.strip_prefix('p') else {
            let time = scaler::yaml::parse_duration(text).map_err(|_| wrong(text))?;
            let fits = time >= Duration::from_millis(1) && time <= Duration::from_secs(3600);
            return fits.then_some(Self::Time(time)).ok_or_else(|| wrong(text));
        };
        let percent = percent.parse::<f64>().ok().filter(|it| (50.0..=99.9).contains(it));
        percent.map(|percent| Self::Share(percent / 100.0)).ok_or_else(|| wrong(text))
    }
}

fn wrong(text: &str) -> String {
    format!("must be a time from 1ms to 1h, or p50 to p99.9, got `{text}`")
}

/// What is known about the right time.
#[derive(Debug)]
pub(crate) struct Hedge {
    after: HedgeAfter,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    taken: Instant,
    counts: [u64; BOUNDS],
    time: Option<Duration>,
}

impl Hedge {
    pub(crate) fn new(after: HedgeAfter, now: Instant) -> Self {
        Self { after, seen: Mutex::new(Seen { taken: now, counts: [0; BOUNDS], time: None }) }
    }

    /// How long a first backend has; `None` while too little is known.
    pub(crate) fn delay(&self, load: &RouteLoad, now: Instant) -> Option<Duration> {
        let share = match self.after {
            HedgeAfter::Time(time) => return Some(time),
            HedgeAfter::Share(share) => share,
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.time.is_none() || now.saturating_duration_since(seen.taken) >= WINDOW {
            let counts: [u64; BOUNDS] = std::array::from_fn(|bound| load.sum(|it| &it.by_bound[bound]));
            seen.look(counts, share, now);
        }
        seen.time
    }
}

impl Seen {
    fn look(&mut self, counts: [u64; BOUNDS], share: f64, now: Instant) {
        let new: [u64; BOUNDS] = std::array::from_fn(|it| counts[it].saturating_sub(self.counts[it]));
        if new.iter().sum::<u64>() >= ENOUGH {
            (self.taken, self.counts, self.time) = (now, counts, Some(time_of(&new, share)));
        }
    }
}

/// The time within which a share of the counted requests ended, between the bounds of its count.
fn time_of(counts: &[u64; BOUNDS], share: f64) -> Duration {
    let rank = counts.iter().sum::<u64>() as f64 * share;
    let (mut below, mut from) = (0.0, 0.0);
    for (count, to) in counts.iter().zip(DURATION_BOUNDS) {
        let count = *count as f64;
        if count > 0.0 && below + count >= rank {
            return Duration::from_secs_f64(from + (to - from) * ((rank - below) / count).clamp(0.0, 1.0));
        }
        (below, from) = (below + count, to);
    }
    Duration::from_secs_f64(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_or_a_percentile_and_nothing_else_is_read() {
        assert_eq!(HedgeAfter::parse("50ms").unwrap(), HedgeAfter::Time(Duration::from_millis(50)));
        assert_eq!(HedgeAfter::parse("p95").unwrap(), HedgeAfter::Share(0.95));
        for bad in ["", "p", "p10", "p100", "95", "0s", "2h", "px"] {
            assert!(HedgeAfter::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_time_follows_what_the_route_counted_of_late() {
        let (load, start) = (RouteLoad::new(2), Instant::now());
        let hedge = Hedge::new(HedgeAfter::Share(0.95), start);
        let end = |times: usize, latency: Duration| {
            (0..times).for_each(|_| load.worker(0).request_ended(200, latency));
        };
        end(99, Duration::from_millis(8));
        assert_eq!(hedge.delay(&load, start), None, "too few to say anything");
        end(101, Duration::from_millis(8));
        let quick = hedge.delay(&load, start).unwrap();
        assert!(quick > Duration::from_millis(9) && quick <= Duration::from_millis(10), "{quick:?}");
        end(200, Duration::from_millis(200));
        assert_eq!(hedge.delay(&load, start + WINDOW / 2), Some(quick));
        let slow = hedge.delay(&load, start + WINDOW).unwrap();
        assert!(slow > Duration::from_millis(200) && slow <= Duration::from_millis(250), "{slow:?}");
        assert_eq!(hedge.delay(&load, start + WINDOW * 9), Some(slow), "nothing new is known");
    }

    #[test]
    fn what_is_above_all_bounds_has_the_last_one() {
        let mut counts = [0; BOUNDS];
        counts[BOUNDS - 1] = 100;
        assert_eq!(time_of(&counts, 0.5), Duration::from_secs(10));
    }
}
