//! A seasonal forecast: what was wanted at this time of the day (or week) before.
//!
//!   wanted over time -> highest of each bin -> mean over seasons, newer ones weigh more
//!
//! It knows a bin from the second season on. The record can be kept beyond the life of
//! a scaler: it is plain data.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a forecast is made, and whether it counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Predict {
    /// After this time the load is taken to repeat itself: a day or a week.
    pub season: Duration,
    /// The season is cut into bins of this length.
    pub bin: Duration,
    /// How far ahead of a forecast need backends are there.
    pub buffer: Duration,
    /// Whether it raises the floor; otherwise it is shown only.
    pub acts: bool,
}

/// Weight of the newest season.
const NEWEST: f64 = 0.5;

/// What was wanted, by bin of the season.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Length of a bin, seconds.
    bin_seconds: u64,
    /// What was wanted at most in each bin, mean over seasons; `None` for bins never seen.
    bins: Vec<Option<f64>>,
    /// The bin that is going on, counted from 1970, and the highest in it.
    open: Option<(u64, f64)>,
}

impl Record {
    /// An empty record. The bin is a second at least.
    pub(crate) fn new(predict: &Predict) -> Self {
        let bin_seconds = predict.bin.as_secs().max(1);
        let count = (predict.season.as_secs() / bin_seconds).max(1) as usize;
        Self { bin_seconds, bins: vec![None; count], open: None }
    }

    /// Whether it was made for the same season and bins, and holds nothing absurd.
    pub(crate) fn fits(&self, predict: &Predict) -> bool {
        let fresh = Self::new(predict);
        let open = self.open.map(|(_, highest)| highest);
        let sane = |wanted: &f64| (0.0..=f64::from(u32::MAX)).contains(wanted);
        self.bin_seconds == fresh.bin_seconds
            && self.bins.len() == fresh.bins.len()
            && self.bins.iter().flatten().chain(&open).all(sane)
    }

    /// Takes note of what is wanted at a time since 1970.
    pub(crate) fn note(&mut self, wanted: u32, unix: Duration) {
        let bin = unix.as_secs() / self.bin_seconds;
        let wanted = f64::from(wanted);
        self.open = match self.open {
            Some((open, highest)) if open == bin => Some((open, highest.max(wanted))),
            Some((open, highest)) => {
                self.close(open, highest);
                Some((bin, wanted))
            }
            None => Some((bin, wanted)),
        };
    }

    fn close(&mut self, bin: u64, highest: f64) {
        let place = self.place(bin);
        let before = self.bins[place];
        self.bins[place] = Some(before.map_or(highest, |mean| mean + NEWEST * (highest - mean)));
    }

    fn place(&self, bin: u64) -> usize {
        (bin % self.bins.len() as u64) as usize
    }

    /// The most that will be wanted from a time since 1970 on for as long as `ahead`;
    /// `None` if any of that time was never seen.
    pub(crate) fn forecast(&self, unix: Duration, ahead: Duration) -> Option<u32> {
        let (first, last) = (unix.as_secs() / self.bin_seconds, (unix + ahead).as_secs() / self.bin_seconds);
        let last = last.min(first + self.bins.len() as u64 - 1);
        let wanted: Option<Vec<f64>> = (first..=last).map(|bin| self.bins[self.place(bin)]).collect();
        wanted?.into_iter().reduce(f64::max).map(|highest| (highest - 1e-9).ceil() as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn predict() -> Predict {
        Predict { season: 24 * HOUR, bin: HOUR / 12, buffer: HOUR / 4, acts: true }
    }

    /// Notes a load by hour of the day, every minute for so many days.
    fn record(days: u64, wanted: impl Fn(u64, u64) -> u32) -> Record {
        let mut record = Record::new(&predict());
        for minute in 0..days * 24 * 60 {
            let at = Duration::from_secs(minute * 60);
            record.note(wanted(minute / 1440, minute / 60 % 24), at);
        }
        record
    }

    #[test]
    fn the_same_time_of_the_day_before_is_the_forecast() {
        let record = record(2, |_, hour| if hour == 9 { 7 } else { 2 });
        let at = |minutes: u64| 48 * HOUR + Duration::from_secs(minutes * 60);
        assert_eq!(record.forecast(at(8 * 60), Duration::ZERO), Some(2));
        assert_eq!(record.forecast(at(8 * 60 + 44), HOUR / 4), Some(2), "the buffer does not reach it");
        assert_eq!(record.forecast(at(8 * 60 + 46), HOUR / 4), Some(7), "the buffer comes first");
        assert_eq!(record.forecast(at(9 * 60 + 59), HOUR / 4), Some(7));
        assert_eq!(record.forecast(at(10 * 60), HOUR / 4), Some(2));
    }

    #[test]
    fn newer_days_weigh_more() {
        let rising = record(3, |day, _| 4 * (day as u32 + 1));
        assert_eq!(rising.forecast(72 * HOUR, Duration::ZERO), Some(9), "4, then 6, then 9");
    }

    #[test]
    fn time_that_was_never_seen_has_no_forecast() {
        let half = record(1, |_, _| 3);
        assert_eq!(half.forecast(23 * HOUR, 2 * HOUR), None, "the last bin is still open");
        let mut gap = Record::new(&predict());
        gap.note(3, HOUR);
        gap.note(3, 2 * HOUR);
        assert_eq!(gap.forecast(25 * HOUR, Duration::ZERO), Some(3));
        assert_eq!(gap.forecast(25 * HOUR, HOUR), None);
        assert_eq!(gap.bins.iter().flatten().count(), 1);
    }

    #[test]
    fn a_record_of_other_bins_or_of_nonsense_does_not_fit() {
        assert!(Record::new(&predict()).fits(&predict()));
        assert!(!Record::new(&Predict { bin: HOUR, ..predict() }).fits(&predict()));
        assert!(!Record::new(&Predict { season: HOUR, ..predict() }).fits(&predict()));
        let text = serde_json::to_string(&record(1, |_, _| 3)).expect("serializes");
        let kept: Record = serde_json::from_str(&text).expect("the same");
        assert!(kept.fits(&predict()) && kept == record(1, |_, _| 3));
        let absurd: Record = serde_json::from_str(&text.replacen("3.0", "-3.0", 1)).expect("numbers");
        assert!(!absurd.fits(&predict()));
    }
}
