//! Reads a policy from the section `scaling:` of a configuration.

use std::time::Duration;

use super::keys::remedy;
use super::{GivenTimes, Mode, Policy, ScaleDown, ScaleUp, Targets, WhenMissing, rules, signals};
use crate::rate::{Rate, Select};
use crate::signal::Signal;
use crate::yaml::Section;

impl Policy {
    /// Reads a policy; what is not given has the default for `clone_time`, see
    /// [`Policy::defaults_for`]. Problems are noted with the section. The values are
    /// to be used only if none was.
    pub fn read(section: &mut Section<'_>, clone_time: Duration) -> Self {
        let default = Self::defaults_for(clone_time);
        let s = section;
        let mut given = GivenTimes {
            stable_window: s.has("stable_window"),
            panic_window: s.has("panic_window"),
            drain_queue_within: s.has("drain_queue_within"),
            ..GivenTimes::default()
        };
        let stable_window = s.duration("stable_window", remedy("stable_window")).or(default.stable_window);
        let panic_window = s.duration("panic_window", remedy("panic_window")).or(default.panic_window);
        let stabilisation = stable_window.saturating_mul(3);
        let surge = s.u32("surge", remedy("surge")).or(default.surge);
        let modes = [Mode::Active, Mode::Recommend, Mode::Paused].map(|mode| (mode.name(), mode));
        let missing = [("keep", WhenMissing::Keep), ("ignore", WhenMissing::Ignore)];
        let predict = s.optional_section("predict", rules::predict);
        let mut policy = Self {
            mode: s.choice("mode", &modes, remedy("mode")).or(default.mode),
            min: s.u32("min", remedy("min")).or(default.min),
            max: s.u32("max", remedy("max")).or(default.max),
            targets: read_targets(s, default.targets),
            activation: read_activation(s),
            signals: signals::read(s),
            steps: rules::steps(s),
            schedule: rules::schedule(s),
            predict: predict.as_ref().map(|(predict, _)| *predict),
            predict_file: predict.and_then(|(_, file)| file),
            journal: s.path_buf("journal", remedy("journal")).check(|path| rules::absolute(path)).optional(),
            fallback: s.optional_section("fallback", rules::fallback).flatten(),
            when_missing: s.choice("when_missing", &missing, remedy("when_missing")).or(default.when_missing),
            stable_window,
            panic_window,
            panic_threshold: s
                .share("panic_threshold", remedy("panic_threshold"))
                .or(default.panic_threshold),
            drain_queue_within: s
                .duration("drain_queue_within", remedy("drain_queue_within"))
                .or(panic_window),
            tolerance: s.share("tolerance", remedy("tolerance")).or(default.tolerance),
            surge,
            from_zero_cap: s.u32("from_zero_cap", remedy("from_zero_cap")).or(surge),
            stale_after: s.duration("stale_after", remedy("stale_after")).or(default.stale_after),
            retry_refused_after: s
                .duration("retry_refused_after", remedy("retry_refused_after"))
                .or(default.retry_refused_after),
            scale_up: s.section("scale_up", |up| {
                given.growth_window = up.has("window");
                ScaleUp {
                    enabled: up.bool("enabled", remedy("scale_up.enabled")).or(true),
                    window: up
                        .duration("window", remedy("scale_up.window"))
                        .or(Self::growth_window(panic_window, stable_window)),
                    stabilisation: up
                        .duration("stabilisation", remedy("scale_up.stabilisation"))
                        .or(Duration::ZERO),
                    tolerance: up.share("tolerance", remedy("scale_up.tolerance")).optional(),
                    cool_down: up.duration("cool_down", remedy("scale_up.cool_down")).or(Duration::ZERO),
                    rate: read_rate(up, None, stable_window),
                }
            }),
            scale_down: s.section("scale_down", |down| {
                given.stabilisation = down.has("stabilisation");
                given.shrink_rate = down.has("rate");
                ScaleDown {
                    enabled: down.bool("enabled", remedy("scale_down.enabled")).or(true),
                    // Follows a stable window that was given, as the default does its own.
                    stabilisation: down
                        .duration("stabilisation", remedy("scale_down.stabilisation"))
                        .or(stabilisation),
                    tolerance: down.share("tolerance", remedy("scale_down.tolerance")).optional(),
                    cool_down: down.duration("cool_down", remedy("scale_down.cool_down")).or(Duration::ZERO),
                    rate: read_rate(down, Some(Self::default_rate(stable_window)), stable_window),
                }
            }),
            given: GivenTimes::default(),
        };
        policy.given = given;
        for (key, problem) in policy.problems() {
            s.complain(&key, problem, remedy(&key));
        }
        policy
    }
}

/// Naming any target that counts load drops the default one, and so do steps.
fn read_targets(s: &mut Section<'_>, default: Targets) -> Targets {
    let given = s.has("target_concurrency");
    let number = |s: &mut Section<'_>, key: &str| s.f64(key, remedy(key)).optional();
    let share = |s: &mut Section<'_>, key: &str| s.share(key, remedy(key)).optional();
    let time = |s: &mut Section<'_>, key: &str| s.duration(key, remedy(key)).optional();
    let targets = Targets {
        concurrency: number(s, "target_concurrency"),
        requests_per_second: number(s, "target_requests_per_second"),
        cpu: share(s, "target_cpu"),
        p50_latency: time(s, "target_p50_latency"),
        p95_latency: time(s, "target_p95_latency"),
        p99_latency: time(s, "target_p99_latency"),
        queue_wait: time(s, "target_queue_wait"),
        error_share: share(s, "target_error_share"),
    };
    let others = targets.requests_per_second.is_some() || targets.cpu.is_some();
    let defaulted = given || !(others || s.has("signals") || s.has("steps"));
    Targets { concurrency: targets.concurrency.or(default.concurrency.filter(|_| defaulted)), ..targets }
}

fn read_activation(s: &mut Section<'_>) -> Vec<(Signal, f64)> {
    s.section("activation", |activation| {
        let read = |signal: Signal| {
            let remedy = remedy("activation");
            Some((signal, activation.f64(signal.name(), remedy).at_least(0.0).optional()?))
        };
        Signal::BUILT_IN.into_iter().filter_map(read).collect()
    })
}

fn read_rate(direction: &mut Section<'_>, default: Option<Rate>, per: Duration) -> Option<Rate> {
    let given = direction.optional_section("rate", |rate| {
        let selects = [("max", Select::Max), ("min", Select::Min), ("disabled", Select::Disabled)];
        let limited = rate.bool("limited", remedy("rate.limited")).or(true);
        let read = Rate {
            backends: rate.u32("backends", remedy("rate.backends")).optional(),
            share: rate.share("share", remedy("rate.share")).optional(),
            per: rate.duration("per", remedy("rate.per")).or(per),
            select: rate.choice("select", &selects, remedy("rate.select")).or(Select::Max),
        };
        limited.then_some(read)
    });
    given.unwrap_or(default)
}
