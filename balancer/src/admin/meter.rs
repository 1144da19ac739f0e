//! The balancer's metrics, read from its own counters when they are asked for.
//!
//! Workers count in memory of their own (see [`crate::load`]); nothing on the way of a
//! request knows of Prometheus. A backend's series end when it leaves the pool.

use std::sync::Arc;

use arc_swap::ArcSwap;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily, MetricType};

use super::account_meter::accounts;
use super::balance_meter::{circuits, limits};
use super::families::{Series, counter, family, gauge, label};
use crate::front::Attempts;
use crate::load::{DURATION_BOUNDS, Load, WorkerCounters};
use crate::pool::{Pool, State};
use crate::route::Plan;

/// Latencies of all requests.
pub(super) const DURATIONS: &str = "flurry_request_duration_seconds";

/// Words for classes of status.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// Reads the counters of pools and workers.
pub struct Meter {
    plan: Arc<ArcSwap<Plan>>,
    load: Load,
    reloads: Arc<Attempts>,
    upgrades: Arc<Attempts>,
    desc: Option<Desc>,
}

impl Meter {
    /// A meter over what workers follow and count, and how reloads and upgrades went.
    pub fn new(
        plan: Arc<ArcSwap<Plan>>,
        load: Load,
        reloads: Arc<Attempts>,
        upgrades: Arc<Attempts>,
    ) -> Self {
        let about = "Constant 1, with the version of the running program.".to_owned();
        let desc = Desc::new("flurry_build_info".to_owned(), about, vec![], Default::default()).ok();
        Self { plan, load, reloads, upgrades, desc }
    }

    fn requests(&self) -> Vec<MetricFamily> {
        let class = |class: usize| self.load.sum(|worker| &worker.ended.by_class[class]) as f64;
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
            plain("flurry_hedges_total", "Requests sent to a second backend, for want of an answer.", |w| {
                &w.hedges
            }),
            plain("flurry_hedges_won_total", "Of these, answered by the second backend.", |w| &w.hedges_won),
            plain(
                "flurry_hedges_denied_total",
                "Requests for which the budget allowed no second backend.",
                |w| &w.hedges_denied,
            ),
            plain("flurry_connections_accepted_total", "Connections of clients.", |w| &w.accepted),
            plain(
                "flurry_connections_stalled_total",
                "Connections cut because their client neither sent nor took anything, or took it too slowly.",
                |w| &w.stalled,
            ),
            plain("flurry_tunnels_total", "Connections that became tunnels: WebSocket, CONNECT.", |w| {
                &w.tunnels
            }),
            plain("flurry_upstream_connects_total", "Connections tried to backends.", |w| &w.connects),
            plain("flurry_upstream_connect_failures_total", "Connections to backends that failed.", |w| {
                &w.connect_failures
            }),
            counter(
                "flurry_tunnel_bytes_total",
                "Bytes that went through tunnels that have ended, by direction as clients see it.",
                vec![
                    (vec![("direction", "sent")], self.load.sum(|w| &w.tunnel_bytes_in) as f64),
                    (vec![("direction", "received")], self.load.sum(|w| &w.tunnel_bytes_out) as f64),
                ],
            ),
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
        let of = |index: usize| self.load.sum(|worker| &worker.ended.by_bound[index]);
        let metric = histogram(of, self.load.sum(|worker| &worker.ended.latency_sum_us));
        let help = "Time from the head of a request to the end of its answer.";
        family(DURATIONS, help, MetricType::HISTOGRAM, vec![metric])
    }

    fn routes(&self, plan: &Plan) -> Vec<MetricFamily> {
        let routes: Vec<_> = plan.all().collect();
        let mut requests = Vec::new();
        let mut durations = Vec::new();
        for route in &routes {
            for (class, name) in CLASSES.iter().enumerate() {
                let labels = vec![("route", &*route.name), ("class", *name)];
                requests.push((labels, route.load.sum(|it| &it.by_class[class]) as f64));
            }
            let of = |index: usize| route.load.sum(|it| &it.by_bound[index]);
            let mut metric = histogram(of, route.load.sum(|it| &it.latency_sum_us));
            metric.set_label(vec![label("route", &route.name)]);
            durations.push(metric);
        }
        vec![
            counter("flurry_route_requests_total", "Requests that ended, by route and class.", requests),
            family(
                "flurry_route_request_duration_seconds",
                "Time from the head of a request to the end of its answer, by route.",
                MetricType::HISTOGRAM,
                durations,
            ),
        ]
    }

    fn configuration(&self, plan: &Plan) -> Vec<MetricFamily> {
        let reloads = [("taken", self.reloads.taken()), ("refused", self.reloads.refused())];
        let series = |(result, count): (&'static str, u64)| (vec![("result", result)], count as f64);
        let failed = |attempts: &Attempts| vec![(vec![], f64::from(u8::from(attempts.error().is_some())))];
        vec![
            counter(
                "flurry_config_reloads_total",
                "New configurations, by how they were taken.",
                reloads.map(series).to_vec(),
            ),
            gauge(
                "flurry_config_generation",
                "The configuration in force; 1 is the first.",
                vec![(vec![], plan.generation as f64)],
            ),
            gauge(
                "flurry_config_last_reload_failed",
                "1 if the last new configuration was refused.",
                failed(&self.reloads),
            ),
            counter(
                "flurry_upgrades_failed_total",
                "Attempts to hand over to a new program after which this one went on.",
                vec![(vec![], self.upgrades.refused() as f64)],
            ),
            gauge(
                "flurry_upgrade_last_failed",
                "1 if the last attempt to hand over to a new program failed.",
                failed(&self.upgrades),
            ),
        ]
    }

    fn gauges(&self, pools: &[&Pool]) -> Vec<MetricFamily> {
        let snapshots: Vec<_> = pools.iter().map(|pool| (pool.name(), pool.snapshot())).collect();
        let mut by_state = Vec::new();
        for (name, snapshot) in &snapshots {
            for state in [State::Probing, State::Ready, State::Ejected, State::Draining] {
                let count = snapshot.all.iter().filter(|it| it.state() == state).count();
                by_state.push((vec![("pool", *name), ("state", state.word())], count as f64));
            }
        }
        let sum = |of: fn(&Pool) -> u64| pools.iter().map(|pool| of(pool)).sum::<u64>() as f64;
        let plain = |name, help, value: f64| gauge(name, help, vec![(vec![], value)]);
        vec![
            plain("flurry_in_flight_requests", "Requests being served.", sum(Pool::in_flight)),
            plain("flurry_queued_requests", "Requests waiting for a backend.", sum(|it| it.queued() as u64)),
            plain("flurry_connections_open", "Connections of clients.", self.load.sum(|w| &w.open) as f64),
            gauge("flurry_backends", "Backends by pool and state.", by_state),
            gauge(
                "flurry_build_info",
                "Constant 1, with the version of the running program.",
                vec![(vec![("version", env!("CARGO_PKG_VERSION"))], 1.0)],
            ),
        ]
    }

    fn backends(pools: &[&Pool]) -> Vec<MetricFamily> {
        let snapshots: Vec<_> = pools.iter().map(|pool| (pool.name(), pool.snapshot())).collect();
        let series = |value: fn(&crate::pool::Backend) -> f64| -> Vec<Series<'_>> {
            let all =
                snapshots.iter().flat_map(|(name, snapshot)| snapshot.all.iter().map(move |it| (name, it)));
            all.map(|(name, it)| (vec![("pool", *name), ("backend", it.id().as_str())], value(it))).collect()
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

/// A histogram over [`DURATION_BOUNDS`]; `of` is the count of each bound, the last one is
/// for everything above.
fn histogram(of: impl Fn(usize) -> u64, sum_us: u64) -> Metric {
    let mut below = 0;
    let mut buckets = Vec::new();
    for (index, bound) in DURATION_BOUNDS.iter().enumerate() {
        below += of(index);
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(below);
        buckets.push(bucket);
    }
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(below + of(DURATION_BOUNDS.len()));
    histogram.set_sample_sum(sum_us as f64 / 1e6);
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    metric
}

impl Collector for Meter {
    fn desc(&self) -> Vec<&Desc> {
        self.desc.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let plan = self.plan.load();
        let pools = plan.pools();
        let balancer = [self.requests(), self.gauges(&pools), self.configuration(&plan)];
        let all = balancer.into_iter().chain([
            Self::backends(&pools),
            circuits(&pools),
            limits(&plan),
            accounts(&plan),
            self.routes(&plan),
        ]);
        all.flatten().filter(|family| !family.get_metric().is_empty()).collect()
    }
}
