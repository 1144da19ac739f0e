//! Metrics of what decides which backend a request gets, and whether it gets one.

use std::sync::Arc;
use std::time::Instant;

use prometheus::proto::MetricFamily;

use super::families::{Series, counter, gauge};
use crate::limit::RateLimit;
use crate::pool::{Backend, CircuitState, OutlierReason, Pool};
use crate::route::Plan;

/// Weights and circuits of backends, and outliers that stayed.
pub(super) fn circuits(pools: &[&Pool]) -> Vec<MetricFamily> {
    let now = Instant::now();
    let snapshots: Vec<_> = pools.iter().map(|pool| (pool.name(), pool.snapshot())).collect();
    let all = || snapshots.iter().flat_map(|(name, it)| it.all.iter().map(move |it| (*name, it)));
    let open = |it: &Backend| match it.circuit().state(now) {
        CircuitState::Closed => 0.0,
        CircuitState::HalfOpen(_) => 0.5,
        CircuitState::Open(..) => 1.0,
    };
    let states = all().map(|(pool, it)| (vec![("pool", pool), ("backend", it.id().as_str())], open(it)));
    let ejections = all().flat_map(|(pool, it)| {
        OutlierReason::ALL.map(|reason| {
            let labels = vec![("pool", pool), ("backend", it.id().as_str()), ("reason", reason.word())];
            (labels, it.circuit().ejections(reason) as f64)
        })
    });
    let spared = pools.iter().map(|pool| (vec![("pool", pool.name())], pool.outliers_spared() as f64));
    let of = |value: fn(&Backend) -> f64| -> Vec<Series<'_>> {
        all().map(|(pool, it)| (vec![("pool", pool), ("backend", it.id().as_str())], value(it))).collect()
    };
    let limits = all().filter_map(|(pool, it)| {
        let limit = it.limit()?;
        Some((vec![("pool", pool), ("backend", it.id().as_str())], f64::from(limit)))
    });
    vec![
        gauge(
            "flurry_backend_max_in_flight",
            "Requests that a backend may serve at once, found out or configured; none without a limit.",
            limits.collect(),
        ),
        gauge("flurry_backend_weight", "Weight of a backend.", of(|it| it.weight().into())),
        gauge(
            "flurry_backend_warm_ratio",
            "Share of a clone's recorded working set that is here; 1 if nothing is recorded.",
            of(Backend::warmth),
        ),
        gauge(
            "flurry_backend_circuit_open",
            "1 while a backend sits out for bad answers, 0.5 until a probe lets it in again.",
            states.collect(),
        ),
        counter(
            "flurry_outlier_ejections_total",
            "Backends taken out for bad answers, by reason.",
            ejections.collect(),
        ),
        counter(
            "flurry_outliers_spared_total",
            "Outliers that stayed because too few others were left.",
            spared.collect(),
        ),
    ]
}

/// Limits on requests and connections.
pub(super) fn limits(plan: &Plan) -> Vec<MetricFamily> {
    let global = plan.limits.iter().map(|limit| ("all", limit));
    let own = plan.all().flat_map(|route| route.traffic.limits.iter().map(|limit| (&*route.name, limit)));
    let limits: Vec<(&str, &Arc<RateLimit>)> = global.chain(own).collect();
    let of = |value: fn(&RateLimit) -> f64| -> Vec<Series<'_>> {
        let labels = limits.iter().map(|(route, limit)| {
            (vec![("limit", limit.settings().name.as_str()), ("route", *route)], value(limit))
        });
        labels.collect()
    };
    vec![
        counter(
            "flurry_rate_limited_requests_total",
            "Requests answered with 429, by limit and route; route `all` is for limits of all routes together.",
            of(|limit| limit.refused() as f64),
        ),
        gauge("flurry_rate_limit_keys", "Clients that a limit remembers.", of(|limit| limit.keys() as f64)),
        counter(
            "flurry_connections_over_client_limit_total",
            "Connections closed at once because their client had as many as it may.",
            vec![(vec![], plan.clients.refused() as f64)],
        ),
    ]
}
