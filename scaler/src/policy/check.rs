//! What a policy must hold to, whoever made it.

use std::time::Duration;

use super::Policy;
use super::keys::remedy;
use crate::rate::{Rate, Select};
use crate::signal::{Measure, Signal};
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
        self.check_rules(&mut problems);
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
        for (key, tolerance) in [
            ("scale_up.tolerance", self.scale_up.tolerance),
            ("scale_down.tolerance", self.scale_down.tolerance),
        ] {
            let Some(tolerance) = tolerance else { continue };
            let fine = (0.0..=0.5).contains(&tolerance);
            p.unless(fine, key, || format!("must be from 0 to 50%, got {tolerance}"));
        }
        let threshold = self.panic_threshold;
        let fine = threshold > 1.0 && threshold <= 1000.0;
        p.unless(fine, "panic_threshold", || format!("must be above 100% and sane, got {threshold}"));
    }

    fn check_targets(&self, p: &mut Problems) {
        let t = &self.targets;
        let loads = [
            ("target_concurrency", t.concurrency),
            ("target_requests_per_second", t.requests_per_second),
            ("target_cpu", t.cpu),
        ];
        let own = self.signals.iter().any(|own| own.target.is_some() && own.measure != Measure::Guard);
        let loads_given = own || loads.iter().any(|(_, target)| target.is_some());
        p.unless(self.predict.is_none() || loads_given, "predict", || {
            "foresees what a target asked for, and no target counts load".to_owned()
        });
        let some = loads_given || !self.steps.is_empty();
        p.unless(some, "target_concurrency", || {
            "is missing, and so is every other target that tells how much there is to do: one of them, a \
             signal with a target, or a step is needed"
                .to_owned()
        });
        for (key, target) in loads.into_iter().chain([("target_error_share", t.error_share)]) {
            let Some(target) = target else { continue };
            let fine = target > 0.0 && target.is_finite();
            p.unless(fine, key, || format!("must be above 0, got {target}"));
        }
        let shares = [&loads[2], &("target_error_share", t.error_share)];
        for (key, share) in shares {
            p.unless(share.is_none_or(|share| share.is_nan() || share <= 1.0), key, || {
                "must be at most 100%".to_owned()
            });
        }
        for (key, latency) in [
            ("target_p50_latency", t.p50_latency),
            ("target_p95_latency", t.p95_latency),
            ("target_p99_latency", t.p99_latency),
            ("target_queue_wait", t.queue_wait),
        ] {
            let fine = latency.is_none_or(|latency| !latency.is_zero());
            p.unless(fine, key, || "must be above 0s, got 0s".to_owned());
        }
    }

    /// Signals that rules name are there, and floors fit under the ceiling.
    fn check_rules(&self, p: &mut Problems) {
        let max = self.max;
        for (signal, _) in &self.activation {
            let fine = self.targets.all().any(|(with_target, _)| with_target == *signal);
            p.unless(fine, &format!("activation.{}", signal.name()), || {
                "is of a signal without target".to_owned()
            });
        }
        for (index, step) in self.steps.iter().enumerate() {
            let Signal::Custom(name) = step.signal else { continue };
            let fine = self.signals.iter().any(|own| own.name == name);
            p.unless(fine, &format!("steps[{index}].signal"), || format!("is no signal, got `{name}`"));
        }
        let floors = self.schedule.iter().enumerate();
        let floors = floors.map(|(index, schedule)| (format!("schedule[{index}].min"), schedule.min));
        let fallback = self.fallback.map(|fallback| ("fallback.backends".to_owned(), fallback.backends));
        for (key, floor) in floors.chain(fallback) {
            p.unless(floor <= max, &key, || format!("must be at most max, which is {max}, got {floor}"));
        }
        p.unless(self.from_zero_cap >= 1, "from_zero_cap", || "must be at least 1, got 0".to_owned());
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
        for (key, window) in [
            ("scale_up.stabilisation", self.scale_up.stabilisation),
            ("scale_up.cool_down", self.scale_up.cool_down),
            ("scale_down.stabilisation", self.scale_down.stabilisation),
            ("scale_down.cool_down", self.scale_down.cool_down),
        ] {
            check_window(key, window, Duration::ZERO, p);
        }
        check_window("drain_queue_within", self.drain_queue_within, SHORTEST_WINDOW, p);
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
    let some = rate.backends.is_some() || rate.share.is_some() || rate.select == Select::Disabled;
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
