//! The running front door: pool, data plane, admin listener and load samples, put
//! together from a [`Config`] and taken apart in order.
//!
//!   starting -> serving -> draining -> stopped
//!
//! A tier of fixed backends needs nothing else. A tier of VMs is driven from outside,
//! through [`Front::handles`]: it inserts and drains backends, reads samples, and writes
//! what it knows to the [`Board`].

mod board;
mod history;
mod limits;
mod orders;
mod planner;
mod reload;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use prometheus::Registry;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub use board::{Board, TierState};
pub use orders::{Desk, Order};
use planner::Planner;
pub use reload::{Attempts, ReloadAsked, ReloadError, UpgradeAsked};

use crate::account::{Account, AccountError};
use crate::admin;
use crate::admin::status::Status;
use crate::config::Config;
use crate::hot_restart::{HandOverError, Inherited, Offer, Successor};
use crate::load::{Gauges, Load, LoadSampler, Sample};
use crate::net::Address;
use crate::pool::{Pool, any_changed};
use crate::route::Plan;
use crate::server::{BindError, DataPlane, StartError, Stopped, bind_alone};

/// Time from one load sample to the next.
pub const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// Longest time for backends to answer a first probe before connections are taken over.
pub const PROBE_GRACE: Duration = Duration::from_secs(5);

/// Longest time for the last answers of the admin listener.
const ADMIN_GRACE: Duration = Duration::from_secs(1);

/// Time from one moment that is kept for the status page to the next.
const MOMENT: Duration = Duration::from_secs(1);

/// Why the front door cannot open.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// The data plane cannot start.
    #[error(transparent)]
    DataPlane(#[from] StartError),
    /// Nobody can be told of requests.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The admin listener cannot be bound.
    #[error(transparent)]
    Admin(#[from] BindError),
    /// The admin listener cannot be served.
    #[error("admin: cannot be served: {0}")]
    AdminRuntime(#[source] io::Error),
    /// A metric has the name of another one.
    #[error("metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// What a tier needs of the front door. Cheap to clone.
#[derive(Clone)]
pub struct Handles {
    /// Where backends come and go.
    pub pool: Pool,
    /// The newest load sample, every [`SAMPLE_INTERVAL`].
    pub samples: watch::Receiver<Sample>,
    /// Where a tier writes its decisions and its engine's state.
    pub board: Arc<Board>,
    /// Where a tier registers metrics of its own.
    pub registry: Registry,
    /// What workers follow.
    pub plan: Arc<ArcSwap<Plan>>,
    /// How new configurations were taken.
    pub reloads: Arc<Attempts>,
    /// Where a new configuration is asked for.
    pub asked: mpsc::Sender<ReloadAsked>,
    /// How attempts to hand over to a new program went.
    pub upgrades: Arc<Attempts>,
    /// Where a new program is asked for.
    pub upgrade_asked: mpsc::Sender<UpgradeAsked>,
}

impl Handles {
    /// The status document of this moment.
    pub fn status(&self) -> Status {
        self.board.status(&self.plan.load().pools(), &self.samples.borrow())
    }

    /// Whether any backend of any pool takes requests.
    pub fn any_ready(&self) -> bool {
        self.plan.load().pools().iter().any(|pool| !pool.snapshot().ready.is_empty())
    }
}

/// The running front door.
pub struct Front {
    plane: DataPlane,
    planner: Planner,
    admin: AdminDoor,
    handles: Handles,
    asks: Option<mpsc::Receiver<ReloadAsked>>,
    upgrade_asks: Option<mpsc::Receiver<UpgradeAsked>>,
    handed_over: bool,
    tasks: JoinSet<()>,
}

/// The admin listener, seen from outside.
struct AdminDoor {
    /// As configured.
    asked: SocketAddr,
    /// With its real port.
    address: SocketAddr,
    /// The socket once more, for a process that takes over.
    kept: std::net::TcpListener,
    /// Whether it accepts no more.
    closed: watch::Sender<bool>,
}

impl Front {
    /// Opens the door: listens, and begins to probe the fixed backends.
    /// Must be called within the tokio runtime that runs probes and the admin listener.
    ///
    /// # Errors
    /// [`FrontError`] with the key of the configuration; nothing is left running then.
    pub async fn open(config: &Config) -> Result<Self, FrontError> {
        Self::open_with(config, Inherited::default()).await
    }

    /// The same with sockets of a process that this one replaces. Nothing is accepted from them
    /// before backends are known to answer, or have had [`PROBE_GRACE`] to.
    ///
    /// # Errors
    /// As [`Front::open`]; who had the sockets before can go on then.
    pub async fn open_with(config: &Config, mut inherited: Inherited) -> Result<Self, FrontError> {
        limits::raise_open_files();
        let admin = match inherited.take_admin(config.admin) {
            Some(admin) => admin,
            None => bind_alone("admin", config.admin)?,
        };
        let takes_over = !inherited.is_empty();
        let load = Load::new(config.workers.unwrap_or_else(processors));
        let account = Account::open(&config.account, None)?;
        let planner = Planner::new(config, account, load.workers());
        let (pool, plan) = (planner.default_pool().clone(), planner.shared_plan());
        let mut plane = DataPlane::start(&plan, &load)?;
        let prepared = plane.prepare(&config.listen, &config.trusted_proxies, &mut inherited)?;
        let admin = AdminDoor::new(config.admin, admin)?;
        if takes_over {
            // Those that never come up have been down before.
            let _ = tokio::time::timeout(PROBE_GRACE, backends_ready(&plan.load())).await;
        }
        plane.listen(prepared);
        inherited.close();
        let registry = Registry::new();
        let reloads = Arc::new(Attempts::default());
        let upgrades = Arc::new(Attempts::default());
        let meter =
            admin::Meter::new(Arc::clone(&plan), load.clone(), Arc::clone(&reloads), Arc::clone(&upgrades));
        registry.register(Box::new(meter))?;
        let board = Arc::new(Board::new(&config.name, &plane.addresses(), Instant::now()));
        let ((asked, asks), (upgrade_asked, upgrade_asks)) = (mpsc::channel(1), mpsc::channel(1));
        let mut tasks = JoinSet::new();
        let samples = start_sampling(&mut tasks, &plan, &load);
        let handles =
            Handles { pool, samples, board, registry, plan, reloads, asked, upgrades, upgrade_asked };
        tasks.spawn(admin::serve(admin.listener()?, handles.clone(), admin.closed.subscribe()));
        tasks.spawn(watch_for_first_backend(handles.clone()));
        tasks.spawn(remember(handles.clone()));
        let (asks, upgrade_asks) = (Some(asks), Some(upgrade_asks));
        Ok(Self { plane, planner, admin, handles, asks, upgrade_asks, handed_over: false, tasks })
    }

    /// What a tier needs.
    pub fn handles(&self) -> Handles {
        self.handles.clone()
    }

    /// Where clients come in, with real ports.
    pub fn addresses(&self) -> Vec<Address> {
        self.plane.addresses()
    }

    /// The TCP ones of these.
    pub fn listen(&self) -> Vec<SocketAddr> {
        self.plane.addresses().iter().filter_map(Address::tcp).collect()
    }

    /// Where the admin listener is, with its real port.
    pub fn admin(&self) -> SocketAddr {
        self.admin.address
    }

    /// Where the admin listener passes on that a new configuration is asked for. Only the
    /// first caller gets it.
    pub fn asks(&mut self) -> Option<mpsc::Receiver<ReloadAsked>> {
        self.asks.take()
    }

    /// The same for a new program to take over.
    pub fn upgrade_asks(&mut self) -> Option<mpsc::Receiver<UpgradeAsked>> {
        self.upgrade_asks.take()
    }

    /// Starts this program again, as it is on disk now, gives it the listening sockets, and waits until
    /// it accepts connections; returns its process ID. What is left to do then is to [close](Self::close).
    ///
    /// # Errors
    /// [`HandOverError`]; this process goes on as if nothing had been.
    pub async fn hand_over(&mut self) -> Result<u32, HandOverError> {
        let offer = self.offer().map_err(HandOverError::Offer)?;
        let successor = Successor::start(&offer)?;
        // The sockets are on their way; its copies need not outlive this.
        drop(offer);
        let process = successor.ready().await?;
        self.handed_over = true;
        self.admin.closed.send_replace(true);
        Ok(process)
    }

    fn offer(&self) -> io::Result<Offer> {
        let mut offer = Offer::new(self.admin.asked, &self.admin.kept)?;
        self.plane.offer(&mut offer)?;
        Ok(offer)
    }

    /// Notes how an attempt to hand over went.
    pub fn note_upgrade(&self, result: Result<(), String>) {
        self.handles.upgrades.note(result);
    }

    /// Goes on with a new configuration, or with the old one if that cannot be. Nobody's
    /// request is dropped: those under way end by the old one.
    ///
    /// # Errors
    /// [`ReloadError`] with everything that cannot be; nothing has changed then.
    pub fn reload(&mut self, config: Config) -> Result<u64, ReloadError> {
        let generation = self.try_reload(config);
        self.handles.reloads.note(generation.as_ref().map(|_| ()).map_err(ToString::to_string));
        match &generation {
            Ok(generation) => {
                self.handles.board.set_listen(&self.plane.addresses());
                tracing::info!(generation, listen = ?self.addresses(), "a new configuration is in force");
            }
            Err(error) => tracing::error!("the old configuration stays in force:\n{error}"),
        }
        generation
    }

    /// Notes a new configuration that could not even be read.
    pub fn reload_failed(&mut self, error: &dyn std::fmt::Display) {
        self.handles.reloads.note(Err(error.to_string()));
        tracing::error!("the old configuration stays in force:\n{error}");
    }

    fn try_reload(&mut self, config: Config) -> Result<u64, ReloadError> {
        self.planner.check(&config)?;
        let (listen, trusted) = (&config.listen, &config.trusted_proxies);
        let prepared = self.plane.prepare(listen, trusted, &mut Inherited::default())?;
        let account = Account::open(&config.account, self.account().as_deref())?;
        let generation = self.planner.apply(config, account, &mut self.tasks);
        self.plane.listen(prepared);
        if let Some(account) = self.account() {
            account.in_force();
        }
        Ok(generation)
    }

    fn account(&self) -> Option<Arc<Account>> {
        self.handles.plan.load().account.clone()
    }

    /// Stops accepting, lets requests finish within `timeouts.drain`, and ends all tasks.
    /// The admin listener answers until the last request is done.
    pub async fn close(mut self) -> Stopped {
        self.handles.board.set_state(TierState::Draining);
        let account = self.account();
        let stopped = self.plane.stop(self.handed_over).await;
        self.planner.close();
        // Answers of the admin listener that are on their way may get there.
        self.admin.closed.send_replace(true);
        let _ = tokio::time::timeout(ADMIN_GRACE, self.admin.closed.closed()).await;
        if let Some(account) = account {
            // It may wait for a disk; nobody is to be told who cannot be waited for.
            let _ = tokio::task::spawn_blocking(move || account.close()).await;
        }
        self.tasks.shutdown().await;
        stopped
    }
}

impl AdminDoor {
    fn new(asked: SocketAddr, kept: std::net::TcpListener) -> Result<Self, FrontError> {
        let address = kept.local_addr().map_err(FrontError::AdminRuntime)?;
        Ok(Self { asked, address, kept, closed: watch::Sender::new(false) })
    }

    fn listener(&self) -> Result<tokio::net::TcpListener, FrontError> {
        let listener = self.kept.try_clone().and_then(tokio::net::TcpListener::from_std);
        listener.map_err(FrontError::AdminRuntime)
    }
}

/// Until every pool that has backends has one that takes requests.
async fn backends_ready(plan: &Plan) {
    for pool in plan.pools() {
        let mut changes = [pool.changes()];
        loop {
            let snapshot = pool.snapshot();
            if snapshot.all.is_empty() || !snapshot.ready.is_empty() {
                break;
            }
            any_changed(&mut changes).await;
        }
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn start_sampling(
    tasks: &mut JoinSet<()>,
    plan: &Arc<ArcSwap<Plan>>,
    load: &Load,
) -> watch::Receiver<Sample> {
    let (plan, load) = (Arc::clone(plan), load.clone());
    let mut sampler = LoadSampler::default();
    let mut take = move || {
        let now = Instant::now();
        sampler.sample(now, load.totals(), gauges(&plan.load(), now))
    };
    let (sender, samples) = watch::channel(take());
    tasks.spawn(async move {
        let mut ticks = tokio::time::interval(SAMPLE_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            sender.send_replace(take());
        }
    });
    samples
}

fn gauges(plan: &Plan, now: Instant) -> Gauges {
    let pools = plan.scaled_pools();
    Gauges {
        in_flight: pools.iter().map(|pool| pool.in_flight()).sum(),
        queued: pools.iter().map(|pool| pool.queued() as u64).sum(),
        oldest_wait: pools.iter().filter_map(|pool| pool.oldest_wait(now)).max(),
    }
}

async fn remember(handles: Handles) {
    let mut ticks = tokio::time::interval(MOMENT);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sample = *handles.samples.borrow();
        handles.board.remember(&handles.plan.load().pools(), &sample);
    }
}

async fn watch_for_first_backend(handles: Handles) {
    /// How often the plan is looked at, which may have other pools meanwhile.
    const LOOK: Duration = Duration::from_secs(1);
    loop {
        let plan = handles.plan.load_full();
        let mut changes: Vec<_> = plan.pools().into_iter().map(Pool::changes).collect();
        if handles.any_ready() {
            break;
        }
        // Either way it is looked again.
        let _ = tokio::time::timeout(LOOK, any_changed(&mut changes)).await;
    }
    handles.board.set_state(TierState::Serving);
}
