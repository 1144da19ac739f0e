//! `health`: how backends are probed and judged.

use std::time::Duration;

use http::uri::PathAndQuery;
use scaler::yaml::Section;

use crate::pool::HealthSettings;

/// Reads the section; what is not given has its default.
pub(super) fn read(section: &mut Section<'_>) -> HealthSettings {
    let default = HealthSettings::default();
    const SHORTEST: Duration = Duration::from_millis(5);
    const LONGEST: Duration = Duration::from_secs(3600);
    HealthSettings {
        path: section
            .string("path", "give the path that a well backend answers with 200 to 399, e.g. /healthz")
            .check(|path| is_path(path))
            .or(default.path),
        interval: section
            .duration("interval", "give the time between two probes, e.g. 1s")
            .at_least(SHORTEST)
            .at_most(LONGEST)
            .or(default.interval),
        timeout: section
            .duration("timeout", "give the longest time for an answer to a probe, e.g. 1s")
            .at_least(SHORTEST)
            .at_most(LONGEST)
            .or(default.timeout),
        unhealthy_after: section
            .u32("unhealthy_after", "give the bad probes in a row that eject a backend, e.g. 3")
            .at_least(1)
            .or(default.unhealthy_after),
        healthy_after: section
            .u32("healthy_after", "give the good probes in a row that readmit a backend, e.g. 1")
            .at_least(1)
            .or(default.healthy_after),
        eject_after: section
            .u32("eject_after", "give the requests in a row without an answer that eject a backend, e.g. 5")
            .at_least(1)
            .or(default.eject_after),
    }
}

/// Whether a text is a path that a request can ask for.
pub(super) fn is_path(path: &str) -> Result<(), String> {
    let fine = path.starts_with('/') && path.parse::<PathAndQuery>().is_ok();
    fine.then_some(()).ok_or_else(|| not_a_path(path))
}

pub(super) fn not_a_path(path: &str) -> String {
    format!("must be a path that begins with /, got `{path}`")
}
