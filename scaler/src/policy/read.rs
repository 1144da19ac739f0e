//! Reads a policy from the section `scaling:` of a configuration.

use std::time::Duration;

use super::keys::remedy;
use super::{Policy, ScaleDown, ScaleUp, Targets};
use crate::rate::{Rate, Select};
use crate::yaml::Section;

impl Policy {
    /// Reads a policy; what is not given has the default for `clone_time`, see
    /// [`Policy::defaults_for`]. Problems are noted with the section. The values are
    /// to be used only if none was.
    pub fn read(section: &mut Section<'_>, clone_time: Duration) -> Self {
        let default = Self::defaults_for(clone_time);
        let s = section;
        let stable_window = s.duration("stable_window", remedy("stable_window")).or(default.stable_window);
        let panic_window = s.duration("panic_window", remedy("panic_window")).or(default.panic_window);
        let policy = Self {
            min: s.u32("min", remedy("min")).or(default.min),
            max: s.u32("max", remedy("max")).or(default.max),
            targets: read_targets(s, default.targets),
            stable_window,
            panic_window,
            panic_threshold: s
                .share("panic_threshold", remedy("panic_threshold"))
                .or(default.panic_threshold),
            tolerance: s.share("tolerance", remedy("tolerance")).or(default.tolerance),
            surge: s.u32("surge", remedy("surge")).or(default.surge),
            stale_after: s.duration("stale_after", remedy("stale_after")).or(default.stale_after),
            retry_refused_after: s
                .duration("retry_refused_after", remedy("retry_refused_after"))
                .or(default.retry_refused_after),
            scale_up: s.section("scale_up", |up| ScaleUp {
                enabled: up.bool("enabled", remedy("scale_up.enabled")).or(true),
                window: up.duration("window", remedy("scale_up.window")).or(panic_window),
                rate: read_rate(up, None, stable_window),
            }),
            scale_down: s.section("scale_down", |down| ScaleDown {
                enabled: down.bool("enabled", remedy("scale_down.enabled")).or(true),
                // Follows a stable window that was given, as the default does its own.
                stabilisation: down
                    .duration("stabilisation", remedy("scale_down.stabilisation"))
                    .or(stable_window.saturating_mul(3)),
                rate: read_rate(down, Some(Self::default_rate(stable_window)), stable_window),
            }),
        };
        for (key, problem) in policy.problems() {
            s.complain(&key, problem, remedy(&key));
        }
        policy
    }
}

/// Naming any target drops the default one.
fn read_targets(s: &mut Section<'_>, default: Targets) -> Targets {
    let given = s.has("target_concurrency");
    let concurrency = s.f64("target_concurrency", remedy("target_concurrency")).optional();
    let requests_per_second =
        s.f64("target_requests_per_second", remedy("target_requests_per_second")).optional();
    let p95_latency = s.duration("target_p95_latency", remedy("target_p95_latency")).optional();
    let defaulted = given || requests_per_second.is_none();
    Targets {
        concurrency: concurrency.or(default.concurrency.filter(|_| defaulted)),
        requests_per_second,
        p95_latency,
    }
}

fn read_rate(direction: &mut Section<'_>, default: Option<Rate>, per: Duration) -> Option<Rate> {
    let given = direction.optional_section("rate", |rate| {
        let limited = rate.bool("limited", remedy("rate.limited")).or(true);
        let read = Rate {
            backends: rate.u32("backends", remedy("rate.backends")).optional(),
            share: rate.share("share", remedy("rate.share")).optional(),
            per: rate.duration("per", remedy("rate.per")).or(per),
            select: rate
                .choice("select", &[("max", Select::Max), ("min", Select::Min)], remedy("rate.select"))
                .or(Select::Max),
        };
        limited.then_some(read)
    });
    given.unwrap_or(default)
}
