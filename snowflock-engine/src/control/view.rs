//! What the engine shows: a numbered view, replaced whole at every change.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::lifecycle::LifeState;
use super::memory_server::MemoryServer;
use super::ticket::TicketId;
use crate::hypervisor::MemoryAccess;
use crate::memory::PageIndex;
use crate::memory::image::Image;
use crate::memory::protocol::CheckpointId;
use crate::network::identity::{CloneId, MacAddress};

/// The engine's state at one moment.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Grows with every change.
    pub number: u64,
    /// Hollow shells that wait.
    pub shells: u32,
    /// Clone IDs that are left; `None` for any number.
    pub ids_left: Option<u32>,
    /// The parent; `None` before it has booted.
    pub parent: Option<VmView>,
    /// All clones that live, and the last ones that do not, by ID.
    pub clones: Vec<VmView>,
    /// The checkpoints that live.
    pub checkpoints: Vec<CheckpointView>,
    /// What the last pauses were made of, oldest first.
    pub pauses: Vec<PauseTimes>,
    /// Phases of the last forks, oldest first.
    pub forks: Vec<ForkTimes>,
    /// Forks so far, those included that [`View::forks`] has no more.
    pub forks_total: u64,
    /// Clones given up so far because their pages stopped to come.
    pub starved_total: u64,
    /// The memserver of the parent, for the counters.
    pub memserver: Option<Arc<MemoryServer>>,
    /// The pages that the first clone touched until it was ready; `None` or empty before.
    pub working_set: Option<Arc<[PageIndex]>>,
}

impl View {
    /// The clone with this ID.
    #[must_use]
    pub fn clone_with(&self, id: CloneId) -> Option<&VmView> {
        self.clones.iter().find(|clone| clone.id == id)
    }

    /// The share, 0 to 1, of the recorded working set whose pages the image of a checkpoint has.
    /// `None` without a record, or without that checkpoint.
    #[must_use]
    pub fn working_set_share(&self, checkpoint: CheckpointId) -> Option<f64> {
        let image = &self.checkpoints.iter().find(|it| it.id == checkpoint)?.image;
        image.present().share_of(self.working_set.as_deref()?)
    }
}

/// A parent or clone.
#[derive(Clone)]
pub struct VmView {
    /// Which.
    pub id: CloneId,
    /// Hardware address.
    pub mac: MacAddress,
    /// Address in the private network.
    pub ip: Ipv4Addr,
    /// Where it is in its life. A parent is `Running` until it has its identity, then `Joined`.
    pub state: LifeState,
    /// The ticket that promised it; `None` for the parent.
    pub ticket: Option<TicketId>,
    /// The checkpoint that it was made from; `None` for the parent.
    pub checkpoint: Option<CheckpointId>,
    /// From the start of `sf_create_clones` (the parent: of the boot) to the first response, as told.
    pub first_response: Option<Duration>,
    /// When that span began.
    pub began: Instant,
    /// Process that runs it.
    pub pid: Option<u32>,
    /// The way to its memory, for its private pages.
    pub memory: Option<Arc<dyn MemoryAccess>>,
}

impl std::fmt::Debug for VmView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VmView").field("id", &self.id).field("state", &self.state).finish_non_exhaustive()
    }
}

/// A checkpoint.
#[derive(Debug, Clone)]
pub struct CheckpointView {
    /// Which.
    pub id: CheckpointId,
    /// Whose.
    pub of: CloneId,
    /// What its pause was made of.
    pub pause: PauseTimes,
    /// Size of the device state, bytes.
    pub device_state_bytes: u64,
    /// Size of the descriptor as stored, bytes.
    pub descriptor_bytes: u64,
    /// Which of its pages are here.
    pub image: Arc<Image>,
    /// Its memtap, for the counters.
    pub memtap: Arc<MemoryServer>,
}

/// What a parent's pause was made of, in the order of the steps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PauseTimes {
    /// Stopping the vCPUs.
    pub stop: Duration,
    /// Switching the disk to a new layer.
    pub disk: Duration,
    /// vCPU and device state.
    pub describe: Duration,
    /// Write protection of memory.
    pub freeze: Duration,
    /// Letting it go on.
    pub resume: Duration,
}

impl PauseTimes {
    /// The whole pause.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.stop + self.disk + self.describe + self.freeze + self.resume
    }
}

/// What the birth of a clone was made of, each from the start of `sf_create_clones`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForkTimes {
    /// Which clone.
    pub id: CloneId,
    /// Memory mapped and served, disk attached, device state loaded.
    pub seeded: Duration,
    /// vCPUs running.
    pub running: Duration,
    /// Identity taken.
    pub joined: Duration,
    /// First response, as told by who serves requests.
    pub first_response: Option<Duration>,
}
