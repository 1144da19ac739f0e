//! Metrics of accounts of requests: what was written, and what was lost.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use prometheus::proto::MetricFamily;

use super::families::{Series, counter};
use crate::route::Plan;

/// Lines of the access log and spans, if there are any.
pub(super) fn accounts(plan: &Plan) -> Vec<MetricFamily> {
    let Some(account) = plan.account.as_deref() else { return Vec::new() };
    let lines = account.log_counts().map(|counts| {
        counter(
            "flurry_access_log_lines_total",
            "Lines of the access log: written, dropped because too many were waiting, or failed to be written.",
            by_result([("written", &counts.written), ("dropped", &counts.dropped), ("failed", &counts.failed)]),
        )
    });
    let spans = account.span_counts().map(|counts| {
        counter(
            "flurry_spans_total",
            "Spans: sent to the collector, dropped because too many were waiting, or failed to be sent.",
            by_result([("sent", &counts.sent), ("dropped", &counts.dropped), ("failed", &counts.failed)]),
        )
    });
    lines.into_iter().chain(spans).collect()
}

fn by_result(counts: [(&'static str, &AtomicU64); 3]) -> Vec<Series<'static>> {
    counts.map(|(result, count)| (vec![("result", result)], count.load(Relaxed) as f64)).to_vec()
}
