//! Metrics in the text format of OpenMetrics 1.0, which has exemplars; Prometheus asks for it.
//!
//! Of its types there are those that Flurry has: counters, gauges, histograms.

use std::fmt::Write;
use std::time::SystemTime;

use http::HeaderMap;
use http::header::ACCEPT;
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::meter::DURATIONS;
use crate::account::{ByBucket, Exemplar};

/// The media type of it.
pub(super) const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether it is asked for.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let accepts = headers.get_all(ACCEPT).iter().filter_map(|it| it.to_str().ok());
    accepts.flat_map(|it| it.split(',')).any(|kind| kind.trim().starts_with("application/openmetrics-text"))
}

/// Writes all families. The exemplars are those of the latencies of all requests.
pub(super) fn encode(families: &[MetricFamily], exemplars: &ByBucket) -> String {
    let mut out = String::new();
    for family in families {
        let exemplars = (family.name() == DURATIONS).then_some(exemplars);
        // Writing to a string cannot fail.
        let _ = write_family(family, exemplars, &mut out);
    }
    out.push_str("# EOF\n");
    out
}

fn write_family(family: &MetricFamily, exemplars: Option<&ByBucket>, out: &mut String) -> std::fmt::Result {
    let (name, kind) = match family.get_field_type() {
        MetricType::COUNTER => (family.name().strip_suffix("_total").unwrap_or(family.name()), "counter"),
        MetricType::HISTOGRAM => (family.name(), "histogram"),
        _ => (family.name(), "gauge"),
    };
    writeln!(out, "# TYPE {name} {kind}")?;
    writeln!(out, "# HELP {name} {}", escaped(family.help()))?;
    for metric in family.get_metric() {
        let labels = labels(metric.get_label());
        match family.get_field_type() {
            MetricType::COUNTER => {
                writeln!(out, "{name}_total{} {}", braced(&labels), metric.get_counter().get_value())?;
            }
            MetricType::HISTOGRAM => histogram(name, &labels, metric, exemplars, out)?,
            _ => writeln!(out, "{name}{} {}", braced(&labels), metric.get_gauge().get_value())?,
        }
    }
    Ok(())
}

fn histogram(
    name: &str,
    labels: &str,
    metric: &Metric,
    exemplars: Option<&ByBucket>,
    out: &mut String,
) -> std::fmt::Result {
    let histogram = metric.get_histogram();
    let buckets = histogram.get_bucket();
    let finite = buckets.iter().map(|it| (format!("{:?}", it.upper_bound()), it.cumulative_count()));
    let rest = [("+Inf".to_owned(), histogram.get_sample_count())];
    let comma = if labels.is_empty() { "" } else { "," };
    for (index, (bound, count)) in finite.chain(rest).enumerate() {
        write!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}")?;
        if let Some(exemplar) = exemplars.and_then(|all| all.get(index)?.as_ref()) {
            write_exemplar(exemplar, out)?;
        }
        out.push('\n');
    }
    writeln!(out, "{name}_sum{} {}", braced(labels), histogram.get_sample_sum())?;
    writeln!(out, "{name}_count{} {}", braced(labels), histogram.get_sample_count())
}

fn write_exemplar(exemplar: &Exemplar, out: &mut String) -> std::fmt::Result {
    let since = exemplar.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    write!(out, " # {{trace_id=\"{}\"}} {} {since:.3}", exemplar.trace, exemplar.latency.as_secs_f64())
}

fn labels(pairs: &[LabelPair]) -> String {
    let pairs = pairs.iter().map(|pair| format!("{}=\"{}\"", pair.name(), escaped(pair.value())));
    pairs.collect::<Vec<_>>().join(",")
}

fn braced(labels: &str) -> String {
    if labels.is_empty() { String::new() } else { format!("{{{labels}}}") }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::families::{counter, gauge};

    #[test]
    fn counters_lose_their_suffix_in_the_head_and_labels_are_escaped() {
        let families = [
            counter("a_total", "Some \"a\".", vec![(vec![("x", "1\\2\n")], 3.0)]),
            gauge("b", "B.", vec![(vec![], 0.5)]),
        ];
        assert_eq!(
            encode(&families, &ByBucket::default()),
            "# TYPE a counter\n# HELP a Some \\\"a\\\".\na_total{x=\"1\\\\2\\n\"} 3\n\
             # TYPE b gauge\n# HELP b B.\nb 0.5\n# EOF\n"
        );
    }

    #[test]
    fn it_is_for_who_asks_for_it() {
        let accepting = |value: &'static str| {
            is_wanted(&HeaderMap::from_iter([(ACCEPT, http::HeaderValue::from_static(value))]))
        };
        assert!(accepting("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2"));
        assert!(!accepting("*/*") && !is_wanted(&HeaderMap::new()));
    }
}
