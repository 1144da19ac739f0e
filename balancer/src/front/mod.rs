//! The running front door: pool, data plane, admin listener and load samples, put
//! together from a [`Config`] and taken apart in order.
//!
//!   starting -> serving -> draining -> stopped
//!
//! A tier of fixed backends needs nothing else. A tier of VMs is driven from outside,
//! through [`Front::handles`]: it inserts and drains backends, reads samples, and writes
//! what it knows to the [`Board`].

mod board;
mod limits;
mod orders;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus::Registry;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use board::{Board, TierState};
pub use orders::Order;

use crate::admin;
use crate::config::Config;
use crate::load::{Gauges, Load, LoadSampler, Sample};
use crate::net::Address;
use crate::pool::{BackendId, BackendSpec, Initial, Pool, Tcp};
use crate::server::{BindError, DataPlane, StartError, Stopped, bind_alone};

/// Time from one load sample to the next.
pub const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// Why the front door cannot open.
#[derive(Debug, thiserror::Error)]
pub enum FrontError {
    /// The data plane cannot start.
    #[error(transparent)]
    DataPlane(#[from] StartError),
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
}

/// The running front door.
pub struct Front {
    plane: DataPlane,
    admin: SocketAddr,
    handles: Handles,
    tasks: JoinSet<()>,
}

impl Front {
    /// Opens the door: listens, and begins to probe the fixed backends.
    /// Must be called within the tokio runtime that runs probes and the admin listener.
    ///
    /// # Errors
    /// [`FrontError`] with the key of the configuration; nothing is left running then.
    pub async fn open(config: &Config) -> Result<Self, FrontError> {
        limits::raise_open_files();
        let admin = bind_alone("admin", config.admin)?;
        let pool = Pool::new(config.pool_settings());
        let load = Load::new(config.workers.unwrap_or_else(processors));
        let plane = DataPlane::start(&config.listen, &pool, &load, &config.data_plane_settings())?;
        let registry = Registry::new();
        registry.register(Box::new(admin::Meter::new(pool.clone(), load.clone())))?;
        let board = Arc::new(Board::new(&config.name, plane.addresses(), Instant::now()));
        let mut tasks = JoinSet::new();
        let samples = start_sampling(&mut tasks, &pool, &load);
        let handles = Handles { pool, samples, board, registry };
        let address = admin.local_addr().map_err(FrontError::AdminRuntime)?;
        let listener = tokio::net::TcpListener::from_std(admin).map_err(FrontError::AdminRuntime)?;
        tasks.spawn(admin::serve(listener, handles.clone()));
        tasks.spawn(watch_for_first_backend(handles.clone()));
        insert_fixed(&handles.pool, &config.pool.backends);
        Ok(Self { plane, admin: address, handles, tasks })
    }

    /// What a tier needs.
    pub fn handles(&self) -> Handles {
        self.handles.clone()
    }

    /// Where clients come in, with real ports.
    pub fn addresses(&self) -> &[Address] {
        self.plane.addresses()
    }

    /// The TCP ones of these.
    pub fn listen(&self) -> Vec<SocketAddr> {
        self.plane.addresses().iter().filter_map(Address::tcp).collect()
    }

    /// Where the admin listener is, with its real port.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Stops accepting, lets requests finish within `timeouts.drain`, and ends all tasks.
    /// The admin listener answers until the last request is done.
    pub async fn close(mut self) -> Stopped {
        self.handles.board.set_state(TierState::Draining);
        let stopped = self.plane.stop().await;
        self.handles.pool.close();
        self.tasks.shutdown().await;
        stopped
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn insert_fixed(pool: &Pool, backends: &[Address]) {
    for address in backends {
        let id = BackendId::from(address.to_string());
        let spec =
            BackendSpec { id, address: address.clone(), dialer: Arc::new(Tcp), initial: Initial::Probing };
        if let Err(duplicate) = pool.insert(spec) {
            // The configuration has refused duplicates; one more is the same backend.
            tracing::warn!(%duplicate, "a backend is given twice");
        }
    }
}

fn start_sampling(tasks: &mut JoinSet<()>, pool: &Pool, load: &Load) -> watch::Receiver<Sample> {
    let (pool, load) = (pool.clone(), load.clone());
    let mut sampler = LoadSampler::default();
    let mut take = move || {
        let gauges = Gauges { in_flight: pool.in_flight(), queued: pool.queued() as u64 };
        sampler.sample(Instant::now(), load.totals(), gauges)
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

async fn watch_for_first_backend(handles: Handles) {
    let mut changes = handles.pool.changes();
    while handles.pool.snapshot().ready.is_empty() {
        if changes.changed().await.is_err() {
            return;
        }
    }
    handles.board.set_state(TierState::Serving);
}
