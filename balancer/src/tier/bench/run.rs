//! The measurements themselves.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use snowflock_engine::control::{Engine, EngineError, Programs, TicketAnswer, View};
use snowflock_engine::memory::PAGE_BYTES;
use snowflock_engine::memory::bench::local_fault_service;
use snowflock_engine::memory::protocol::CheckpointId;
use snowflock_engine::network::identity::CloneId;

use super::result::Measurement;
use crate::config::{Config, ConfigError, VmTier};
use crate::front::{Front, FrontError};
use crate::pool::Tcp;
use crate::tier::guest_http::GuestClient;
use crate::tier::report::median;
use crate::tier::start::{address, backend_id, engine, insert};
use crate::tier::{TierError, report};

/// Answered by the application at once, without the wait that stands for its database.
const PATH: &str = "/healthz";
const ITEMS: u32 = 50;
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
/// Between two clones: the one before is gone, and the shells are waiting again.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// After which a clone that nobody asks anything counts as idle.
const IDLE_AFTER: Duration = Duration::from_secs(2);

/// What to measure.
#[derive(Debug, Clone)]
pub struct Options {
    /// The demo guest's image.
    pub image: PathBuf,
    /// Memory of each VM, MiB.
    pub memory_mib: u32,
    /// Clones at once in the litter; 0 leaves it out.
    pub clones: u32,
    /// Checkpoints, each with a first clone.
    pub rounds: u32,
    /// Clones after the first one of each checkpoint.
    pub siblings: u32,
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The options are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The front door does not open.
    #[error(transparent)]
    Front(#[from] FrontError),
    /// The tier does not start.
    #[error(transparent)]
    Tier(#[from] TierError),
    /// The engine did not do its part.
    #[error("{}", report(.0))]
    Engine(#[from] EngineError),
    /// A request failed, or clones did not come.
    #[error("{0}")]
    Failed(String),
    /// A file cannot be written.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Measures, and leaves nothing behind.
///
/// # Errors
/// See [`BenchError`].
pub async fn fork(options: &Options) -> Result<Vec<Measurement>, BenchError> {
    let config = config(options)?;
    let front = Front::open(&config).await?;
    let tier = config.vm.clone().ok_or_else(|| BenchError::Failed("no vm".into()))?;
    let engine = engine(&config.name, &tier).await?;
    eprintln!("bench: {}", engine.accelerator().reason);
    let bench = Bench { options, tier, engine, front };
    let measured = bench.run().await;
    let Bench { engine, front, .. } = bench;
    front.close().await;
    engine.shut_down().await?;
    measured
}

/// The configuration that a user would write for such a tier.
fn config(options: &Options) -> Result<Config, BenchError> {
    let image = options.image.canonicalize().map_err(|source| {
        let what =
            format!("--image {}: {source}; make it with `flurry image build`", options.image.display());
        io::Error::new(source.kind(), what)
    })?;
    let name = format!("bench-{}", std::process::id());
    let text = format!(
        "name: {name}\nlisten: [127.0.0.1:0]\nadmin: 127.0.0.1:0\nworkers: 1\n\
         vm: {{image: {image:?}, memory_mib: {}, shells: {}, network: 10.118.0.0/16}}\n\
         scaling: {{min: 1, max: {}}}\nhealth: {{path: /healthz}}\nqueue: {{timeout: 60s}}\n",
        options.memory_mib,
        options.clones.max(2),
        options.clones + 8,
    );
    let file = std::env::temp_dir().join(format!("{name}.yaml"));
    std::fs::write(&file, text)?;
    let loaded = Config::load(&file);
    std::fs::remove_file(&file)?;
    Ok(loaded?)
}

/// From the touch of an absent page to the moment when the toucher goes on, with a real memtap.
async fn fault_service() -> Result<Measurement, BenchError> {
    const PAGES: u32 = 16_384;
    let memtap = Programs::find()?.memtap;
    let folder = std::env::temp_dir().join(format!("flurry-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let measure = {
        let folder = folder.clone();
        move || local_fault_service(&memtap, &folder, PAGES)
    };
    let measured = tokio::task::spawn_blocking(measure).await.map_err(io::Error::other)?;
    std::fs::remove_dir_all(&folder)?;
    let spread = measured.map_err(|error| BenchError::Failed(report(&error)))?;
    let p50 = spread.p50.as_nanos() as f64 / 1e3;
    Ok(Measurement::lower("fault service, local, p50", p50, "us").goals(25.0, 10.0))
}

struct Bench<'a> {
    options: &'a Options,
    tier: VmTier,
    engine: Engine,
    front: Front,
}

impl Bench<'_> {
    async fn run(&self) -> Result<Vec<Measurement>, BenchError> {
        let boot = self.boot().await?;
        eprintln!("bench: booted in {boot:.0} ms");
        let mut first = Vec::new();
        let mut later = Vec::new();
        for round in 0..self.options.rounds {
            self.shells_waiting().await?;
            let checkpoint = self.engine.sf_checkpoint_parent().await?;
            first.push(self.one_clone(checkpoint).await?);
            for _ in 0..self.options.siblings {
                later.push(self.one_clone(checkpoint).await?);
            }
            eprintln!("bench: round {}: first clones {first:.0?} ms, siblings {later:.0?} ms", round + 1);
        }
        let mut all = self.checkpoints();
        all.extend(self.forks(boot, &first, &later));
        if self.options.clones > 0 {
            all.extend(self.litter().await?);
        }
        all.push(fault_service().await?);
        Ok(all)
    }

    /// From nothing to the first 200 through the balancer, milliseconds; then the parent leaves the pool.
    async fn boot(&self) -> Result<f64, BenchError> {
        let began = Instant::now();
        let waiting = self.request();
        let up = async {
            self.engine.boot().await?;
            let address = address(&self.engine, CloneId::PARENT, self.tier.vm.port)?;
            insert(&self.engine, &self.front.handles(), CloneId::PARENT, address);
            Ok::<_, BenchError>(())
        };
        let (answered, up) = tokio::join!(waiting, up);
        up?;
        answered?;
        let took = began.elapsed();
        self.engine.ready(CloneId::PARENT, took);
        for item in 0..ITEMS {
            self.get(&format!("/item/{item}")).await?;
        }
        self.leave_pool(CloneId::PARENT);
        Ok(took.as_secs_f64() * 1e3)
    }

    /// From `sf_create_clones` to the first 200 through the balancer, for which a request waits,
    /// milliseconds.
    async fn one_clone(&self, checkpoint: CheckpointId) -> Result<f64, BenchError> {
        self.shells_waiting().await?;
        let ticket = match self.engine.sf_request_ticket(1).await? {
            TicketAnswer::Granted(ticket) => ticket,
            TicketAnswer::Refused(refusal) => return Err(BenchError::Failed(refusal.to_string())),
        };
        let id = ticket.clones[0];
        let began = Instant::now();
        let waiting = self.request();
        let up = self.create(ticket.id, checkpoint, &ticket.clones);
        let (answered, up) = tokio::join!(waiting, up);
        up?;
        answered?;
        let took = began.elapsed();
        self.engine.ready(id, took);
        self.leave_pool(id);
        self.engine.sf_exit(id).await?;
        Ok(took.as_secs_f64() * 1e3)
    }

    /// Creates clones and lets each into the pool as soon as it has joined.
    async fn create(
        &self,
        ticket: snowflock_engine::control::TicketId,
        checkpoint: CheckpointId,
        clones: &[CloneId],
    ) -> Result<(), BenchError> {
        let mut view = self.engine.view();
        let mut joined = Vec::new();
        let creating = self.engine.sf_create_clones(ticket, checkpoint);
        tokio::pin!(creating);
        loop {
            let admit = |view: &View, joined: &mut Vec<CloneId>| -> Result<(), BenchError> {
                for id in clones {
                    let has_joined = view.clone_with(*id).is_some_and(|vm| vm.state.has_identity());
                    if has_joined && !joined.contains(id) {
                        joined.push(*id);
                        let address = address(&self.engine, *id, self.tier.vm.port)?;
                        insert(&self.engine, &self.front.handles(), *id, address);
                    }
                }
                Ok(())
            };
            tokio::select! {
                created = &mut creating => {
                    let created = created?;
                    admit(&self.engine.view().borrow().clone(), &mut joined)?;
                    return match created.failed.first() {
                        None if joined.len() == clones.len() => Ok(()),
                        None => Err(BenchError::Failed("a clone has ended by itself".into())),
                        Some((id, why)) => Err(BenchError::Failed(format!("{id}: {why}"))),
                    };
                }
                changed = view.changed() => {
                    changed.map_err(|_| EngineError::Stopped)?;
                    let now = view.borrow_and_update().clone();
                    admit(&now, &mut joined)?;
                }
            }
        }
    }

    /// Many clones at once.
    async fn litter(&self) -> Result<Vec<Measurement>, BenchError> {
        self.shells_waiting().await?;
        let checkpoint = self.engine.sf_checkpoint_parent().await?;
        let asked = self.options.clones;
        let ticket = match self.engine.sf_request_ticket(asked).await? {
            TicketAnswer::Granted(ticket) if ticket.clones.len() as u32 == asked => ticket,
            other => return Err(BenchError::Failed(format!("asked for {asked} clones, got {other:?}"))),
        };
        let began = Instant::now();
        let pool = self.front.handles().pool;
        self.create(ticket.id, checkpoint, &ticket.clones).await?;
        for id in &ticket.clones {
            let id = backend_id(*id);
            let ready = tokio::time::timeout(REQUEST_LIMIT, pool.wait_ready(&id)).await;
            if !matches!(ready, Ok(Ok(_))) {
                return Err(BenchError::Failed(format!("{id} does not answer")));
            }
        }
        let all_ready = began.elapsed();
        let view = self.engine.view().borrow().clone();
        let pager = view.checkpoints.iter().find(|c| c.id == checkpoint);
        let pager = pager.ok_or_else(|| BenchError::Failed("the checkpoint is gone".into()))?;
        let pager = pager.memtap.stats().map_err(EngineError::from)?.pager;
        for id in &ticket.clones {
            self.leave_pool(*id);
        }
        tokio::time::sleep(IDLE_AFTER).await;
        let private = ticket.clones.iter().filter_map(|id| {
            let pages = view.clone_with(*id)?.memory.as_ref()?.private_pages()?;
            Some(pages as f64 * PAGE_BYTES as f64 / f64::from(1 << 20))
        });
        let private = median(private.collect());
        self.engine.sf_kill(ticket.id).await?;
        let distinct = (pager.fetched + pager.prefetched) as f64;
        let mut all = vec![
            Measurement::lower(
                format!("{asked} clones at once: all answering"),
                all_ready.as_secs_f64(),
                "s",
            )
            .goals(2.5, 1.5),
            Measurement::lower(
                format!("page fetches for {asked} siblings / distinct pages"),
                (distinct + pager.repeated as f64) / distinct,
                "x",
            )
            .goals(1.1, 1.0),
        ];
        all.extend(private.map(|mib| {
            Measurement::lower("guest memory of its own of an idle sibling", mib, "MiB").goals(4.0, 1.5)
        }));
        all.extend(
            pager.service_p50_us.map(|us| {
                Measurement::lower("fault service inside memtap, p50, rounded up", us as f64, "us")
            }),
        );
        Ok(all)
    }

    fn forks(&self, boot: f64, first: &[f64], later: &[f64]) -> Vec<Measurement> {
        let mut all = vec![Measurement::lower("cold boot to first HTTP 200", boot, "ms")];
        if let Some(p50) = median(first.to_vec()) {
            all.push(
                Measurement::lower("sf_create_clones to first HTTP 200, first clone, p50", p50, "ms")
                    .goals(350.0, 200.0),
            );
            all.push(
                Measurement::higher("cold boot / fork, first clone", boot / p50, "x")
                    .goals(20.0, 50.0)
                    .against("sf_create_clones to first HTTP 200, first clone"),
            );
        }
        if let Some(p50) = median(later.to_vec()) {
            all.push(
                Measurement::lower("sf_create_clones to first HTTP 200, later siblings, p50", p50, "ms")
                    .goals(200.0, 110.0),
            );
            all.push(
                Measurement::higher("cold boot / fork, later siblings", boot / p50, "x")
                    .goals(20.0, 50.0)
                    .against("sf_create_clones to first HTTP 200, later siblings"),
            );
        }
        all
    }

    /// Pauses and descriptors of the checkpoints so far.
    fn checkpoints(&self) -> Vec<Measurement> {
        let view = self.engine.view().borrow().clone();
        let mib = self.options.memory_mib;
        let (must, aim) = if mib <= 256 { (20.0, 10.0) } else { (25.0, 15.0) };
        let pauses = view.pauses.iter().map(|pause| pause.total().as_secs_f64() * 1e3).collect();
        for pause in &view.pauses {
            eprintln!("bench: pause {pause:.1?}");
        }
        for fork in &view.forks {
            let (seeded, running, joined) = (fork.seeded, fork.running, fork.joined);
            eprintln!("bench: {}: seeded {seeded:.0?}, running {running:.0?}, joined {joined:.0?}", fork.id);
        }
        let mut all = Vec::new();
        all.extend(median(pauses).map(|ms| {
            Measurement::lower(format!("parent pause, {mib} MiB, p50"), ms, "ms").goals(must, aim)
        }));
        all.extend(view.checkpoints.last().into_iter().flat_map(|newest| {
            [
                Measurement::lower(
                    "descriptor: device state, raw",
                    newest.device_state_bytes as f64 / 1e3,
                    "KB",
                )
                .goals(400.0, 300.0),
                Measurement::lower("descriptor as stored", newest.descriptor_bytes as f64 / 1e3, "KB")
                    .goals(140.0, 100.0),
            ]
        }));
        all
    }

    /// A request through the balancer; it waits in the queue while there is no backend.
    async fn request(&self) -> Result<(), BenchError> {
        self.get(PATH).await
    }

    async fn get(&self, path: &str) -> Result<(), BenchError> {
        let listen: SocketAddr = self.front.listen()[0];
        let mut client = GuestClient::new(Arc::new(Tcp), listen);
        match client.get(path, REQUEST_LIMIT).await {
            Ok(status) if status.is_success() => Ok(()),
            Ok(status) => Err(BenchError::Failed(format!("GET {path}: {status}"))),
            Err(why) => Err(BenchError::Failed(format!("GET {path}: {why}"))),
        }
    }

    fn leave_pool(&self, id: CloneId) {
        if let Err(unknown) = self.front.handles().pool.remove(&backend_id(id)) {
            tracing::debug!(%unknown, "left the pool before");
        }
    }

    /// Waits until as many shells wait as are configured.
    async fn shells_waiting(&self) -> Result<(), BenchError> {
        let shells = self.tier.vm.shells;
        let enough = |view: &Arc<View>| view.shells >= shells;
        let mut view = self.engine.view();
        let waited = tokio::time::timeout(SETTLE_LIMIT, view.wait_for(enough)).await;
        match waited {
            Ok(Ok(_)) => Ok(()),
            _ => Err(BenchError::Failed(format!("{shells} shells did not start within {SETTLE_LIMIT:?}"))),
        }
    }
}
