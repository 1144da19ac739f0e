//! Taking a checkpoint, and what one consists of.
//!
//!   prepare -> pause -> disk -> describe -> freeze -> resume -> write the descriptor
//!      a failure within the pause: thaw, resume, error; the VM goes on as if nothing had been

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::EngineError;
use super::host::Host;
use super::memory_server::MemoryServer;
use super::travel::{Distributed, distribute};
use super::view::{CheckpointView, PauseTimes};
use crate::descriptor::{self, Descriptor, DiskLayers, FileRegion, NetworkIdentity, PageKey};
use crate::hypervisor::{FrozenDisk, Vm};
use crate::memory::PageIndex;
use crate::memory::frozen::{FrozenView, ProcessSource, Source};
use crate::memory::image::Image;
use crate::memory::protocol::CheckpointId;
use crate::network::Port;
use crate::network::identity::CloneId;
use crate::wire::RequestId;

/// A checkpoint: what clones are made from.
pub(super) struct Checkpoint {
    pub(super) id: CheckpointId,
    pub(super) of: CloneId,
    pub(super) image: Arc<Image>,
    pub(super) disk: FrozenDisk,
    /// The VM descriptor, which clones are made from.
    pub(super) descriptor: PathBuf,
    pub(super) device_state_bytes: u64,
    pub(super) descriptor_bytes: u64,
    pub(super) memtap: Arc<MemoryServer>,
    /// What this checkpoint's own clones look through when they are forked in turn; nothing if the frozen VM
    /// is on another host.
    pub(super) view: Option<FrozenView>,
    pub(super) pause: PauseTimes,
    /// The call of the frozen VM that wanted it; `None` if the host did.
    pub(super) asked_by: Option<RequestId>,
    /// Serves the VM that was frozen, if that is here: its memserver, or the memtap of the clone that it is.
    pub(super) keeper: Option<Arc<MemoryServer>>,
    /// How other hosts get its pages, if they do.
    pub(super) distributed: Option<Distributed>,
    /// Files of its own beside the descriptor.
    pub(super) folder: Option<PathBuf>,
    /// Disk layers that its VM has no use for any more, though older checkpoints may.
    pub(super) shed: Vec<PathBuf>,
}

/// The VM to be frozen: who serves it now, and what it was itself made from.
pub(super) struct Subject<'a> {
    pub(super) vm: &'a mut dyn Vm,
    pub(super) keeper: Arc<MemoryServer>,
    pub(super) made_from: Option<Arc<Checkpoint>>,
    pub(super) asked_by: Option<RequestId>,
}

impl Checkpoint {
    /// Freezes a running VM. Pages in `working_set` are fetched at once afterwards.
    pub(super) fn take(
        host: &Host,
        id: CheckpointId,
        subject: Subject<'_>,
        working_set: &[PageIndex],
    ) -> Result<Self, EngineError> {
        let of = subject.vm.id();
        let memory = subject.vm.memory().hand_over()?;
        let image = Arc::new(Image::new(memory.region.pages())?);
        let source = match (memory.ram_file, &subject.made_from) {
            (Some(ram_file), _) => Source::RamFile(ram_file),
            (None, Some(base)) => {
                let base = base.view.as_ref().ok_or(EngineError::NotForkable(of))?.duplicate()?;
                Source::Process(Box::new(ProcessSource::open(memory.pid, memory.region, base)?))
            }
            (None, None) => return Err(EngineError::NotForkable(of)),
        };
        let view = FrozenView { image: image.duplicate()?, source };
        let memtap =
            MemoryServer::start(host.programs.memtap.clone(), host.folder.clone(), Some(view.duplicate()?))?;
        let (pause, disk, device_state) = freeze(subject.vm, &subject.keeper, id, &image)?;
        let shed = subject.vm.tidy_disk().unwrap_or_else(|error| {
            tracing::warn!(%error, vm = %of, "its chain of disk layers stays long");
            Vec::new()
        });
        if let Err(error) = memtap.prefetch(working_set) {
            tracing::warn!(%error, "the working set is not prefetched");
        }
        let device_state_bytes = device_state.len() as u64;
        let path = host.folder.join(format!("checkpoint-{}.sfvd", id.0));
        let described = describe(host, id, subject.vm.port(), memory.region.len, &disk, device_state)?;
        described.write(&path)?;
        let descriptor_bytes = std::fs::metadata(&path)?.len();
        let (keeper, asked_by) = (subject.keeper, subject.asked_by);
        let distributed = match of {
            CloneId::PARENT => distribute(host, &keeper, &view, &disk, &described.checkpoint.page_key)?,
            _ => None,
        };
        let descriptor = path;
        Ok(Self {
            id,
            of,
            image,
            disk,
            descriptor,
            device_state_bytes,
            descriptor_bytes,
            memtap,
            view: Some(view),
            pause,
            asked_by,
            keeper: Some(keeper),
            distributed,
            folder: None,
            shed,
        })
    }

    /// Reads the descriptor that clones are made from, distrusting it; returns the device state.
    pub(super) fn device_state(&self, host: &Host) -> Result<Vec<u8>, EngineError> {
        let descriptor = Descriptor::read(&self.descriptor)?;
        descriptor.check_fits(&host.capabilities())?;
        Ok(descriptor.device_state)
    }

    /// Ends it: its VM's writes cost nothing more. No clone may depend on it.
    pub(super) fn end(&self) {
        if let Some(keeper) = &self.keeper {
            keeper.thaw(self.of, self.id);
            self.distributed.iter().for_each(|distributed| keeper.end_distribution(distributed.id()));
        }
        let _ = std::fs::remove_file(&self.descriptor);
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir_all(folder);
        }
    }

    pub(super) fn to_view(&self) -> CheckpointView {
        CheckpointView {
            id: self.id,
            of: self.of,
            pause: self.pause,
            device_state_bytes: self.device_state_bytes,
            descriptor_bytes: self.descriptor_bytes,
            image: Arc::clone(&self.image),
            memtap: Arc::clone(&self.memtap),
        }
    }
}

/// The architectural VM descriptor of a VM that was frozen.
fn describe(
    host: &Host,
    id: CheckpointId,
    port: &Port,
    memory_bytes: u64,
    disk: &FrozenDisk,
    device_state: Vec<u8>,
) -> Result<Descriptor, EngineError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Descriptor {
        checkpoint: descriptor::Checkpoint {
            id,
            created_unix_ns: now.as_nanos() as u64,
            page_key: PageKey(Host::random_bytes()?),
        },
        machine: host.shape(memory_bytes),
        driver: host.hypervisor.driver(),
        memory: vec![FileRegion { offset: 0, len: memory_bytes }],
        disk: DiskLayers { bytes: disk.bytes, layers: disk.layers.clone() },
        network: NetworkIdentity {
            parent: host.name.clone(),
            block: host.network.block(),
            clone_id: port.id,
            mac: port.mac,
            ipv4: port.ip,
        },
        device_state,
    })
}

type Frozen = (PauseTimes, FrozenDisk, Vec<u8>);

/// The pause itself.
fn freeze(
    vm: &mut dyn Vm,
    keeper: &Arc<MemoryServer>,
    id: CheckpointId,
    image: &Image,
) -> Result<Frozen, EngineError> {
    let mut lap = Lap(Instant::now());
    vm.prepare_pause()?;
    lap.time();
    vm.pause()?;
    let stop = lap.time();
    let frozen = within_pause(vm, keeper, id, image, &mut lap);
    if frozen.is_err() {
        keeper.thaw(vm.id(), id);
    }
    vm.resume()?;
    let resume = lap.time();
    frozen.map(|(times, disk, state)| (PauseTimes { stop, resume, ..times }, disk, state))
}

fn within_pause(
    vm: &mut dyn Vm,
    keeper: &Arc<MemoryServer>,
    id: CheckpointId,
    image: &Image,
    lap: &mut Lap,
) -> Result<Frozen, EngineError> {
    let frozen_disk = vm.freeze_disk()?;
    let disk = lap.time();
    let device_state = vm.describe()?;
    let describe = lap.time();
    keeper.freeze(vm.id(), id, image)?;
    let freeze = lap.time();
    Ok((PauseTimes { disk, describe, freeze, ..PauseTimes::default() }, frozen_disk, device_state))
}

/// Times the steps of a sequence.
struct Lap(Instant);

impl Lap {
    fn time(&mut self) -> Duration {
        let now = Instant::now();
        now.duration_since(std::mem::replace(&mut self.0, now))
    }
}
