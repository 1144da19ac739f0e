//! What a policy must hold to, whoever made it.

use std::time::Duration;

use super::Policy;
use super::keys::remedy;
use crate::rate::Rate;
use crate::yaml::{Complaint, show_duration};

/// Windows shorter than this hold too few samples to mean anything.
const SHORTEST_WINDOW: Duration = Duration::from_millis(100);

/// The longest window; also bounds the sums of a few of them.
const LONGEST_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// A stable window this many times the shortest one is the most that history resolves.
const MOST_WINDOW_RATIO: u32 = 200;

/// Notes problems by key, relative to the section `scaling`.
#[derive(Default)]
struct Problems(Vec<(String, String)>);

impl Problems {
    fn unless(&mut self, fine: bool, key: &str, problem: impl FnOnce() -> String) {
        if !fine {
            self.0.push((key.to_owned(), problem()));
        }
    }
}

impl Policy {
    /// Everything that is wrong with this policy; empty if it can be used.
    pub fn complaints(&self) -> Vec<Complaint> {
        let complaint = |(key, problem): (String, String)| {
            Complaint::new(format!("scaling.{key}"), problem, remedy(&key))
        };
        self.problems().into_iter().map(complaint).collect()
    }

    pub(super) fn problems(&self) -> Vec<(String, String)> {
        let mut problems = Problems::default();
        self.check_bounds(&mut problems);
        self.check_targets(&mut problems);
        self.check_windows(&mut problems);
        if let Some(rate) = &self.scale_up.rate {
            check_rate("scale_up.rate", rate, f64::INFINITY, &mut problems);
        }
        if let Some(rate) = &self.scale_down.rate {
            check_rate("scale_down.rate", rate, 1.0, &mut problems);
        }
        problems.0
    }

    fn check_bounds(&self, p: &mut Problems) {
        let (min, max) = (self.min, self.max);
        p.unless(min >= 1, "min", || format!("must be at least 1, got {min}: the parent serves too"));
        p.unless(max >= min, "max", || format!("must be at least min, which is {min}, got {max}"));
        let largest = Self::LARGEST_MAX;
        p.unless(max <= largest, "max", || format!("must be at most {largest}, got {max}"));
        p.unless(self.surge >= 1, "surge", || "must be at least 1, got 0".to_owned());
        let tolerance = self.tolerance;
        let fine = (0.0..=0.5).contains(&tolerance);
        p.unless(fine, "tolerance", || format!("must be from 0 to 50%, got {tolerance}"));
        let threshold = self.panic_threshold;
        let fine = threshold > 1.0 && threshold <= 1000.0;
        p.unless(fine, "panic_threshold", || format!("must be above 100% and sane, got {threshold}"));
    }

    fn check_targets(&self, p: &mut Problems) {
        let targets = &self.targets;
        let some = targets.concurrency.is_some() || targets.requests_per_second.is_some();
        p.unless(some, "target_concurrency", || {
            "is missing, and so is target_requests_per_second: one of them is needed".to_owned()
        });
        for (key, target) in [
            ("target_concurrency", targets.concurrency),
            ("target_requests_per_second", targets.requests_per_second),
        ] {
            let Some(target) = target else { continue };
            let fine = target > 0.0 && target.is_finite();
            p.unless(fine, key, || format!("must be above 0, got {target}"));
        }
        let fine = targets.p95_latency.is_none_or(|latency| !latency.is_zero());
        p.unless(fine, "target_p95_latency", || "must be above 0s, got 0s".to_owned());
    }

    fn check_windows(&self, p: &mut Problems) {
        for (key, window) in [
            ("stable_window", self.stable_window),
            ("panic_window", self.panic_window),
            ("scale_up.window", self.scale_up.window),
            ("stale_after", self.stale_after),
        ] {
            check_window(key, window, SHORTEST_WINDOW, p);
        }
        check_window("scale_down.stabilisation", self.scale_down.stabilisation, Duration::ZERO, p);
        check_window("retry_refused_after", self.retry_refused_after, Duration::ZERO, p);
        let stable = self.stable_window;
        for (key, window) in [("panic_window", self.panic_window), ("scale_up.window", self.scale_up.window)]
        {
            p.unless(window <= stable, key, || {
                let (stable, window) = (show_duration(stable), show_duration(window));
                format!("must be at most stable_window, which is {stable}, got {window}")
            });
            p.unless(stable <= window.saturating_mul(MOST_WINDOW_RATIO), "stable_window", || {
                let (stable, window) = (show_duration(stable), show_duration(window));
                format!("must be at most {MOST_WINDOW_RATIO} times {key}, which is {window}, got {stable}")
            });
        }
    }
}

fn check_window(key: &str, window: Duration, shortest: Duration, p: &mut Problems) {
    p.unless(window >= shortest, key, || {
        format!("must be at least {}, got {}", show_duration(shortest), show_duration(window))
    });
    p.unless(window <= LONGEST_WINDOW, key, || {
        format!("must be at most {}, got {}", show_duration(LONGEST_WINDOW), show_duration(window))
    });
}

fn check_rate(key: &str, rate: &Rate, largest_share: f64, p: &mut Problems) {
    let some = rate.backends.is_some() || rate.share.is_some();
    p.unless(some, key, || "limits nothing: it has neither backends nor share".to_owned());
    let fine = rate.backends != Some(0);
    p.unless(fine, &format!("{key}.backends"), || "must be at least 1, got 0".to_owned());
    if let Some(share) = rate.share {
        let fine = share > 0.0 && share <= largest_share;
        p.unless(fine, &format!("{key}.share"), || {
            let limit = if largest_share.is_finite() { " and at most 100%" } else { "" };
            format!("must be above 0{limit}, got {share}")
        });
    }
    check_window(&format!("{key}.per"), rate.per, SHORTEST_WINDOW, p);
}
