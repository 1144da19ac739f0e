//! Metrics of what decides which backend a request gets, and whether it gets one.

use std::time::Instant;

use prometheus::proto::MetricFamily;

use super::families::{counter, gauge};
use crate::pool::{Backend, CircuitState, OutlierReason, Pool};

/// Circuits of backends, and outliers that stayed.
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
    vec![
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
