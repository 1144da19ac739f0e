//! The tier's router: started once the private network is there, gone before it goes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::Registry;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use router_vm::control::Measures;
use router_vm::host::{Mode, Router, RouterError, Site, VmKind};
use snowflock_engine::control::{Engine, report};
use snowflock_engine::hypervisor::qemu::Accelerator;
use snowflock_engine::network::{BRIDGE, namespace_name};
use tokio::task::AbortHandle;

use super::TierError;
use crate::admin::families::{Series, counter, gauge};
use crate::config::{RouterConfig, RouterMode, VmConfig};

/// From one reading of the counters to the next.
const MEASURE_EVERY: Duration = Duration::from_secs(2);

/// A running router, and what it has counted.
pub(super) struct TierRouter {
    router: Arc<Router>,
    measuring: AbortHandle,
}

fn failed(source: RouterError) -> TierError {
    TierError::Router { said: report(&source) }
}

impl TierRouter {
    /// Starts it and waits until it serves.
    pub(super) async fn start(
        name: &str,
        vm: &VmConfig,
        router: &RouterConfig,
        engine: &Engine,
        registry: &Registry,
    ) -> Result<Self, TierError> {
        let folder = vm.state_dir.join("router");
        std::fs::create_dir_all(&folder)?;
        let site = Site {
            name: name.to_owned(),
            namespace: namespace_name(name),
            bridge: BRIDGE.to_owned(),
            world_namespace: None,
            folder,
        };
        let (mode, config) = (mode(vm, router, engine), router.config.clone());
        let start = move || Router::start(site, &mode, &config);
        let started = tokio::task::spawn_blocking(start).await.map_err(std::io::Error::other)?;
        let router = Arc::new(started.map_err(failed)?);
        let newest = Arc::new(Newest::default());
        registry.register(Box::new(Meter::new(Arc::clone(&newest))))?;
        let measuring = tokio::spawn(measure(Arc::clone(&router), newest)).abort_handle();
        tracing::info!("guests have a way out");
        Ok(Self { router, measuring })
    }

    /// Puts other rules in force.
    pub(super) async fn change(&self, router: &RouterConfig) -> Result<(), TierError> {
        let (running, config) = (Arc::clone(&self.router), router.config.clone());
        let changed = tokio::task::spawn_blocking(move || running.change(&config)).await;
        changed.map_err(std::io::Error::other)?.map_err(failed)
    }

    /// Ends it and removes its devices.
    pub(super) async fn stop(self) {
        self.measuring.abort();
        // A reading that is under way holds it for a moment longer.
        let mut router = self.router;
        let alone = loop {
            match Arc::try_unwrap(router) {
                Ok(alone) => break alone,
                Err(shared) => router = shared,
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let _ = tokio::task::spawn_blocking(move || drop(alone)).await;
    }
}

fn mode(vm: &VmConfig, router: &RouterConfig, engine: &Engine) -> Mode {
    match &router.mode {
        RouterMode::Distributed => Mode::Distributed,
        RouterMode::Vm(image) => Mode::Vm(VmKind {
            qemu: PathBuf::from(&vm.qemu),
            image: image.clone(),
            kvm: engine.accelerator().accelerator == Accelerator::Kvm,
        }),
    }
}

#[derive(Default)]
struct Newest(Mutex<Option<(Measures, u64)>>);

async fn measure(router: Arc<Router>, newest: Arc<Newest>) {
    let mut tick = tokio::time::interval(MEASURE_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let reading = Arc::clone(&router);
        let read = move || (reading.measure(), reading.serving().map_or(0, |(_, replaced)| replaced));
        match tokio::task::spawn_blocking(read).await {
            Ok((Ok(measures), replaced)) => {
                *newest.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((measures, replaced));
            }
            Ok((Err(error), _)) => tracing::warn!(error = report(&error), "the router cannot be measured"),
            Err(_) => return,
        }
    }
}

/// Shows the newest counters.
struct Meter {
    newest: Arc<Newest>,
    desc: Option<Desc>,
}

impl Meter {
    fn new(newest: Arc<Newest>) -> Self {
        let about = "Connections that the router tracks.".to_owned();
        let desc = Desc::new("flurry_router_connections".to_owned(), about, vec![], Default::default()).ok();
        Self { newest, desc }
    }
}

impl Collector for Meter {
    fn desc(&self) -> Vec<&Desc> {
        self.desc.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let newest = self.newest.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        newest.map_or_else(Vec::new, |(measures, replaced)| families(&measures, replaced))
    }
}

fn families(measures: &Measures, replaced: u64) -> Vec<MetricFamily> {
    let counts = || measures.counts.iter();
    let packets: Vec<Series<'_>> =
        counts().map(|(what, count)| (vec![("what", what.name())], count.packets as f64)).collect();
    let bytes: Vec<Series<'_>> =
        counts().map(|(what, count)| (vec![("what", what.name())], count.bytes as f64)).collect();
    vec![
        counter("flurry_router_packets_total", "Packets by what the router did with them.", packets),
        counter("flurry_router_bytes_total", "Bytes of those packets.", bytes),
        gauge(
            "flurry_router_connections",
            "Connections that the router tracks.",
            vec![(vec![], measures.connections as f64)],
        ),
        counter(
            "flurry_router_vm_replaced_total",
            "Router VMs that another took the place of.",
            vec![(vec![], replaced as f64)],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_shown_before_the_first_reading_and_all_counters_after_it() {
        let newest = Arc::new(Newest::default());
        let meter = Meter::new(Arc::clone(&newest));
        assert!(meter.collect().is_empty());
        *newest.0.lock().unwrap() = Some((Measures { connections: 3, ..Measures::default() }, 1));
        let names: Vec<String> = meter.collect().iter().map(|family| family.name().to_owned()).collect();
        assert_eq!(
            names,
            [
                "flurry_router_packets_total",
                "flurry_router_bytes_total",
                "flurry_router_connections",
                "flurry_router_vm_replaced_total"
            ]
        );
    }
}
