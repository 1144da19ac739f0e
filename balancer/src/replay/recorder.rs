//! What became of every request, second by second.
//!
//! Latencies count from the time at which a request was *due*, not from when
//! it was sent: a stalled tier cannot hide behind a player that waits for it
//! (coordinated omission). Pure: the player tells it what happened and when.

use std::collections::BTreeMap;
use std::time::Duration;

use super::client::Failure;

/// How many different `X-Flurry-Clone` values are told apart.
const MAX_CLONES_COUNTED: usize = 1024;
/// How many failures are kept word for word.
const MAX_FAILURES_KEPT: usize = 8;

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// A whole response below status 500.
    Answered {
        /// The HTTP status.
        status: u16,
        /// Whether `X-Cache` said hit; `None` without that header.
        cache_hit: Option<bool>,
        /// The value of `X-Flurry-Clone`.
        clone: Option<String>,
    },
    /// Anything else, in one sentence.
    Failed(Failure, String),
}

/// One request that ended. Times are since the start of the replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// When it was due.
    pub due: Duration,
    /// When it ended.
    pub done: Duration,
    /// How it ended.
    pub ending: Ending,
}

/// One second of the replay.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Second {
    /// Requests that were due in it.
    pub offered: u32,
    /// Responses that were complete in it.
    pub served: u32,
    /// Requests that failed in it.
    pub failed: u32,
    /// Latencies of the requests due in it that were answered, microseconds.
    pub latencies_us: Vec<u32>,
}

/// Everything that is kept about the requests of a replay.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    /// By second since the start.
    pub seconds: Vec<Second>,
    /// Requests that were due so far.
    pub offered: u64,
    /// Requests that failed, by reason.
    pub failures: BTreeMap<Failure, u64>,
    /// The first failures in words.
    pub first_failures: Vec<String>,
    /// Responses by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Responses by the clone that answered.
    pub clones: BTreeMap<String, u64>,
    /// Responses whose `X-Cache` said hit.
    pub cache_hits: u64,
    /// Responses whose `X-Cache` said something else.
    pub cache_misses: u64,
}

impl Recorder {
    /// A request became due.
    pub fn offer(&mut self, due: Duration) {
        self.offered += 1;
        self.second(due).offered += 1;
    }

    /// A request ended.
    pub fn end(&mut self, outcome: Outcome) {
        match outcome.ending {
            Ending::Failed(failure, why) => self.fail(outcome.done, failure, &why),
            Ending::Answered { status, cache_hit, clone } => {
                let latency = outcome.done.saturating_sub(outcome.due).as_micros();
                self.second(outcome.due).latencies_us.push(u32::try_from(latency).unwrap_or(u32::MAX));
                self.second(outcome.done).served += 1;
                *self.statuses.entry(status).or_default() += 1;
                match cache_hit {
                    Some(true) => self.cache_hits += 1,
                    Some(false) => self.cache_misses += 1,
                    None => {}
                }
                clone.into_iter().for_each(|clone| self.count_clone(clone));
            }
        }
    }

    fn fail(&mut self, at: Duration, failure: Failure, why: &str) {
        self.second(at).failed += 1;
        *self.failures.entry(failure).or_default() += 1;
        if self.first_failures.len() < MAX_FAILURES_KEPT {
            self.first_failures.push(format!("at {:.1} s: {}: {why}", at.as_secs_f64(), failure.words()));
        }
    }

    fn count_clone(&mut self, clone: String) {
        if self.clones.len() < MAX_CLONES_COUNTED || self.clones.contains_key(&clone) {
            *self.clones.entry(clone).or_default() += 1;
        }
    }

    fn second(&mut self, at: Duration) -> &mut Second {
        let index = at.as_secs() as usize;
        if self.seconds.len() <= index {
            self.seconds.resize_with(index + 1, Second::default);
        }
        &mut self.seconds[index]
    }

    /// Requests that failed.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Requests that were answered.
    pub fn served(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// All latencies, ascending.
    pub fn latencies(&self) -> Latencies {
        Latencies::of(self.seconds.iter())
    }

    /// The latencies of requests due in the given seconds, ascending.
    pub fn latencies_between(&self, from: usize, to: usize) -> Latencies {
        Latencies::of(self.seconds.iter().take(to).skip(from))
    }
}

/// Latencies in ascending order.
#[derive(Debug, Clone, PartialEq)]
pub struct Latencies(Vec<u32>);

impl Latencies {
    fn of<'a>(seconds: impl Iterator<Item = &'a Second>) -> Self {
        let mut all: Vec<u32> = seconds.flat_map(|second| second.latencies_us.iter().copied()).collect();
        all.sort_unstable();
        Self(all)
    }

    /// The nearest-rank quantile in milliseconds; `None` when nothing was answered.
    pub fn quantile_ms(&self, quantile: f64) -> Option<f64> {
        let rank = (quantile * self.0.len() as f64).ceil() as usize;
        let us = self.0.get(rank.clamp(1, self.0.len().max(1)) - 1)?;
        Some(f64::from(*us) / 1000.0)
    }
}

/// The median; `None` of nothing.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn answered(due: u64, done: u64, cache_hit: Option<bool>, clone: Option<&str>) -> Outcome {
        let ending = Ending::Answered { status: 200, cache_hit, clone: clone.map(Into::into) };
        Outcome { due: ms(due), done: ms(done), ending }
    }

    #[test]
    fn latency_counts_from_when_a_request_was_due_and_service_from_when_it_ended() {
        let mut recorder = Recorder::default();
        recorder.offer(ms(900));
        recorder.end(answered(900, 3_100, None, None));
        assert_eq!(recorder.seconds[0].latencies_us, [2_200_000]);
        assert_eq!((recorder.seconds[0].offered, recorder.seconds[0].served), (1, 0));
        assert_eq!(recorder.seconds[3].served, 1);
    }

    #[test]
    fn failures_are_counted_by_reason_and_the_first_are_kept_in_words() {
        let mut recorder = Recorder::default();
        for due in 0..20 {
            let ending = Ending::Failed(Failure::CutOff, "connection reset".into());
            recorder.end(Outcome { due: ms(due), done: ms(due + 1_200), ending });
        }
        assert_eq!(recorder.failed(), 20);
        assert_eq!(recorder.failures[&Failure::CutOff], 20);
        assert_eq!(recorder.first_failures.len(), MAX_FAILURES_KEPT);
        assert_eq!(recorder.first_failures[0], "at 1.2 s: cut off: connection reset");
        assert_eq!(recorder.latencies().quantile_ms(0.5), None);
    }

    #[test]
    fn caches_and_clones_are_counted_and_the_number_of_clones_is_bounded() {
        let mut recorder = Recorder::default();
        recorder.end(answered(0, 1, Some(true), Some("clone-1")));
        recorder.end(answered(0, 1, Some(false), Some("clone-1")));
        assert_eq!((recorder.cache_hits, recorder.cache_misses), (1, 1));
        assert_eq!(recorder.clones["clone-1"], 2);
        for n in 0..2 * MAX_CLONES_COUNTED {
            recorder.end(answered(0, 1, None, Some(&format!("x{n}"))));
        }
        assert_eq!(recorder.clones.len(), MAX_CLONES_COUNTED);
        assert_eq!(recorder.served(), 2 + 2 * MAX_CLONES_COUNTED as u64);
    }

    #[test]
    fn quantiles_are_nearest_rank() {
        let mut recorder = Recorder::default();
        for n in 1..=100 {
            recorder.end(answered(0, n, None, None));
        }
        let latencies = recorder.latencies();
        assert_eq!(latencies.quantile_ms(0.5), Some(50.0));
        assert_eq!(latencies.quantile_ms(0.95), Some(95.0));
        assert_eq!(latencies.quantile_ms(1.0), Some(100.0));
        assert_eq!(latencies.quantile_ms(0.0), Some(1.0));
    }

    #[test]
    fn a_median_is_the_middle_or_between_the_two_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
    }
}
