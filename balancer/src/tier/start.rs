//! From a configuration to a parent that serves, with a checkpoint of it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use snowflock_engine::control::{Engine, EngineSpec, Programs, console_tail};
use snowflock_engine::hypervisor::qemu::Wish;
use snowflock_engine::hypervisor::{BootImage, Machine};
use snowflock_engine::memory::protocol::CheckpointId;
use snowflock_engine::network::identity::CloneId;
use tokio::task::JoinSet;

use super::guest_http::GuestClient;
use super::{GuestDialer, TierError};
use crate::config::{AcceleratorChoice, VmConfig, VmTier, WarmRequests, state_dir};
use crate::front::Handles;
use crate::pool::{BackendId, BackendSpec, Initial};

/// Between two tries to get the parent's first answer.
const FIRST_PROBE_GAP: Duration = Duration::from_millis(20);
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// A cold item of the user's application may take this long.
const WARM_LIMIT: Duration = Duration::from_secs(30);
/// Requests that warm a parent at once: enough to keep its processors busy while it waits for something.
const WARM_AT_ONCE: usize = 8;
/// Memory that a clone is reckoned with beside its guest's: QEMU itself.
const HYPERVISOR_MIB: u64 = 64;

/// Starts the engine for this tier; no VM runs yet.
pub(super) async fn engine(name: &str, config: &VmTier) -> Result<Engine, TierError> {
    let spec = spec(name, config)?;
    let start = move || Engine::start(spec);
    let started = tokio::task::spawn_blocking(start).await.map_err(std::io::Error::other)?;
    let engine = started.map_err(TierError::engine("cannot start the engine"))?;
    let choice = engine.accelerator();
    tracing::info!(accelerator = choice.accelerator.name(), "{}", choice.reason);
    Ok(engine)
}

fn spec(name: &str, config: &VmTier) -> Result<EngineSpec, TierError> {
    let vm = &config.vm;
    let image = flurry_image::Image::open(&vm.image)?;
    let mut programs = Programs::find().map_err(TierError::engine("a program is missing"))?;
    if vm.qemu.components().count() > 1 {
        programs.qemu.clone_from(&vm.qemu);
    }
    let block = vm.network.to_string().parse();
    let block =
        block.map_err(|error| TierError::Unusable { key: "vm.network", problem: format!("{error}") })?;
    Ok(EngineSpec {
        name: name.to_owned(),
        machine: Machine { memory_mib: vm.memory_mib, vcpus: vm.vcpus as u8 },
        image: BootImage {
            kernel: image.kernel(),
            initrd: image.initrd(),
            cmdline: image.cmdline().to_owned(),
            disk: absolute(&image.disk())?,
            disk_format: image.disk_format().name().to_owned(),
            disk_bytes: image.disk_bytes(),
        },
        block,
        accelerator: match vm.accelerator {
            AcceleratorChoice::Auto => Wish::Auto,
            AcceleratorChoice::Tcg => Wish::Tcg,
            AcceleratorChoice::Kvm => Wish::Kvm,
        },
        shells: vm.shells,
        max_clones: config.scaling.max.saturating_sub(1),
        clone_mib: u64::from(vm.memory_mib) / 4 + HYPERVISOR_MIB,
        state_folder: vm.state_dir.clone(),
        boot_limit: vm.boot_deadline,
        identity_limit: vm.clone_deadline,
        hook_limit: vm.hook_deadline,
        programs,
    })
}

/// A layer names the layer below it, and is elsewhere.
fn absolute(path: &Path) -> Result<PathBuf, TierError> {
    Ok(path.canonicalize()?)
}

/// Tells of pauses to come: see [`state_dir`].
fn warn_of_a_disk(folder: &Path) {
    if !state_dir::in_memory(folder) {
        tracing::warn!(
            state_dir = %folder.display(),
            "vm.state_dir is on a disk: the parent of a fork waits for it; give a folder on a tmpfs"
        );
    }
}

/// Boots the parent, waits for its first answer, warms it, takes the first checkpoint.
pub(super) async fn parent(
    engine: &Engine,
    config: &VmTier,
    health_path: &str,
    handles: &Handles,
) -> Result<CheckpointId, TierError> {
    let began = Instant::now();
    let vm = &config.vm;
    warn_of_a_disk(&vm.state_dir);
    super::report::install(engine, handles);
    engine.boot().await.map_err(TierError::engine("the parent does not boot"))?;
    let address = address(engine, CloneId::PARENT, vm.port)?;
    let mut client = GuestClient::new(Arc::new(GuestDialer(engine.dialer())), address);
    first_answer(&mut client, vm, health_path, began).await?;
    engine.ready(CloneId::PARENT, began.elapsed());
    tracing::info!(took = ?began.elapsed(), "the parent answers");
    warm(engine, address, &vm.warm).await;
    let checkpoint = engine.sf_checkpoint_parent().await;
    let checkpoint = checkpoint.map_err(TierError::engine("the parent cannot be forked"))?;
    insert(engine, handles, CloneId::PARENT, address);
    let backend = backend_id(CloneId::PARENT);
    let answered = tokio::time::timeout(vm.clone_deadline, handles.pool.wait_ready(&backend));
    if !matches!(answered.await, Ok(Ok(_))) {
        tracing::warn!("the parent answers, but not the probes of the pool: see `health`");
    }
    Ok(checkpoint)
}

async fn first_answer(
    client: &mut GuestClient,
    vm: &VmConfig,
    path: &str,
    began: Instant,
) -> Result<(), TierError> {
    loop {
        let last = match client.get(path, PROBE_LIMIT).await {
            Ok(status) if status.is_success() || status.is_redirection() => return Ok(()),
            Ok(status) => format!("status {status}"),
            Err(why) => why,
        };
        if began.elapsed() > vm.boot_deadline {
            return Err(TierError::NeverReady {
                path: path.to_owned(),
                port: vm.port,
                limit: vm.boot_deadline,
                last,
                console: console_tail(&vm.state_dir, CloneId::PARENT),
            });
        }
        tokio::time::sleep(FIRST_PROBE_GAP).await;
    }
}

/// Plays the configured requests, several at once. One that fails leaves the parent less warm, no more.
async fn warm(engine: &Engine, address: SocketAddr, requests: &[WarmRequests]) {
    let began = Instant::now();
    let paths = Arc::new(Mutex::new(requests.iter().flat_map(WarmRequests::paths).collect::<VecDeque<_>>()));
    let mut players = JoinSet::new();
    for _ in 0..WARM_AT_ONCE {
        let client = GuestClient::new(Arc::new(GuestDialer(engine.dialer())), address);
        players.spawn(play(client, Arc::clone(&paths)));
    }
    let (mut good, mut bad) = (0, 0);
    while let Some(played) = players.join_next().await {
        let (fine, failed) = played.unwrap_or_default();
        (good, bad) = (good + fine, bad + failed);
    }
    if good + bad > 0 {
        tracing::info!(good, bad, took = ?began.elapsed(), "the parent is warm");
    }
}

/// Plays paths until none is left; returns how many were answered well and how many were not.
async fn play(mut client: GuestClient, paths: Arc<Mutex<VecDeque<String>>>) -> (u64, u64) {
    let next = || paths.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let (mut good, mut bad) = (0, 0);
    while let Some(path) = next() {
        match client.get(&path, WARM_LIMIT).await {
            Ok(status) if status.is_success() || status.is_redirection() => good += 1,
            Ok(status) => {
                bad += 1;
                tracing::warn!(%path, %status, "vm.warm: not a good answer");
            }
            Err(why) => {
                bad += 1;
                tracing::warn!(%path, why, "vm.warm: no answer");
            }
        }
    }
    (good, bad)
}

/// Where a VM listens.
pub(super) fn address(engine: &Engine, id: CloneId, port: u16) -> Result<SocketAddr, TierError> {
    let view = engine.view().borrow().clone();
    let vm = if id == CloneId::PARENT { view.parent.as_ref() } else { view.clone_with(id) };
    let missing = || TierError::Unusable { key: "vm", problem: format!("{id} has ended") };
    Ok((vm.ok_or_else(missing)?.ip, port).into())
}

/// Lets a VM into the pool. The agent of a clone has spoken, so a request that waits may be the first to
/// ask it.
pub(super) fn insert(engine: &Engine, handles: &Handles, id: CloneId, address: SocketAddr) {
    let spec = BackendSpec {
        id: backend_id(id),
        address: address.into(),
        dialer: Arc::new(GuestDialer(engine.dialer())),
        // A parent may still be starting its programs.
        initial: if id == CloneId::PARENT { Initial::Probing } else { Initial::Trial },
    };
    if let Err(duplicate) = handles.pool.insert(spec) {
        tracing::error!(%duplicate, "a clone has the name of another");
    }
}

/// The name of a VM in the pool.
pub(super) fn backend_id(id: CloneId) -> BackendId {
    BackendId::from(id.to_string())
}
