//! Metric families made by hand, for collectors that read values kept elsewhere.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// One series: label values by name, and the value.
pub(crate) type Series<'a> = (Vec<(&'a str, &'a str)>, f64);

/// A family of counters.
pub(crate) fn counter(name: &str, help: &str, series: Vec<Series<'_>>) -> MetricFamily {
    let set = |metric: &mut Metric, value| {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    };
    family(name, help, MetricType::COUNTER, metrics(series, set))
}

/// A family of gauges.
pub(crate) fn gauge(name: &str, help: &str, series: Vec<Series<'_>>) -> MetricFamily {
    let set = |metric: &mut Metric, value| {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    };
    family(name, help, MetricType::GAUGE, metrics(series, set))
}

fn metrics(series: Vec<Series<'_>>, set: impl Fn(&mut Metric, f64)) -> Vec<Metric> {
    let metric = |(labels, value): Series<'_>| {
        let mut metric = Metric::default();
        metric.set_label(labels.into_iter().map(|(name, value)| label(name, value)).collect());
        set(&mut metric, value);
        metric
    };
    series.into_iter().map(metric).collect()
}

/// One label.
pub(crate) fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

/// A family of ready metrics.
pub(crate) fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}
