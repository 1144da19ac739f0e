//! What a route lets through: `rate_limits`, `retries`, `priority`, `queue_timeout`, `hedge`.

use std::time::Duration;

use scaler::yaml::Section;

use super::rates;
use crate::pool::Priority;
use crate::route::{HedgeAfter, RetrySettings, TrafficSettings};

const PRIORITIES: [(&str, Priority); 3] =
    [("high", Priority::High), ("normal", Priority::Normal), ("low", Priority::Low)];

/// Reads these keys of a route.
pub(super) fn read(section: &mut Section<'_>) -> TrafficSettings {
    TrafficSettings {
        limits: rates::read(section),
        retries: section.optional_section("retries", retries),
        priority: section.choice("priority", &PRIORITIES, "give high, normal or low").optional(),
        queue_timeout: section
            .duration("queue_timeout", "give the longest wait for a backend, e.g. 2s")
            .at_least(Duration::from_millis(1))
            .at_most(Duration::from_secs(24 * 3600))
            .optional(),
        hedge: section.optional_section("hedge", hedge).flatten(),
    }
}

fn hedge(section: &mut Section<'_>) -> Option<HedgeAfter> {
    let remedy = "give the time after which a second backend is asked, e.g. 50ms, or p95";
    section.string("after", remedy).try_map(|text| HedgeAfter::parse(&text)).required()
}

fn retries(section: &mut Section<'_>) -> RetrySettings {
    let default = RetrySettings::default();
    RetrySettings {
        share: section
            .share("share", "give the share of the requests that may be sent again, e.g. 20%")
            .at_least(0.0)
            .at_most(1.0)
            .or(default.share),
        per_second: section
            .f64("per_second", "give the retries that each second allows on top, e.g. 10")
            .at_least(0.0)
            .at_most(10_000.0)
            .or(default.per_second),
    }
}
