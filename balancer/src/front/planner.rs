//! From a configuration to pools and a plan, at the start and again with every new one.
//!
//! Pools live as long as their name is in the configuration, so backends keep their health
//! and their connections. A backend that is no longer named finishes what it has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::StatusCode;
use tokio::task::JoinSet;

use super::reload::ReloadError;
use crate::config::{Config, PoolConfig, RouteConfig, TargetConfig};
use crate::load::RouteLoad;
use crate::net::Address;
use crate::pool::{BackendId, BackendSpec, Initial, Pool, Tcp};
use crate::route::{Action, Matcher, Plan, Route, RouteSettings};

/// The name of the route for what no other one is for.
const FALLBACK: &str = "default";

/// The configuration in force, and what was made of it.
pub(super) struct Planner {
    config: Config,
    workers: usize,
    default: Pool,
    pools: BTreeMap<String, Pool>,
    plan: Arc<ArcSwap<Plan>>,
}

impl Planner {
    /// Makes pools and plan. Must be called within a tokio runtime, which probes backends.
    pub(super) fn new(config: &Config, workers: usize) -> Self {
        let default = Pool::new(config.pool.settings());
        config.pool.backends.iter().for_each(|address| insert(&default, address));
        weigh(&default, &config.pool);
        let made = |(name, pool): (&String, &PoolConfig)| (name.clone(), made(name, pool));
        let pools: BTreeMap<_, _> = config.pools.iter().map(made).collect();
        let plan = plan(config, &default, &pools, workers, None);
        let plan = Arc::new(ArcSwap::from_pointee(plan));
        Self { config: config.clone(), workers, default, pools, plan }
    }

    pub(super) fn default_pool(&self) -> &Pool {
        &self.default
    }

    pub(super) fn shared_plan(&self) -> Arc<ArcSwap<Plan>> {
        Arc::clone(&self.plan)
    }

    /// Whether a configuration can follow the one in force.
    pub(super) fn check(&self, new: &Config) -> Result<(), ReloadError> {
        let old = &self.config;
        let fixed: Vec<&'static str> = [
            ("name", old.name == new.name),
            ("admin", old.admin == new.admin),
            ("workers", old.workers == new.workers),
            ("vm, scaling", old.vm == new.vm),
            ("upstream", old.pool.upstream == new.pool.upstream),
        ]
        .into_iter()
        .filter_map(|(key, same)| (!same).then_some(key))
        .collect();
        if fixed.is_empty() { Ok(()) } else { Err(ReloadError::Fixed(fixed)) }
    }

    /// Puts a configuration into force; returns its generation.
    pub(super) fn apply(&mut self, new: Config, tasks: &mut JoinSet<()>) -> u64 {
        let deadline = new.timeouts.drain;
        update(&self.default, &self.config.pool, &new.pool, deadline, tasks);
        let mut pools = BTreeMap::new();
        for (name, config) in &new.pools {
            let kept = self.config.pools.get(name).filter(|old| old.upstream == config.upstream);
            let pool = match (kept, self.pools.remove(name)) {
                (Some(old), Some(pool)) => {
                    update(&pool, old, config, deadline, tasks);
                    pool
                }
                (_, gone) => {
                    gone.into_iter().for_each(|pool| retire(pool, deadline, tasks));
                    made(name, config)
                }
            };
            pools.insert(name.clone(), pool);
        }
        let gone = std::mem::replace(&mut self.pools, pools);
        let old = self.plan.load_full();
        let plan = plan(&new, &self.default, &self.pools, self.workers, Some(&old));
        let generation = plan.generation;
        self.plan.store(Arc::new(plan));
        gone.into_values().for_each(|pool| retire(pool, deadline, tasks));
        self.config = new;
        generation
    }

    /// Ends all probing.
    pub(super) fn close(&self) {
        self.pools.values().chain([&self.default]).for_each(Pool::close);
    }
}

fn made(name: &str, config: &PoolConfig) -> Pool {
    let pool = Pool::named(name, config.settings());
    config.backends.iter().for_each(|address| insert(&pool, address));
    weigh(&pool, config);
    pool
}

fn id_of(address: &Address) -> BackendId {
    BackendId::from(address.to_string())
}

fn insert(pool: &Pool, address: &Address) {
    let (id, dialer) = (id_of(address), Arc::new(Tcp));
    let spec = BackendSpec { id, address: address.clone(), dialer, initial: Initial::Probing };
    if let Err(duplicate) = pool.insert(spec) {
        // It is on its way out: a configuration has just taken it out and this one has it again.
        tracing::warn!(%duplicate, "a backend is still draining; it joins with the next configuration");
    }
}

/// Gives fixed backends their weights.
fn weigh(pool: &Pool, config: &PoolConfig) {
    let snapshot = pool.snapshot();
    for address in &config.backends {
        let given = config.weights.iter().find(|(of, _)| of == address);
        if let Some(backend) = snapshot.get(&id_of(address)) {
            backend.set_weight(given.map_or(1, |(_, weight)| *weight));
        }
    }
}

/// Brings a pool from one configuration to another.
fn update(pool: &Pool, old: &PoolConfig, new: &PoolConfig, deadline: Duration, tasks: &mut JoinSet<()>) {
    pool.reconfigure(new.settings());
    let added = new.backends.iter().filter(|address| !old.backends.contains(address));
    added.for_each(|address| insert(pool, address));
    weigh(pool, new);
    for gone in old.backends.iter().filter(|address| !new.backends.contains(address)) {
        tasks.spawn(drained(pool.clone(), id_of(gone), deadline));
    }
}

/// Lets a pool finish what it has.
fn retire(pool: Pool, deadline: Duration, tasks: &mut JoinSet<()>) {
    for backend in &pool.snapshot().all {
        tasks.spawn(drained(pool.clone(), backend.id().clone(), deadline));
    }
}

/// Lets a backend finish what it has. One that is gone already is what was wanted.
async fn drained(pool: Pool, id: BackendId, deadline: Duration) {
    let _ = pool.drain(&id, deadline).await;
    let _ = pool.remove(&id);
}

/// Makes the plan. Routes keep what they counted under the same name before.
fn plan(
    config: &Config,
    default: &Pool,
    pools: &BTreeMap<String, Pool>,
    workers: usize,
    old: Option<&Plan>,
) -> Plan {
    let load = |name: &str| {
        let counted = old.and_then(|old| old.all().find(|route| &*route.name == name));
        counted.map_or_else(|| RouteLoad::new(workers), |route| route.load.clone())
    };
    let route = |route: &RouteConfig| {
        let action = action(&route.target, default, pools);
        let (matcher, settings) = (route.matcher.clone(), route.settings.clone());
        Arc::new(Route::new(&route.name, matcher, action, settings, load(&route.name)))
    };
    let rest = match config.has_default_pool() {
        true => Action::Forward(default.clone()),
        false => Action::Respond { status: StatusCode::NOT_FOUND, text: "no route leads there\n".into() },
    };
    let (matcher, settings) = (Matcher::default(), RouteSettings::default());
    Plan {
        generation: old.map_or(1, |old| old.generation + 1),
        routes: config.routes.iter().map(route).collect(),
        fallback: Arc::new(Route::new(FALLBACK, matcher, rest, settings, load(FALLBACK))),
        timeouts: config.timeouts.clone(),
        tick: config.tick(),
    }
}

fn action(target: &TargetConfig, default: &Pool, pools: &BTreeMap<String, Pool>) -> Action {
    match target {
        TargetConfig::Pool(name) => {
            // The configuration has refused names that there is no pool of.
            let named = name.as_ref().and_then(|name| pools.get(name));
            Action::Forward(named.unwrap_or(default).clone())
        }
        TargetConfig::Redirect { status, to } => Action::Redirect { status: *status, to: to.clone() },
        TargetConfig::Respond { status, text } => Action::Respond { status: *status, text: Arc::clone(text) },
    }
}
