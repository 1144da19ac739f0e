//! The samples of the last stable window, in buckets of equal time. Bounded.
//!
//! A window's mean is the mean of its buckets that hold anything: a burst of samples
//! in one moment weighs no more than one sample in the next.

use std::collections::VecDeque;
use std::time::Duration;

/// Buckets in the shortest window that is asked for.
const BUCKETS_PER_SHORT_WINDOW: u32 = 10;

/// Buckets kept at most for each line, whatever the windows are.
const MOST_BUCKETS: usize = 2000;

/// Lines of samples, one for each measure; the caller numbers them.
#[derive(Debug, Clone)]
pub(crate) struct History {
    grain: Duration,
    keep: usize,
    lines: Vec<Line>,
}

/// The samples of one measure.
#[derive(Debug, Clone)]
struct Line {
    /// Longest time between two samples that leaves no gap.
    gap: Duration,
    buckets: VecDeque<Bucket>,
    seen: Option<Seen>,
}

/// How long a measure has been seen without a gap.
#[derive(Debug, Clone, Copy)]
struct Seen {
    since: Duration,
    newest: Duration,
    value: f64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    index: u64,
    sum: f64,
    count: u32,
}

impl History {
    /// Keeps enough for windows from `short` to `long`. For each line, the longest time
    /// between two samples that leaves no gap.
    pub(crate) fn new(gaps: &[Duration], short: Duration, long: Duration) -> Self {
        let finest = (long / MOST_BUCKETS as u32).max(Duration::from_millis(1));
        let grain = (short / BUCKETS_PER_SHORT_WINDOW).max(finest);
        let keep = (span(long, grain) as usize).clamp(1, MOST_BUCKETS);
        let line = |gap: &Duration| Line { gap: *gap, buckets: VecDeque::new(), seen: None };
        Self { grain, keep, lines: gaps.iter().map(line).collect() }
    }

    /// The same history for other windows: what is there is kept as far as it reaches.
    pub(crate) fn for_windows(&self, short: Duration, long: Duration) -> Self {
        let gaps: Vec<Duration> = self.lines.iter().map(|line| line.gap).collect();
        let mut new = Self::new(&gaps, short, long);
        for (index, line) in self.lines.iter().enumerate() {
            for bucket in &line.buckets {
                let at = Duration::from_nanos(
                    u64::try_from(self.grain.as_nanos() * u128::from(bucket.index)).unwrap_or(u64::MAX),
                );
                new.put(index, bucket.sum / f64::from(bucket.count), at);
            }
            new.lines[index].seen = line.seen;
        }
        new
    }

    /// Adds a value; `now` is never before an earlier one's.
    pub(crate) fn put(&mut self, line: usize, value: f64, now: Duration) {
        let (index, keep) = (self.index(now), self.keep);
        let line = &mut self.lines[line];
        match line.buckets.back_mut() {
            Some(bucket) if bucket.index >= index => {
                bucket.sum += value;
                bucket.count = bucket.count.saturating_add(1);
            }
            _ => line.buckets.push_back(Bucket { index, sum: value, count: 1 }),
        }
        if line.buckets.len() > keep {
            line.buckets.pop_front();
        }
        let since = match line.seen {
            Some(seen) if now.saturating_sub(seen.newest) <= line.gap => seen.since,
            _ => now,
        };
        line.seen = Some(Seen { since, newest: now, value });
    }

    /// The mean of a line over the `window` that ends now; its newest value if the
    /// window holds none; `None` if there never was one.
    pub(crate) fn mean(&self, line: usize, window: Duration, now: Duration) -> Option<f64> {
        let first = (self.index(now) + 1).saturating_sub(span(window, self.grain));
        let line = &self.lines[line];
        let newest = line.seen?.value;
        let (mut sum, mut count) = (0.0, 0_u32);
        for bucket in line.buckets.iter().rev().take_while(|bucket| bucket.index >= first) {
            sum += bucket.sum / f64::from(bucket.count);
            count += 1;
        }
        Some(if count == 0 { newest } else { sum / f64::from(count) })
    }

    /// How old the newest value of a line is.
    pub(crate) fn age(&self, line: usize, now: Duration) -> Option<Duration> {
        self.lines[line].seen.map(|seen| now.saturating_sub(seen.newest))
    }

    /// How long a line has been seen without a gap.
    pub(crate) fn seen_for(&self, line: usize, now: Duration) -> Duration {
        self.lines[line].seen.map_or(Duration::ZERO, |seen| now.saturating_sub(seen.since))
    }

    fn index(&self, at: Duration) -> u64 {
        u64::try_from(at.as_nanos() / self.grain.as_nanos()).unwrap_or(u64::MAX - 1)
    }
}

/// How many grains cover a window.
fn span(window: Duration, grain: Duration) -> u64 {
    u64::try_from(window.as_nanos().div_ceil(grain.as_nanos())).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const C: usize = 0;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn history() -> History {
        History::new(&[ms(3000); 2], ms(2000), ms(10_000))
    }

    #[test]
    fn a_mean_covers_its_window_only() {
        let mut history = history();
        for second in 0..10 {
            history.put(C, if second < 8 { 1.0 } else { 11.0 }, ms(second * 1000));
        }
        assert_eq!(history.mean(C, ms(2000), ms(9000)), Some(11.0));
        assert_eq!(history.mean(C, ms(10_000), ms(9000)), Some(3.0));
    }

    #[test]
    fn many_samples_in_one_moment_weigh_as_one() {
        let mut history = history();
        history.put(C, 0.0, ms(0));
        for _ in 0..100 {
            history.put(C, 10.0, ms(1000));
        }
        assert_eq!(history.mean(C, ms(2000), ms(1000)), Some(5.0));
    }

    #[test]
    fn an_empty_window_gives_the_newest_value() {
        let mut history = history();
        assert_eq!(history.mean(C, ms(2000), ms(0)), None);
        history.put(C, 7.0, ms(0));
        assert_eq!(history.mean(C, ms(2000), ms(9000)), Some(7.0));
    }

    #[test]
    fn other_windows_keep_what_was_seen() {
        let mut history = history();
        (0..10).for_each(|second| history.put(C, f64::from(second), ms(u64::from(second as u32) * 1000)));
        let wider = history.for_windows(ms(4000), ms(20_000));
        assert_eq!(wider.mean(C, ms(10_000), ms(9000)), Some(4.5));
        assert_eq!((wider.age(C, ms(9500)), wider.seen_for(C, ms(9000))), (Some(ms(500)), ms(9000)));
    }

    #[test]
    fn a_gap_starts_the_line_anew_and_no_gap_does_not() {
        let mut history = history();
        history.put(C, 1.0, ms(0));
        history.put(C, 1.0, ms(3000));
        assert_eq!(history.seen_for(C, ms(4000)), ms(4000));
        assert_eq!(history.age(C, ms(4000)), Some(ms(1000)));
        history.put(C, 1.0, ms(6001));
        assert_eq!(history.seen_for(C, ms(7001)), ms(1000));
    }

    #[test]
    fn memory_is_bounded_for_any_windows_and_any_time() {
        let mut history = History::new(&[ms(3000)], ms(1), Duration::from_secs(1_000_000));
        for step in 0..10_000 {
            history.put(C, 1.0, Duration::from_secs(step * 1000));
        }
        assert!(history.lines[C].buckets.len() <= MOST_BUCKETS);
        history.put(C, 1.0, Duration::MAX);
        assert_eq!(history.mean(C, ms(1), Duration::MAX), Some(1.0));
    }
}
