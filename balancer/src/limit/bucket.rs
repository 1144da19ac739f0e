//! A token bucket as one number: the time at which it will be full again (the generic cell rate
//! algorithm, ITU-T I.371). A token is worth the time that it takes to come back.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// How many requests there may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    /// So many, 1 or more,
    pub requests: u32,
    /// in this time, in the long run.
    pub per: Duration,
    /// Tokens of a full bucket, 1 or more: requests that may come at once.
    pub burst: u32,
}

/// Whether there was a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There was, and so many are left.
    Pass {
        /// Tokens left.
        remaining: u32,
    },
    /// There will be one after this time.
    Wait(Duration),
}

impl Rate {
    /// Nanoseconds in which a token comes back; at least one.
    fn token(&self) -> u64 {
        nanos(self.per) / u64::from(self.requests.max(1)).max(1)
    }

    /// Time in which an empty bucket fills.
    pub fn time_to_fill(&self) -> Duration {
        Duration::from_nanos(self.token().max(1).saturating_mul(u64::from(self.burst)))
    }

    /// Takes a token at `now`. `full_at` is the bucket: when it is full again, in nanoseconds.
    /// Both count from the same moment.
    pub fn take(&self, full_at: &mut u64, now: Duration) -> Verdict {
        let (now, token) = (nanos(now), self.token().max(1));
        let depth = token.saturating_mul(u64::from(self.burst));
        let after = (*full_at).max(now).saturating_add(token);
        let missing = after - now;
        if missing > depth {
            return Verdict::Wait(Duration::from_nanos(missing - depth));
        }
        *full_at = after;
        Verdict::Pass { remaining: u32::try_from((depth - missing) / token).unwrap_or(u32::MAX) }
    }

    /// The same for a bucket that several threads take from.
    pub(super) fn take_shared(&self, full_at: &AtomicU64, now: Duration) -> Verdict {
        let mut old = full_at.load(Relaxed);
        loop {
            let mut new = old;
            let verdict = self.take(&mut new, now);
            if new == old {
                return verdict;
            }
            match full_at.compare_exchange_weak(old, new, Relaxed, Relaxed) {
                Ok(_) => return verdict,
                Err(current) => old = current,
            }
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_full_bucket_gives_its_burst_and_then_one_at_a_time() {
        let rate = Rate { requests: 10, per: SECOND, burst: 3 };
        let mut bucket = 0;
        let mut take = |ms| rate.take(&mut bucket, SECOND + Duration::from_millis(ms));
        let left = |remaining| Verdict::Pass { remaining };
        assert_eq!([0, 0, 0].map(&mut take), [left(2), left(1), left(0)]);
        assert_eq!(take(0), Verdict::Wait(Duration::from_millis(100)));
        assert_eq!(take(40), Verdict::Wait(Duration::from_millis(60)));
        assert_eq!([100, 100].map(&mut take), [left(0), Verdict::Wait(Duration::from_millis(100))]);
        assert_eq!(take(60_000), left(2), "it fills, and no further than full");
    }

    #[test]
    fn a_slow_rate_is_exact() {
        let rate = Rate { requests: 5, per: 60 * SECOND, burst: 1 };
        let mut bucket = 0;
        assert_eq!(rate.take(&mut bucket, SECOND), Verdict::Pass { remaining: 0 });
        assert_eq!(rate.take(&mut bucket, SECOND), Verdict::Wait(12 * SECOND));
        assert_eq!(rate.take(&mut bucket, 13 * SECOND), Verdict::Pass { remaining: 0 });
        assert_eq!(rate.time_to_fill(), 12 * SECOND);
    }

    #[test]
    fn threads_do_not_take_more_than_there_is() {
        let rate = Rate { requests: 1, per: SECOND, burst: 1000 };
        let bucket = AtomicU64::new(0);
        let take =
            || (0..1000).filter(|_| rate.take_shared(&bucket, SECOND) != Verdict::Wait(SECOND)).count();
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|it| it.join().unwrap()).sum()
        });
        assert_eq!(taken, 1000);
    }

    proptest! {
        #[test]
        fn no_time_has_more_than_its_share_and_a_burst(
            requests in 1_u32..100, burst in 1_u32..50, gaps in prop::collection::vec(0_u64..200, 1..300),
        ) {
            let rate = Rate { requests, per: SECOND, burst };
            let (mut bucket, mut now, mut passed) = (0, 0_u64, 0_u64);
            for gap in &gaps {
                now += gap;
                passed += u64::from(matches!(
                    rate.take(&mut bucket, Duration::from_millis(now)), Verdict::Pass { .. }
                ));
            }
            // One more for the rounding of a token's time.
            prop_assert!(passed <= u64::from(burst) + now * u64::from(requests) / 1000 + 1);
            // Whoever was told to wait gets one afterwards.
            if let Verdict::Wait(wait) = rate.take(&mut bucket, Duration::from_millis(now)) {
                let later = rate.take(&mut bucket, Duration::from_millis(now) + wait);
                let passes = matches!(later, Verdict::Pass { .. });
                prop_assert!(passes);
            }
        }
    }
}
