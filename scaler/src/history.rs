//! The samples of the last stable window, in buckets of equal time. Bounded.
//!
//! A window's mean is the mean of its buckets that hold anything: a burst of samples
//! in one moment weighs no more than one sample in the next.

use std::collections::VecDeque;
use std::time::Duration;

use crate::signal::Signal;

/// Buckets in the shortest window that is asked for.
const BUCKETS_PER_SHORT_WINDOW: u32 = 10;

/// Buckets kept at most, whatever the windows are.
const MOST_BUCKETS: usize = 2000;

#[derive(Debug, Clone)]
pub(crate) struct History {
    grain: Duration,
    keep: usize,
    /// Longest time between two samples that leaves no gap.
    gap: Duration,
    buckets: VecDeque<Bucket>,
    lines: [Option<Line>; Signal::COUNT],
}

/// How long a signal has been seen without a gap.
#[derive(Debug, Clone, Copy)]
struct Line {
    since: Duration,
    newest: Duration,
    value: f64,
}

#[derive(Debug, Clone, Default)]
struct Bucket {
    index: u64,
    cells: [Cell; Signal::COUNT],
}

#[derive(Debug, Clone, Copy, Default)]
struct Cell {
    sum: f64,
    count: u32,
}

impl History {
    /// Keeps enough for windows from `short` to `long`.
    pub(crate) fn new(short: Duration, long: Duration, gap: Duration) -> Self {
        let finest = (long / MOST_BUCKETS as u32).max(Duration::from_millis(1));
        let grain = (short / BUCKETS_PER_SHORT_WINDOW).max(finest);
        let keep = (span(long, grain) as usize).clamp(1, MOST_BUCKETS);
        Self { grain, keep, gap, buckets: VecDeque::new(), lines: [None; Signal::COUNT] }
    }

    /// Adds a value; `now` is never before an earlier one's.
    pub(crate) fn put(&mut self, signal: Signal, value: f64, now: Duration) {
        let index = self.index(now);
        if self.buckets.back().is_none_or(|bucket| bucket.index < index) {
            self.buckets.push_back(Bucket { index, ..Bucket::default() });
        }
        while self.buckets.len() > self.keep {
            self.buckets.pop_front();
        }
        if let Some(bucket) = self.buckets.back_mut() {
            let cell = &mut bucket.cells[signal.index()];
            cell.sum += value;
            cell.count = cell.count.saturating_add(1);
        }
        let line = &mut self.lines[signal.index()];
        let since = match line {
            Some(line) if now.saturating_sub(line.newest) <= self.gap => line.since,
            _ => now,
        };
        *line = Some(Line { since, newest: now, value });
    }

    /// The mean of a signal over the `window` that ends now; its newest value if the
    /// window holds none; `None` if there never was one.
    pub(crate) fn mean(&self, signal: Signal, window: Duration, now: Duration) -> Option<f64> {
        let line = self.lines[signal.index()]?;
        let first = (self.index(now) + 1).saturating_sub(span(window, self.grain));
        let in_window = self.buckets.iter().rev().take_while(|bucket| bucket.index >= first);
        let (mut sum, mut count) = (0.0, 0_u32);
        for cell in in_window.map(|bucket| bucket.cells[signal.index()]).filter(|cell| cell.count > 0) {
            sum += cell.sum / f64::from(cell.count);
            count += 1;
        }
        Some(if count == 0 { line.value } else { sum / f64::from(count) })
    }

    /// How old the newest value of a signal is.
    pub(crate) fn age(&self, signal: Signal, now: Duration) -> Option<Duration> {
        self.lines[signal.index()].map(|line| now.saturating_sub(line.newest))
    }

    /// How long a signal has been seen without a gap.
    pub(crate) fn seen_for(&self, signal: Signal, now: Duration) -> Duration {
        self.lines[signal.index()].map_or(Duration::ZERO, |line| now.saturating_sub(line.since))
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

    const C: Signal = Signal::Concurrency;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn history() -> History {
        History::new(ms(2000), ms(10_000), ms(3000))
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
        let mut history = History::new(ms(1), Duration::from_secs(1_000_000), ms(3000));
        for step in 0..10_000 {
            history.put(C, 1.0, Duration::from_secs(step * 1000));
        }
        assert!(history.buckets.len() <= MOST_BUCKETS);
        history.put(C, 1.0, Duration::MAX);
        assert_eq!(history.mean(C, ms(1), Duration::MAX), Some(1.0));
    }
}
