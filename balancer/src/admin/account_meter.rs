//! Metrics of accounts of requests: what was written, and what was lost.

use std::sync::atomic::Ordering::Relaxed;

use prometheus::proto::MetricFamily;

use super::families::counter;
use crate::route::Plan;

/// Lines of the access log, if there is one.
pub(super) fn accounts(plan: &Plan) -> Vec<MetricFamily> {
    let Some(counts) = plan.account.as_deref().and_then(|it| it.log_counts()) else { return Vec::new() };
    let results = [("written", &counts.written), ("dropped", &counts.dropped), ("failed", &counts.failed)];
    let series = results.map(|(result, count)| (vec![("result", result)], count.load(Relaxed) as f64));
    vec![counter(
        "flurry_access_log_lines_total",
        "Lines of the access log: written, dropped because too many were waiting, or failed to be written.",
        series.to_vec(),
    )]
}
