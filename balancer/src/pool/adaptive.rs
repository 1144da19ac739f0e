//! How many requests a backend may serve at once, found out while it runs.
//!
//! A backend with room to spare answers as soon as it can, however many requests it has; one
//! without makes them wait, and answers later the more it has. So the limit follows how answers
//! take longer (the gradient of Netflix's concurrency limits and of Envoy's adaptive concurrency):
//! with `floor` the quickest answers seen and `mean` those of the last window,
//!
//!   limit <- limit * clamp(tolerance * floor / mean, 1/2, 1) + sqrt(limit), a fifth of the way
//!
//! A window ends after 100 ms and ten answers. A limit that is not used does not grow. What is
//! quick is told by a window in which the backend has no more than `min` requests: the first one,
//! and again after a minute, so that a backend that has become slower for good is not throttled
//! for ever, and a standing wait does not become the measure. A window in which more than a tenth
//! failed (no answer, 503 or 504) takes a tenth of the limit.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shortest time and fewest answers of a window.
const WINDOW: Duration = Duration::from_millis(100);
const FEWEST: u32 = 10;
/// Age at which the quickest answers are looked for again.
const FLOOR_AGE: Duration = Duration::from_secs(60);
/// How far a limit goes towards its target in one window.
const STEP: f64 = 0.2;
/// What failures leave of a limit, and the share of them that does it.
const AFTER_FAILURES: f64 = 0.9;
const FAILURES: f64 = 0.1;

/// Bounds of limits that are found out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdaptiveSettings {
    /// The limit is never below this, at least 1. So many a backend must be able to serve at once
    /// without any having to wait.
    pub min: u32,
    /// Nor above this.
    pub max: u32,
    /// How many times as long as the quickest answers may take, above 1.
    pub tolerance: f64,
}

impl Default for AdaptiveSettings {
    fn default() -> Self {
        Self { min: 3, max: 1000, tolerance: 2.0 }
    }
}

impl AdaptiveSettings {
    /// Where a limit begins once it is known what is quick.
    const START: u32 = 20;

    fn start(&self) -> f64 {
        Self::START.clamp(self.min, self.max).into()
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// With an answer, whose head came after this time.
    Answered(Duration),
    /// Without one, or with one that says that the backend has too much to do.
    Failed,
}

/// What one backend did in the window that is open.
#[derive(Debug)]
pub(super) struct Adaptive {
    since: Instant,
    /// Microseconds from `since`.
    began: AtomicU64,
    total_micros: AtomicU64,
    answers: AtomicU32,
    busiest: AtomicU32,
    failures: AtomicU32,
    gradient: Mutex<Gradient>,
}

impl Adaptive {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            began: AtomicU64::new(0),
            total_micros: AtomicU64::new(0),
            answers: AtomicU32::new(0),
            busiest: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            gradient: Mutex::new(Gradient::default()),
        }
    }

    /// Notes how a request ended, and how many there were with it. Says what the limit is to be if
    /// that ended a window.
    pub(super) fn note(
        &self,
        ended: Ended,
        in_flight: u32,
        now: Instant,
        settings: &AdaptiveSettings,
    ) -> Option<u32> {
        match ended {
            Ended::Answered(took) => {
                let micros = took.as_micros().min(u128::from(u32::MAX)) as u64;
                self.total_micros.fetch_add(micros, Relaxed);
                self.answers.fetch_add(1, Relaxed);
            }
            Ended::Failed => drop(self.failures.fetch_add(1, Relaxed)),
        }
        self.busiest.fetch_max(in_flight, Relaxed);
        let noted = self.answers.load(Relaxed) + self.failures.load(Relaxed);
        let at = now.saturating_duration_since(self.since).as_micros() as u64;
        let began = self.began.load(Relaxed);
        if noted < FEWEST || at.saturating_sub(began) < WINDOW.as_micros() as u64 {
            return None;
        }
        // One of the workers closes it; what the others note meanwhile is in this window or the next.
        self.began.compare_exchange(began, at, Relaxed, Relaxed).ok()?;
        let window = self.close();
        let mut gradient = self.gradient.lock().unwrap_or_else(PoisonError::into_inner);
        Some(gradient.next(window, now, settings))
    }

    fn close(&self) -> Window {
        let (answers, failures) = (self.answers.swap(0, Relaxed), self.failures.swap(0, Relaxed));
        let total = self.total_micros.swap(0, Relaxed) as f64;
        Window {
            mean: (answers > 0).then(|| (total / f64::from(answers)).max(1.0)),
            busiest: self.busiest.swap(0, Relaxed),
            failed: f64::from(failures) > FAILURES * f64::from(answers + failures),
        }
    }
}

/// What happened in a window.
#[derive(Debug, Clone, Copy)]
struct Window {
    /// Mean time to the head of an answer, microseconds; `None` if there was none.
    mean: Option<f64>,
    /// Most requests at once.
    busiest: u32,
    failed: bool,
}

/// What a limit goes by from window to window.
#[derive(Debug, Default)]
struct Gradient {
    limit: Option<f64>,
    /// The quickest mean, microseconds, and when it was seen.
    floor: Option<(f64, Instant)>,
    look: Look,
}

/// Whether it is looked anew for what is quick.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Look {
    No,
    /// The limit has sunk; answers to former requests still come.
    Settles,
    /// This window tells.
    #[default]
    Tells,
}

impl Gradient {
    fn next(&mut self, window: Window, now: Instant, settings: &AdaptiveSettings) -> u32 {
        let limit = self.limit.unwrap_or(settings.start());
        let unused = f64::from(window.busiest) < limit / 2.0;
        let quickness = window.mean.map(|mean| self.floor(mean, unused, now) / mean);
        if self.look != Look::No {
            return settings.min;
        }
        let target = match quickness {
            _ if window.failed => limit * AFTER_FAILURES,
            Some(quickness) => limit * (settings.tolerance * quickness).clamp(0.5, 1.0) + limit.sqrt(),
            None => limit,
        };
        let new = if unused && target > limit { limit } else { limit + STEP * (target - limit) };
        let new = new.clamp(settings.min.into(), settings.max.into());
        self.limit = Some(new);
        new.round() as u32
    }

    /// The quickest mean, after this one. Begins to look for it anew when it is old.
    fn floor(&mut self, mean: f64, unused: bool, now: Instant) -> f64 {
        match (self.look, self.floor) {
            (Look::Settles, Some((floor, _))) => {
                self.look = Look::Tells;
                return floor;
            }
            (Look::No, Some((floor, at))) if floor <= mean => {
                let old = now.saturating_duration_since(at) >= FLOOR_AGE;
                if !old {
                    return floor;
                }
                // With few requests none has to wait, and this window tells as well.
                if !unused {
                    self.look = Look::Settles;
                    return floor;
                }
            }
            _ => {}
        }
        (self.look, self.floor) = (Look::No, Some((mean, now)));
        mean
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: AdaptiveSettings = AdaptiveSettings { min: 2, max: 400, tolerance: 2.0 };

    /// A backend that serves so many at once, each for so long, and lets the others wait. A client
    /// that always has more to ask.
    struct Backend {
        capacity: f64,
        service_micros: f64,
    }

    impl Backend {
        fn mean(&self, in_flight: u32) -> f64 {
            self.service_micros * (f64::from(in_flight) / self.capacity).max(1.0)
        }

        fn run(&self, gradient: &mut Gradient, now: &mut Instant, windows: u32, wanted: u32) -> Vec<u32> {
            let mut limit = SETTINGS.min;
            let mut seen = Vec::new();
            for _ in 0..windows {
                let busiest = limit.min(wanted);
                *now += WINDOW;
                let window = Window { mean: Some(self.mean(busiest)), busiest, failed: false };
                limit = gradient.next(window, *now, &SETTINGS);
                seen.push(limit);
            }
            seen
        }
    }

    #[test]
    fn a_limit_finds_what_a_backend_can_do_and_stays_there() {
        for capacity in [4.0, 32.0, 100.0] {
            let backend = Backend { capacity, service_micros: 5000.0 };
            let limits = backend.run(&mut Gradient::default(), &mut Instant::now(), 1000, 10_000);
            let late = &limits[200..];
            let enough = late.iter().filter(|limit| f64::from(**limit) >= capacity).count();
            assert!(enough * 100 >= late.len() * 99, "{capacity} at once are used: {late:?}");
            let most = f64::from(*late.iter().max().unwrap());
            assert!(most <= capacity * SETTINGS.tolerance * 2.0, "{most} for {capacity}");
        }
    }

    #[test]
    fn a_limit_that_is_not_used_does_not_grow() {
        let backend = Backend { capacity: 1000.0, service_micros: 5000.0 };
        let limits = backend.run(&mut Gradient::default(), &mut Instant::now(), 100, 5);
        assert_eq!(limits.iter().max(), Some(&AdaptiveSettings::START));
    }

    #[test]
    fn a_backend_that_has_become_slower_gets_its_requests_back() {
        let (mut gradient, mut now) = (Gradient::default(), Instant::now());
        let quick = Backend { capacity: 50.0, service_micros: 1000.0 };
        quick.run(&mut gradient, &mut now, 200, 10_000);
        let slow = Backend { capacity: 50.0, service_micros: 20_000.0 };
        let limits = slow.run(&mut gradient, &mut now, 1000, 10_000);
        assert!(
            *limits[..200].iter().min().unwrap() < 10,
            "slower is taken for overloaded first: {limits:?}"
        );
        assert!(*limits.last().unwrap() >= 50, "{limits:?}");
    }

    #[test]
    fn failures_take_from_a_limit_whatever_the_answers_say() {
        let (mut gradient, now) = (Gradient::default(), Instant::now());
        let window = Window { mean: Some(1000.0), busiest: 20, failed: true };
        let limits: Vec<u32> = (0..50).map(|_| gradient.next(window, now, &SETTINGS)).collect();
        assert!(limits.is_sorted_by(|a, b| a >= b) && limits[49] < 10, "{limits:?}");
    }

    #[test]
    fn a_window_ends_with_time_and_answers_and_one_worker_closes_it() {
        let now = Instant::now();
        let adaptive = Adaptive::new(now);
        let ms = Duration::from_millis(1);
        let answered = Ended::Answered(ms);
        for _ in 0..100 {
            assert_eq!(adaptive.note(answered, 15, now + 50 * ms, &SETTINGS), None, "it is too early");
        }
        let limit = adaptive.note(answered, 15, now + 100 * ms, &SETTINGS);
        assert_eq!(limit, Some(21), "it is known what is quick");
        for _ in 1..FEWEST {
            assert_eq!(
                adaptive.note(Ended::Failed, 15, now + 900 * ms, &SETTINGS),
                None,
                "there are too few"
            );
        }
        assert!(adaptive.note(answered, 15, now + 900 * ms, &SETTINGS) < limit, "most of them failed");
    }
}
