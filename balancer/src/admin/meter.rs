//! The balancer's metrics, read from its own counters when they are asked for.
//!
//! Workers count in memory of their own (see [`crate::load`]); nothing on the way of a
//! request knows of Prometheus. A backend's series end when it leaves the pool.

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily, MetricType};

use super::families::{Series, counter, family, gauge};
use crate::load::{DURATION_BOUNDS, Load, WorkerCounters};
use crate::pool::{Pool, State};

/// Reads the counters of pool and workers.
pub struct Meter {
    pool: Pool,
    load: Load,
    desc: Option<Desc>,
}

impl Meter {
    /// A meter over one pool and its workers.
    pub fn new(pool: Pool, load: Load) -> Self {
        let about = "Constant 1, with the version of the running program.".to_owned();
        let desc = Desc::new("flurry_build_info".to_owned(), about, vec![], Default::default()).ok();
        Self { pool, load, desc }
    }

    fn requests(&self) -> Vec<MetricFamily> {
        let class = |class: usize| self.load.sum(|worker| &worker.by_class[class]) as f64;
        const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
        let by_class = CLASSES.iter().enumerate().map(|(index, name)| (vec![("class", *name)], class(index)));
        let plain = |name, help, of: fn(&WorkerCounters) -> &crate::load::Counter| {
            counter(name, help, vec![(vec![], self.load.sum(of) as f64)])
        };
        vec![
            counter(
                "flurry_requests_total",
                "Requests that ended, by class of their status.",
                by_class.collect(),
            ),
            plain(
                "flurry_requests_failed_total",
                "Requests answered with a 5xx of our own, or cut off.",
                |w| &w.failed,
            ),
            plain("flurry_requests_abandoned_total", "Requests whose client left before the end.", |w| {
                &w.abandoned
            }),
            plain("flurry_connections_refused_total", "Connections ended for malformed requests.", |w| {
                &w.refused
            }),
            plain("flurry_requests_queued_total", "Requests that had to wait for a backend.", |w| &w.queued),
            plain("flurry_retries_total", "Requests sent again after a failure.", |w| &w.retries),
            plain("flurry_retries_denied_total", "Retries that the budget did not allow.", |w| {
                &w.retries_denied
            }),
            plain("flurry_connections_accepted_total", "Connections of clients.", |w| &w.accepted),
            plain("flurry_upstream_connects_total", "Connections tried to backends.", |w| &w.connects),
            plain("flurry_upstream_connect_failures_total", "Connections to backends that failed.", |w| {
                &w.connect_failures
            }),
            counter(
                "flurry_queue_refused_total",
                "Requests answered with 503 for want of a backend, by reason.",
                vec![
                    (vec![("reason", "full")], self.load.sum(|w| &w.queue_full) as f64),
                    (vec![("reason", "timeout")], self.load.sum(|w| &w.queue_timeout) as f64),
                ],
            ),
            self.durations(),
        ]
    }

    fn durations(&self) -> MetricFamily {
        let mut below = 0;
        let mut buckets = Vec::new();
        for (index, bound) in DURATION_BOUNDS.iter().enumerate() {
            below += self.load.sum(|worker| &worker.by_bound[index]);
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(below);
            buckets.push(bucket);
        }
        let above = self.load.sum(|worker| &worker.by_bound[DURATION_BOUNDS.len()]);
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(below + above);
        histogram.set_sample_sum(self.load.sum(|worker| &worker.latency_sum_us) as f64 / 1e6);
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        let help = "Time from the head of a request to the end of its answer.";
        family("flurry_request_duration_seconds", help, MetricType::HISTOGRAM, vec![metric])
    }

    fn gauges(&self) -> Vec<MetricFamily> {
        let snapshot = self.pool.snapshot();
        let in_state = |state: State| snapshot.all.iter().filter(|it| it.state() == state).count() as f64;
        let states = [State::Probing, State::Ready, State::Ejected, State::Draining];
        let by_state = states.iter().map(|state| (vec![("state", state.word())], in_state(*state)));
        let plain = |name, help, value: f64| gauge(name, help, vec![(vec![], value)]);
        vec![
            plain("flurry_in_flight_requests", "Requests being served.", self.pool.in_flight() as f64),
            plain("flurry_queued_requests", "Requests waiting for a backend.", self.pool.queued() as f64),
            plain("flurry_connections_open", "Connections of clients.", self.load.sum(|w| &w.open) as f64),
            gauge("flurry_backends", "Backends by state.", by_state.collect()),
            gauge(
                "flurry_build_info",
                "Constant 1, with the version of the running program.",
                vec![(vec![("version", env!("CARGO_PKG_VERSION"))], 1.0)],
            ),
        ]
    }

    fn backends(&self) -> Vec<MetricFamily> {
        let snapshot = self.pool.snapshot();
        let series = |value: fn(&crate::pool::Backend) -> f64| -> Vec<Series<'_>> {
            snapshot.all.iter().map(|it| (vec![("backend", it.id().as_str())], value(it))).collect()
        };
        vec![
            counter(
                "flurry_backend_requests_total",
                "Requests sent to a backend.",
                series(|it| it.requests() as f64),
            ),
            counter(
                "flurry_backend_failures_total",
                "Of these, without a whole answer.",
                series(|it| it.failed() as f64),
            ),
            gauge(
                "flurry_backend_in_flight_requests",
                "Requests at a backend.",
                series(|it| it.in_flight().into()),
            ),
        ]
    }
}

impl Collector for Meter {
    fn desc(&self) -> Vec<&Desc> {
        self.desc.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let all = [self.requests(), self.gauges(), self.backends()];
        all.into_iter().flatten().filter(|family| !family.get_metric().is_empty()).collect()
    }
}
