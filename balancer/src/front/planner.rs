//! From a configuration to pools and a plan, at the start and again with every new one.
//!
//! Pools live as long as their name is in the configuration, so backends keep their health
//! and their connections. A backend that is no longer named finishes what it has.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::StatusCode;
use tokio::task::JoinSet;

use super::reload::ReloadError;
use crate::account::Account;
use crate::config::{Config, PoolConfig, RouteConfig, TargetConfig};
use crate::load::RouteLoad;
use crate::net::Address;
use crate::pool::{Backend, BackendId, BackendSpec, Initial, Pool, Tcp};
use crate::route::{Action, FALLBACK, Matcher, OwnAnswer, Plan, Route, RouteSettings, Traffic, limits};

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
    pub(super) fn new(config: &Config, account: Option<Arc<Account>>, workers: usize) -> Self {
        let default = Pool::new(config.pool.settings());
        config.pool.backends.iter().for_each(|address| insert(&default, address));
        weigh(&default, &config.pool);
        let made = |(name, pool): (&String, &PoolConfig)| (name.clone(), made(name, pool));
        let pools: BTreeMap<_, _> = config.pools.iter().map(made).collect();
        let plan = Plan { account, ..plan(config, &default, &pools, workers, None) };
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
            ("vm, scaling", same_but_rules(old, new)),
            ("upstream", old.pool.upstream == new.pool.upstream),
        ]
        .into_iter()
        .filter_map(|(key, same)| (!same).then_some(key))
        .collect();
        if fixed.is_empty() { Ok(()) } else { Err(ReloadError::Fixed(fixed)) }
    }

    /// Puts a configuration into force; returns its generation. What it no longer names is
    /// drained after that, so that no request finds only backends on their way out.
    pub(super) fn apply(
        &mut self,
        new: Config,
        account: Option<Arc<Account>>,
        tasks: &mut JoinSet<()>,
    ) -> u64 {
        let (mut drains, mut retired) = (Vec::new(), Vec::new());
        drains.extend(update(&self.default, &self.config.pool, &new.pool));
        let mut pools = BTreeMap::new();
        for (name, config) in &new.pools {
            let kept = self.config.pools.get(name).filter(|old| old.upstream == config.upstream);
            let pool = match (kept, self.pools.remove(name)) {
                (Some(old), Some(pool)) => {
                    drains.extend(update(&pool, old, config));
                    pool
                }
                (_, gone) => {
                    retired.extend(gone);
                    made(name, config)
                }
            };
            pools.insert(name.clone(), pool);
        }
        retired.extend(std::mem::replace(&mut self.pools, pools).into_values());
        let old = self.plan.load_full();
        let plan = Plan { account, ..plan(&new, &self.default, &self.pools, self.workers, Some(&old)) };
        let generation = plan.generation;
        self.plan.store(Arc::new(plan));
        let deadline = new.timeouts.drain;
        drains.into_iter().for_each(|(pool, id)| drain(&pool, &id, deadline, tasks));
        for pool in retired {
            tasks.spawn(retire(pool, deadline));
        }
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
        // A configuration has just taken it out, and this one has it again.
        if !pool.revive(&duplicate.0) {
            tracing::warn!(%duplicate, "a backend is there already");
        }
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

/// Brings a pool from one configuration to another; returns the backends to drain.
fn update(pool: &Pool, old: &PoolConfig, new: &PoolConfig) -> Vec<(Pool, BackendId)> {
    pool.reconfigure(new.settings());
    let added = new.backends.iter().filter(|address| !old.backends.contains(address));
    added.for_each(|address| insert(pool, address));
    weigh(pool, new);
    let gone = old.backends.iter().filter(|address| !new.backends.contains(address));
    gone.map(|address| (pool.clone(), id_of(address))).collect()
}

/// Lets a backend finish what it has. One that is gone already is what was wanted.
fn drain(pool: &Pool, id: &BackendId, deadline: Duration, tasks: &mut JoinSet<()>) {
    if let Ok(backend) = pool.begin_drain(id) {
        tasks.spawn(drained(pool.clone(), backend, deadline));
    }
}

async fn drained(pool: Pool, backend: Arc<Backend>, deadline: Duration) {
    pool.end_of_drain(&backend, deadline).await;
    pool.remove_if_draining(&backend);
}

/// Lets a pool that nothing leads to any more serve who stands in its line, and finish.
async fn retire(pool: Pool, deadline: Duration) {
    /// How often the line is looked at.
    const LOOK: Duration = Duration::from_millis(20);
    let end = Instant::now() + deadline;
    while pool.queued() > 0 && Instant::now() < end {
        tokio::time::sleep(LOOK).await;
    }
    let left = end.saturating_duration_since(Instant::now());
    let mut drains = JoinSet::new();
    for backend in &pool.snapshot().all {
        drain(&pool, backend.id(), left, &mut drains);
    }
    drains.join_all().await;
}

/// Makes the plan. Routes keep what they counted under the same name before.
fn plan(
    config: &Config,
    default: &Pool,
    pools: &BTreeMap<String, Pool>,
    workers: usize,
    old: Option<&Plan>,
) -> Plan {
    let now = Instant::now();
    let load = |name: &str| {
        let counted = old.and_then(|old| old.all().find(|route| &*route.name == name));
        counted.map_or_else(|| RouteLoad::new(workers), |route| route.load.clone())
    };
    // With VMs, only their load counts: the other backends are given.
    let is_scaled =
        |action: &Action| matches!(action, Action::Forward(pool) if config.vm.is_none() || pool.is(default));
    let route = |route: &RouteConfig| {
        let action = action(&route.target, default, pools);
        let (matcher, settings) = (route.matcher.clone(), route.settings.clone());
        let scaled = is_scaled(&action);
        let before = old.and_then(|old| old.all().find(|it| *it.name == *route.name));
        let traffic = Traffic::new(&route.traffic, before.map(|it| &it.traffic), now);
        let made = Route::new(&route.name, matcher, action, settings, load(&route.name)).scaled(scaled);
        Arc::new(made.letting_through(traffic))
    };
    let rest = match config.has_default_pool() {
        true => Action::Forward(default.clone()),
        false => Action::Answer(OwnAnswer::Respond {
            status: StatusCode::NOT_FOUND,
            text: "no route leads there\n".into(),
        }),
    };
    let (matcher, settings, scaled) = (Matcher::default(), RouteSettings::default(), is_scaled(&rest));
    Plan {
        generation: old.map_or(1, |old| old.generation + 1),
        routes: config.routes.iter().map(route).collect(),
        fallback: Arc::new(Route::new(FALLBACK, matcher, rest, settings, load(FALLBACK)).scaled(scaled)),
        limits: limits(&config.rate_limits, old.map_or(&[], |old| &old.limits), now),
        clients: old.map_or_else(Arc::default, |old| Arc::clone(&old.clients)),
        connections_per_client: config.connections_per_client,
        timeouts: config.timeouts.clone(),
        tick: config.tick(),
        account: None,
    }
}

fn action(target: &TargetConfig, default: &Pool, pools: &BTreeMap<String, Pool>) -> Action {
    match target {
        TargetConfig::Pool(name) => {
            // The configuration has refused names that there is no pool of.
            let named = name.as_ref().and_then(|name| pools.get(name));
            Action::Forward(named.unwrap_or(default).clone())
        }
        TargetConfig::Answer(answer) => Action::Answer(answer.clone()),
        TargetConfig::Connect(to) => Action::Connect(Arc::new(to.clone())),
    }
}

fn same_but_rules(old: &Config, new: &Config) -> bool {
    match (&old.vm, &new.vm) {
        (Some(old), Some(new)) => old.same_but_rules(new),
        (old, new) => old == new,
    }
}
