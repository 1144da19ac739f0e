//! `outliers`: when a backend that answers badly is taken out of service.

use std::time::Duration;

use scaler::yaml::Section;

use crate::pool::{OutlierSettings, SuccessRate};

const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Reads the section; what is not given has its default.
pub(super) fn read(section: &mut Section<'_>) -> OutlierSettings {
    let default = OutlierSettings::default();
    let mut row = |key: &str, default: Option<u32>| {
        let remedy = "give the bad answers in a row that eject a backend, e.g. 5; 0 for any number";
        let row = section.u32(key, remedy).or(default.unwrap_or(0));
        (row > 0).then_some(row)
    };
    let errors = row("consecutive_errors", default.errors);
    let gateway_errors = row("consecutive_gateway_errors", default.gateway_errors);
    let mut time = |key: &str, remedy: &str, default: Duration| {
        section.duration(key, remedy).at_least(SHORTEST).at_most(LONGEST).or(default)
    };
    let interval =
        time("interval", "give the time over which success rates are taken, e.g. 10s", default.interval);
    let ejection_time =
        time("ejection_time", "give the time of a first ejection, e.g. 30s", default.ejection_time);
    let max_ejection_time = time(
        "max_ejection_time",
        "give the longest time of an ejection, e.g. 5m",
        default.max_ejection_time.max(ejection_time),
    );
    if max_ejection_time < ejection_time {
        let problem = "must not be shorter than `ejection_time`";
        section.complain("max_ejection_time", problem, "give the longest time of an ejection, e.g. 5m");
    }
    let share = section
        .share("max_ejected", "give the largest share that may be out of service, e.g. 10%")
        .at_least(0.0)
        .at_most(1.0)
        .or(f64::from(default.max_ejected_percent) / 100.0);
    OutlierSettings {
        errors,
        gateway_errors,
        interval,
        ejection_time,
        max_ejection_time,
        max_ejected_percent: (share * 100.0).round() as u32,
        success_rate: success_rate(section),
    }
}

/// Compared by default; `success_rate: {deviations: 0}` compares nobody.
fn success_rate(section: &mut Section<'_>) -> Option<SuccessRate> {
    let default = SuccessRate::default();
    let rule = section.section("success_rate", |section| SuccessRate {
        deviations: section
            .f64("deviations", "give standard deviations below the mean, e.g. 1.9; 0 to compare nobody")
            .at_least(0.0)
            .at_most(10.0)
            .or(default.deviations),
        min_backends: section
            .u32("min_backends", "give the backends without which nothing is compared, e.g. 5")
            .at_least(2)
            .or(default.min_backends),
        min_requests: section
            .u32("min_requests", "give the requests that a backend is judged by, e.g. 100")
            .at_least(1)
            .or(default.min_requests),
    });
    (rule.deviations > 0.0).then_some(rule)
}
